"""What several published U-Nets share."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.text import require


@dataclass(frozen=True)
class LevelsConfig:
    """Architecture of one network, as far as ADM, DDPM and NCSN++ share it.

    Attributes:
        channels: image channels.
        width: channels of the first level (``num_channels``, ``ch``, ``nf``).
        multipliers: channels per level as multiples of ``width`` (``channel_mult``, ``ch_mult``); level i has 1/2^i of
            the size.
        blocks: residual blocks per level (``num_res_blocks``).
        attention_levels: levels with attention after each block (``attention_resolutions``, ``attn_resolutions``, as
            level numbers).

    Raises:
        ValueError: a width that group normalisation cannot divide.
    """

    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)

    width_step: ClassVar[int] = 32

    def __post_init__(self) -> None:
        fits, expected = self.width % self.width_step == 0 < self.width, f"a positive multiple of {self.width_step}"
        require(fits, "width", f"{expected} (group normalisation)", self.width)
        # JSON turns tuples into lists; equality and hashing need tuples.
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention_levels", tuple(self.attention_levels))

    @property
    def widths(self) -> list[int]:
        """Channels per level."""
        return [self.width * multiplier for multiplier in self.multipliers]

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return 2 ** (len(self.multipliers) - 1)


def named(**modules: nn.Module) -> nn.Sequential:
    """The modules in sequence, under names of published tensors."""
    return nn.Sequential(OrderedDict(modules))


def double_and_convolve(channels: int) -> nn.Sequential:
    """Double the size by repeating pixels, then a convolution."""
    return named(up=double(), conv=nn.Conv2d(channels, channels, 3, padding=1))


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a tensor made in inference mode could never be used in training
def fir_kernel(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The separable [1, 3, 3, 1] filter with sum ``gain``: (1, 1, 4, 4)."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8
    return gain * torch.outer(row, row)[None, None]


class Filter(nn.Module):
    """The [1, 3, 3, 1] filter that doubles the size (``up``), or halves it (``stride`` 2, ``padding`` 1)."""

    def __init__(self, up: bool = False, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.up, self.stride, self.padding = up, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = fir_kernel(4.0 if self.up else 1.0, x.dtype, x.device).expand(channels, 1, 4, 4)
        filtered = F.conv_transpose2d if self.up else F.conv2d
        return filtered(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


def halve(fir: bool = False) -> nn.Module:
    """Half the size by averages of 2x2 pixels, or by the filter."""
    return Filter() if fir else nn.AvgPool2d(2)


def double(fir: bool = False) -> nn.Module:
    """Double the size by repeating pixels, or by the filter."""
    return Filter(up=True) if fir else nn.Upsample(scale_factor=2)


def sinusoids(time: Tensor, width: int, *, divisor: float, sine_first: bool) -> Tensor:
    """Transformer sinusoids of a time step, largest period 10,000: (B,) to (B, width), in the dtype of ``time``.

    Args:
        divisor: of the exponents' ramp: ``width / 2`` (ADM) or ``width / 2 - 1`` (DDPM).
        sine_first: [sin, cos] (DDPM) or [cos, sin] (ADM).
    """
    ramp = torch.arange(width // 2, dtype=time.dtype, device=time.device)
    angle = time[:, None] * torch.exp(-math.log(10000) / divisor * ramp)[None]
    parts = (angle.sin(), angle.cos()) if sine_first else (angle.cos(), angle.sin())
    return torch.cat(parts, dim=1)


def embed_level(features: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Two layers on the features (B, F) of a noise level, a swish after each.

    Every residual block applies the second swish before its own layer: once here is the same and cheaper.
    """
    return F.silu(second(F.silu(first(features))))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention among N pixels, each part (B, heads, channels per head, N): to (B, heads * channels per head, N)."""
    # Contiguous: on a processor, attention over the transposed view takes 2.6 times as long.
    query, key, value = (part.transpose(2, 3).contiguous() for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(1, 2)
