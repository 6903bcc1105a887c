"""The tasks of the exam: a prior whose posterior is known, an operator, a noise level.

Gaussian and mixture images have 8x8 pixels, Laplace signals 16. Everything is fixed: the same task means the same mask
and the same modes everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.evaluation.posterior import dense_matrix
from workbench.models.gaussian import GaussianPrior
from workbench.models.laplace import Draws, LaplaceIncrements
from workbench.models.mixture import GaussianMixturePrior
from workbench.operators import Blur, Identity, Inpainting, Operator, SuperResolution, gaussian_kernel
from workbench.operators.masks import random_mask
from workbench.random import stream
from workbench.text import unknown

SIDE = 8
_RANGE: dict[str, Any] = {"sigma_min": 0.002, "sigma_max": 100.0}
ExactPrior = GaussianMixturePrior | LaplaceIncrements


@dataclass(frozen=True)
class Task:
    """``y = op(x) + sigma_noise eps`` for ``x`` of ``prior``; ``about`` says in a line what it asks of a sampler."""

    name: str
    prior: ExactPrior
    op: Operator
    sigma_noise: float
    about: str

    @cached_property
    def matrix(self) -> Tensor:
        """(m, n), float64."""
        return dense_matrix(self.op, self.prior.shape)

    def measure(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (count, C, H, W) of the prior and their noisy measurements, float64."""
        x = self.prior.sample(count, generator)
        y = self.op(x)
        return x, y + self.sigma_noise * torch.randn(y.shape, generator=generator, dtype=y.dtype)

    def reference(self, y: Tensor, count: int, generator: torch.Generator) -> Draws:
        """Samples of the true posterior of each ``y`` (B, ...), and its means and variances."""
        if isinstance(self.prior, LaplaceIncrements):
            return self.prior.gibbs(self.matrix, y, self.sigma_noise, count, generator)
        exact = self.prior.posterior(self.matrix, y, self.sigma_noise)
        return Draws(exact.sample(count, generator), exact.mean, exact.variance)

    def log_posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """``log p(x | y)`` up to a constant per measurement: ``x`` (B, L, n), ``y`` (B, ...); (B, L), float64."""
        flat = x.double()
        off = (flat @ self.matrix.T - y.double().flatten(1)[:, None]) / self.sigma_noise
        return self.prior.log_density(flat.flatten(0, 1)).view(x.shape[:2]) - 0.5 * off.square().sum(-1)


def smooth_covariance(deviation: float) -> Tensor:
    """Of stationary 8x8 textures whose pixels have this standard deviation, power falling with frequency: (n, n)."""
    f = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    power = 1 / (0.02 + f[:, None] ** 2 + f[None, :] ** 2)
    return GaussianPrior((deviation**2 * power / power.mean())[None], torch.tensor([0.5])).covariance()


def gaussian_images() -> GaussianMixturePrior:
    """One component: smooth textures of standard deviation 1/4 around 1/2."""
    means = torch.full((1, 1, SIDE, SIDE), 0.5)
    return GaussianMixturePrior(torch.ones(1), means, smooth_covariance(0.25)[None], **_RANGE, name="gaussian")


def mixture_images() -> GaussianMixturePrior:
    """Four modes of unequal weight, ``1/2`` plus and minus two patterns, each with smooth textures around it.

    The patterns have standard deviation 0.2 and no mean over blocks of 4x4 pixels, so that averages of blocks say
    nothing of the mode.
    """
    generator = stream(0, "exam", "patterns")
    noise = torch.randn(2, SIDE**2, generator=generator, dtype=torch.float64)
    patterns = (noise @ torch.linalg.cholesky(smooth_covariance(1.0)).T).view(2, 1, SIDE, SIDE)
    blocks = torch.nn.functional.avg_pool2d(patterns, 4)
    patterns = patterns - torch.nn.functional.interpolate(blocks, scale_factor=4.0)
    patterns = 0.2 * patterns / patterns.std((2, 3), correction=0, keepdim=True)
    means = 0.5 + torch.cat([patterns, -patterns])
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    return GaussianMixturePrior(weights, means, smooth_covariance(0.1).expand(4, -1, -1), **_RANGE, name="mixture")


def _mask(height: int, width: int, missing: float) -> Operator:
    return Inpainting(random_mask((height, width), missing, stream(0, "exam", "mask")))


def _image_blur() -> Operator:
    return Blur(gaussian_kernel(2.0))


def _signal_blur() -> Operator:
    return Blur(gaussian_kernel(1.5)[6:7] / gaussian_kernel(1.5)[6].sum())


_BUILDERS: dict[str, tuple[Callable[[], ExactPrior], Callable[[], Operator], float, str]] = {
    "gaussian-inpaint": (gaussian_images, lambda: _mask(SIDE, SIDE, 0.5), 0.1, "half of the pixels, one mode"),
    "gaussian-blur": (gaussian_images, _image_blur, 0.05, "ill-conditioned, one mode"),
    "mixture-denoise": (mixture_images, Identity, 0.7, "strong noise leaves the mode open"),
    "mixture-inpaint": (mixture_images, lambda: _mask(SIDE, SIDE, 0.9), 0.3, "few pixels: some tell the mode"),
    "mixture-blur": (mixture_images, _image_blur, 0.1, "what tells the modes apart is blurred"),
    "mixture-average": (
        mixture_images,
        lambda: SuperResolution(4, "average"),
        0.1,
        "the data say nothing of the mode: its weights are the prior's",
    ),
    "laplace-inpaint": (LaplaceIncrements, lambda: _mask(1, 16, 0.5), 0.05, "edges in gaps"),
    "laplace-blur": (LaplaceIncrements, _signal_blur, 0.03, "edges behind a blur"),
}
TASKS = tuple(_BUILDERS)


def make_task(name: str) -> Task:
    """The task ``name``. Raises ValueError for an unknown name, naming the nearest."""
    if name not in _BUILDERS:
        raise ValueError(unknown("task", name, TASKS))
    prior, op, sigma_noise, about = _BUILDERS[name]
    return Task(name, prior(), op(), sigma_noise, about)
