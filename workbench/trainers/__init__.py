"""One training loop (``loop``), one objective per paper (``objectives``, ``mupet``), the folder of a run (``run``)."""

from workbench.trainers.loop import TrainSettings, train
from workbench.trainers.mupet import MUPET
from workbench.trainers.objectives import DSM, Objective
from workbench.trainers.run import Progress, training_card

__all__ = ["DSM", "MUPET", "Objective", "Progress", "TrainSettings", "train", "training_card"]
