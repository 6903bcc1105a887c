"""DRUNet, the denoiser of DPIR (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior").

As in DPIR (commit 15bca3f, models/network_unet.py): four levels of residual blocks without normalisation or biases,
told the noise level as one more image channel. Modules carry the published tensor names.

Input (B, C, H, W) in [0, 1] plus noise and sigma (B,) in the same unit, trained for 0 to 50/255; output: the clean
image. Sides must be multiples of 8.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.limits import Count, Limited

SIGMA_MAX = 50 / 255  # "sigma from [0, 50]": DPIR, section 3.2


@dataclass(frozen=True)
class DRUNetConfig(Limited):
    """Architecture of one network.

    Attributes:
        channels: image channels, 3 or 1; the network has one more input (the noise level).
        widths: feature channels of the four levels (``nc``).
        blocks: residual blocks per level (``nb``).
    """

    channels: int = 3
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", tuple(self.widths))


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.res = nn.Sequential(first, nn.ReLU(inplace=True), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)


class DRUNet(nn.Module):
    """The network: ``net(x, sigma)``, see the module's text."""

    multiple = 8

    def __init__(self, config: DRUNetConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third, fourth = config.widths

        def blocks(channels: int) -> list[nn.Module]:
            return [ResidualBlock(channels) for _ in range(config.blocks)]

        def down(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(*blocks(inputs), nn.Conv2d(inputs, outputs, 2, stride=2, bias=False))

        def up(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False), *blocks(outputs))

        self.m_head = nn.Conv2d(config.channels + 1, first, 3, padding=1, bias=False)
        self.m_down1 = down(first, second)
        self.m_down2 = down(second, third)
        self.m_down3 = down(third, fourth)
        # A single block is not wrapped in the published code, and so has no number in its names.
        body = blocks(fourth)
        self.m_body = body[0] if len(body) == 1 else nn.Sequential(*body)
        self.m_up3 = up(fourth, third)
        self.m_up2 = up(third, second)
        self.m_up1 = up(second, first)
        self.m_tail = nn.Conv2d(first, config.channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.to(x.dtype).view(-1, 1, 1, 1).expand(x.shape[0], 1, *x.shape[-2:])
        x1 = self.m_head(torch.cat([x, level], dim=1))
        x2 = self.m_down1(x1)
        x3 = self.m_down2(x2)
        x4 = self.m_down3(x3)
        h = self.m_up3(self.m_body(x4) + x4)
        h = self.m_up2(h + x3)
        h = self.m_up1(h + x2)
        return self.m_tail(h + x1)
