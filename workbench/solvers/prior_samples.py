"""Samples of the prior itself: predictor-corrector (score_sde) and DDIM. No data, no operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Restoration, Step, draws
from workbench.solvers.schedules import geometric_sigmas, sampling_sigmas
from workbench.text import require


@dataclass(frozen=True)
class PredictorCorrector:
    """Reverse-diffusion predictor and Langevin corrector of the VE SDE (Song et al. 2021, Algorithms 2 and 4).

    At every level of the geometric ladder from the prior's sigma_max to its sigma_min: ``corrector_steps`` Langevin
    steps, then one predictor step to the next level (to 0 at the end). The image is the last predictor's mean.

    Attributes:
        steps: levels.
        snr: signal-to-noise ratio that sets the Langevin step; 0.16 for CIFAR-10, 0.075 for 256x256.
        corrector_steps: 0 is the predictor alone.
        batch_norms: take the means over the batch of the norms that set the Langevin step, as the published code does.
            A sample then depends on what else is in the batch. Off, every image has its own step, which leans on its
            own state: samples vary too much by about 5 / (numbers in an image), 30 % at 1x4x4, 8 % at 1x8x8.
    """

    steps: int = 1000
    snr: float = 0.16
    corrector_steps: int = 1
    batch_norms: bool = False

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(0 < self.snr < math.inf, "snr", "positive and finite", self.snr)
        require(self.corrector_steps >= 0, "corrector_steps", "at least 0", self.corrector_steps)

    @torch.no_grad()
    def __call__(
        self,
        prior: Prior,
        shape: Sequence[int] | torch.Size,
        *,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
        like: Tensor | None = None,
    ) -> Restoration:
        """Samples of ``shape`` (B, C, H, W); ``like`` sets dtype and device (float32 on the CPU by default)."""
        draw = draws(generator, noise)
        grey = _grey(shape, like)
        levels = geometric_sigmas(self.steps, prior.sigma_max, prior.sigma_min).tolist()
        x, count, per_level = grey + levels[0] * draw(grey), 0, self.corrector_steps + 1
        for i, sigma in enumerate(levels):
            for _ in range(self.corrector_steps):
                x = self._correct(x, prior.score(x, sigma), draw(x))
            lower = levels[i + 1] if i + 1 < self.steps else 0.0
            variance = sigma**2 - lower**2
            mean = x + variance * prior.score(x, sigma)
            x = mean + math.sqrt(variance) * draw(x)
            count += per_level
            if callback is not None:
                callback(Step(i + 1, self.steps, sigma, mean, _counts(grey, count)))
        return Restoration(image=mean, evaluations=_counts(grey, count), iterations=_counts(grey, self.steps))

    def _correct(self, x: Tensor, score: Tensor, fresh: Tensor) -> Tensor:
        lengths = [torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (fresh, score)]
        if self.batch_norms:
            lengths = [length.mean().expand_as(length) for length in lengths]
        step = column(2 * (self.snr * lengths[0] / lengths[1]) ** 2, x)
        return x + step * score + (2 * step).sqrt() * fresh


@dataclass(frozen=True)
class DDIM:
    """DDIM (Song et al. 2021, eq. 12) in variance-exploding coordinates.

    ``x' = D + sqrt(s'^2 - v) e + sqrt(v) eps`` with ``v = eta^2 s'^2 (1 - s'^2/s^2)``: eta 0 is deterministic, 1 is the
    ancestral sampler of DDPM.

    Attributes:
        steps: levels.
        eta: see above, in [0, 1].
        schedule: "vp", "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    steps: int = 100
    eta: float = 0.0
    schedule: str | Sequence[float] = "vp"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(0 <= self.eta <= 1, "eta", "in [0, 1]", self.eta)

    @torch.no_grad()
    def __call__(
        self,
        prior: Prior,
        shape: Sequence[int] | torch.Size,
        *,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
        like: Tensor | None = None,
    ) -> Restoration:
        """Samples of ``shape`` (B, C, H, W); ``like`` sets dtype and device (float32 on the CPU by default)."""
        draw = draws(generator, noise)
        grey = _grey(shape, like)
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        x = grey + levels[0] * draw(grey)
        for i in range(self.steps):
            sigma, lower = levels[i], levels[i + 1]
            clean = prior(x, sigma)
            seen = (x - clean) / sigma
            variance = (self.eta * lower) ** 2 * (1 - (lower / sigma) ** 2)
            x = clean + math.sqrt(lower**2 - variance) * seen
            if self.eta > 0:
                x = x + math.sqrt(variance) * draw(x)
            if callback is not None:
                callback(Step(i + 1, self.steps, sigma, clean, _counts(grey, i + 1)))
        return Restoration(image=x, evaluations=_counts(grey, self.steps), iterations=_counts(grey, self.steps))


def _grey(shape: Sequence[int] | torch.Size, like: Tensor | None) -> Tensor:
    like = torch.empty(0) if like is None else like
    return torch.full(tuple(shape), 0.5, dtype=like.dtype, device=like.device)


def _counts(like: Tensor, count: int) -> Tensor:
    return torch.full((like.shape[0],), count, dtype=torch.int64)
