"""Consistency models out of denoisers: distillation and its relatives (Song et al. 2023; Salimans and Ho 2022).

Levels ``t_0 > t_1 > ...`` form the grid of Karras et al. Of a noisy image ``x_t = x + t eps`` and the next level s,

    loss = w(t) d(f(x_t, t), target),    d on images in [-1, 1]

"distillation"  target ``f^-(x_s, s)`` with ``x_s`` one Heun step of the teacher away (Song et al., eq. 7)
"training"      target ``f^-(x + s eps, s)``: no teacher (their eq. 10)
"progressive"   the denoised image whose single Euler step to s goes where two steps of the teacher go (Salimans and Ho)

``f^-`` is the student without a graph, averaged or as it is.

The first two make consistency models. The third makes a denoiser again, with the teacher's own preconditioning as in
the published code: what it says is meant for the Euler (DDIM) steps of its grid, each for two of the teacher's, and is
no end of a trajectory. Each halving is a run of its own, whose teacher is the student of the run before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from workbench.data.photos import Batch
from workbench.limits import Count, Limited, NotNegative, Positive, ShareBelowOne, one_of
from workbench.models.consistency import ConsistencyModel, euler_step, heun_step
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import Draws
from workbench.solvers.schedules import karras_sigmas
from workbench.text import require
from workbench.trainers.dsm import Values, check_images, unwrapped
from workbench.trainers.loop import TrainSettings
from workbench.trainers.muon import optimisers
from workbench.trainers.task import Context, Modules, Task, described

TARGETS = ("distillation", "training", "progressive")
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of the two levels, images in [-1, 1]; EDM's d is 1/2
    "uniform": lambda t, s: torch.ones_like(t),
    "snr": lambda t, s: t**-2,
    "snr+1": lambda t, s: t**-2 + 1,
    "karras": lambda t, s: t**-2 + 4,
    "truncated-snr": lambda t, s: (t**-2).clamp(min=1),
    "step": lambda t, s: 1 / (t - s),  # Song and Dhariwal 2024, section 3.4
}
Map = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Curriculum(Limited):
    """How many levels the grid has, and how fast the target's average moves, at a step of training.

    Attributes:
        first, last: levels at the first step and at the end; ``last`` None: ``first`` throughout.
        steps: length of the run in steps; with ``halving``, of one stage.
        decay: of the average at the first step; kept unless ``adaptive``.
        adaptive: raise it with the number of levels, ``exp(first ln(decay) / m)`` (Song et al. 2023, appendix C).
        halving: progressive distillation: intervals are halved after every ``steps``, down to 1; the last stage but
            one, of 2, takes twice as long (published code).
    """

    first: Count = 18
    last: Count | None = None
    steps: Count = 1000
    decay: ShareBelowOne = 0.95
    adaptive: bool = False
    halving: bool = False

    def _before_rounding_up(self, step: int) -> int:
        last = self.last or 0
        square = min(step / self.steps, 1) * ((last + 1) ** 2 - self.first**2) + self.first**2
        return max(math.ceil(math.sqrt(square) - 1), 1)

    def levels(self, step: int) -> int:
        """Levels of the grid at ``step`` (from 0); with ``halving`` intervals."""
        if self.halving:
            count = self.first >> (step // self.steps)
            slow = step - self.steps * (self.first.bit_length() - 2)
            return count if count >= 2 else max(2 >> (max(slow, 0) // (2 * self.steps)), 1)
        return self.first if self.last is None else self._before_rounding_up(step) + 1

    def average(self, step: int) -> float:
        """Decay of the target's average at ``step``: give it to ``TrainSettings(ema_decay=...)``."""
        if not (self.adaptive and self.decay and self.last):
            return self.decay
        return math.exp(self.first * math.log(self.decay) / self._before_rounding_up(step))


