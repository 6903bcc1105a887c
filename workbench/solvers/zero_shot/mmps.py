"""MMPS: moment-matching posterior sampling (Rozet et al. 2024).

At level ``s`` the images behind a state are taken for a Gaussian with their true mean and covariance, both known from
the denoiser by Tweedie's formulas: ``D`` and ``V = s^2 J``, ``J = dD/dx``. So the data add to the denoised image

    D_y = D + V A^T (sigma_n^2 + A V A^T)^-1 (y - A D)

which PiGDM has with a multiple of the identity in place of ``V``. The system is solved by conjugate gradients, one
product with ``J`` each, by a pass back through the network; ``J`` is taken for symmetric, as that of an exact denoiser
is. For a Gaussian prior this is the score of the posterior without error.

The sampler is that of Karras et al. (2022), algorithm 2: noise is added, then one step of Heun's rule. The choice is
this workbench's: few steps of first order lose variance (``tests/evaluation/test_posterior.py``).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive
from workbench.models.prior import Prior
from workbench.operators.base import Operator, column
from workbench.solvers.base import Iterate, Problem, Sampler

# Residuals below this share of the first one are rounding.
_SOLVED = 1e-5


@dataclass(frozen=True)
class MMPS(Sampler, name="mmps"):
    """Moment matching, noise-aware; made for noisy data.

    Attributes:
        steps: noise levels, two posterior means each (one at the last).
        inner: conjugate gradients at each posterior mean; a few are enough where few numbers are seen well.
        churn: noise is added up to ``1 + churn`` times the level before each step; 0 is deterministic given the start.
        sigma_start: the highest level, with its churn; beside it an image must be as good as grey.
        schedule: "karras", "geometric", "vp", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, guided by mean and covariance of the images behind each state"
    paper: ClassVar[str] = "Rozet et al. 2024 (MMPS)"

    steps: Count = 40
    inner: Count = 3
    churn: NotNegative = 0.4
    sigma_start: Positive = 5.0
    schedule: str | Sequence[float] = "karras"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw for the start, then one per step if ``churn`` is above 0. A passage back counts as an
        evaluation. Noise-free data are met: the last image is projected onto ``A x = y``."""
        levels = p.levels(self.schedule, self.steps, highest=self.sigma_start / (1 + self.churn))
        x = p.grey + levels[0] * p.draw(p.grey)
        for level, lower in pairwise(levels):
            sigma = min(level * (1 + self.churn), p.prior.sigma_max)
            if sigma > level:
                x = x.add(p.draw(x), alpha=math.sqrt(sigma**2 - level**2))
            clean = self.posterior_mean(p, x, sigma)
            ahead = torch.lerp(clean, x, lower / sigma)
            if lower > 0:
                # Heun: the mean of the slopes here and there.
                slope = (x - clean) / sigma + (ahead - self.posterior_mean(p, ahead, lower)) / lower
                ahead = x.add(slope, alpha=(lower - sigma) / 2)
            exact = p.sigma_noise == 0
            if lower == 0 and bool(exact.any()):
                ahead = torch.where(column(exact, ahead), p.op.prox(ahead, p.y, 0.0), ahead)
            x = ahead
            yield Iterate(x, level, clean, self.steps, evaluations=(1 + self.inner) * (2 if lower > 0 else 1))

    def posterior_mean(self, p: Problem, x: Tensor, sigma: float) -> Tensor:
        """``D_y`` at ``x``."""
        clean, correction = moment_guidance(p.prior, p.op, x, p.y, sigma, p.sigma_noise, self.inner)
        return clean + correction


def moment_guidance(
    prior: Prior, op: Operator, x: Tensor, y: Tensor, sigma: float, sigma_noise: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """``D = D(x, sigma)`` and ``V A^T (sigma_noise^2 + A V A^T)^-1 (y - A D)``, both like ``x``. No graph.

    The system is solved as ``(w + A J A^T) v = y - A D``, ``w = (sigma_noise / sigma)^2``, so that the correction is
    ``J A^T v``. An image whose system is solved, or whose curvature is not positive, keeps what it has.
    """
    with torch.inference_mode(False):
        # Copies: what was made in inference mode cannot take part in a graph.
        point, data = x.detach().clone(), y.detach().clone()
        with torch.enable_grad():
            clean = prior(point.requires_grad_(), sigma)
        mean = clean.detach().clone()
        weight = column((sigma_noise.clone() / sigma) ** 2, data)
        residual = data - op(mean)
        direction, correction = residual, torch.zeros_like(mean)
        squares = start = _dot(residual, residual)
        for k in range(iterations):
            (pulled,) = torch.autograd.grad(clean, point, op.adjoint(direction), retain_graph=k + 1 < iterations)
            bent = weight * direction + op(pulled)
            curvature = _dot(direction, bent)
            going = (curvature > 0) & (squares > _SOLVED**2 * start)
            length = torch.where(going, squares / torch.where(going, curvature, 1.0), 0.0)
            correction = correction + column(length, correction) * pulled
            residual = residual - column(length, residual) * bent
            before, squares = squares, _dot(residual, residual)
            turn = torch.where(going, squares / torch.where(going, before, 1.0), 0.0)
            direction = residual + column(turn, residual) * direction
    return mean, correction


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(1)
