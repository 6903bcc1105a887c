"""The U-Net of DDPM (Ho et al. 2020, appendix B) as in ``pytorch_diffusion`` (commit 304bdff, model.py).

CIFAR-10, LSUN and CelebA-HQ checkpoints of that code, of DDIM, DDRM and DDNM ("simple" models) have this layout.
Modules carry the published tensor names, so that a published state dict is this network's own.

Input (B, C, H, W) in sqrt(abar) [-1, 1] plus noise, steps (B,) from 0 to 999; output: the noise (B, C, H, W). Any size
whose sides are multiples of ``2^(levels - 1)``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.networks.layers import (
    LevelsConfig,
    attend,
    double,
    double_and_convolve,
    embed_level,
    halve,
    named,
    sinusoids,
)


@dataclass(frozen=True)
class DDPMConfig(LevelsConfig):
    """Architecture of one network; see :class:`LevelsConfig` for the first five.

    Attributes:
        convolve_resampling: halving is a strided convolution and doubling is followed by one (``resamp_with_conv``);
            otherwise average pooling and nearest neighbour.
        outputs: output channels, if not ``channels``.
    """

    convolve_resampling: bool = True
    outputs: int | None = None


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Norm, swish, conv, + embedding, norm, swish, conv; a 1x1 convolution beside it where the width changes."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, outputs)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h


class Attention(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        parts = (layer(h).flatten(2)[:, None] for layer in (self.q, self.k, self.v))  # one head
        return x + self.proj_out(attend(*parts).view(x.shape))


def halve_and_convolve(channels: int) -> nn.Sequential:
    """Halve the size by a convolution that pads below and to the right only."""
    return named(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(channels, channels, 3, stride=2))


class Level(nn.Module):
    """Blocks at one size, each with its attention if there is any, and the change to the next size."""

    def __init__(self, inputs: list[int], outputs: int, embedding: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(channels, outputs, embedding) for channels in inputs)
        self.attn = nn.ModuleList(Attention(outputs) for _ in inputs if attention)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def apply_block(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.block[index](x, embedding)
        return self.attn[index](x) if self.attn else x


class DDPM(nn.Module):
    """The network: ``net(x, t)``, see the module's text."""

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, config.multiple
        widths, embedding, convolve = config.widths, 4 * config.width, config.convolve_resampling
        dense = [nn.Linear(config.width, embedding), nn.Linear(embedding, embedding)]
        self.temb = nn.ModuleDict({"dense": nn.ModuleList(dense)})
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)

        skips, current = [config.width], config.width
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = [current] + [width] * (config.blocks - 1)
            stage = Level(inputs, width, embedding, level in config.attention_levels)
            skips += [width] * config.blocks
            if level + 1 < len(widths):
                stage.downsample = halve_and_convolve(width) if convolve else halve()
                skips.append(width)
            self.down.append(stage)
            current = width
        self.mid = nn.ModuleDict(
            {
                "block_1": ResidualBlock(current, current, embedding),
                "attn_1": Attention(current),
                "block_2": ResidualBlock(current, current, embedding),
            }
        )
        for level, width in reversed(list(enumerate(widths))):
            inputs = [previous + skips.pop() for previous in [current] + [width] * config.blocks]
            stage = Level(inputs, width, embedding, level in config.attention_levels)
            if level > 0:
                stage.upsample = double_and_convolve(width) if convolve else double()
            self.up.insert(0, stage)
            current = width
        self.norm_out = group_norm(current)
        self.conv_out = nn.Conv2d(current, config.outputs or config.channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        # log(10000) over (pairs - 1): the DDPM convention; ADM divides by the number of pairs.
        features = sinusoids(time, self.config.width, divisor=self.config.width // 2 - 1, sine_first=True)
        embedding = embed_level(features.to(x.dtype), *self.temb["dense"].children())
        skips = [self.conv_in(x)]
        for stage in self.down.children():
            assert isinstance(stage, Level)
            for index in range(self.config.blocks):
                skips.append(stage.apply_block(index, skips[-1], embedding))
            if stage.downsample is not None:
                skips.append(stage.downsample(skips[-1]))
        h = self.mid["attn_1"](self.mid["block_1"](skips[-1], embedding))
        h = self.mid["block_2"](h, embedding)
        for stage in reversed(self.up):
            assert isinstance(stage, Level)
            for index in range(self.config.blocks + 1):
                h = stage.apply_block(index, torch.cat([h, skips.pop()], dim=1), embedding)
            if stage.upsample is not None:
                h = stage.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))
