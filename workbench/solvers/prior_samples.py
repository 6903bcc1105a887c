"""Samples of the prior itself, no data and no operator: predictor-corrector (score_sde), DDIM, EDM's samplers, and
those of consistency and trajectory models."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.limits import Count, Limited, NotNegative, Positive, Share, Whole
from workbench.models.consistency import TrajectoryModel
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Iterate, Restoration, collect, draws
from workbench.solvers.schedules import check_levels, geometric_sigmas, karras_sigmas, sampling_sigmas


@dataclass(frozen=True)
class PriorSampler(Limited, ABC):
    """A sampler of the prior: a frozen dataclass of settings. A subclass gives :meth:`iterate`.

    Attributes:
        prior_kind: the kind of prior that it asks, see :class:`Prior`.
    """

    prior_kind: ClassVar[str] = "denoiser"

    @abstractmethod
    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """The iterations, from ``grey`` (B, C, H, W) plus the highest level times the first draw."""

    @torch.no_grad()
    def __call__(
        self,
        prior: Any,
        shape: Sequence[int] | torch.Size,
        *,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
        like: Tensor | None = None,
    ) -> Restoration:
        """Samples of ``shape`` (B, C, H, W); ``like`` sets dtype and device (by default float32, where the prior is).

        Raises:
            ValueError: a prior of another kind, or whose levels do not suit the schedule.
        """
        if isinstance(prior, Prior):
            prior.check_kind(type(self).__name__, self.prior_kind)
        if like is None:
            weights = [*prior.parameters(), *prior.buffers()] if isinstance(prior, nn.Module) else []
            like = torch.empty(0, device=weights[0].device if weights else None)
        grey = torch.full(tuple(shape), 0.5, dtype=like.dtype, device=like.device)
        return collect(self.iterate(prior, grey, draws(generator, noise)), len(grey), callback)


@dataclass(frozen=True)
class PredictorCorrector(PriorSampler):
    """Reverse-diffusion predictor and Langevin corrector of the VE SDE (Song et al. 2021, Algorithms 2 and 4).

    At every level of the geometric ladder from the prior's sigma_max to its sigma_min: ``corrector_steps`` Langevin
    steps, then one predictor step to the next level (to 0 at the end). The image is the last predictor's mean.

    Attributes:
        steps: levels; ten times fewer than the published 1000 leave noise in the samples.
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


@dataclass(frozen=True)
class EDM(PriorSampler):
    """Heun's or Euler's method on the probability-flow ODE, with churn (Karras et al. 2022, Algorithm 2).

    Attributes:
        steps: levels of their grid from sigma_max to sigma_min, then 0; two evaluations each by Heun's method, the last
            one.
        heun: False is Euler's method.
        churn: noise that is added before a step: the level rises by the factor ``1 + min(churn / steps, sqrt(2) - 1)``,
            as far as the prior knows, where it lies within ``churn_from`` and ``churn_to`` (of images in [0, 1]).
        churn_noise: standard deviation of that noise.
    """

    steps: Count = 18
    heun: bool = True
    churn: NotNegative = 0.0
    churn_from: NotNegative = 0.0
    churn_to: Positive = 1e4
    churn_noise: Positive = 1.0

    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """See :meth:`PriorSampler.iterate`; one draw per step if there is churn."""
        levels = sampling_sigmas("karras", self.steps, prior.sigma_min, prior.sigma_max).tolist()
        x = grey + levels[0] * draw(grey)
        for sigma, lower in pairwise(levels):
            high = sigma
            if self.churn > 0:
                fresh = self.churn_noise * draw(x)
                if self.churn_from <= sigma <= self.churn_to:
                    high = sigma * (1 + min(self.churn / self.steps, math.sqrt(2) - 1))
                    high = min(high, max(sigma, prior.sigma_max))
                    x = x + math.sqrt(high**2 - sigma**2) * fresh
            clean = prior(x, high)
            slope = (x - clean) / high
            moved = x + (lower - high) * slope
            twice = self.heun and lower > 0
            if twice:
                moved = x + (lower - high) * (slope + (moved - prior(moved, lower)) / lower) / 2
            x = moved
            yield Iterate(x, high, clean, self.steps, evaluations=1 + twice)


@dataclass(frozen=True)
class Consistency(PriorSampler):
    """One or several steps of a consistency model (Song et al. 2023, Algorithm 1): jump to an image, add noise, jump.

    Attributes:
        steps: jumps.
        schedule: "karras": their grid from sigma_max to sigma_min without its last level; or the levels themselves,
            ``steps`` numbers above 0 that fall.
        clip: to [0, 1] after each jump, as published.
    """

    prior_kind: ClassVar[str] = "consistency"

    steps: Count = 2
    schedule: str | Sequence[float] = "karras"
    clip: bool = True

    def iterate(self, prior: Prior, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:
        """See :meth:`PriorSampler.iterate`; one draw between jumps."""
        levels = jump_levels(self.schedule, self.steps, prior)
        x = grey + levels[0] * draw(grey)
        for sigma, lower in pairwise([*levels, prior.sigma_min]):
            clean = prior(x, sigma)
            clean = clean.clamp(0, 1) if self.clip else clean
            yield Iterate(clean, sigma, clean, self.steps)
            if lower > prior.sigma_min:
                x = clean + math.sqrt(lower**2 - prior.sigma_min**2) * draw(clean)


def jump_levels(
    schedule: str | Sequence[float], steps: int, prior: Any, sigma_start: float | None = None
) -> list[float]:
    """The levels that ``steps`` jumps start from, see :class:`Consistency`; those of the grid are at most
    ``sigma_start``. Raises ValueError where they do not fit."""
    if schedule == "karras":
        return karras_sigmas(steps + 1, min(sigma_start or math.inf, prior.sigma_max), prior.sigma_min)[:-1].tolist()
    return check_levels(schedule, steps, prior.sigma_max).tolist()


@dataclass(frozen=True)
class Trajectory(PriorSampler):
    """Gamma-sampling of a trajectory model (Kim et al. 2024, Algorithm 3): jump below the next level, add noise.

    From level t to the next one u: to ``s = sqrt(1 - gamma^2) (u - e) + e`` with e the lowest level (published code;
    the paper has no e), then noise of variance ``u^2 - s^2``. 0 is deterministic, 1 as consistency models sample.

    Attributes:
        steps: jumps.
        gamma: share of noise.
        schedule: "karras": the ``steps + 1`` levels of their grid; or these levels, falling to the lowest.
    """

    steps: Count = 2
    gamma: Share = 0.0
    schedule: str | Sequence[float] = "karras"

    # A trajectory model is no prior: it is told two levels.
    def iterate(self, prior: TrajectoryModel, grey: Tensor, draw: NoiseSource) -> Iterator[Iterate]:  # type: ignore[override]
        """See :meth:`PriorSampler.iterate`; one draw between jumps if gamma is above 0."""
        end, known = prior.precond.sigma_min, prior.precond
        levels = [*jump_levels(self.schedule, self.steps, known), end]
        x = grey + levels[0] * draw(grey)
        for t, u in pairwise(levels):
            s = math.sqrt(1 - self.gamma**2) * (u - end) + end
            x = prior(x, *(torch.full((len(x),), level).to(x) for level in (t, s)))
            yield Iterate(x, t, x, self.steps)
            if self.gamma > 0 and u > end:
                x = x + math.sqrt(u**2 - s**2) * draw(x)
