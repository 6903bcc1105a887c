"""The network of the ``photo`` prior: a U-Net that starts at half resolution and has no normalisation.

Pixels are unshuffled 2x2, as FFDNet does it (Zhang et al. 2018), and most of the work is done there; the levels below
see more of the image at little cost. Blocks are those of DRUNet (Zhang et al. 2021) with a scale and shift from the
noise level in between; skips are added, as in DRUNet. Without normalisation the network keeps the local brightness and
contrast that a denoiser must return; it was worth 0.6 dB (``docs/photo.md``).

Input (B, C, H, W) with unit variance and a noise level (B,), as :class:`~workbench.models.adapters.EDMPrecond` gives
them; output (B, C, H, W), twice as many channels with a ``direct`` output. Sides must be multiples of ``2^levels``.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.models.networks.layers import embed_level

FREQUENCIES = 16


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of one network.

    Attributes:
        channels: image channels.
        widths: feature channels per level; level 0 is at half resolution.
        blocks: residual blocks per level, on the way down and as many on the way up.
        heads: heads of the attention between the two ways at the coarsest level, 0 for none.
        embedding: width of the noise level's embedding.
        direct: a second output, added to the image as it is. Preconditioning scales the first by the noise level, so
            that at level 0 nothing but the identity can be learned; a denoiser that is trained to restore (MTDEQ) has
            to do more than that.
    """

    channels: int = 3
    widths: tuple[int, ...] = (64, 96, 128)
    blocks: tuple[int, ...] = (5, 2, 2)
    heads: int = 0
    embedding: int = 128
    direct: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        numbers = (self.channels, self.embedding, *self.widths, *self.blocks)
        if not self.widths or len(self.widths) != len(self.blocks) or min(numbers) < 1 or self.heads < 0:
            raise ValueError(f"expected one positive width and number of blocks per level, got {self}")
        if self.heads and self.widths[-1] % self.heads:
            raise ValueError(f"{self.widths[-1]} channels of the coarsest level cannot be shared by {self.heads} heads")


class LevelEmbedding(nn.Module):
    """Noise level (B,) to (B, width): waves of ``ln(level) / 4`` (Karras et al. 2022, table 1) and two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * FREQUENCIES, width)
        self.second = nn.Linear(width, width)

    def forward(self, level: Tensor) -> Tensor:
        # ln(level) / 4 spans about 2.7: from half a period over the whole range to one over a factor of 1.6.
        low, high = math.log10(0.2), math.log10(8.0)
        frequencies = torch.logspace(low, high, FREQUENCIES, dtype=level.dtype, device=level.device)
        angle = 2 * math.pi * (level.log() / 4)[:, None] * frequencies
        features = torch.cat([angle.cos(), angle.sin()], dim=1).to(self.first.weight.dtype)
        return embed_level(features, self.first, self.second)


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Block(nn.Module):
    """``x + conv(silu(scale * conv(x) + shift))``; scale and shift are told by the noise level. Starts as identity."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        _start_at_zero(self.modulate)
        _start_at_zero(self.conv_out)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        return x + self.conv_out(F.silu(torch.addcmul(shift, self.conv_in(x), 1 + scale)))


class Attention(nn.Module):
    """Self-attention among all pixels, with a residual connection. Starts as identity.

    Queries and keys have length 1 and a learned temperature per head (Henry et al. 2020, "Query-key normalization"):
    their products stay bounded on images of any size and brightness.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), 8.0))
        _start_at_zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        query = F.normalize(query, dim=-1) * self.temperature
        key = F.normalize(key, dim=-1)
        mixed = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value, scale=1.0)
        return x + self.out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


def _through(blocks: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for block in blocks.children():
        h = block(h, embedding)
    return h


class UNet(nn.Module):
    """The network: ``net(x, level)``, see the module's text."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.multiple = config, 2 ** len(config.widths)
        widths, channels = config.widths, config.channels

        def blocks(level: int) -> nn.ModuleList:
            return nn.ModuleList(Block(widths[level], config.embedding) for _ in range(config.blocks[level]))

        pairs = list(pairwise(widths))
        self.level = LevelEmbedding(config.embedding)
        self.head = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(level) for level in range(len(widths)))
        self.shrink = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in pairs)
        self.attention = Attention(widths[-1], config.heads) if config.heads else None
        self.up = nn.ModuleList(blocks(level) for level in range(len(widths)))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, stride=2) for wide, deep in pairs)
        self.tail = nn.Conv2d(widths[0], 4 * channels * (1 + config.direct), 3, padding=1)
        _start_at_zero(self.tail)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        embedding = self.level(level)
        h = self.head(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for number, blocks in enumerate(self.down):
            h = _through(blocks, h, embedding)
            if number < len(self.shrink):
                skips.append(h)
                h = self.shrink[number](h)
        if self.attention is not None:
            h = self.attention(h)
        for number in reversed(range(len(self.up))):
            if number < len(self.grow):
                h = self.grow[number](h) + skips.pop()
            h = _through(self.up[number], h, embedding)
        return F.pixel_shuffle(self.tail(h), 2)


def grown(net: UNet, **changes: Any) -> UNet:
    """A copy of ``net`` with parts that it lacks (``heads``, ``direct``), which start as nothing: the same function."""
    larger = UNet(replace(net.config, **changes))
    state = larger.state_dict()
    for name, tensor in net.state_dict().items():
        state[name].zero_()[: len(tensor)] = tensor
    return larger
