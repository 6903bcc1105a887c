"""Training objectives: small objects that turn a batch into a loss. Denoising score matching here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workbench.models.prior import Prior


class Objective(Protocol):
    """Anything with this call and a name for the logs."""

    def __call__(self, prior: nn.Module, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss with graph, and values to log.

        ``images`` are clean, (B, C, H, W) in [0, 1]; ``generator`` lives on their device and is the only source of
        randomness, so that a resumed run repeats the same draws.
        """
        ...


@dataclass(frozen=True)
class DSM:
    """Denoising score matching over many noise levels.

    The loss is the mean over pixels of ``w(sigma) (D(x0 + sigma eps, sigma) - x0)^2``. With ``w = 1 / sigma^2`` that is
    ``(sigma s + eps)^2``, the DSM loss of MUPET, eq. (5) (Song et al. 2021, eq. 7 with lambda = sigma^2); with
    ``w = (sigma^2 + d^2) / (sigma d)^2`` it is that of Karras et al. (2022, table 1), equal at small sigma, and bounded
    below where the noise hides the image (d: standard deviation of the data in [0, 1]).

    Attributes:
        sigma_median, sigma_spread: levels are log-normal around the median, with this standard deviation of ln sigma.
        uniform_share: share of levels drawn log-uniformly over the prior's whole range instead.
        weighting: "edm" or "score" (see above).
        sigma_data: d.
    """

    sigma_median: float = 0.1
    sigma_spread: float = 1.2
    uniform_share: float = 0.15
    weighting: str = "edm"
    sigma_data: float = 0.25

    def __post_init__(self) -> None:
        if self.weighting not in ("edm", "score"):
            raise ValueError(f"weighting must be 'edm' or 'score', got {self.weighting!r}")
        if not (self.sigma_median > 0 and self.sigma_spread > 0 and 0 <= self.uniform_share <= 1):
            raise ValueError(f"expected positive sigma_median and sigma_spread and a share in [0, 1], got {self}")

    def levels(self, count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """``count`` noise levels within [low, high], float32."""
        device = generator.device
        normal = math.log(self.sigma_median) + self.sigma_spread * torch.randn(
            count, generator=generator, device=device
        )
        uniform = math.log(low) + math.log(high / low) * torch.rand(count, generator=generator, device=device)
        chosen = torch.where(
            torch.rand(count, generator=generator, device=device) < self.uniform_share, uniform, normal
        )
        return chosen.exp().clamp(low, high)

    def __call__(self, prior: nn.Module, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        target = prior.module if isinstance(prior, DistributedDataParallel) else prior
        assert isinstance(target, Prior)
        sigma = self.levels(len(images), target.sigma_min, target.sigma_max, generator)
        level = sigma.view(-1, 1, 1, 1)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        denoised = prior(images + level * noise, sigma)
        weight = level**-2
        if self.weighting == "edm":
            weight = weight + self.sigma_data**-2
        loss = (weight * (denoised - images) ** 2).mean()
        return loss, {}
