"""One training loop (``loop``), one objective per paper (``objectives``, ``mupet``), the folder of a run (``run``)."""

from workbench.trainers.degradations import Degradation, Degradations
from workbench.trainers.dsm import DSM, Objective
from workbench.trainers.loop import TrainSettings, train
from workbench.trainers.mupet import MUPET
from workbench.trainers.run import Progress, training_card

__all__ = [
    "DSM",
    "MUPET",
    "Degradation",
    "Degradations",
    "Objective",
    "Progress",
    "TrainSettings",
    "train",
    "training_card",
]
