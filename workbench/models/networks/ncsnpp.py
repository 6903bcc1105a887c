"""NCSN++ and DDPM++ (Song et al., "Score-based generative modeling through SDEs", ICLR 2021, appendix H).

One U-Net serves both: residual blocks in BigGAN order, optional FIR resampling, optional input and output pyramids.
It computes what ``score_sde_pytorch`` (commit cb1f359, models/ncsnpp.py) computes for every published configuration
and takes its weights through ``score_sde.py`` beside this file; the names here are ours. Compared with the published
code the network also runs on any size whose sides are multiples of ``2^(levels - 1)``.

Input (B, C, H, W) in [-1, 1] (plus noise), conditioning (B,), output (B, C, H, W): the raw network output. What it
means (score, noise, preconditioned image) and in which range is the adapter's business (``adapters.py``).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.networks.layers import Filter, LevelsConfig, double, embed_level, halve, sinusoids
from workbench.text import require

SQRT2 = math.sqrt(2.0)


@dataclass(frozen=True)
class NCSNppConfig(LevelsConfig):
    """Architecture of one network, as the published configuration files set it; see :class:`LevelsConfig` for the
    first five.

    Attributes:
        middle_attention: attention between the two middle blocks. Always there in published networks; without it and
            without ``attention_levels`` the network is fully convolutional.
        embedding: "fourier" (of log sigma, random frequencies) or "positional" (sinusoids of the conditioning).
        fourier_scale: standard deviation of the random frequencies.
        fir: antialiased [1, 3, 3, 1] resampling; otherwise average pooling and nearest neighbour.
        input_pyramid: "none", "input_skip" or "residual".
        output_pyramid: "none" or "output_skip".
        dropout: probability.
        sigmas: number of entries of the (inert) buffer that published VE and VP files hold; 0 leaves it out.
    """

    blocks: int = 4
    middle_attention: bool = True
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    fir: bool = True
    input_pyramid: str = "residual"
    output_pyramid: str = "none"
    dropout: float = 0.0
    sigmas: int = 0

    width_step: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (
            ("embedding", ("fourier", "positional")),
            ("input_pyramid", ("none", "input_skip", "residual")),
            ("output_pyramid", ("none", "output_skip")),
        ):
            value = getattr(self, name)
            require(value in known, name, f"one of {', '.join(known)}", repr(value))


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def conv3x3(inputs: int, outputs: int, scale: float = 1.0) -> nn.Conv2d:
    """3x3 convolution with the published initialisation: uniform with variance ``scale / mean(fan in, fan out)``."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    initialise(layer, scale)
    return layer


