"""What several published U-Nets share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention among the pixels of feature maps (B, C, H, W), the channels of each head side by side."""
    batch, channels, height, width = query.shape
    query, key, value = (
        # Contiguous: on a processor, attention over the transposed view takes 2.6 times as long.
        part.reshape(batch, heads, channels // heads, -1).transpose(2, 3).contiguous()
        for part in (query, key, value)
    )
    return F.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(batch, channels, height, width)


def nearest_up(x: Tensor) -> Tensor:
    """Double the size by repeating pixels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
