"""DDRM: sample down the noise levels singular value by singular value (Kawar et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator, SpectralOperator
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Restoration, Step, draws, mid_grey, noise_levels, require_linear
from workbench.solvers.fixed_point.rules import require
from workbench.solvers.null_space import replaced, spectral_step
from workbench.solvers.schedules import sampling_sigmas


@dataclass(frozen=True)
class DDRM:
    """The variational sampler of linear problems, eq. (7) to start and eq. (8) as step, see ``null_space.py``.

    With ``eta_b = 1`` its step for noisy data is that of DDNM+. It differs for noise-free data, where the noise of what
    the data see is all fresh, and in its start, where the data speak already.

    Three slips of the published code are not here: it deblurs with singular values in the wrong order (tiled over the
    channels instead of repeated); noise-free data are lost at the last step (a strict inequality), so that the image
    is the prior's own; and its start is divided by ``sigma_T`` where the diffusion asks for ``sqrt(abar_T)``.

    Operators without a spectral form take the step of their ``prox`` (``replaced``): for noise-free data that is DDRM,
    for noisy data it has its two limits, as in DDNM.

    Attributes:
        steps: noise levels; the paper's 20.
        eta: share of fresh noise where the data say little, in [0, 1].
        eta_b: how far the state follows data that are better than it, in [0, 1]; below 1 it asks for singular values.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior in the singular basis of the operator, 20 steps"
    paper: ClassVar[str] = "Kawar et al. 2022"

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0
    schedule: str | Sequence[float] = "vp"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(0 <= self.eta <= 1, "eta", "in [0, 1]", self.eta)
        require(0 <= self.eta_b <= 1, "eta_b", "in [0, 1]", self.eta_b)

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        op: Operator,
        prior: Prior,
        *,
        sigma_noise: float | Tensor = 0.0,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
    ) -> Restoration:
        """Restore (B, C, H, W) from ``y = op(x) + sigma_noise * eps``; ``sigma_noise`` () or (B,).

        One draw of noise for the start, then one per level. With a spectral form its numbers are those of the
        coefficients, in their order; else they are those of the pixels.

        Raises:
            ValueError: a non-linear operator, ``eta_b`` below 1 for one without a spectral form, a bad ``sigma_noise``,
                a schedule or image that does not suit the prior.
        """
        require_linear(op, "DDRM")
        draw, sigma_n = draws(generator, noise), noise_levels(sigma_noise, y)
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        arguments = (y, sigma_n, self)
        run = _Spectral(op, *arguments) if isinstance(op, SpectralOperator) else _General(op, *arguments)
        x = run.start(draw(mid_grey(op, y)), levels[0])
        for i, sigma in enumerate(levels[:-1]):
            clean = prior(x, sigma)
            x = run.step(clean, x, draw(x), sigma, levels[i + 1])
            if callback is not None:
                count = torch.full((y.shape[0],), i + 1, dtype=torch.int64)
                callback(Step(i + 1, self.steps, sigma, clean if i + 1 < self.steps else x, count))
        count = torch.full((y.shape[0],), self.steps, dtype=torch.int64)
        return Restoration(image=x, evaluations=count, iterations=count.clone())


class _Spectral:
    """The chain in coefficients: one transform each way and step. Made for one solve."""

    def __init__(self, op: SpectralOperator, y: Tensor, sigma_noise: Tensor, settings: DDRM) -> None:
        self.op, self.grey, self.data = op, mid_grey(op, y), op.data_analysis(y)
        self.first = spectral_step(op, y, sigma_noise, eta=1.0)
        self.rule = spectral_step(op, y, sigma_noise, settings.eta, settings.eta_b)
        self.state = self.data

    def start(self, fresh: Tensor, sigma: float) -> Tensor:
        """Eq. (7): the step from grey without memory; what the data do not reach has mean grey."""
        c, w = self.op.analysis(self.grey), self.first.weights(sigma)
        return self._image(w.clean * c + w.data * self.data + w.fresh * fresh.reshape(c.shape))

    def step(self, clean: Tensor, x: Tensor, fresh: Tensor, sigma: float, lower: float) -> Tensor:
        """Eq. (8), with ``e = (state - c) / sigma``."""
        c, w = self.op.analysis(clean), self.rule.weights(lower)
        memory = w.seen / sigma
        out = (w.clean - memory) * c
        return self._image(
            out.addcmul_(w.data, self.data).addcmul_(memory, self.state).addcmul_(w.fresh, fresh.reshape(c.shape))
        )

    def _image(self, state: Tensor) -> Tensor:
        self.state = state
        return self.op.synthesis(state)


class _General:
    """The chain by the operator's ``prox``."""

    def __init__(self, op: Operator, y: Tensor, sigma_noise: Tensor, settings: DDRM) -> None:
        if settings.eta_b != 1:
            raise ValueError(
                f"eta_b = {settings.eta_b:g} asks for singular values, {type(op).__name__} has none: use eta_b = 1"
            )
        self.grey = mid_grey(op, y)
        self.first, self.advance = (replaced(op, y, sigma_noise, eta) for eta in (1.0, settings.eta))

    def start(self, fresh: Tensor, sigma: float) -> Tensor:
        return self.first(self.grey, self.grey, fresh, sigma)

    def step(self, clean: Tensor, x: Tensor, fresh: Tensor, sigma: float, lower: float) -> Tensor:
        return self.advance(clean, (x - clean) / sigma, fresh, lower)
