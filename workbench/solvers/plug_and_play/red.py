"""Regularisation by denoising (RED): Romano et al. 2017, eq. 14, ``R(x) = x^T (x - D(x)) / 2``.

Stationary points of ``1/2 ||A x - y||^2 + weight R(x)``, whose gradient is ``A^T (A x - y) + weight (x - D(x))``:

gradient (their section 4.2)
    ``x - step_size (A^T (A x - y) + weight (x - D(x)))``
fixed point (their section 4.4)
    ``argmin 1/2 ||A x' - y||^2 + weight/2 ||x' - D(x)||^2``

``weight`` is their ``lambda sigma_noise^2``; here ``weight = lambda (sigma_noise / sigma)^2``, like the weights of the
other solvers: with images in [0, 255] their 0.02 at ``sigma = 3.25`` is 0.21. The published code clips every iterate
and prints twice the regulariser; neither is done here.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive, ShareAboveZero, one_of
from workbench.operators.base import column
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.map import data_gradient, running
from workbench.solvers.fixed_point.solve import Map
from workbench.solvers.plug_and_play.base import PlugAndPlay, check_known

FORMS = ("fixed-point", "gradient")


@dataclass(frozen=True)
class RED(PlugAndPlay, name="red"):
    """The fixed-point form takes every operator that has a ``prox``, the gradient form linear ones.

    Attributes:
        form: "fixed-point" or "gradient".
        sigma: what the denoiser is told.
        lambda_: see above.
        noise_floor: noise-free data are taken to have this noise.
        step_size: of the gradient form; None: the published ``2 / (1 + weight)``, for operators of norm 1.
        damping: of the fixed-point form: the data step starts from ``x + damping (D(x) - x)``, with its weight divided
            by ``damping``, which leaves the fixed point as it is (proximal gradient descent).
    """

    summary: ClassVar[str] = "regularisation by denoising: fixed point or gradient descent, one noise level"
    paper: ClassVar[str] = "Romano et al. 2017"

    max_steps: Count = 100
    tolerance: NotNegative = 1e-7
    form: Annotated[str, one_of(FORMS)] = "fixed-point"
    sigma: Positive = 0.02
    lambda_: NotNegative = 0.2
    noise_floor: NotNegative = 0.005
    step_size: Positive | None = None
    damping: ShareAboveZero = 1.0

    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """The map of :attr:`form`. Raises ValueError if the operator or the prior does not suit it."""
        check_known(p.prior, self.sigma, self.sigma)
        if self.form == "gradient" and not p.op.linear:
            raise ValueError(f"red needs a linear operator for form='gradient', {type(p.op).__name__} is not")
        weight = self.lambda_ * (p.sigma_noise.clamp(min=self.noise_floor) / self.sigma) ** 2
        size = 2 / (1 + weight) if self.step_size is None else torch.full_like(weight, self.step_size)

        def descend(x: Tensor, active: Tensor) -> Tensor:
            gradient = data_gradient(x, *running(p.op, p.y, active))
            pull = column(weight[active], x) * (x - p.prior(x, self.sigma))
            return x - column(size[active], x) * (gradient + pull)

        def solve(x: Tensor, active: Tensor) -> Tensor:
            op, y = running(p.op, p.y, active)
            return op.prox(torch.lerp(x, p.prior(x, self.sigma), self.damping), y, weight[active] / self.damping)

        return p.first_estimate(self.start), descend if self.form == "gradient" else solve
