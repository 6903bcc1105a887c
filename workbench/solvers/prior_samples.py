"""Samples of the prior itself: predictor-corrector (score_sde) and DDIM. No data, no operator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from workbench.limits import Count, Limited, Positive, Share, Whole
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Iterate, Restoration, collect, draws
from workbench.solvers.schedules import geometric_sigmas, sampling_sigmas


@dataclass(frozen=True)
class PriorSampler(Limited, ABC):
    """A sampler of the prior: a frozen dataclass of settings. A subclass gives :meth:`iterate`."""

    @abstractmethod
    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """The iterations, from ``grey`` (B, C, H, W) plus the highest level times the first draw."""

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
        like = torch.empty(0) if like is None else like
        grey = torch.full(tuple(shape), 0.5, dtype=like.dtype, device=like.device)
        return collect(self.iterate(prior, grey, draws(generator, noise)), len(grey), callback)


@dataclass(frozen=True)
class PredictorCorrector(PriorSampler):
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

    steps: Count = 1000
    snr: Positive = 0.16
    corrector_steps: Whole = 1
    batch_norms: bool = False

    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """See :meth:`PriorSampler.iterate`."""
        levels = geometric_sigmas(self.steps, prior.sigma_max, prior.sigma_min).tolist()
        x = grey + levels[0] * draw(grey)
        for sigma, lower in pairwise([*levels, 0.0]):
            for _ in range(self.corrector_steps):
                x = self._correct(x, prior.score(x, sigma), draw(x))
            variance = sigma**2 - lower**2
            mean = x + variance * prior.score(x, sigma)
            x = mean + math.sqrt(variance) * draw(x)
            yield Iterate(mean, sigma, mean, self.steps, evaluations=self.corrector_steps + 1)

    def _correct(self, x: Tensor, score: Tensor, fresh: Tensor) -> Tensor:
        lengths = [torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (fresh, score)]
        if self.batch_norms:
            lengths = [length.mean().expand_as(length) for length in lengths]
        step = column(2 * (self.snr * lengths[0] / lengths[1]) ** 2, x)
        return x + step * score + (2 * step).sqrt() * fresh


@dataclass(frozen=True)
class DDIM(PriorSampler):
    """DDIM (Song et al. 2021, eq. 12) in variance-exploding coordinates.

    ``x' = D + sqrt(s'^2 - v) e + sqrt(v) eps`` with ``v = eta^2 s'^2 (1 - s'^2/s^2)``: eta 0 is deterministic, 1 is the
    ancestral sampler of DDPM.

    Attributes:
        steps: levels.
        eta: see above, in [0, 1].
        schedule: "vp", "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    steps: Count = 100
    eta: Share = 0.0
    schedule: str | Sequence[float] = "vp"

    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """See :meth:`PriorSampler.iterate`."""
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        x = grey + levels[0] * draw(grey)
        for sigma, lower in pairwise(levels):
            clean = prior(x, sigma)
            seen = (x - clean) / sigma
            variance = (self.eta * lower) ** 2 * (1 - (lower / sigma) ** 2)
            x = clean + math.sqrt(lower**2 - variance) * seen
            if self.eta > 0:
                x = x + math.sqrt(variance) * draw(x)
            yield Iterate(x, sigma, clean, self.steps)
