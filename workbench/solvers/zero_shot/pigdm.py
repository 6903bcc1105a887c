"""PiGDM: pseudo-inverse guidance through the network (Song et al. 2023).

At level ``s`` the images behind a state are taken for ``N(D, r^2)`` with ``r^2 = s^2 c^2 / (s^2 + c^2)``, the posterior
of white images of standard deviation ``c`` (eq. 9 with ``c = 1``), so that the data add to the score

    grad log p(y | x) = J^T A^T (r^2 A A^T + sigma_n^2)^-1 (y - A D),   J = dD/dx                  (eq. 7)

and to the denoised image, by Tweedie, ``s^2`` times that: ``D_y = D + s^2 grad log p(y | x)``. The sampler is DDIM with
``D_y`` in place of ``D``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, Positive, Share
from workbench.models.prior import Prior
from workbench.operators.base import Operator, column
from workbench.solvers.base import Iterate, Problem, Sampler


@dataclass(frozen=True)
class PiGDM(Sampler, name="pigdm"):
    """Guidance by the pseudo-inverse, noise-aware.

    Attributes:
        steps: noise levels; 100 in the paper.
        eta: share of fresh noise, in [0, 1]; the paper's 1.
        spread: ``c`` above. The paper's 1 for [-1, 1] images is 1/2 here. Pixels of photos vary by about 1/4, but
            their low frequencies by far more, and a small ``c`` overshoots there.
        adaptive: weigh the guidance by ``r^2`` in place of ``s^2``, the paper's adaptive weights. ``s^2`` is exact for
            white Gaussian images, and nearest to the posterior of smooth ones; ``r^2`` leans less on the Jacobian of a
            network at high noise. Measured with a photo prior (32x32, 40 steps, dB; x2, x4 with noise 0.05, blur with
            noise 0.02, half of the pixels missing): 25.0, 18.2, 22.4, 23.5 with it, 24.6, 17.0, 22.3, 24.5 without,
            and with spread 0.15 21.8, 13.8, 20.1, 25.4 without.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, guided by the pseudo-inverse through the network; noise-aware"
    paper: ClassVar[str] = "Song et al. 2023 (PiGDM)"

    steps: Count = 100
    eta: Share = 1.0
    spread: Positive = 0.5
    adaptive: bool = True
    schedule: str | Sequence[float] = "vp"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw of noise for the start, then one per level but the last if ``eta`` is above 0. Noise-free data are
        met: the last image is projected onto ``A x = y``, which the paper leaves out (its last step nearly does it)."""
        levels = p.levels(self.schedule, self.steps)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, lower in pairwise(levels):
            excess = 1 + (sigma / self.spread) ** 2  # s^2 / r^2
            weight = (p.sigma_noise / sigma) ** 2 * excess
            clean, guidance = pseudo_inverse_guidance(p.prior, p.op, x, p.y, sigma, weight)
            guided = clean.add(guidance, alpha=1 if self.adaptive else excess)
            variance = (self.eta * lower) ** 2 * (1 - (lower / sigma) ** 2)
            x = torch.lerp(guided, x, math.sqrt(lower**2 - variance) / sigma)
            if variance > 0:
                x = x.add_(p.draw(x), alpha=math.sqrt(variance))
            exact = p.sigma_noise == 0
            if lower == 0 and bool(exact.any()):
                x = torch.where(column(exact, x), p.op.prox(x, p.y, 0.0), x)
            yield Iterate(x, sigma, guided, self.steps)


def pseudo_inverse_guidance(
    prior: Prior, op: Operator, x: Tensor, y: Tensor, sigma: float, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """``D = D(x, sigma)`` and ``J^T A^T (A A^T + weight)^-1 (y - A D)``, both like ``x``; ``weight`` (B,). No graph."""
    with torch.inference_mode(False):
        # Copies: what was made in inference mode cannot take part in a graph.
        point = x.detach().clone()
        with torch.enable_grad():
            clean = prior(point.requires_grad_(), sigma)
        stands = clean.detach().clone()
        pull = op.prox(stands, y.detach().clone(), weight.clone()) - stands
        (guidance,) = torch.autograd.grad(clean, point, pull)
    return stands, guidance