def initialise(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    receptive = layer.weight[0, 0].numel()
    fan = 0.5 * receptive * (layer.weight.shape[0] + layer.weight.shape[1])
    bound = math.sqrt(3 * max(scale, 1e-10) / fan)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class FourierEmbedding(nn.Module):
    """``[sin, cos](2 pi W log sigma)`` with fixed random W: (B,) to (B, 2 width)."""

    frequencies: Tensor

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width) * scale)

    def forward(self, sigma: Tensor) -> Tensor:
        angle = sigma.log()[:, None] * self.frequencies[None] * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResidualBlock(nn.Module):
    """BigGAN-style residual block, resampling inside: norm, swish, (resample), conv, + embedding, norm, swish, conv."""

    def __init__(self, config: NCSNppConfig, inputs: int, outputs: int, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.norm_in = group_norm(inputs)
        self.conv_in = conv3x3(inputs, outputs)
        self.embed = nn.Linear(4 * config.width, outputs)
        initialise(self.embed)
        self.norm_out = group_norm(outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = conv3x3(outputs, outputs, scale=0.0)
        self.resample = resample
        self.shortcut: nn.Conv2d | None = None
        if inputs != outputs or resample is not None:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
            initialise(self.shortcut)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm_in(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv_in(h) + self.embed(embedding)[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return (x + h) / SQRT2


class Attention(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            initialise(layer, scale=0.1)
        initialise(self.out, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            self.query(tokens)[:, None], self.key(tokens)[:, None], self.value(tokens)[:, None]
        )[:, 0]
        return (x + self.out(mixed).transpose(1, 2).reshape(x.shape)) / SQRT2


class PyramidDown(nn.Sequential):
    """FIR filter followed by a strided 3x3 convolution (the "residual" input pyramid)."""

    def __init__(self, inputs: int, outputs: int, fir: bool) -> None:
        conv = nn.Conv2d(inputs, outputs, 3, stride=2)
        initialise(conv)
        before = Filter(stride=1, padding=2) if fir else nn.ZeroPad2d((0, 1, 0, 1))
        super().__init__(OrderedDict(before=before, conv=conv))


class Combine(nn.Conv2d):
    """A 1x1 convolution from the image to the features that it is added to (the "input_skip" input pyramid)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        initialise(self)


class OutputHead(nn.Sequential):
    """Norm, swish, 3x3 convolution to image channels."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(group_norm(inputs), nn.SiLU(), conv3x3(inputs, channels, scale=0.0))


class DownLevel(nn.Module):
    """Blocks (with attention) at one size, then the halving and the input pyramid, absent at the last level."""

    def __init__(self, config: NCSNppConfig, level: int, inputs: int, pyramid: int) -> None:
        super().__init__()
        outputs = config.widths[level]
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleList()
        for block in range(config.blocks):
            source = inputs if block == 0 else outputs
            self.blocks.append(ResidualBlock(config, source, outputs))
            if level in config.attention_levels:
                self.attentions.append(Attention(outputs))
        self.down: ResidualBlock | None = None
        self.pyramid_down: nn.Module | None = None
        self.combine: Combine | None = None
        if level + 1 < len(config.multipliers):
            self.down = ResidualBlock(config, outputs, outputs, halve(config.fir))
            if config.input_pyramid == "input_skip":
                self.pyramid_down = halve(config.fir)
                self.combine = Combine(pyramid, outputs)
            elif config.input_pyramid == "residual":
                self.pyramid_down = PyramidDown(pyramid, outputs, config.fir)

    def forward(self, skips: list[Tensor], pyramid: Tensor, embedding: Tensor) -> Tensor:
        """Append every feature map to ``skips``; return the pyramid for the next level."""
        for index, block in enumerate(self.blocks):
            h = block(skips[-1], embedding)
            skips.append(self.attentions[index](h) if self.attentions else h)
        if self.down is None:
            return pyramid
        h = self.down(skips[-1], embedding)
        if self.pyramid_down is not None:
            pyramid = self.pyramid_down(pyramid)
            if self.combine is not None:
                h = self.combine(pyramid) + h
            else:
                h = pyramid = (pyramid + h) / SQRT2
        skips.append(h)
        return pyramid


class UpLevel(nn.Module):
    """Blocks on [features, skip], one attention, the output pyramid's head, then the doubling (absent at level 0)."""

    def __init__(self, config: NCSNppConfig, level: int, inputs: int, skips: list[int]) -> None:
        super().__init__()
        outputs = config.widths[level]
        self.blocks = nn.ModuleList()
        for block in range(config.blocks + 1):
            source = (inputs if block == 0 else outputs) + skips.pop()
            self.blocks.append(ResidualBlock(config, source, outputs))
        self.attention = Attention(outputs) if level in config.attention_levels else None
        self.head = OutputHead(outputs, config.channels) if config.output_pyramid == "output_skip" else None
        self.up = ResidualBlock(config, outputs, outputs, double(config.fir)) if level > 0 else None

    def forward(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """The features for the next level, and this level's part of the output pyramid."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        if self.attention is not None:
            h = self.attention(h)
        image = self.head(h) if self.head is not None else None
        return (self.up(h, embedding) if self.up is not None else h), image


class NCSNpp(nn.Module):
    """The network. ``net(x, conditioning)``: x (B, C, H, W) in [-1, 1] plus noise, conditioning (B,), sigma > 0 for
    Fourier embeddings and a time step for positional ones; returns the raw output (B, C, H, W).
    """

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, config.multiple
        fourier = config.embedding == "fourier"
        self.embedding = FourierEmbedding(config.width, config.fourier_scale) if fourier else None
        self.embed_in = nn.Linear((2 if fourier else 1) * config.width, 4 * config.width)
        self.embed_out = nn.Linear(4 * config.width, 4 * config.width)
        initialise(self.embed_in)
        initialise(self.embed_out)
        self.first = conv3x3(config.channels, config.width)

        skips, inputs, pyramid = [config.width], config.width, config.channels
        self.down = nn.ModuleList()
        for level, width in enumerate(config.widths):
            self.down.append(DownLevel(config, level, inputs, pyramid))
            inputs = width
            skips += [inputs] * (config.blocks + (level + 1 < len(config.widths)))
            if config.input_pyramid == "residual":
                pyramid = inputs
        self.middle_in = ResidualBlock(config, inputs, inputs)
        self.middle_attention = Attention(inputs) if config.middle_attention else None
        self.middle_out = ResidualBlock(config, inputs, inputs)
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(config.widths))):
            self.up.append(UpLevel(config, level, inputs, skips))
            inputs = width
        self.pyramid_up = double(config.fir)
        self.head = OutputHead(inputs, config.channels) if config.output_pyramid == "none" else None
        if config.sigmas:
            self.register_buffer("sigmas", torch.zeros(config.sigmas, dtype=torch.float64))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        if self.embedding is not None:
            features = self.embedding(conditioning)
        else:
            width = self.config.width
            features = sinusoids(conditioning, width, divisor=width // 2 - 1, sine_first=True)
        embedding = embed_level(features.to(x.dtype), self.embed_in, self.embed_out)
        skips, pyramid = [self.first(x)], x
        for down in self.down:
            pyramid = down(skips, pyramid, embedding)
        h = self.middle_in(skips[-1], embedding)
        if self.middle_attention is not None:
            h = self.middle_attention(h)
        h = self.middle_out(h, embedding)
        image: Tensor | None = None
        for up in self.up:
            h, part = up(h, skips, embedding)
            if part is not None:
                image = part if image is None else self.pyramid_up(image) + part
        if self.head is not None:
            return self.head(h)
        assert image is not None
        return image
