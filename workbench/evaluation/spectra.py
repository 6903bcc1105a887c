"""How samples differ from photos, in numbers that need no network: brightness, contrast and power spectrum.

They are coarse. Samples that match in all three may still look like nothing; samples that do not match are wrong.
"""

import torch
from torch import Tensor


def power_spectrum(images: Tensor) -> Tensor:
    """Mean power of ``images`` (B, C, H, W) at 1, 2, ... cycles per image, the mean (0 cycles) left out: (K,) float64.

    Averaged over images, channels and rings one cycle wide, up to the highest frequency of the shorter side; in units
    of pixel variance per frequency. Images are windowed (Hann), or their opposite edges would count as contours.
    """
    height, width = images.shape[-2:]
    pixels = images.double()
    pixels = pixels - pixels.mean(dim=(-2, -1), keepdim=True)
    window = torch.outer(
        *(torch.hann_window(side, dtype=torch.float64, device=images.device) for side in (height, width))
    )
    power = torch.fft.fft2(pixels * window).abs().square().mean(dim=(0, 1)) / window.square().sum()
    shortest = min(height, width)
    down, across = (torch.fft.fftfreq(side, 1 / shortest, device=images.device) for side in (height, width))
    ring = torch.hypot(down[:, None], across[None]).round().long()
    count = shortest // 2 + 1
    inside = ring < count
    sums = torch.zeros(count, dtype=torch.float64, device=images.device).index_add(0, ring[inside], power[inside])
    return (sums / torch.bincount(ring[inside], minlength=count))[1:]


def differences(samples: Tensor, photos: Tensor) -> dict[str, float]:
    """Three distances between two sets of images (B, C, H, W) in [0, 1] of one size.

    Returns:
        ``brightness``: mean of the samples minus that of the photos; ``contrast``: ratio of their standard deviations
        over all pixels; ``spectrum_db``: root mean square difference of the power spectra in dB, over the frequencies.

    Raises:
        ValueError: images of different sizes.
    """
    if samples.shape[1:] != photos.shape[1:]:
        raise ValueError(f"expected images of one size, got {tuple(samples.shape[1:])} and {tuple(photos.shape[1:])}")
    ratio = 10 * torch.log10(power_spectrum(samples) / power_spectrum(photos))
    return {
        "brightness": float(samples.mean() - photos.mean()),
        "contrast": float(samples.std() / photos.std()),
        "spectrum_db": float(ratio.square().mean().sqrt()),
    }
