"""Half-quadratic splitting with a denoiser (DPIR).

Zhang et al. 2021, eq. 6: with levels ``sigma_k`` that fall,

    z = argmin 1/2 ||A z - y||^2 + rho_k/2 ||z - x||^2,   rho_k = lambda (sigma_noise / sigma_k)^2
    x = D(z, sigma_k)

``lambda`` is 0.23 in their code. Its inpainting schedule has 1/3, its demosaicking clamps what the denoiser sees and
puts the measured pixels back in the end; neither is a mode here.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from workbench.limits import Count
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.map import running
from workbench.solvers.fixed_point.solve import Map
from workbench.solvers.plug_and_play.base import Annealed, turned


@dataclass(frozen=True)
class HQS(Annealed, name="hqs"):
    """Takes every operator that has a ``prox``, also JPEG.

    Attributes:
        max_steps: 8 for blur, 24 for super-resolution, 40 for demosaicking in the paper.
        self_ensemble: step k denoises the image turned and flipped by the k-th symmetry of the square.
    """

    summary: ClassVar[str] = "plug-and-play: half-quadratic splitting, exact data steps and falling noise levels"
    paper: ClassVar[str] = "Zhang et al. 2021 (DPIR)"

    max_steps: Count = 8
    self_ensemble: bool = False

    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """Data step, then denoiser; the image is what the denoiser returned."""
        levels, weights = self.schedule(p)
        steps = itertools.count()

        def step(x: Tensor, active: Tensor) -> Tensor:
            k = next(steps)
            op, y = running(p.op, p.y, active)
            level = levels[k][active]
            z = op.prox(x, y, weights[k][active])
            return turned(lambda image: p.prior(image, level), z, k if self.self_ensemble else 0)

        return p.first_estimate(self.start), step
