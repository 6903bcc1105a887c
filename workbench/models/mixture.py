"""Gaussian mixtures of images: several modes, and denoiser, samples and posteriors still in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.text import require


@dataclass(frozen=True)
class MixturePosterior:
    """Gaussian mixtures of flattened images, one per measurement, float64.

    Attributes:
        log_weights: (B, K), normalised.
        means: (B, K, n).
        covariances: (K, n, n), the same for all measurements.
    """

    log_weights: Tensor
    means: Tensor
    covariances: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, n)."""
        return (self.log_weights.exp()[..., None] * self.means).sum(1)

    @property
    def variance(self) -> Tensor:
        """Of each pixel, (B, n): the mean of the variances plus the variance of the means."""
        weights, off = self.log_weights.exp()[..., None], self.means - self.mean[:, None]
        return (weights * (self.covariances.diagonal(dim1=-2, dim2=-1) + off.square())).sum(1)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` draws for each measurement, (B, count, n)."""
        chosen = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        white = torch.randn(*chosen.shape, self.means.shape[-1], generator=generator, dtype=torch.float64)
        off = _coloured(white, chosen, self.covariances)
        return self.means.gather(1, chosen[..., None].expand_as(off)) + off


class GaussianMixturePrior(Prior):
    """Images drawn from ``sum_k w_k N(m_k, C_k)``. Computed in float64 whatever the images.

    With noise, component k is ``N(m_k, C_k + sigma^2)``. The denoiser is the mean of the components' Wiener filters
    ``m_k + C_k (C_k + sigma^2)^-1 (x - m_k)``, weighted by the probability of component k given x (Bayes' theorem).

    Args:
        weights: (K,), positive; normalised here.
        means: (K, C, H, W). They fix the size of the images.
        covariances: (K, n, n) of flattened images, n = C H W, symmetric and positive definite.
        sigma_min, sigma_max, name: see :class:`Prior`; the formula holds at any level.

    Raises:
        ValueError: shapes that do not fit, weights that are not positive, covariances that are not positive definite.

    >>> means, covariances = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1), torch.full((2, 1, 1), 1e-4)
    >>> GaussianMixturePrior(torch.ones(2), means, covariances)(torch.full((1, 1, 1, 1), 0.7), 0.1).round(decimals=2)
    tensor([[[[0.8000]]]])
    """

    checked = True
    log_weights: Tensor
    means: Tensor
    powers: Tensor
    vectors: Tensor

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        *,
        sigma_min: float = 1e-4,
        sigma_max: float = 500.0,
        name: str = "",
    ) -> None:
        if means.ndim != 4 or weights.shape != means.shape[:1] or not bool(means.isfinite().all()):
            shapes = f"{tuple(weights.shape)} and {tuple(means.shape)}"
            raise ValueError(f"weights and means must be (K,) and (K, C, H, W), finite, got {shapes}")
        count, size = len(means), means[0].numel()
        if covariances.shape != (count, size, size):
            raise ValueError(f"covariances must be ({count}, {size}, {size}), got {tuple(covariances.shape)}")
        if not bool(((weights > 0) & weights.isfinite()).all()):
            raise ValueError(f"weights must be positive and finite, got {weights.tolist()}")
        matrices = covariances.double()
        if not torch.allclose(matrices, matrices.mT, rtol=1e-5, atol=1e-12):
            raise ValueError("covariances must be finite and symmetric")
        powers, vectors = torch.linalg.eigh(matrices)
        if not bool((powers > 0).all()):
            raise ValueError(f"covariances must be positive definite, got an eigenvalue of {float(powers.min()):.3g}")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=means.shape[1], name=name)
        self.shape, self.sides = tuple(means.shape[1:]), (means.shape[2], means.shape[3])
        self.register_buffer("log_weights", (weights.double() / weights.double().sum()).log())
        self.register_buffer("means", means.double().flatten(1))
        self.register_buffer("powers", powers)  # (K, n)
        self.register_buffer("vectors", vectors)  # (K, n, n), in columns

    @property
    def covariances(self) -> Tensor:
        """(K, n, n)."""
        return (self.vectors * self.powers[:, None]) @ self.vectors.mT

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``E[x0 | x]``, see the class."""
        variance = sigma.double().square().view(1, -1, 1)
        white = self._white(x)
        share = self._component(white, variance).softmax(0)
        gain = self.powers[:, None] / (self.powers[:, None] + variance)
        filtered = self.means[:, None] + torch.bmm(gain * white, self.vectors.mT)
        return (share[..., None] * filtered).sum(0).view(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """``log p_sigma`` of ``x`` (B, C, H, W) or (B, n), natural logarithm, (B,) in float64."""
        variance = torch.full((1, 1, 1), sigma**2, dtype=torch.float64)
        return self._component(self._white(x), variance).logsumexp(0)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (count, C, H, W), float64."""
        chosen = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        white = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[chosen] + _coloured(white, chosen, self.covariances)).view(count, *self.shape)

    def posterior(self, matrix: Tensor, y: Tensor, sigma_noise: float) -> MixturePosterior:
        """Of ``y = matrix x + sigma_noise eps``: a mixture again, every component conditioned by itself.

        Args:
            matrix: (m, n), on flattened images.
            y: (B, ...) with m numbers each.

        Raises:
            ValueError: ``sigma_noise`` is not positive (noise-free data have no density), or shapes do not fit.
        """
        a, data = measured(matrix, y, sigma_noise, self.means.shape[1])
        spread = self.covariances @ a.T  # (K, n, m)
        gram = a @ spread + sigma_noise**2 * torch.eye(len(a), dtype=a.dtype)
        factor = torch.linalg.cholesky(gram)
        gain = torch.cholesky_solve(spread.mT, factor).mT
        off = data[:, None] - self.means @ a.T  # (B, K, m)
        white = torch.linalg.solve_triangular(factor, off.permute(1, 2, 0), upper=False)  # (K, m, B)
        log_data = -0.5 * white.square().sum(1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(1)[:, None]
        log_weights = (self.log_weights[:, None] + log_data).log_softmax(0).T
        covariances = self.covariances - gain @ spread.mT
        means = self.means + torch.einsum("knm,bkm->bkn", gain, off)
        return MixturePosterior(log_weights, means, (covariances + covariances.mT) / 2)

    def _white(self, x: Tensor) -> Tensor:
        """``x`` off each mean, in the eigenvectors of its covariance: (K, B, n)."""
        return torch.bmm(x.double().reshape(1, len(x), -1) - self.means[:, None], self.vectors)

    def _component(self, white: Tensor, variance: Tensor) -> Tensor:
        """``log w_k N(x; m_k, C_k + variance)``, (K, B)."""
        total = self.powers[:, None] + variance
        squares = (white.square() / total + (2 * math.pi * total).log()).sum(-1)
        return self.log_weights[:, None] - 0.5 * squares


def measured(matrix: Tensor, y: Tensor, sigma_noise: float, size: int) -> tuple[Tensor, Tensor]:
    """``matrix`` (m, size) and the data ``y`` (B, m), float64. Raises ValueError if they or the noise do not fit."""
    a, data = matrix.double(), y.double().flatten(1)
    require(0 < sigma_noise < math.inf, "sigma_noise", "positive and finite", sigma_noise)
    expected = (data.shape[1], size)
    require(a.shape == expected, "the matrix", f"{expected} for these data and images", tuple(a.shape))
    return a, data


def _coloured(white: Tensor, chosen: Tensor, covariances: Tensor) -> Tensor:
    """``C_k^(1/2) white``, the component of every row (..., n) as ``chosen`` (...) says."""
    out = torch.empty_like(white)
    for k, covariance in enumerate(covariances):
        powers, vectors = torch.linalg.eigh(covariance)
        own = chosen == k
        out[own] = white[own] * powers.clamp(min=0).sqrt() @ vectors.T
    return out
