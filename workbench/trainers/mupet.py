"""MUPET: fine-tune a score network at the fixed point of MAP estimation (Willingham et al., Algorithm 1).

    x_g = argmin 1/2 ||A x - y||^2 - sigma^2 log p_sigma(x)        fixed point of eq. (3), found without a graph
    L = alpha / sigma^2 ||x_g - x||^2 + ||sigma s(z, sigma) + eps||^2          eq. (9)

Both norms are means over pixels and images, as in the published code. The gradient of ``x_g`` comes from one
application of a map whose fixed point it is (eq. 4), by default Jacobian-free (eq. 10; minus the gradient, errata 10).
The choice of the map sets how strongly the first term pulls: the published gradient step carries its step size 0.05
into the gradient, the proximal map carries ``(A^T A + I)^-1``, between 1/2 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from workbench.evaluation.perceptual import JUDGE, effnet_loss, lpips_distance
from workbench.limits import Limited, NotNegative, Positive, one_of
from workbench.models.prior import Prior
from workbench.operators.base import Operator, column
from workbench.random import Draws
from workbench.solvers.fixed_point.gradient import Exact, JacobianFree, Neumann
from workbench.solvers.fixed_point.map import MapByAdam, MapByProx, gradient_step, prox_step
from workbench.trainers.degradations import Degradations
from workbench.trainers.dsm import Values, check_images, trained_range, unwrapped
from workbench.trainers.equilibrium import Equilibrium, checked

LEVELS = ("published", "log-uniform")
LOSSES = ("squared", "absolute", "lpips", "effnet")
MAPS = ("gradient", "prox")


@dataclass(frozen=True)
class MUPET(Limited):
    """The objective of eq. (9) on a distribution of degradations.

    Attributes:
        alpha: weight of the fixed-point term. 0 leaves denoising score matching alone, with the same images, noise and
            levels, and solves no fixed point: the control of a fair comparison.
        degradations: distribution of A.
        fixed_point: how x_g is found. By default about as closely as the published rule ends, in at most 15 steps.
        map: "gradient", eq. (3), or "prox" (errata 13): the map through which the gradient is taken.
        step_size: of eq. (3), for "gradient".
        backward: Jacobian-free, Neumann or exact, see ``solvers.fixed_point.gradient``.
        loss: of x_g: "squared" (eq. 9), or one of those the paper leaves to future work: "absolute", "lpips" (needs its
            published weights) or "effnet", the distance of EfficientNet-Lite0 (needs the extra ``perceptual``).
        divide_by_sigma: 1 / sigma^2 in front of the squared loss, as published, and 1 / sigma in front of the others:
            all then pull about evenly on the network at every level. Else 1.
        levels: "published", eq. (11), or "log-uniform".
        sigma_min, sigma_max: range of the levels, None for the prior's own.
    """

    alpha: NotNegative = 1.0
    degradations: Degradations = field(default_factory=Degradations)
    fixed_point: MapByAdam | MapByProx = field(default_factory=partial(MapByProx, tolerance=0.1, max_steps=15))
    map: Annotated[str, one_of(MAPS)] = "gradient"
    step_size: Positive = 0.05
    backward: JacobianFree | Neumann | Exact = field(default_factory=JacobianFree)
    loss: Annotated[str, one_of(LOSSES)] = "squared"
    divide_by_sigma: bool = True
    levels: Annotated[str, one_of(LEVELS)] = "published"
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if self.loss == "effnet2":
            raise ValueError(f"effnet2 is no loss: {JUDGE}")
        super().__post_init__()

    def __call__(self, prior: nn.Module, images: Tensor, draws: Draws) -> tuple[Tensor, Values]:
        """The loss of ``images`` (B, C, H, W) in [0, 1], and ``dsm``, ``map``, ``evaluations`` (per image), shares
        ``converged`` and ``lost`` to log.

        Raises:
            ValueError: images that are not finite or do not suit the prior, levels outside the prior's range, a loss
                whose weights are not there, or several processes with a gradient that is not Jacobian-free.
        """
        check_images(images)
        target = checked(prior, images, self.backward)
        sigma = self.noise_levels(target, len(images), draws)
        op = self.degradations.sample(len(images), (images.shape[-2], images.shape[-1]), draws)
        return self.terms(prior, images, op, sigma, draws.normal)

    def noise_levels(self, prior: Prior, count: int, draws: Draws) -> Tensor:
        """Levels (B,) of eq. (11), ``(sigma_max - sigma_min + 1)^r - 1 + sigma_min``, or log-uniform; r is uniform.

        One for the whole batch, as published, if the degradations are.
        """
        low, high = trained_range(prior, self.sigma_min, self.sigma_max)
        r = draws.shared(1).expand(count) if self.degradations.per == "batch" else draws.uniform(count)
        if self.levels == "published":
            return ((high - low + 1) ** r - 1 + low).clamp(low, high)
        return (low * (high / low) ** r).clamp(low, high)

    def terms(
        self, prior: nn.Module, images: Tensor, op: Operator, sigma: Tensor, normal: Callable[..., Tensor]
    ) -> tuple[Tensor, Values]:
        """The loss for one operator and levels (B,). ``normal(*shape)`` gives the noise: of score matching, of the
        measurement, of the start, in the published order.
        """
        level = column(sigma, images)
        noise = normal(*images.shape)
        # (D(z) - x) / sigma is sigma s(z) + eps, eq. (5).
        dsm = ((prior(images + level * noise, sigma) - images) / level).square().mean()
        if self.alpha == 0:
            return dsm, {"dsm": dsm}
        clean = op(images)
        y = clean + column(sigma, clean) * normal(*clean.shape)
        start = 0.5 + normal(*images.shape) if self.fixed_point.random_start else None
        step = prox_step if self.map == "prox" else partial(gradient_step, step_size=self.step_size)
        equilibrium = Equilibrium(
            map=step(prior, op, y, sigma),
            solve=lambda: self.fixed_point(y, op, unwrapped(prior), sigma_noise=sigma, initial=start),
            loss=lambda estimates: self.distances(estimates, images, level),
            backward=self.backward,
        )
        term, values = equilibrium()
        return dsm + self.alpha * term, {"dsm": dsm, "map": term} | values

    def distances(self, estimates: Tensor, images: Tensor, level: Tensor) -> Tensor:
        """The loss of each estimate, (B,)."""
        scale = level if self.divide_by_sigma else torch.ones_like(level)
        if self.loss in ("lpips", "effnet"):
            distance = lpips_distance if self.loss == "lpips" else effnet_loss
            return distance(images.device)(estimates, images) / scale.flatten()
        error = (estimates - images) / scale
        return (error.square() if self.loss == "squared" else error.abs()).flatten(1).mean(1)