@dataclass(frozen=True)
class Consistency(Limited):
    """The objective.

    Attributes:
        target: see the module.
        curriculum: levels of the grid.
        weighting: "uniform" (1), "snr" (1/t^2), "snr+1", "karras" (1/t^2 + 4), "truncated-snr" (max(1/t^2, 1)), of the
            levels of images in [-1, 1] (published code); or "step", 1/(t - s).
        distance: "l2", mean square over pixels; "l1"; or "huber", ``sqrt(m + huber^2) - huber`` with m that mean
            square: Song and Dhariwal's pseudo-Huber distance (2024, section 3.3) over the root of the number of pixels.
        averaged: the target is the running average of the student, not the student itself.
        anchor: weight of the mean square distance of ``f(x_t, t)`` to the clean image; pulls samples to the mean.
    """

    target: Annotated[str, one_of(TARGETS)] = "distillation"
    curriculum: Curriculum = field(default_factory=Curriculum)
    weighting: Annotated[str, one_of(tuple(WEIGHTINGS))] = "uniform"
    distance: Annotated[str, one_of(("l1", "l2", "huber"))] = "l2"
    averaged: bool = True
    anchor: NotNegative = 0.0
    huber: Positive = 0.00054

    def task(self, student: Prior, teacher: Prior | None, settings: TrainSettings) -> Task:
        """Modules ``student`` and, frozen, ``teacher``.

        Raises:
            ValueError: a student that is no consistency model (for progressive distillation: that is no denoiser); no
                teacher where one is needed, one of another kind, or one that does not know the student's levels; a
                curriculum of several stages, between which the teacher would have to change.
        """
        progressive = self.target == "progressive"
        student.check_kind(f"{self.target} of a student", "denoiser" if progressive else ConsistencyModel.kind)
        if self.curriculum.halving and self.curriculum.levels(0) != self.curriculum.levels(settings.steps - 1):
            raise ValueError(
                "the teacher stays the same in a run: train one stage of halving, then the next from there"
            )
        modules: dict[str, torch.nn.Module] = {"student": student.requires_grad_(True)}
        if self.target != "training":
            require(teacher is not None, "teacher", "a denoiser for distillation", teacher)
            assert teacher is not None
            teacher.check_kind("distillation")
            require(teacher.sigma_max >= student.sigma_max, teacher.name, "all levels of its student", "fewer")
            modules["teacher"] = teacher.requires_grad_(False)
        steppers = {"student": optimisers(student, settings)}
        return Task(modules, steppers, [("student", self.loss)], described(self))

    def grid(self, step: int, low: float, high: float) -> Tensor:
        """The levels at ``step``, descending, float32."""
        count = self.curriculum.levels(step) + (self.target == "progressive")
        require(count >= 2, "curriculum", "at least 2 levels", count)
        return karras_sigmas(count, high, low).float()

    def loss(self, modules: Modules, batch: Batch, draws: Draws, context: Context) -> tuple[Tensor, Values]:
        """Of one step; ``levels`` is the size of the grid."""
        images, student = batch.images, modules["student"]
        check_images(images)
        known = unwrapped(student)
        grid = self.grid(context.step, known.sigma_min, known.sigma_max).to(images.device)
        index = (draws.uniform(len(images)) * (len(grid) - 1)).long()
        noise = draws.normal(*images.shape)
        teacher = modules.get("teacher")
        target = context.averages["student"] if self.averaged else student
        # Modules here, priors all the same: they may be wrapped for several processes.
        errors = self.terms(student, target, teacher, images, noise, grid, index)  # type: ignore[arg-type]
        return errors.mean(), {"levels": torch.tensor(float(len(grid)), device=images.device)}

    def terms(
        self,
        student: Map,
        target: Map,
        teacher: Prior | None,
        images: Tensor,
        noise: Tensor,
        grid: Tensor,
        index: Tensor,
    ) -> Tensor:
        """The loss per image (B,), for images in [0, 1], at the level ``grid[index]`` of each."""
        t, s = grid[index], grid[index + 1]
        noisy = images + column(t, images) * noise
        found = student(noisy, t)
        with torch.no_grad():
            if self.target == "training":
                wanted = target(images + column(s, images) * noise, s)
            elif self.target == "distillation":
                wanted = target(heun_step(teacher, noisy, t, s), s)  # type: ignore[arg-type]
            else:
                wanted = two_steps(teacher, noisy, t, _between(grid, index), s)  # type: ignore[arg-type]
        losses = WEIGHTINGS[self.weighting](2 * t, 2 * s) * self._distance(2 * found, 2 * wanted)
        if self.anchor:
            losses = losses + self.anchor * (2 * (found - images)).square().flatten(1).mean(1)
        return losses

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        off = (a - b).flatten(1)
        if self.distance == "l1":
            return off.abs().mean(1)
        squares = off.square().mean(1)
        return squares if self.distance == "l2" else (squares + self.huber**2).sqrt() - self.huber


def two_steps(teacher: Prior, noisy: Tensor, t: Tensor, middle: Tensor, s: Tensor) -> Tensor:
    """The denoised image whose Euler step from t to s goes where two Euler steps of ``teacher`` go; levels (B,)."""
    end = euler_step(teacher, euler_step(teacher, noisy, t, middle), middle, s)
    return noisy - column(t, noisy) * (end - noisy) / column(s - t, noisy)


def _between(grid: Tensor, index: Tensor) -> Tensor:
    """The level half-way from ``grid[index]`` to the next on the axis of the grid."""
    low, high = float(grid[-1]), float(grid[0])
    return karras_sigmas(2 * len(grid) - 1, high, low).to(grid)[2 * index + 1]
