"""A perceptual distance of our own, for where the weights of LPIPS are absent: a small network that comes along."""

from workbench.perceptual.distance import (
    PerceptualTiny,
    perceptual_tiny,
    perceptual_tiny_card,
    perceptual_tiny_unavailable,
)

__all__ = ["PerceptualTiny", "perceptual_tiny", "perceptual_tiny_card", "perceptual_tiny_unavailable"]
