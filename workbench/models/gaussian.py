"""The Gaussian image model: the one prior whose denoiser, samples and posteriors are all known in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.text import require


class GaussianPrior(Prior):
    """Images drawn from ``N(mean, C)``, ``C`` circulant in each channel: stationary textures on a torus.

    ``D(x, sigma) = mean + C (C + sigma^2)^-1 (x - mean)`` exactly, a Wiener filter by the Fourier transform. Computed
    in float64 whatever the images. A sampler may be tested against it, see ``workbench.evaluation.posterior``.

    Args:
        spectrum: (C, H, W), eigenvalues of ``C`` (variances, at least 0) in the order of ``torch.fft.fft2``; their mean
            is the variance of a pixel. It fixes the size of the images.
        mean: (C,) or (C, H, W).
        sigma_min, sigma_max, name: see :class:`Prior`; the formula holds at any level.

    Raises:
        ValueError: a spectrum or mean of another shape, negative or not finite; one that is not that of real images.

    >>> GaussianPrior(torch.full((1, 2, 2), 0.04), torch.tensor([0.5]))(torch.full((1, 1, 2, 2), 0.9), 0.2)
    tensor([[[[0.7000, 0.7000],
              [0.7000, 0.7000]]]])
    """

    checked = True
    spectrum: Tensor
    mean: Tensor

    def __init__(
        self,
        spectrum: Tensor,
        mean: Tensor,
        *,
        sigma_min: float = 1e-4,
        sigma_max: float = 500.0,
        name: str = "",
    ) -> None:
        if spectrum.ndim != 3 or not bool(((spectrum >= 0) & spectrum.isfinite()).all()):
            raise ValueError(f"spectrum must be (C, H, W), finite and >= 0, got shape {tuple(spectrum.shape)}")
        fits = tuple(mean.shape) in (tuple(spectrum.shape[:1]), tuple(spectrum.shape))
        if not fits or not bool(mean.isfinite().all()):
            raise ValueError(
                f"mean must be finite, of shape ({spectrum.shape[0]},) or {tuple(spectrum.shape)}, "
                f"got shape {tuple(mean.shape)}"
            )
        power = spectrum.double()
        opposite = power.flip((-2, -1)).roll((1, 1), (-2, -1))
        if not torch.allclose(power, opposite, rtol=1e-3, atol=0):
            raise ValueError("spectrum must have the same value at a frequency and its opposite, as real images have")
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=spectrum.shape[0], name=name)
        self.sides = (spectrum.shape[1], spectrum.shape[2])
        self.register_buffer("spectrum", (power + opposite) / 2)
        self.register_buffer("mean", mean.double().view(1, spectrum.shape[0], *(mean.shape[1:] or (1, 1))))

    @classmethod
    def from_images(cls, images: Tensor, floor: float = 1e-6, **options: Any) -> GaussianPrior:
        """The model with the mean colour and the power spectrum of ``images`` (N, C, H, W).

        Args:
            floor: variance added to every frequency, so that none is known for certain from few images.
        """
        require(images.ndim == 4 and len(images) >= 1, "images", "(N, C, H, W)", f"shape {tuple(images.shape)}")
        pixels = images.double()
        mean = pixels.mean((0, 2, 3))
        power = torch.fft.fft2(pixels - mean.view(1, -1, 1, 1), norm="ortho").abs().square().mean(0)
        return cls(power + floor, mean, **options)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``E[x0 | x]``, see the class."""
        gain = self.spectrum / (self.spectrum + sigma.double().view(-1, 1, 1, 1) ** 2)
        return (self.mean + self._filter(gain, x.double() - self.mean)).to(x.dtype)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (count, C, H, W), float64."""
        device = self.spectrum.device if generator is None else generator.device
        white = torch.randn(count, *self.spectrum.shape, generator=generator, dtype=torch.float64, device=device)
        return self.mean + self._filter(self.spectrum.sqrt(), white.to(self.spectrum.device))

    def covariance(self) -> Tensor:
        """(n, n) of flattened images, n = C H W, float64."""
        n = self.spectrum.numel()
        basis = torch.eye(n, dtype=torch.float64, device=self.spectrum.device).view(n, *self.spectrum.shape)
        return self._filter(self.spectrum, basis).flatten(1)

    @staticmethod
    def _filter(gain: Tensor, x: Tensor) -> Tensor:
        return torch.fft.ifft2(gain * torch.fft.fft2(x)).real
