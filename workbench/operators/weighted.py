"""Measurements whose noise is not the same everywhere, as measurements whose noise is: divided by its deviation.

    A' = w A,   y' = w y,   w = sigma / s

has white noise ``sigma`` where y has the standard deviation ``s``, and the same likelihood. So every solver that takes
any linear operator weighs its data right, and none needs to know of it.
"""

from torch import Tensor

from workbench.operators.base import Operator, Shape
from workbench.operators.inpainting import Identity, Inpainting


class Weighted(Operator):
    """``w A``, by conjugate gradients, down to 0.001 if ``op`` does not say otherwise: noise hides what is left.

    Args:
        op: the operator ``A``.
        weights: ``w`` (1 or B, ...), positive, like its measurements.
    """

    weights: Tensor

    def __init__(self, op: Operator, weights: Tensor) -> None:
        super().__init__(tolerance=op.tolerance or 1e-3, max_iterations=op.max_iterations)
        self.op, self.linear = op, op.linear
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """``w A x`` of images (B, C, H, W)."""
        y = self.op(x)
        return y * self.weights.to(y)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T w y``, images (B, C, H, W)."""
        return self.op.adjoint(y * self.weights.to(y))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """``w`` times that of ``op``."""
        weights = self.weights.to(y)
        return weights * self.op.residual(x, y / weights)

    def pinv(self, y: Tensor) -> Tensor:
        """The least-squares solution of least norm, weighted; of an operator that is not linear its own stand-in."""
        return super().pinv(y) if self.linear else self.op.pinv(y / self.weights.to(y))

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """That of ``op``."""
        return self.op.measurement_shape(image_shape)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """That of ``op``."""
        return self.op.image_shape(measurement_shape)


class WeightedPixels(Inpainting):
    """``w m``: pixels that are seen or lost have a closed form. Arguments as for :class:`Weighted`."""

    weights: Tensor

    def __init__(self, op: Identity | Inpainting, weights: Tensor) -> None:
        super().__init__(weights * op.mask.to(weights) if isinstance(op, Inpainting) else weights, rcond=0.0)
        self.op = op
        self.register_buffer("weights", weights)


def weighted(op: Operator, weights: Tensor) -> Weighted | WeightedPixels:
    """``w A``."""
    return WeightedPixels(op, weights) if isinstance(op, Identity | Inpainting) else Weighted(op, weights)


def unweighted(op: Operator, y: Tensor) -> tuple[Operator, Tensor]:
    """Operator and measurements as they came, if they were weighted."""
    return (op.op, y / op.weights.to(y)) if isinstance(op, Weighted | WeightedPixels) else (op, y)
