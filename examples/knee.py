"""Magnetic resonance: eight simulated coils, a quarter of the columns of k-space."""

import sys

import torch
from skimage.data import shepp_logan_phantom

from workbench.images import save_image
from workbench.operators import MultiCoil, cartesian_mask


def coil_maps(count: int, height: int, width: int) -> torch.Tensor:
    """Complex (count, H, W): coils in a ring, each sees what is near it; squared moduli add up to 1."""
    down, right = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    places = 1.5 * torch.exp(2j * torch.pi * torch.arange(count) / count)
    maps = 1 / (down[:, None] + 1j * right - places[:, None, None])
    return maps / maps.abs().square().sum(0).sqrt()


def knee(image_shape: tuple[int, int, int]) -> MultiCoil:
    """Eight coils, one of four columns of k-space."""
    _, height, width = image_shape
    mask = cartesian_mask((height, width), acceleration=4, generator=torch.Generator().manual_seed(0))
    return MultiCoil(mask, coil_maps(8, height, width), tolerance=1e-3)


if __name__ == "__main__":  # python examples/knee.py phantom.png
    phantom = torch.from_numpy(shepp_logan_phantom()).float()
    save_image(phantom.clamp(0, 1).expand(1, 1, -1, -1), sys.argv[1])
