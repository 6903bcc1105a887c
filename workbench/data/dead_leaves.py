"""Synthetic images with exact edges and clean surfaces, which photos with grain and JPEG artefacts lack.

Leaves that fall on each other (Lee, Mumford and Huang 2001), as training images for denoising (Achddou, Gousseau and
Ladjal 2021): radii with density r^-3, colours of real photos. Here leaves are turned ellipses and rounded rectangles,
each with a linear shade.
"""

import math

import torch
from torch import Tensor

LEAVES = 250


def dead_leaves(count: int, size: int, palette: Tensor, generator: torch.Generator) -> Tensor:
    """``count`` images uint8 (count, size, size, 3) on the device of ``palette``, colours drawn from its rows.

    Args:
        palette: colours (N, 3), uint8.
        generator: on the same device.
    """
    device, side = palette.device, 2 * size  # twice the size, then averaged: edges are antialiased

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def colours() -> Tensor:
        rows = torch.randint(len(palette), (count,), generator=generator, device=device)
        return palette[rows].float()[:, :, None, None] / 255

    axis = torch.arange(side, device=device) + 0.5
    picture = colours().expand(count, 3, side, side).contiguous()
    smallest, largest = 6.0, side / 2
    for _ in range(LEAVES):
        # Inverse of the distribution function of r^-3 on [smallest, largest].
        radius = (smallest**-2 - uniform(count) * (smallest**-2 - largest**-2)) ** -0.5
        turn, aspect = uniform(count) * math.pi, 0.3 + 0.7 * uniform(count)
        x = axis - (uniform(count) * side)[:, None]
        y = axis - (uniform(count) * side)[:, None]
        cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
        along = (x[:, None, :] * cosine + y[:, :, None] * sine) / radius[:, None, None]
        across = (y[:, :, None] * cosine - x[:, None, :] * sine) / (radius * aspect)[:, None, None]
        power = torch.where(uniform(count) < 0.5, 2, 8)[:, None, None]
        inside = (along.abs() ** power + across.abs() ** power <= 1)[:, None]
        shade = (0.4 * (uniform(count) - 0.5) * (uniform(count) < 0.5))[:, None, None, None] * along[:, None]
        picture = torch.where(inside, colours() + shade, picture)
    small = torch.nn.functional.avg_pool2d(picture.clamp(0, 1), 2)
    return (small * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
