"""ADM, the U-Net of guided-diffusion (Dhariwal and Nichol 2021, "Diffusion models beat GANs", section 3).

As in guided-diffusion (commit 22e0df8, guided_diffusion/unet.py), unconditional: residual blocks told the time step by
scale and shift, attention of several heads, resampling inside residual blocks. Modules carry the published tensor
names, so that a published state dict is this network's own.

Input (B, C, H, W) in sqrt(abar) [-1, 1] plus noise, steps (B,) from 0 to 999; output: the noise (B, C, H, W) and,
with a learned variance, C more channels that place it between its bounds. Any size whose sides are multiples of
``2^(levels - 1)``, with attention that was trained at another size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.models.networks.layers import LevelsConfig, attend, double_and_convolve, embed_level, named, sinusoids


@dataclass(frozen=True)
class ADMConfig(LevelsConfig):
    """Architecture of one network; see :class:`LevelsConfig` for the first five.

    Attributes:
        head_channels: channels per attention head (``num_head_channels``); 0: ``heads`` decides.
        heads: attention heads, where ``head_channels`` is 0.
        learned_variance: the output has C more channels (``learn_sigma``).
        scale_shift: the time step scales and shifts the second norm (``use_scale_shift_norm``); else it is added.
        resample_in_blocks: halving and doubling happen inside residual blocks (``resblock_updown``); else in a strided
            convolution, and in one after repeating pixels.
        query_key_value_first: channels are split into query, key and value before they are split into heads
            (``use_new_attention_order``); published files are the other way round.
    """

    width: int = 256
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    attention_levels: tuple[int, ...] = (3, 4, 5)
    head_channels: int = 64
    heads: int = 4
    learned_variance: bool = True
    scale_shift: bool = True
    resample_in_blocks: bool = True
    query_key_value_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head_channels and self.heads < 1:
            raise ValueError(f"attention needs at least one head, got heads={self.heads}")
        split = f"heads of {self.head_channels} channels" if self.head_channels else f"{self.heads} heads"
        for level in (*self.attention_levels, -1):
            width = self.widths[level]
            if self.head_channels < 0 or width % (self.head_channels or self.heads):
                raise ValueError(f"attention layers of {width} channels cannot be split into {split}")


class Stage(nn.ModuleList):
    """Modules of which the residual blocks are also told the time step."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for module in self:
            x = module(x, embedding) if isinstance(module, ResidualBlock) else module(x)
        return x


class ResidualBlock(nn.Module):
    """Norm, swish, (resample), conv, norm scaled and shifted by the time step, swish, conv; plus the input."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, scale_shift: bool, resample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, (2 if scale_shift else 1) * outputs))
        # The identity stands where training has dropout, so that the numbers of the published names fit.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, swish, conv = self.in_layers
        h = swish(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        # The embedding has been through swish already: see ``embed_level``.
        told = self.emb_layers[1](embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    """Self-attention over all pixels in several heads, with a residual connection."""

    def __init__(self, channels: int, head_channels: int, query_key_value_first: bool) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.query_key_value_first = query_key_value_first
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv, size = self.qkv(self.norm(x.flatten(2))), self.head_channels
        if self.query_key_value_first:
            parts = qkv.unflatten(1, (3, -1, size)).unbind(1)
        else:
            parts = qkv.unflatten(1, (-1, 3, size)).unbind(2)
        return x + self.proj_out(attend(*parts)).view(x.shape)


class ADM(nn.Module):
    """The network: ``net(x, t)``, see the module's text."""

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, config.multiple
        embedding, widths = 4 * config.width, config.widths
        self.time_embed = nn.Sequential(nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def block(inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, config.scale_shift, resample)

        def attention(channels: int) -> Attention:
            return Attention(channels, config.head_channels or channels // config.heads, config.query_key_value_first)

        def at(level: int, channels: int) -> Iterable[nn.Module]:
            return [attention(channels)] if level in config.attention_levels else []

        def halve(width: int) -> nn.Module:
            if config.resample_in_blocks:
                return block(width, width, nn.AvgPool2d(2))
            return named(op=nn.Conv2d(width, width, 3, stride=2, padding=1))

        def double(width: int) -> nn.Module:
            if config.resample_in_blocks:
                return block(width, width, nn.Upsample(scale_factor=2))
            return double_and_convolve(width)

        current, skips = config.width, [config.width]
        steps = [Stage([nn.Conv2d(config.channels, current, 3, padding=1)])]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                steps.append(Stage([block(current, width), *at(level, width)]))
                current = width
                skips.append(current)
            if level + 1 < len(widths):
                steps.append(Stage([halve(width)]))
                skips.append(current)
        self.input_blocks = nn.ModuleList(steps)
        self.middle_block = Stage([block(current, current), attention(current), block(current, current)])

        steps = []
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.blocks + 1):
                parts = [block(current + skips.pop(), width), *at(level, width)]
                if level > 0 and index == config.blocks:
                    parts.append(double(width))
                steps.append(Stage(parts))
                current = width
        self.output_blocks = nn.ModuleList(steps)
        outputs = config.channels * (2 if config.learned_variance else 1)
        self.out = nn.Sequential(nn.GroupNorm(32, current), nn.SiLU(), nn.Conv2d(current, outputs, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        width = self.config.width
        first, _, second = self.time_embed
        embedding = embed_level(sinusoids(time, width, divisor=width // 2, sine_first=False).to(x.dtype), first, second)
        skips = []
        for step in self.input_blocks:
            x = step(x, embedding)
            skips.append(x)
        x = self.middle_block(x, embedding)
        for step in self.output_blocks:
            x = step(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)
