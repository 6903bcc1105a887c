"""Losses for :class:`OptimiseNoise`: ``loss(image (B, C, H, W))`` to (B,), smaller is better (DeqIR, eq. 12)."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.evaluation.perceptual import effnet_loss
from workbench.operators.base import Operator
from workbench.operators.checks import check_image

Loss = Callable[[Tensor], Tensor]


def data_distance(op: Operator, y: Tensor) -> Loss:
    """Mean square of ``A x - y``. Noise-free DeqIR has it at 0: for an ``op`` other than the one restored with."""
    return lambda image: (op(image) - y).flatten(1).square().mean(1)


def image_distance(target: Tensor) -> Loss:
    """Mean square distance to ``target`` (B, C, H, W), another restoration of the same photo.

    Raises:
        ValueError: when called with images of another shape.
    """

    def loss(image: Tensor) -> Tensor:
        _same(image, target)
        return (image - target).flatten(1).square().mean(1)

    return loss


def perceptual_distance(target: Tensor, network: str = "effnet") -> Loss:
    """Distance of EfficientNet-Lite0 (not LPIPS, see ``workbench.evaluation.perceptual``) to ``target`` (B, 3, H, W).

    Raises:
        ValueError: the extra ``perceptual`` is not installed, ``network`` is the one that judges; at the first call,
            images that the network does not take.
    """
    distance = effnet_loss(target.device, network)
    return lambda image: distance(image, target)


def colour_distance(reference: Tensor) -> Loss:
    """Distance of the colours to those of ``reference`` (1 or B, 3, H, W), a photo of anything, of any size.

    Colours are what is left of a pixel without its brightness (mean of the channels). Compared are their mean and their
    covariance with the brightness, which says what light and dark parts are tinted like: the sum of squares of both
    differences, the covariance as the regression of colour on brightness.

    Raises:
        ValueError: ``reference`` is not a batch of colour images.
    """
    check_image(reference, 3, "reference")
    wanted = _colours(reference)

    def loss(image: Tensor) -> Tensor:
        return sum(
            ((have - want).square().sum(1) for have, want in zip(_colours(image), wanted, strict=True)),
            image.new_zeros(len(image)),
        )

    return loss


def apart(distance: Callable[[Tensor, Tensor], Tensor] | None = None) -> Loss:
    """Minus the mean distance to the other images of the batch: diverse restorations of one ``y``.

    Args:
        distance: of two batches, to (B,). By default that of EfficientNet-Lite0: it hardly rewards brightness, while by
            a distance of pixels black and white images are furthest from each other.

    Raises:
        ValueError: when called with a single image, or without the extra ``perceptual`` and another distance.
    """

    def loss(image: Tensor) -> Tensor:
        count = len(image)
        if count < 2:
            raise ValueError("images are driven apart within a batch: give at least 2 of the same measurement")
        # Image k beside image k + 1, k + 2, ...: each pair once in each order.
        measure = distance or effnet_loss(image.device)
        turns = [measure(image, image.detach().roll(shift, 0)) for shift in range(1, count)]
        return -torch.stack(turns).mean(0)

    return loss


def _colours(image: Tensor) -> tuple[Tensor, Tensor]:
    brightness = image.mean(1, keepdim=True)
    colour = (image - brightness).flatten(2)
    light = (brightness - brightness.mean((2, 3), keepdim=True)).flatten(2)
    slope = (colour * light).mean(2) / (light.square().mean(2) + 1e-4)
    return colour.mean(2), slope


def _same(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape:
        raise ValueError(
            f"the target must have the shape {tuple(image.shape)} of the images, got {tuple(target.shape)}"
        )
