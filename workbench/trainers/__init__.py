"""One training loop (``loop``), one objective per paper (``objectives``, ``mupet``), the folder of a run (``run``)."""

from workbench.trainers.consistency import Consistency, Curriculum
from workbench.trainers.degradations import Degradation, Degradations
from workbench.trainers.dsm import DSM, Objective
from workbench.trainers.loop import TrainSettings, train, train_task
from workbench.trainers.mtdeq import MTDEQ, StepDecay
from workbench.trainers.mupet import MUPET
from workbench.trainers.reg import ReG
from workbench.trainers.run import Progress, training_card
from workbench.trainers.task import Context, Task
from workbench.trainers.ud2m import UD2M

__all__ = [
    "DSM",
    "MTDEQ",
    "MUPET",
    "UD2M",
    "Consistency",
    "Context",
    "Curriculum",
    "Degradation",
    "Degradations",
    "Objective",
    "Progress",
    "ReG",
    "StepDecay",
    "Task",
    "TrainSettings",
    "train",
    "train_task",
    "training_card",
]
