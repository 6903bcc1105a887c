"""Maximum a posteriori estimates with a score network: fixed points of MUPET, eq. (3) with ``G = -s(., sigma)``.

Stationary points of ``1/2 ||A x - y||^2 - sigma^2 log p_sigma(x)``: with Tweedie's ``sigma^2 s(x) = D(x) - x`` (eq. 7)

    stationarity(x) = A^T (A x - y) - sigma^2 s(x) = A^T (A x - y) + x - D(x) = 0

:class:`MapByAdam` descends along it as published. :class:`MapByProx` solves the equivalent
``x = (A^T A + I)^-1 (A^T y + D(x)) = prox(D(x))`` (errata 13), whose residual is the same vector seen through
``(A^T A + I)^-1``: the data term is exact at every step, and only what the prior adds is left to iterate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from workbench.models.prior import Prior, per_image
from workbench.operators.base import Operator, column
from workbench.solvers.base import initial_image, mid_grey
from workbench.solvers.fixed_point.rules import Adam, Anderson, require
from workbench.solvers.fixed_point.solve import FixedPointResult, Map, rms, solve_fixed_point


@dataclass(frozen=True)
class MapEstimate:
    """MAP estimates of B measurements.

    Attributes:
        image: (B, C, H, W).
        stationarity: (B,) root mean square of the stationarity; inf where nothing finite was found.
        evaluations: int64 (B,) network evaluations.
        converged: bool (B,), the rule's own criterion was met.
        diverged: bool (B,), not finite or exploding.
        trace: (B, steps) the rule's criterion at each step, see :class:`FixedPointResult`.
        message: what went wrong, or empty.
    """

    image: Tensor
    stationarity: Tensor
    evaluations: Tensor
    converged: Tensor
    diverged: Tensor
    trace: Tensor
    message: str


class MapRule(Protocol):
    """How the fixed point is found; ``random_start`` says whether it starts from noise if no ``start`` is given."""

    random_start: ClassVar[bool]

    def __call__(
        self, prior: Prior, op: Operator, y: Tensor, sigma: float | Tensor, *, start: Tensor | None = None
    ) -> MapEstimate:
        """Estimates for ``y = op(x) + sigma eps``, ``sigma`` () or (B,); ``start`` (B, C, H, W) is optional."""
        ...


@dataclass(frozen=True)
class MapByAdam:
    """As published: Adam on the stationarity, from grey plus unit noise (MUPET, section IV-A; errata 12).

    Attributes:
        step_size: Adam's.
        margin: a sample stops when the mean square of its step is below ``margin * sigma``; 0 takes all steps.
        max_steps: limit of steps, one evaluation each.
        bias_correction_offset: 1 as published (one step late), 0 for Adam as defined.
        whole_batch: one stopping rule for the whole batch, as published: the mean over all samples.
        sigma_start, decay: if given, step k uses the level ``max(sigma, sigma_start decay^k)``, the annealed descent of
            the published MAP evaluation.
    """

    random_start: ClassVar[bool] = True

    step_size: float = 0.05
    margin: float = 5e-5
    max_steps: int = 500
    bias_correction_offset: int = 1
    whole_batch: bool = False
    sigma_start: float | None = None
    decay: float = 0.95

    def __post_init__(self) -> None:
        require(0 <= self.margin < math.inf, "margin", "finite and >= 0", self.margin)
        require(self.sigma_start is None or self.sigma_start > 0, "sigma_start", "positive", self.sigma_start)
        require(0 < self.decay < 1, "decay", "in (0, 1)", self.decay)
        require(self.max_steps >= 1, "max_steps", "at least 1", self.max_steps)
        self.method()

    def method(self) -> Adam:
        return Adam(self.step_size, bias_correction_offset=self.bias_correction_offset)

    @torch.no_grad()
    def __call__(
        self, prior: Prior, op: Operator, y: Tensor, sigma: float | Tensor, *, start: Tensor | None = None
    ) -> MapEstimate:
        """Estimates for ``y`` with noise ``sigma`` () or (B,); without a start, from grey plus torch's own unit noise.

        The stationarity reported is that of the last point evaluated, one step before the image.
        """
        sigma = per_image(sigma, y)
        rows = Rows(op, y)
        last = torch.full_like(sigma, math.inf)
        steps = itertools.count()

        def field(x: Tensor, active: Tensor) -> Tensor:
            level = sigma[active]
            if self.sigma_start is not None:
                level = level.clamp(min=self.sigma_start * self.decay ** next(steps))
            gradient = rows.data_gradient(x, active) + x - prior(x, level)
            last[active] = rms(gradient)
            return gradient

        def step_size(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
            square = (proposal - x).flatten(1).square().mean(1)
            return square.mean().expand_as(square) if self.whole_batch else square

        result = solve_fixed_point(
            field,
            mid_grey(op, y) + torch.randn_like(mid_grey(op, y)) if start is None else start,
            method=self.method(),
            max_steps=self.max_steps,
            tolerance=self.margin * sigma,
            measure=step_size,
            keep="last",
        )
        return _estimate(result, last)


@dataclass(frozen=True)
class MapByProx:
    """Anderson acceleration of the proximal map, stopped sample by sample at a small stationarity.

    It starts from the regularised least-squares image around grey, so that strong noise, where the prior hardly
    depends on what it is shown, takes one or two evaluations. The best iterate is kept: where the data say nothing the
    prior may be expansive and no iteration has to converge (errata 13).

    Attributes:
        tolerance: of the stationarity's root mean square, in units of sigma.
        memory: of the acceleration.
        max_steps: limit of evaluations.
    """

    random_start: ClassVar[bool] = False

    tolerance: float = 0.03
    memory: int = 5
    max_steps: int = 50

    def __post_init__(self) -> None:
        require(0 < self.tolerance < math.inf, "tolerance", "positive and finite", self.tolerance)
        require(self.max_steps >= 1, "max_steps", "at least 1", self.max_steps)
        Anderson(self.memory)

    @torch.no_grad()
    def __call__(
        self, prior: Prior, op: Operator, y: Tensor, sigma: float | Tensor, *, start: Tensor | None = None
    ) -> MapEstimate:
        """Estimates for ``y`` with noise ``sigma`` () or (B,); a ``start`` such as an earlier estimate saves steps."""
        sigma = per_image(sigma, y)
        rows = Rows(op, y)
        stationarity = torch.empty_like(sigma)

        def update(x: Tensor, active: Tensor) -> Tensor:
            denoised = prior(x, sigma[active])
            stationarity[: len(active)] = rms(rows.data_gradient(x, active) + x - denoised)
            return rows.prox(denoised, active, torch.ones_like(sigma[active]))

        def measure(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
            return stationarity[: len(x)].clone()

        result = solve_fixed_point(
            update,
            initial_image(op, y, sigma) if start is None else start,
            method=Anderson(self.memory),
            max_steps=self.max_steps,
            tolerance=self.tolerance * sigma,
            measure=measure,
        )
        return _estimate(result, result.residual)


class Rows:
    """The operator and measurement of a batch, for the samples that are still running.

    An operator that can ``take`` rows is cut down to them; any other sees the whole batch, the
    finished samples as zeros, since its kernels or masks may belong to single images.
    """

    def __init__(self, op: Operator, y: Tensor) -> None:
        self.op, self.y = op, y

    def data_gradient(self, x: Tensor, active: Tensor) -> Tensor:
        """``A^T (A x - y)`` for the images ``x`` (b, C, H, W) of the samples ``active`` (b,)."""
        return self._apply(lambda op, y, x: op.adjoint(op(x) - y), active, x)

    def prox(self, z: Tensor, active: Tensor, weight: Tensor) -> Tensor:
        """``argmin 1/2 ||A x - y||^2 + weight/2 ||x - z||^2``, weight (b,)."""
        return self._apply(lambda op, y, z, weight: op.prox(z, y, weight), active, z, weight)

    def _apply(self, function: Callable[..., Tensor], active: Tensor, *tensors: Tensor) -> Tensor:
        if len(active) == len(self.y):
            return function(self.op, self.y, *tensors)
        take = getattr(self.op, "take", None)
        if callable(take):
            return function(take(active), self.y[active], *tensors)
        whole = [t.new_ones(len(self.y), *t.shape[1:]).index_copy(0, active, t) for t in tensors]
        return function(self.op, self.y, *whole)[active]


def gradient_step(prior: Callable[[Tensor, Tensor], Tensor], rows: Rows, sigma: Tensor, step_size: float) -> Map:
    """MUPET, eq. (3): ``x - step_size stationarity(x)``, as a map for :func:`attach_gradient`; ``sigma`` (B,)."""

    def step(x: Tensor, active: Tensor) -> Tensor:
        return x - step_size * (rows.data_gradient(x, active) + x - prior(x, sigma[active]))

    return step


def prox_step(prior: Callable[[Tensor, Tensor], Tensor], rows: Rows, sigma: Tensor) -> Map:
    """``prox(D(x))`` with weight 1 (errata 13), as a map for :func:`attach_gradient`; ``sigma`` (B,)."""

    def step(x: Tensor, active: Tensor) -> Tensor:
        return rows.prox(prior(x, sigma[active]), active, torch.ones_like(sigma[active]))

    return step


def stationarity(prior: Prior, op: Operator, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """``A^T (A x - y) - sigma^2 s(x, sigma)`` (B, C, H, W): zero at a MAP estimate (MUPET, eq. 2, 3)."""
    level = per_image(sigma, y)
    return op.adjoint(op(x) - y) - column(level, x) ** 2 * prior.score(x, level)


def _estimate(result: FixedPointResult, reached: Tensor) -> MapEstimate:
    return MapEstimate(
        image=result.value,
        stationarity=reached,
        evaluations=result.evaluations,
        converged=result.converged,
        diverged=result.diverged,
        trace=result.trace,
        message=result.message,
    )
