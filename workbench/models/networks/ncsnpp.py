"""NCSN++ and DDPM++ (Song et al., "Score-based generative modeling through SDEs", ICLR 2021, appendix H).

One U-Net serves both: residual blocks in BigGAN order, optional FIR resampling, optional input and output pyramids.
It computes what ``score_sde_pytorch`` (commit cb1f359, models/ncsnpp.py) computes for every published configuration
and takes its weights through ``score_sde.py`` beside this file; the names here are ours. Compared with the published
code the network also runs on any size whose sides are multiples of ``2^(levels - 1)``.

Input (B, C, H, W) in [-1, 1] (plus noise), conditioning (B,), output (B, C, H, W): the raw network output. What it
means (score, noise, preconditioned image) and in which range is the adapter's business (``adapters.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.networks.layers import nearest_up, sinusoids

SQRT2 = math.sqrt(2.0)


@dataclass(frozen=True)
class NCSNppConfig:
    """Architecture of one network; field by field what the published configuration files set.

    Attributes:
        channels: image channels.
        width: channels of the first level (``nf``).
        multipliers: channels per level as multiples of ``width`` (``ch_mult``); level i has 1/2^i of the size.
        blocks: residual blocks per level.
        attention_levels: levels with self-attention after each block (``attn_resolutions``, as level numbers).
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

    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention_levels: tuple[int, ...] = (1,)
    middle_attention: bool = True
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    fir: bool = True
    input_pyramid: str = "residual"
    output_pyramid: str = "none"
    dropout: float = 0.0
    sigmas: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("embedding", self.embedding, ("fourier", "positional")),
            ("input_pyramid", self.input_pyramid, ("none", "input_skip", "residual")),
            ("output_pyramid", self.output_pyramid, ("none", "output_skip")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.width % 4 or self.width < 4:
            raise ValueError(f"width must be a positive multiple of 4 (group normalisation), got {self.width}")
        # JSON turns tuples into lists; equality and hashing need tuples.
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention_levels", tuple(self.attention_levels))


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


class PositionalEmbedding(nn.Module):
    """Transformer sinusoids ``[sin, cos]`` of a time step, largest period 10,000: (B,) to (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        return sinusoids(time, self.width, divisor=self.width // 2 - 1, sine_first=True)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a tensor made in inference mode could never be used in training
def fir_kernel(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The separable [1, 3, 3, 1] filter with sum ``gain``: (1, 1, 4, 4)."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8
    return gain * torch.outer(row, row)[None, None]


class Resample(nn.Module):
    """Halve or double the size, with the [1, 3, 3, 1] filter (``fir``) or by averaging and repeating pixels."""

    def __init__(self, direction: str, fir: bool) -> None:
        super().__init__()
        self.up = direction == "up"
        self.fir = fir

    def forward(self, x: Tensor) -> Tensor:
        if not self.fir:
            return nearest_up(x) if self.up else F.avg_pool2d(x, 2)
        channels = x.shape[1]
        kernel = fir_kernel(4.0 if self.up else 1.0, x.dtype, x.device).expand(channels, 1, 4, 4)
        if self.up:
            return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


class ResidualBlock(nn.Module):
    """BigGAN-style residual block, resampling inside: norm, swish, (resample), conv, + embedding, norm, swish, conv."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, resample: Resample | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm_in = group_norm(inputs)
        self.conv_in = conv3x3(inputs, outputs)
        self.embed = nn.Linear(embedding, outputs)
        initialise(self.embed)
        self.norm_out = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
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


class PyramidDown(nn.Module):
    """FIR filter followed by a strided 3x3 convolution (the "residual" input pyramid)."""

    def __init__(self, inputs: int, outputs: int, fir: bool) -> None:
        super().__init__()
        self.fir = fir
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)
        initialise(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        if not self.fir:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        channels = x.shape[1]
        kernel = fir_kernel(1.0, x.dtype, x.device).expand(channels, 1, 4, 4)
        return self.conv(F.conv2d(x, kernel, padding=2, groups=channels))


class OutputHead(nn.Sequential):
    """Norm, swish, 3x3 convolution to image channels."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(group_norm(inputs), nn.SiLU(), conv3x3(inputs, channels, scale=0.0))


class DownLevel(nn.Module):
    """Blocks (with attention) at one size, then the halving and the input pyramid, absent at the last level."""

    def __init__(self, config: NCSNppConfig, level: int, inputs: int, pyramid: int) -> None:
        super().__init__()
        outputs, embedding = config.width * config.multipliers[level], 4 * config.width
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleList()
        for block in range(config.blocks):
            source = inputs if block == 0 else outputs
            self.blocks.append(ResidualBlock(source, outputs, embedding, dropout=config.dropout))
            if level in config.attention_levels:
                self.attentions.append(Attention(outputs))
        self.down: ResidualBlock | None = None
        self.pyramid_down: nn.Module | None = None
        self.combine: nn.Conv2d | None = None
        if level + 1 < len(config.multipliers):
            resample = Resample("down", config.fir)
            self.down = ResidualBlock(outputs, outputs, embedding, resample=resample, dropout=config.dropout)
            if config.input_pyramid == "input_skip":
                self.pyramid_down = Resample("down", config.fir)
                self.combine = nn.Conv2d(pyramid, outputs, 1)
                initialise(self.combine)
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
        outputs, embedding = config.width * config.multipliers[level], 4 * config.width
        self.blocks = nn.ModuleList()
        for block in range(config.blocks + 1):
            source = (inputs if block == 0 else outputs) + skips.pop()
            self.blocks.append(ResidualBlock(source, outputs, embedding, dropout=config.dropout))
        self.attention = Attention(outputs) if level in config.attention_levels else None
        self.head = OutputHead(outputs, config.channels) if config.output_pyramid == "output_skip" else None
        self.up: ResidualBlock | None = None
        if level > 0:
            resample = Resample("up", config.fir)
            self.up = ResidualBlock(outputs, outputs, embedding, resample=resample, dropout=config.dropout)

    def forward(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> tuple[Tensor, Tensor | None]:
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
        self.config = config
        levels = len(config.multipliers)
        if config.embedding == "fourier":
            self.embedding: nn.Module = FourierEmbedding(config.width, config.fourier_scale)
        else:
            self.embedding = PositionalEmbedding(config.width)
        features = config.width * (2 if config.embedding == "fourier" else 1)
        self.embed_in = nn.Linear(features, 4 * config.width)
        self.embed_out = nn.Linear(4 * config.width, 4 * config.width)
        initialise(self.embed_in)
        initialise(self.embed_out)
        self.first = conv3x3(config.channels, config.width)

        skips, inputs, pyramid = [config.width], config.width, config.channels
        self.down = nn.ModuleList()
        for level in range(levels):
            self.down.append(DownLevel(config, level, inputs, pyramid))
            inputs = config.width * config.multipliers[level]
            skips += [inputs] * (config.blocks + (level + 1 < levels))
            if config.input_pyramid == "residual":
                pyramid = inputs
        self.middle_in = ResidualBlock(inputs, inputs, 4 * config.width, dropout=config.dropout)
        self.middle_attention = Attention(inputs) if config.middle_attention else None
        self.middle_out = ResidualBlock(inputs, inputs, 4 * config.width, dropout=config.dropout)
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            self.up.append(UpLevel(config, level, inputs, skips))
            inputs = config.width * config.multipliers[level]
        self.pyramid_up = Resample("up", config.fir)
        self.head = OutputHead(inputs, config.channels) if config.output_pyramid == "none" else None
        if config.sigmas:
            self.register_buffer("sigmas", torch.zeros(config.sigmas, dtype=torch.float64))

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return 2 ** (len(self.config.multipliers) - 1)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        embedding = self.embed_out(F.silu(self.embed_in(self.embedding(conditioning).to(x.dtype))))
        # Every block applies swish to the embedding first: once here is the same and cheaper.
        embedding = F.silu(embedding)
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
