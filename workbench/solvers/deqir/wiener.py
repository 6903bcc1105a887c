"""What a Gaussian model of photos says of a noisy one: a linear stand-in for the network, for nothing.

Solvers that have to guess how a prior will answer at a point near one where it was asked, or at one where it was not
asked yet, take the answer of this model there. It is a Wiener filter: every spatial frequency ``f`` of brightness and
of colour shrinks towards grey by ``S(f) / (S(f) + sigma^2)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Power of photos around mid-grey per pixel, S(f) = c / (f0^2 + f^2)^1.3 with f in cycles per pixel: of the brightness
# and of each colour axis, orthonormal (100 photos of tiny-imagenet at 32x32 have 0.19 and 0.014). With 1.3 DeqIR
# converged a little faster there than with 1 and 1.6; half of the power changes little.
BRIGHTNESS, COLOUR = 0.22, 0.012
CORNER, EXPONENT = 0.02, 1.3


@dataclass
class PhotoModel:
    """Photos as a stationary Gaussian field around mid-grey, all channels together (brightness) and apart (colour).

    It holds its filters for the last image size, one per noise level; make one for each solve.
    """

    _filters: dict[tuple[object, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, x: Tensor, sigma: float | Sequence[float]) -> Tensor:
        """Posterior mean (B, C, H, W) of a photo given ``x``, that photo with noise ``sigma`` (one for all images, or
        one each): affine in ``x``."""
        if isinstance(sigma, float):
            brightness, colour = self._gains(x, sigma)
        else:
            gains = zip(*(self._gains(x, level) for level in sigma), strict=True)
            brightness, colour = (torch.stack(gain)[:, None] for gain in gains)
        spectrum = torch.fft.rfft2(x - 0.5)
        mean = spectrum.mean(1, keepdim=True)
        return 0.5 + torch.fft.irfft2(colour * (spectrum - mean) + brightness * mean, s=x.shape[-2:])

    def _gains(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        key = (sigma, x.shape[-2:], x.dtype, x.device)
        if key not in self._filters:
            shape = photo_spectrum(x)
            brightness, colour = BRIGHTNESS * shape, COLOUR * shape
            self._filters[key] = brightness / (brightness + sigma**2), colour / (colour + sigma**2)
        return self._filters[key]


def photo_spectrum(x: Tensor) -> Tensor:
    """``1 / (f0^2 + f^2)^1.3`` on the frequencies of ``rfft2`` of ``x`` (..., H, W), with mean 1 over all of them."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) ** 2 for side in x.shape[-2:])
    power = (CORNER**2 + rows[:, None] + columns) ** -EXPONENT
    return (power / power.mean())[:, : x.shape[-1] // 2 + 1].to(x, non_blocking=True)


def unchanged(x: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """``x``: what eq. (9) of DeqIR takes for the answer, up to a constant, when it keeps the noise that was seen."""
    return x
