"""``perceptual-tiny``: how different two images look to a small classifier of our own. It is not LPIPS.

The form is that of Zhang et al. 2018, eq. 1, with all channel weights 1 ("uncalibrated"): the features of each stage
are scaled to length 1 over the channels, and the squared differences are averaged over the positions and summed over
channels and stages,

    d(x, y) = sum_k mean_p |f_k(x)_p - f_k(y)_p|^2,    f_k(x)_p = F_k(x)_p / |F_k(x)_p|.

Features of ReLUs are not negative, so each stage adds at most 2. Values compare restorations of the same photos with
each other; they mean nothing beside those of another network.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.images import clipped_pair
from workbench.perceptual.file import load_network
from workbench.perceptual.network import SMALLEST

WEIGHTS = Path(__file__).with_name("perceptual-tiny.safetensors")
EPSILON = 1e-6  # added to squared lengths: a position without any feature has a finite gradient


class PerceptualTiny(nn.Module):
    """The distance as a differentiable function of both images, for losses: frozen, always in eval mode.

    Args:
        path: a file of :func:`workbench.perceptual.file.save_network`; the one that comes with the package if not
            given.
    """

    def __init__(self, path: str | Path = WEIGHTS) -> None:
        super().__init__()
        self.network, self.card = load_network(path)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualTiny:
        """Stays in eval mode: a loss must not change while a model that holds it is trained."""
        return super().train(False)

    def forward(self, restored: Tensor, original: Tensor) -> Tensor:
        """Distances (B,) of two batches (B, 3, H, W), nominal range [0, 1], not clipped.

        Raises:
            ValueError: the shapes differ, or the images are not of 3 channels and at least 16x16 pixels.
        """
        if restored.shape != original.shape or original.ndim != 4:
            shapes = f"{tuple(restored.shape)} and {tuple(original.shape)}"
            raise ValueError(f"expected two batches (B, C, H, W) of one shape, got {shapes}")
        reason = perceptual_tiny_unavailable(original)
        if reason is not None:
            raise ValueError(reason)
        stages = zip(self.network.features(restored), self.network.features(original), strict=True)
        terms = [(_unit(one) - _unit(other)).square().sum(dim=1).mean(dim=(1, 2)) for one, other in stages]
        return torch.stack(terms).sum(dim=0)


def perceptual_tiny(restored: Tensor, original: Tensor) -> Tensor:
    """Distances (B,), float32, of two batches (B, 3, H, W) of nominal range [0, 1], clipped once; smaller is closer.

    Raises:
        ValueError: the shapes differ, a value is not finite, or :func:`perceptual_tiny_unavailable` says why not.
    """
    restored, original = clipped_pair(restored, original)
    distance = _shipped(str(original.device))
    with torch.no_grad():
        return distance(restored.float(), original.float())


def perceptual_tiny_unavailable(images: Tensor) -> str | None:
    """Why the distance is not defined for ``images`` (B, C, H, W), or None when it is."""
    if images.shape[1] != 3:
        return f"unavailable: perceptual-tiny needs 3 channels, got {images.shape[1]}"
    height, width = images.shape[-2:]
    if min(height, width) < SMALLEST:
        return f"unavailable: perceptual-tiny needs sides of at least {SMALLEST} pixels, got {height}x{width}"
    return None


def perceptual_tiny_card() -> dict[str, Any]:
    """What is known about the network: its data, training and measured quality."""
    return load_network(WEIGHTS)[1]


@lru_cache(maxsize=4)
def _shipped(device: str) -> PerceptualTiny:
    return PerceptualTiny().to(device)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()
