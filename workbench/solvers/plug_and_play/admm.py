"""Plug-and-play ADMM: the alternating direction method of multipliers with a denoiser.

Venkatakrishnan et al. 2013; Chan et al. 2016, with over-relaxation (Boyd et al. 2011, section 3.4.3):

    x = argmin 1/2 ||A x - y||^2 + rho_k/2 ||x - (v - u)||^2
    x' = relaxation x + (1 - relaxation) v
    v = D(x' + u, sigma_k)
    u = u + x' - v

from ``u = 0``. Levels fall from ``sigma_start`` (sigma_m in MTDEQ, section III-C) to ``sigma_end`` (sigma_0), and
``rho_k = lambda (sigma_noise / sigma_k)^2``.
"""

import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, Limit, NotNegative
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.map import running
from workbench.solvers.fixed_point.solve import Map
from workbench.solvers.plug_and_play.base import Annealed


@dataclass(frozen=True)
class ADMM(Annealed, name="admm"):
    """Takes every operator that has a ``prox``, also JPEG. With one level it converges for a firmly non-expansive
    denoiser, at whatever ``penalty``.

    Attributes:
        relaxation: 1 for none, up to 2.
        denoise_first: the denoiser comes before the data step, and the image agrees with the data: ``w = D(v - u)``,
            ``v = prox(w + u)``, ``u = u + w - v``.
    """

    summary: ClassVar[str] = "plug-and-play: ADMM, exact data steps and falling noise levels"
    paper: ClassVar[str] = "Venkatakrishnan et al. 2013; Chan et al. 2016"

    max_steps: Count = 20
    lambda_: NotNegative | None = None
    relaxation: Annotated[float, Limit("in (0, 2]", lambda v: 0 < v <= 2)] = 1.0
    denoise_first: bool = False

    def image(self, value: Tensor) -> Tensor:
        """``v``."""
        return value[:, 0]

    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """On the pair (v, u), (B, 2, C, H, W)."""
        levels, weights = self.schedule(p)
        steps = itertools.count()
        start = p.first_estimate(self.start)

        def step(pair: Tensor, active: Tensor) -> Tensor:
            k = next(steps)
            op, y = running(p.op, p.y, active)
            v, u = pair.unbind(1)
            if self.denoise_first:
                seen = p.prior(v - u, levels[k][active])
                v = op.prox(seen + u, y, weights[k][active])
            else:
                x = op.prox(v - u, y, weights[k][active])
                seen = torch.lerp(v, x, self.relaxation)
                v = p.prior(seen + u, levels[k][active])
            return torch.stack([v, u + seen - v], 1)

        return torch.stack([start, torch.zeros_like(start)], 1), step
