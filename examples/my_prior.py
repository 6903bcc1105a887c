"""A denoiser in [-1, 1] as a prior: the Wiener filter of photos, whose spectra fall with the frequency."""

import torch
from torch import Tensor, nn

from workbench.models import PlainDenoiser


class Wiener(nn.Module):
    """The mean of the image given x, of power 1e-3 / f^falloff at the frequency f, in cycles per pixel."""

    def __init__(self, falloff: float) -> None:
        super().__init__()
        self.falloff = falloff

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
        frequency = torch.hypot(down[:, None], across).clamp(min=0.5 / max(height, width)).to(x)
        power = 1e-3 / frequency**self.falloff
        gain = power / (power + sigma.view(-1, 1, 1, 1) ** 2)
        return torch.fft.irfft2(gain * torch.fft.rfft2(x, norm="ortho"), s=(height, width), norm="ortho")


def wiener(falloff: float = 2.5) -> PlainDenoiser:
    """What --prior examples/my_prior.py:wiener calls; its arguments are set by --prior-set."""
    return PlainDenoiser(Wiener(falloff), data_range=(-1, 1), sigma_max=50.0)
