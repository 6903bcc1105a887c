"""What plug-and-play solvers share: one map, the fixed-point driver, the start, noise levels and weights.

With ``f(x) = 1/2 ||A x - y||^2`` and a denoiser ``D(., sigma)`` in place of the proximal operator of a regulariser, a
data step and a denoising step take turns. What they do in one turn is a map; the driver runs it, plainly or with
Anderson acceleration, and stops every image by itself.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive, Whole, one_of
from workbench.models.prior import Prior
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.iterated import Iterated
from workbench.solvers.fixed_point.rules import Anderson, Picard, Rule
from workbench.solvers.fixed_point.solve import FixedPointResult, Map, solve_fixed_point
from workbench.solvers.start import STARTS
from workbench.text import require

LOWEST = 1 / 255  # of the levels that a schedule ends at
LITTLE, NOISY = 0.23, 0.05  # DPIR's weight, and the noise from which on it is 1 by default


@dataclass(frozen=True)
class PlugAndPlay(Iterated):
    """Base of these solvers. A subclass gives :meth:`iteration`; the image is that of the last step.

    Attributes:
        max_steps: limit of steps, one network evaluation each.
        tolerance: an image stops when the mean square of a step is at most this; 0 takes all steps.
        memory: earlier iterates of Anderson acceleration; 0 iterates plainly.
        start: see :func:`first_estimate`; "picture" is the published start.
    """

    linear: ClassVar[bool] = False

    max_steps: Count = 50
    tolerance: NotNegative = 0.0
    memory: Whole = 0
    start: Annotated[str, one_of(STARTS)] = "smooth"

    @abstractmethod
    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """The start (B, ...) and the map of :func:`solve_fixed_point`."""

    @property
    def stops(self) -> bool:
        return self.tolerance > 0

    def method(self) -> Rule:
        """The driver's update rule."""
        return Anderson(self.memory) if self.memory else Picard()

    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        start, update = self.iteration(p)
        result = solve_fixed_point(
            update,
            start,
            method=self.method(),
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            measure=mean_square,
            keep="last",
            **options,
        )
        return result, {}


def mean_square(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
    """Mean square of the residual of each image, (b,): what MTDEQ compares with 1e-7 (section III-B)."""
    return residual.flatten(1).square().mean(1)


@dataclass(frozen=True)
class Annealed(PlugAndPlay):
    """Base of solvers whose denoiser is told a level that falls from step to step, and whose data step is proximal.

    Attributes:
        sigma_start, sigma_end: the first and the last of ``max_steps`` levels, spaced geometrically. An end of None is
            the noise of the measurement, at least 1/255 and what the prior knows; a start below it is raised to it.
        lambda_: the data step of level ``sigma`` has the weight ``lambda_ max(sigma_noise, noise_floor)^2 / sigma^2``.
            None: DPIR's 0.23 where there is little noise, growing with it to the model's own 1 at noise of 0.05. In
            ADMM 0.23 leaves noise in pixels that are seen as they are, and 1 costs detail where there is little.
        noise_floor: noise-free data are taken to have this noise.
        penalty: if given, the weight of all data steps.
    """

    sigma_start: Positive = 49 / 255
    sigma_end: Positive | None = None
    lambda_: NotNegative | None = LITTLE
    noise_floor: NotNegative = 0.001
    penalty: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_end is not None:
            require(self.sigma_end <= self.sigma_start, "sigma_end", "at most sigma_start", self.sigma_end)

    def strength(self, p: Problem) -> float | Tensor:
        """``lambda_``, or what None stands for, (B,)."""
        return (p.sigma_noise / NOISY).clamp(LITTLE, 1) if self.lambda_ is None else self.lambda_

    def schedule(self, p: Problem) -> tuple[Tensor, Tensor]:
        """Levels and weights of all steps, (max_steps, B) each. Raises ValueError for levels unknown to the prior."""
        lowest = p.sigma_noise.clamp(min=max(LOWEST, p.prior.sigma_min))
        end = lowest if self.sigma_end is None else torch.full_like(lowest, self.sigma_end)
        start = end.clamp(min=self.sigma_start)
        check_known(p.prior, float(end.min()), float(start.max()))
        share = torch.linspace(0, 1, self.max_steps).to(end)[:, None]
        levels = start.log().lerp(end.log(), share).exp() if self.max_steps > 1 else end[None]
        if self.penalty is not None:
            return levels, torch.full_like(levels, self.penalty)
        return levels, self.strength(p) * (p.sigma_noise.clamp(min=self.noise_floor) / levels) ** 2


def check_known(prior: Prior, low: float, high: float) -> None:
    """Raise ValueError unless the prior knows the levels from ``low`` to ``high``, rounding aside."""
    known = f"{prior.name} knows {prior.sigma_min:.3g} to {prior.sigma_max:.3g}"
    if prior.sigma_min == prior.sigma_max and low < high:
        raise ValueError(f"levels fall from {high:.3g} to {low:.3g}, but {prior.name} knows only {prior.sigma_min:.3g}")
    if low < prior.sigma_min * (1 - 1e-5) or high > prior.sigma_max * (1 + 1e-5):
        raise ValueError(f"levels fall from {high:.3g} to {low:.3g}, but {known}: change sigma_start or sigma_end")


# Rotations by 90 degrees against the clock, and whether rows are flipped afterwards, of the eight symmetries of the
# square in the order of DPIR.
ROTATIONS, FLIPS = (0, 1, 0, 3, 2, 1, 2, 3), (False, True, True, False, True, False, False, True)


def turned(function: Callable[[Tensor], Tensor], x: Tensor, step: int) -> Tensor:
    """``T^-1 function(T x)`` with symmetry number ``step`` mod 8: the periodic self-ensemble of DPIR (section 4.2)."""
    rotation, flip = ROTATIONS[step % 8], FLIPS[step % 8]
    image = x.rot90(rotation, (-2, -1))
    found = function(image.flip(-2) if flip else image)
    return (found.flip(-2) if flip else found).rot90(-rotation, (-2, -1))
