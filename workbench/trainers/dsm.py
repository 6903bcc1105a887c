"""Training objectives: small objects that turn a batch into a loss. Denoising score matching here.

MUPET is in ``mupet.py``.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workbench.limits import Limited, Positive, Share, one_of
from workbench.models.prior import Prior
from workbench.random import Draws

# A logged value of this name is the share of samples that could not be used; the loop skips a step that has none left.
LOST = "lost"
LOWEST = 1e-3  # the lowest level of priors that know all below; a quarter of a grey level of 255

Values = dict[str, Tensor]


class Objective(Protocol):
    """Any frozen dataclass with this call; its fields are recorded with the run."""

    def __call__(self, prior: nn.Module, images: Tensor, draws: Draws) -> tuple[Tensor, Values]:
        """Scalar loss with graph, the mean over the batch, and scalars to log.

        ``prior`` may be wrapped for several processes, see :func:`unwrapped`. ``images`` are clean, (B, C, H, W) in
        [0, 1]; ``draws`` (on their device) is the only source of randomness, so that a resumed run repeats the same
        numbers and several processes share those of one. Where a batch comes with the smallest noise levels at which
        its images may be used (``Batch.floor``), these are passed on as ``floor``, (B,).
        """
        ...


def unwrapped(prior: nn.Module) -> Prior:
    """The prior itself, without what several processes wrap around it."""
    target = prior.module if isinstance(prior, DistributedDataParallel) else prior
    assert isinstance(target, Prior)
    return target


def trained_range(prior: Prior, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """The lowest and highest level at which ``prior`` is trained: those given, or else those that it knows, above 0,
    where there is nothing to learn and losses divide by the level. Raises ValueError if there are none like that."""
    low = (prior.sigma_min or LOWEST) if low is None else low
    high = prior.sigma_max if high is None else high
    if not (0 < low <= high < math.inf and prior.sigma_min <= low and high <= prior.sigma_max):
        raise ValueError(
            f"levels of training must be above 0, finite and within the prior's range [{prior.sigma_min:g}, "
            f"{prior.sigma_max:g}], got sigma_min {low:g} and sigma_max {high:g}"
        )
    return low, high


def check_images(images: Tensor) -> None:
    """Raise ValueError unless ``images`` are finite."""
    broken = ~images.flatten(1).isfinite().all(1)
    if bool(broken.any()):
        where = ", ".join(map(str, broken.nonzero().flatten().tolist()))
        raise ValueError(f"training images must be finite, image {where} of the batch has NaN or infinite pixels")


@dataclass(frozen=True)
class DSM(Limited):
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

    sigma_median: Positive = 0.1
    sigma_spread: Positive = 1.2
    uniform_share: Share = 0.15
    weighting: Annotated[str, one_of(("edm", "score"))] = "edm"
    sigma_data: Positive = 0.25

    def levels(self, count: int, low: float, high: float, draws: Draws) -> Tensor:
        """``count`` noise levels within [low, high], float32."""
        normal = math.log(self.sigma_median) + self.sigma_spread * draws.normal(count)
        uniform = math.log(low) + math.log(high / low) * draws.uniform(count)
        chosen = torch.where(draws.uniform(count) < self.uniform_share, uniform, normal)
        return chosen.exp().clamp(low, high)

    def __call__(
        self, prior: nn.Module, images: Tensor, draws: Draws, floor: Tensor | None = None
    ) -> tuple[Tensor, Values]:
        check_images(images)
        target = unwrapped(prior)
        target.check_kind("denoising score matching")
        sigma = self.levels(len(images), *trained_range(target), draws)
        if floor is not None:  # levels below are mirrored at it, on the logarithmic scale
            sigma = torch.where(sigma < floor, floor**2 / sigma, sigma).clamp(max=target.sigma_max)
        level = sigma.view(-1, 1, 1, 1)
        noise = draws.normal(*images.shape)
        denoised = prior(images + level * noise, sigma)
        weight = level**-2
        if self.weighting == "edm":
            weight = weight + self.sigma_data**-2
        loss = (weight * (denoised - images) ** 2).mean()
        return loss, {}
