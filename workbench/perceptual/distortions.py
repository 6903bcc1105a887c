"""Distortions of known strength, and what a distance makes of them: how perceptual-tiny is checked."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from skimage.filters import gaussian
from torch import Tensor

from workbench.images import to_uint8
from workbench.random import generator

Distortion = Callable[[Tensor, float], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of standard deviation ``sigma`` pixels, mirrored at the border; images are (B, C, H, W)."""
    blurred = gaussian(images.numpy(), sigma=(0, 0, sigma, sigma), mode="mirror", truncate=3)
    return torch.from_numpy(blurred).to(images)


def noise(images: Tensor, sigma: float) -> Tensor:
    """White Gaussian noise of standard deviation ``sigma`` for a range of [0, 1], clipped to it; always the same."""
    drawn = torch.randn(images.shape, generator=generator(0), dtype=images.dtype)
    return (images + sigma * drawn).clamp(0, 1)


def jpeg(images: Tensor, quality: float) -> Tensor:
    """JPEG compression by Pillow at ``quality`` from 1 to 95; smaller is stronger."""
    decoded = []
    for pixels in to_uint8(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
        decoded.append(np.array(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255


def shift(images: Tensor, pixels: float) -> Tensor:
    """A shift to the right by whole ``pixels``; columns that leave come in again on the left."""
    return images.roll(int(pixels), dims=-1)


# Each with strengths that grow from just visible to strong.
DISTORTIONS: dict[str, tuple[Distortion, tuple[float, ...]]] = {
    "blur, σ in pixels": (blur, (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)),
    "noise, σ × 255": (lambda images, level: noise(images, level / 255), (5, 10, 20, 35, 50, 80)),
    "JPEG, quality": (jpeg, (90, 70, 50, 30, 15, 5)),
    "shift in pixels": (shift, (1, 2, 3, 4, 6)),
}


def ladder(distance: Distance, images: Tensor, distortion: Distortion, strengths: Sequence[float]) -> Tensor:
    """The distance of each image from its distorted self, (strengths, B)."""
    return torch.stack([distance(distortion(images, strength), images) for strength in strengths])


def rising(distances: Tensor) -> float:
    """Share of the images (columns) whose distances grow at every step of a :func:`ladder`."""
    steps = distances.diff(dim=0, prepend=torch.zeros_like(distances[:1]))
    return float((steps > 0).all(dim=0).double().mean())


def at_equal_error(images: Tensor, distance: Distance, pixels: int = 1) -> Mapping[str, Tensor]:
    """Distances (B,) of three distortions that cost each image the same mean squared error.

    The error is that of a shift by ``pixels``; the noise is scaled to it, and the blur is searched for. Images that no
    blur changes as much are left out: all three are of the same images.
    """
    shifted = shift(images, pixels)
    error = (shifted - images).square().mean(dim=(1, 2, 3), keepdim=True)
    drawn = torch.randn(images.shape, generator=generator(0), dtype=images.dtype)
    noisy = images + error.sqrt() * drawn / drawn.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    blurred, found = images.clone(), torch.zeros(len(images), dtype=torch.bool)
    for sigma in np.geomspace(0.3, 8, 20):  # the first that costs as much or more
        candidate = blur(images, float(sigma))
        change = (candidate - images).square().mean(dim=(1, 2, 3), keepdim=True)
        new = (change >= error).flatten() & ~found
        # Of the way from the image to that blur, as much as costs the error.
        blurred[new] = (images + (candidate - images) * (error / change).sqrt())[new]
        found |= new
    pairs = {"shift": shifted, "blur": blurred, "noise": noisy}
    return {name: distance(other[found], images[found]) for name, other in pairs.items()}
