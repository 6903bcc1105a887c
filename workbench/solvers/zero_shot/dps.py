"""DPS: sample the prior, descending the distance to the data through the network (Chung et al. 2023).

Algorithm 1 in variance-exploding coordinates. From level ``s`` to ``s'``, with ``D = D(x, s)``,

    x' = D + (s'/s)^2 (x - D) + s' sqrt(1 - (s'/s)^2) n                                ancestral step of DDPM
    x' = x' - (zeta/2) sqrt((1 + 4 s^2) (1 + 4 s'^2)) grad_x ||y - A D(x, s)||         guidance

The published step is ``zeta grad ||y - A D||`` for states of the variance-preserving diffusion of [-1, 1] images (its
code; the paper writes ``zeta/||y - A D|| grad ||y - A D||^2``, twice that). Such a state is ``2 sqrt(abar) (x - 1/2)``
with ``1/sqrt(abar) = sqrt(1 + 4 s^2)``, hence the factors.

Such steps are as long near the data as far from them, and circle around them: on a blur the result is noise. With the
default ``zeta`` none is longer than brings the distance to 0, ``||r|| / ||A^T r/||r||||^2`` with ``r = y - A D``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative
from workbench.models.prior import Prior
from workbench.operators.base import Operator, column
from workbench.operators.weighted import unweighted
from workbench.solvers.base import Iterate, Problem, Sampler


@dataclass(frozen=True)
class DPS(Sampler, name="dps"):
    """Guidance by the gradient of the residual norm. Takes every differentiable operator, also non-linear ones.

    It is told nothing of the noise in the data: noise-free data are met nearly, noisy ones fitted as well as ``zeta``
    and ``steps`` make it. Nor is it told that some pixels have less noise (``workbench.noise``): the few that have
    least would take all of steps of one length; with photos of 100 counts the likelihood gave 11 to 19 dB, the distance
    28 to 30. Each step costs a pass through the network and one back.

    Attributes:
        steps: noise levels; 1000 in the paper.
        zeta: length of the guiding steps; published choices are 0.3 to 1 with 1000 steps at 3x256x256. None is
            ``0.05 sqrt(C H W)``: a step as long for every pixel, 2.8 at 3x32x32. Measured with a photo prior there (100
            steps; x2, half of the pixels missing): 21.7 and 20.8 dB at 3, 17.8 and 19.9 dB at 1, 21.6 and 21.9 dB at
            10, where noisy data (x4) are overfitted. No step beyond the data: ``blur:2`` with noise 0.02, two
            photos of 64x64, 20.9 dB instead of 14.4, ``gray`` 17.3 instead of 11.0.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, descending the distance to the data through the network"
    paper: ClassVar[str] = "Chung et al. 2023"
    linear: ClassVar[bool] = False

    steps: Count = 100
    zeta: NotNegative | None = None
    schedule: str | Sequence[float] = "vp"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw of noise for the start, then one per level but the last. The residual is ``||y - A D||``;
        ``sigma_noise`` is not used."""
        levels = p.levels(self.schedule, self.steps)
        zeta = 0.05 * math.sqrt(p.grey[0].numel()) if self.zeta is None else self.zeta
        op, y = unweighted(p.op, p.y)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, lower in pairwise(levels):
            clean, gradient, residual, longest = residual_gradient(p.prior, op, x, y, sigma)
            ratio = (lower / sigma) ** 2
            x = torch.lerp(clean, x, ratio)
            if lower > 0:
                x = x.add_(p.draw(x), alpha=lower * math.sqrt(1 - ratio))
            length = zeta / 2 * math.sqrt((1 + 4 * sigma**2) * (1 + 4 * lower**2))
            longest = longest.clamp(max=length) if self.zeta is None else torch.full_like(longest, length)
            x = x.sub_(column(longest, x) * gradient)
            yield Iterate(x, sigma, clean, self.steps, residual)


def residual_gradient(
    prior: Prior, op: Operator, x: Tensor, y: Tensor, sigma: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``D(x, sigma)``, ``grad_x ||r||`` per image, both like ``x``, that norm (B,), and the step in ``A D`` that would
    bring it to 0 to first order, ``||r|| / ||A^T r/||r||||^2`` (B,); ``r = op.residual(D, y)``. No graph.

    Where the norm is 0 so are gradient and step.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Copies: what was made in inference mode cannot take part in a graph.
        point = x.detach().clone().requires_grad_()
        clean = prior(point, sigma)
        squares = op.residual(clean, y.detach().clone()).flatten(1).square().sum(1)
        gradient, seen = torch.autograd.grad(squares.sum() / 2, (point, clean))
    norm, tiny = squares.detach().sqrt(), torch.finfo(squares.dtype).tiny
    step = norm**3 / seen.flatten(1).square().sum(1).clamp(min=tiny)
    return clean.detach(), gradient / column(norm.clamp(min=tiny), gradient), norm, step
