"""PnP-ReG: gradient descent with the learned gradient of a regulariser (Fermanian et al. 2022, eq. 11).

    x <- x - step_size (A^T (A x - y) + sigma^2 G(x))

The published code takes Adam's step along this gradient, but for one option of completion; ``rule`` chooses. ``G`` is
minus the prior's score at ``level``: of a prior trained for it (``trainers/reg.py``) the learned gradient, of any other
that of its own regulariser.
"""

import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from workbench.limits import Count, Positive, one_of
from workbench.operators.base import column
from workbench.solvers.base import Problem
from workbench.solvers.fixed_point.map import data_gradient, running
from workbench.solvers.fixed_point.rules import Adam, Rule
from workbench.solvers.fixed_point.solve import Map
from workbench.solvers.plug_and_play.base import LOWEST, PlugAndPlay, turned
from workbench.text import require

RULES = ("adam", "gradient")


@dataclass(frozen=True)
class PnPReG(PlugAndPlay, name="pnp-reg"):
    """Takes any linear operator.

    Attributes:
        rule: "adam" or "gradient".
        step_size: published: Adam 0.004 to 0.01, plain steps 0.5.
        tolerance: of the mean square of the gradient with Adam, whose steps do not shrink; else as in the base.
        sigma: weight of the regulariser; None: the noise of the measurement, at least 1/255.
        level: what the prior is told; None: as ``sigma``, as far as it knows; one trained by ReG knows one level.
        self_ensemble: step k evaluates ``G`` on the image turned and flipped by the k-th symmetry of the square.
    """

    summary: ClassVar[str] = "gradient descent with the learned gradient of a regulariser"
    paper: ClassVar[str] = "Fermanian et al. 2022 (PnP-ReG)"
    linear: ClassVar[bool] = True

    max_steps: Count = 100
    rule: Annotated[str, one_of(RULES)] = "adam"
    step_size: Positive = 0.01
    sigma: Positive | None = None
    level: Positive | None = None
    self_ensemble: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rule == "gradient" or not self.memory, "memory", "0 with rule='adam'", self.memory)

    def method(self) -> Rule:
        return Adam(self.step_size) if self.rule == "adam" else super().method()

    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """The gradient itself for Adam, else one step along it."""
        sigma = p.sigma_noise.clamp(min=LOWEST) if self.sigma is None else p.sigma_noise.new_tensor(self.sigma)
        sigma, steps = sigma.expand(len(p.y)), itertools.count()

        def gradient(x: Tensor, active: Tensor) -> Tensor:
            weight, k = sigma[active], next(steps) if self.self_ensemble else 0
            level = weight.clamp(max=p.prior.sigma_max) if self.level is None else self.level
            pull = turned(lambda image: -p.prior.score(image, level), x, k)
            return data_gradient(x, *running(p.op, p.y, active)) + column(weight, x) ** 2 * pull

        def descend(x: Tensor, active: Tensor) -> Tensor:
            return x - self.step_size * gradient(x, active)

        return p.first_estimate(self.start), gradient if self.rule == "adam" else descend
