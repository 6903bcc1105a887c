"""How much noise a photo has, from the photo alone."""

import math

import numpy as np
import torch
from torch import Tensor

CHANNELS = ("red", "green", "blue")
ALIKE = 0.1  # channels whose levels differ by less than this share have one
FEWEST = 16  # coefficients of which a median is taken


def estimate_noise(photo: Tensor, lost: Tensor | None = None) -> Tensor:
    """The standard deviation of the noise in each channel of photos (B, C, H, W), (B, C), in their units.

    Pixels that are ``lost`` (H, W) do not count.

    From the median of the finest diagonal wavelet coefficients (Donoho and Johnstone 1994), as by scikit-image, without
    those of even areas, such as white sky. It is for white noise. Fine texture counts as noise: clean photos of BSDS500
    give 0.01, with 0.02 added 0.026; from 0.05 on the estimate is right within 10 %. Noise that JPEG or a camera's own
    processing has smoothed is underestimated.

    Raises:
        ValueError: not (B, C, H, W), sides below 8 pixels, or too much is lost.
    """
    from pywt import dwt2

    if photo.ndim != 4 or min(photo.shape[-2:]) < 8:
        raise ValueError(f"expected photos (B, C, H, W) of 8 pixels a side at least, got shape {tuple(photo.shape)}")
    planes = photo.detach().cpu().double().flatten(0, 1).numpy()
    hidden = np.zeros(planes.shape[1:], bool) if lost is None else lost.cpu().numpy()
    # Where nothing is lost, a coefficient of it is 0; of random numbers, so that nothing cancels elsewhere.
    whole = dwt2(hidden * np.random.default_rng(0).random(hidden.shape), "db2")[1][2] == 0
    if whole.sum() < FEWEST:
        raise ValueError("too little of the photo is known to estimate its noise: give the noise")
    details = (np.abs(dwt2(plane, "db2")[1][2])[whole] for plane in planes)
    noisy = (detail[detail > 1e-9] for detail in details)  # even areas give zeros up to rounding
    levels = [float(np.median(detail)) / 0.67449 if detail.size else 0.0 for detail in noisy]  # that of a normal |e|
    return torch.tensor(levels, dtype=torch.float64).view(photo.shape[:2])


def noise_of(photo: Tensor, lost: Tensor | None = None) -> tuple[float, str]:
    """One level for solvers, which take noise of equal strength in all channels, for ``photo`` (1, C, H, W); and a line
    that says it, channel by channel where they differ. Pixels that are ``lost`` (H, W) do not count."""
    levels = estimate_noise(photo, lost)[0]
    level = math.sqrt(float(levels.square().mean()))
    each = zip(CHANNELS, levels.tolist(), strict=False)
    differ = len(levels) == len(CHANNELS) and float(levels.max() - levels.min()) > ALIKE * level
    parts = f" ({', '.join(f'{name} {value:.3f}' for name, value in each)})" if differ else ""
    return level, f"noise estimated: {level:.3f}{parts}"
