"""One training loop (``loop``), one objective per paper (``objectives``), the folder of a run (``run``)."""

from workbench.trainers.loop import TrainSettings, train
from workbench.trainers.objectives import DSM, Objective
from workbench.trainers.run import Progress, training_card

__all__ = ["DSM", "Objective", "Progress", "TrainSettings", "train", "training_card"]
