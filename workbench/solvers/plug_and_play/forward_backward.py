"""Forward-backward splitting (proximal gradient descent) with a denoiser: MTDEQ, eq. (3).

    x <- D(x - step_size A^T (A x - y), level)

with ``level = step_size sigma_noise`` (errata 14): the denoiser stands for the proximal operator of ``step_size
sigma_noise^2 R``, which in the Gaussian case removes noise of that level.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive
from workbench.operators.base import Operator
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.map import Network, data_gradient, running
from workbench.solvers.fixed_point.solve import Map
from workbench.solvers.plug_and_play.base import PlugAndPlay


@dataclass(frozen=True)
class ForwardBackward(PlugAndPlay, name="forward-backward"):
    """Takes any linear operator; converges for ``step_size`` below ``2 / ||A||^2`` and a firmly non-expansive denoiser.

    Attributes:
        step_size: eta; the operators here have norm 1 or less, but for those of two images in one.
        sigma: what the denoiser is told; None: ``step_size`` times the noise of the measurement. Below its range the
            prior is evaluated at its lowest level.
    """

    summary: ClassVar[str] = "plug-and-play: a gradient step on the data, then the denoiser, to a fixed point"
    paper: ClassVar[str] = "Willingham et al. (MTDEQ), eq. 3"
    linear: ClassVar[bool] = True

    max_steps: Count = 350
    tolerance: NotNegative = 1e-7
    step_size: Positive = 0.49
    sigma: NotNegative | None = None

    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """The map of eq. (3), from the :func:`first_estimate`."""
        step = forward_backward_step(p.prior, p.op, p.y, self.level(p.sigma_noise), self.step_size)
        return p.first_estimate(self.start), step

    def level(self, sigma_noise: Tensor) -> Tensor:
        """What the denoiser is told for measurements with noise ``sigma_noise`` (B,), (B,)."""
        return self.step_size * sigma_noise if self.sigma is None else torch.full_like(sigma_noise, self.sigma)


def forward_backward_step(prior: Network, op: Operator, y: Tensor, level: Tensor, step_size: float) -> Map:
    """MTDEQ, eq. (3), as a map; the denoiser is told ``level`` (B,)."""

    def step(x: Tensor, active: Tensor) -> Tensor:
        return prior(x - step_size * data_gradient(x, *running(op, y, active)), level[active])

    return step
