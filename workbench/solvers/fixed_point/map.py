"""Maximum a posteriori estimates with a score network: fixed points of MUPET, eq. (3) with ``G = -s(., sigma)``.

Stationary points of ``1/2 ||A x - y||^2 - sigma^2 log p_sigma(x)``: with Tweedie's ``sigma^2 s(x) = D(x) - x`` (eq. 7)

    stationarity(x) = A^T (A x - y) - sigma^2 s(x) = A^T (A x - y) + x - D(x) = 0

:class:`MapByAdam` descends along it as published. :class:`MapByProx` solves the equivalent
``x = (A^T A + I)^-1 (A^T y + D(x)) = prox(D(x))`` (errata 13), whose residual is the same vector seen through
``(A^T A + I)^-1``: the data term is exact at every step, and only what the prior adds is left to iterate.

``sigma`` is the noise of the measurement. A prior is evaluated at its ``sigma_min`` at least, so for noise-free data
the estimate, and how closely it is found, are those of this level.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.limits import Between, Count, NotNegative, Positive, Whole
from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.iterated import Iterated
from workbench.solvers.fixed_point.rules import Adam, Anderson, Picard, Rule
from workbench.solvers.fixed_point.solve import FixedPointResult, Map, rms, solve_fixed_point


@dataclass(frozen=True)
class MapRule(Iterated):
    """A way to the fixed point. ``random_start`` says whether it starts from grey plus unit noise if no ``initial`` is
    given. In ``extras`` of a restoration is also ``stationarity`` (B,), the root mean square of the vector above, inf
    where nothing finite was found.
    """

    paper: ClassVar[str] = "Willingham et al. (MUPET)"
    random_start: ClassVar[bool] = False


@dataclass(frozen=True)
class MapByAdam(MapRule, name="map-adam"):
    """As published: Adam on the stationarity, from grey plus unit noise (MUPET, section IV-A; errata 12).

    The stationarity reported is that of the last point evaluated, one step before the image.

    Attributes:
        step_size: Adam's.
        margin: a sample stops when the mean square of its step is below ``margin * sigma``; 0 takes all steps.
        max_steps: limit of steps, one evaluation each.
        bias_correction_offset: 1 as published (one step late), 0 for Adam as defined.
        whole_batch: one stopping rule for the whole batch, as published: the mean over all samples.
        sigma_start, decay: if given, step k uses the level ``max(sigma, sigma_start decay^k)``, the annealed descent of
            the published MAP evaluation.
    """

    summary: ClassVar[str] = "MAP estimate by Adam, as MUPET was published"
    random_start: ClassVar[bool] = True

    step_size: Positive = 0.05
    margin: NotNegative = 5e-5
    max_steps: Count = 500
    bias_correction_offset: Whole = 1
    whole_batch: bool = False
    sigma_start: Positive | None = None
    decay: Between = 0.95

    def method(self) -> Adam:
        return Adam(self.step_size, bias_correction_offset=self.bias_correction_offset)

    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        sigma, steps = p.sigma_noise, itertools.count()
        last = torch.full_like(sigma, math.inf)

        def field(x: Tensor, active: Tensor) -> Tensor:
            level = sigma[active]
            if self.sigma_start is not None:
                level = level.clamp(min=self.sigma_start * self.decay ** next(steps))
            gradient = data_gradient(x, *running(p.op, p.y, active)) + x - p.prior(x, level)
            last[active] = rms(gradient)
            return gradient

        def step_size(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
            square = (proposal - x).flatten(1).square().mean(1)
            return square.mean().expand_as(square) if self.whole_batch else square

        result = solve_fixed_point(
            field,
            p.grey + p.draw(p.grey) if p.initial is None else p.initial,
            method=self.method(),
            max_steps=self.max_steps,
            tolerance=self.margin * sigma.clamp(min=p.prior.sigma_min),
            measure=step_size,
            keep="last",
            **options,
        )
        return result, {"stationarity": last}


@dataclass(frozen=True)
class MapByProx(MapRule, name="map"):
    """Anderson acceleration of the proximal map, stopped sample by sample at a small stationarity.

    It starts from the regularised least-squares image around grey, so that strong noise, where the prior hardly
    depends on what it is shown, takes one or two evaluations. The best iterate is kept: where the data say nothing the
    prior may be expansive and no iteration has to converge (errata 13).

    Attributes:
        tolerance: of the stationarity's root mean square, in units of sigma.
        memory: of the acceleration.
        max_steps: limit of evaluations.
    """

    summary: ClassVar[str] = "MAP estimate: fixed point of denoising and the proximal step, accelerated"

    tolerance: Positive = 0.03
    memory: Count = 5
    max_steps: Count = 50

    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        sigma = p.sigma_noise
        reached = torch.empty_like(sigma)

        def update(x: Tensor, active: Tensor) -> Tensor:
            op, y = running(p.op, p.y, active)
            denoised = p.prior(x, sigma[active])
            reached[: len(active)] = rms(data_gradient(x, op, y) + x - denoised)
            return op.prox(denoised, y, torch.ones_like(sigma[active]))

        def measure(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
            return reached[: len(x)].clone()

        return _solved(self, p, update, Anderson(self.memory), measure=measure, **options)


@dataclass(frozen=True)
class MapByGradient(MapRule, name="map-gd"):
    """Gradient descent along the stationarity, eq. (3), stopped sample by sample as :class:`MapByProx`.

    Attributes:
        step_size: of the descent; below 1 for operators of norm 1.
        tolerance: of the stationarity's root mean square, in units of sigma.
        memory: earlier iterates of Anderson acceleration; 0 iterates plainly, as published.
        max_steps: limit of evaluations.
    """

    summary: ClassVar[str] = "MAP estimate by gradient descent"

    max_steps: Count = 500
    step_size: Positive = 0.5
    tolerance: Positive = 0.03
    memory: Whole = 0

    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        size = self.step_size

        def measure(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
            return rms(residual) / size

        update = gradient_step(p.prior, p.op, p.y, p.sigma_noise, size)
        method = Anderson(self.memory) if self.memory else Picard()
        return _solved(self, p, update, method, measure=measure, **options)


def _solved(
    rule: MapByProx | MapByGradient, p: Problem, update: Map, method: Rule, **options: Any
) -> tuple[FixedPointResult, dict[str, Tensor]]:
    start = p.first_estimate("data")
    tolerance = rule.tolerance * p.sigma_noise.clamp(min=p.prior.sigma_min)
    result = solve_fixed_point(update, start, method=method, max_steps=rule.max_steps, tolerance=tolerance, **options)
    return result, {"stationarity": result.residual}


def running(op: Operator, y: Tensor, active: Tensor) -> tuple[Operator, Tensor]:
    """The operator and the measurements of the samples ``active`` (b,)."""
    return (op, y) if len(active) == len(y) else (op.take(active, len(y)), y[active])


def data_gradient(x: Tensor, op: Operator, y: Tensor) -> Tensor:
    """``A^T (A x - y)``, (B, C, H, W)."""
    return op.adjoint(op(x) - y)


Network = Callable[[Tensor, Tensor], Tensor]


def gradient_step(prior: Network, op: Operator, y: Tensor, sigma: Tensor, step_size: float) -> Map:
    """MUPET, eq. (3): ``x - step_size stationarity(x)``, as a map for :func:`attach_gradient`; ``sigma`` (B,)."""

    def step(x: Tensor, active: Tensor) -> Tensor:
        gradient = data_gradient(x, *running(op, y, active))
        return x - step_size * (gradient + x - prior(x, sigma[active]))

    return step


def prox_step(prior: Network, op: Operator, y: Tensor, sigma: Tensor) -> Map:
    """``prox(D(x))`` with weight 1 (errata 13), as a map for :func:`attach_gradient`; ``sigma`` (B,)."""

    def step(x: Tensor, active: Tensor) -> Tensor:
        part, data = running(op, y, active)
        return part.prox(prior(x, sigma[active]), data, torch.ones_like(sigma[active]))

    return step


def stationarity(prior: Prior, op: Operator, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """``A^T (A x - y) + x - D(x, sigma)`` (B, C, H, W): zero at a MAP estimate (MUPET, eq. 2, 3)."""
    return data_gradient(x, op, y) + x - prior(x, sigma)
