"""The unfolded network of UD2M: K modules of LATINO, each a data step, noise, and one network for all (section 3.1).

``L(y, x_t, t)`` draws from ``p(x_0 | y, x_t)``. With both likelihoods, of ``y = A x + n`` and of ``x_t = x + t eps``, a
module is, in variance-exploding coordinates (eq. 5 and 6),

    x~ = argmin ||A x - y||^2 / (2 sigma^2) + ||x - x_t||^2 / (2 t^2) + ||x - x_k||^2 / (2 delta)
    x_{k+1} = G(x~ + s eps, s)

The minimiser is one ``prox`` of the operator with the weighted mean of the two centres (errata 9):
``w = 1/t^2 + 1/delta``, ``prox((x_t / t^2 + x_k / delta) / w, y, sigma^2 w)``. ``delta`` and ``s`` are the step sizes
of a Langevin process that is homogeneous in time: they do not depend on t. They may fall from module to module, as
LATINO's do. Deviation: for operators that are not linear the paper minimises by Adam; ``prox`` here has a closed form
for JPEG, and else descends from the same start with steps that are sure to lower the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn

from workbench.limits import Count, Limited, Positive, one_of
from workbench.models.prior import Prior, Wrapped
from workbench.operators.base import Operator
from workbench.operators.inpainting import Identity
from workbench.operators.least_squares import column, smooth_estimate
from workbench.random import NoiseSource
from workbench.text import require

if TYPE_CHECKING:
    from workbench.models.lora import LoRA

Estimator = Callable[[Tensor, Operator, Tensor, Tensor, Tensor], Tensor]
STARTS = ("average", "estimator")


@dataclass(frozen=True)
class Unfolding(Limited):
    """What is fixed by training beside the weights.

    Attributes:
        depth: K, the number of modules.
        level: s, the noise that a module adds and its network takes away.
        last_level: s of the last module; between them s falls geometrically. None: the same for all. What the last
            network takes away is the finest detail that is kept.
        delta: step size of the data step in units of s^2; 1/2 is Langevin's for small s.
        spread: variance of the first estimate around the image; the first module starts from its weighted average with
            x_t.
        start: "average", or "estimator": the network ``estimator`` of :class:`Unfolded` makes the first estimate.
    """

    depth: Count = 3
    level: Positive = 0.1
    last_level: Positive | None = 0.03
    delta: Positive = 1.0
    spread: Positive = 0.005
    start: Annotated[str, one_of(STARTS)] = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        last = self.last_level
        require(last is None or last <= self.level, "last_level", f"at most level, {self.level:g}", last)

    def levels(self) -> list[float]:
        """The levels of the modules."""
        ratio = (self.last_level or self.level) / self.level
        return [self.level * ratio ** (k / max(self.depth - 1, 1)) for k in range(self.depth)]


class Unfolded(Wrapped):
    """``L(y, x_t, t)``; its network ``G`` is that of ``prior``, low-rank layers put in.

    Args:
        prior: a denoiser; it becomes part of the module and its weights are adapted in place.
        unfolding: see there.
        lora: which layers are adapted; None: none, all weights are trained.
        estimator: ``f(y, op, sigma_noise, x_t, t)``, a first estimate (B, C, H, W), trained together where it has
            weights; needed by ``start="estimator"``.

    Raises:
        ValueError: a prior that is no denoiser or does not know ``unfolding.level``, no estimator where one is needed.
    """

    def __init__(
        self,
        prior: Prior,
        unfolding: Unfolding,
        lora: LoRA | None = None,
        *,
        estimator: Estimator | None = None,
        name: str = "",
    ) -> None:
        prior.check_kind("unfolding")
        levels, known = unfolding.levels(), f"what {prior.name} knows, {prior.sigma_min:g} to {prior.sigma_max:g}"
        require(prior.sigma_min <= levels[-1] <= levels[0] <= prior.sigma_max, "level", known, levels)
        needed = unfolding.start == "estimator"
        require((estimator is not None) == needed, "estimator", "given where start asks for one", unfolding.start)
        super().__init__(prior, name or f"{prior.name}-unfolded")
        self.kind = "unfolded"
        self.prior, self.unfolding, self.lora, self.estimator = prior, unfolding, lora, estimator
        self.plain: dict[str, Tensor] = {}  # weights without the adapter that was put in
        if lora is not None:
            lora.inject(self.net)

    @property
    def net(self) -> nn.Module:
        """The network inside."""
        net: Any = getattr(self.prior, "net", self.prior)
        return net

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``G(x, sigma)``, which is trained at the levels of the modules alone."""
        return self.prior(x, sigma)

    def posterior(
        self,
        y: Tensor,
        op: Operator,
        sigma_noise: Tensor,
        x_t: Tensor,
        t: Tensor,
        first: Tensor,
        draw: NoiseSource,
        around: Prior | None = None,
    ) -> Tensor:
        """One draw of ``p(x_0 | y, x_t)``, (B, C, H, W).

        Args:
            y: measurements of ``op`` with noise ``sigma_noise`` (B,).
            x_t: (B, C, H, W), the image with noise ``t`` (B,).
            first: a first estimate (B, C, H, W) from the data alone.
            draw: standard normal noise, one draw per module.
            around: what this network was wrapped in (tiles), to be asked in its place.
        """
        u = self.unfolding
        if self.estimator is not None:
            x = self.estimator(y, op, sigma_noise, x_t, t)
        else:
            share = column(t**2 / (t**2 + u.spread), x_t)
            x = share * first + (1 - share) * x_t
        for level in u.levels():
            x = two_centres(op, y, sigma_noise, x_t, t, x, u.delta * level**2)
            x = (around or self)(x + level * draw(x), level)
        return x


def unfolded_in(prior: Prior) -> Unfolded:
    """The unfolded network that ``prior`` is or wraps. Raises ValueError if there is none."""
    found = next((module for module in prior.modules() if isinstance(module, Unfolded)), None)
    if found is None:
        raise ValueError(f"{prior.name}: expected an unfolded network itself or in tiles")
    return found


def smoothed(image: Tensor) -> Tensor:
    """A first estimate (B, C, H, W) from the picture behind an operator that is not linear.

    As if it were the image with noise of 0.07, the error of a decoded JPEG: at qualities 10 and 20 that gains 0.3 to
    0.6 dB (10 crops of BSDS500 ``train``, 0 to 0.1 tried).
    """
    return smooth_estimate(Identity(), image, image.new_full((len(image),), 0.07), image)


def two_centres(
    op: Operator, y: Tensor, sigma_noise: Tensor, x_t: Tensor, t: Tensor, x: Tensor, delta: float
) -> Tensor:
    """Eq. (6): the proximal step on ``-log p(y | x) - log p(x_t | x)`` with step size ``delta`` from ``x``.

    Args:
        sigma_noise, t: (B,).

    Raises:
        ValueError: gradients are wanted and the operator's prox carries none.
    """
    both = 1 / t**2 + 1 / delta
    share = column(1 / t**2 / both, x)
    centre = share * x_t + (1 - share) * x
    found = op.prox(centre, y, sigma_noise**2 * both)
    if torch.is_grad_enabled() and centre.requires_grad and not found.requires_grad:
        raise ValueError(f"the prox of {type(op).__name__} carries no gradient: nothing can be trained through it")
    return found
