"""Colour to grey: ``y = sum_c w_c x_c``. Its inverse problem is colourisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.operators.base import Shape, SpectralOperator, column
from workbench.operators.checks import check_image


class Grayscale(SpectralOperator):
    """A weighted sum of the channels, (B, C, H, W) to (B, 1, H, W). Any size.

    Args:
        weights: one per channel. 1/3 each is what DDRM and DDNM restore from; (0.299, 0.587, 0.114) is luma (BT.601).

    Raises:
        ValueError: no weights, or weights that are not finite or all zero.
    """

    def __init__(self, weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> None:
        super().__init__()
        # Numbers, not a buffer: a float32 buffer would make 1/3 wrong in float64.
        self.weights = tuple(float(w) for w in weights)
        self.square = math.fsum(w**2 for w in self.weights)
        if not (math.isfinite(self.square) and self.square > 0):
            raise ValueError(f"weights must be one finite number per channel, not all zero, got {self.weights}")

    def forward(self, x: Tensor) -> Tensor:
        """Grey images (B, 1, H, W) of ``x`` (B, C, H, W)."""
        check_image(x, len(self.weights))
        return (self._weights(x) @ x.flatten(2)).view(x.shape[0], 1, *x.shape[2:])

    def adjoint(self, y: Tensor) -> Tensor:
        """``w_c y``, (B, C, H, W), of ``y`` (B, 1, H, W)."""
        check_image(y, 1, "measurements")
        return y * self._weights(y).view(-1, 1, 1)

    def row_gram(self) -> float:
        """``||w||^2``."""
        return self.square

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``z + w (y - w^T z)/(||w||^2 + weight)``, (B, C, H, W); see :meth:`Operator.prox`."""
        checked = self.check_prox(z, y, weight)
        residual = (y - self(z)) / (self.square + column(checked, z))
        return torch.addcmul(z, self._weights(z).view(-1, 1, 1), residual)

    def analysis(self, x: Tensor) -> Tensor:
        """Channels rotated so that the first is ``w^T x / ||w||`` and the others are unseen."""
        return torch.einsum("dc,bchw->bdhw", self._rotation(x), x)

    def synthesis(self, c: Tensor) -> Tensor:
        """The rotation back to colours."""
        return torch.einsum("dc,bdhw->bchw", self._rotation(c), c)

    def data_analysis(self, y: Tensor) -> Tensor:
        """``y`` as the first of C channels, zeros in the others."""
        return torch.nn.functional.pad(y, (0, 0, 0, 0, 0, len(self.weights) - 1))

    def data_synthesis(self, c: Tensor) -> Tensor:
        """The first channel."""
        return c[:, :1].clone()

    def singular_values(self, x: Tensor) -> Tensor:
        """``||w||`` and zeros, (1, C, 1, 1)."""
        s = x.new_zeros(1, len(self.weights), 1, 1)
        s[:, 0] = math.sqrt(self.square)
        return s

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, 1, H, W)."""
        return (image_shape[0], 1, *image_shape[2:])

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W)."""
        return (measurement_shape[0], len(self.weights), *measurement_shape[2:])

    def _weights(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype).to(like.device, non_blocking=True)

    def _rotation(self, like: Tensor) -> Tensor:
        """An orthogonal matrix (C, C) whose first row is ``w / ||w||``: a Householder reflection, sign put right."""
        unit = torch.tensor(self.weights, dtype=torch.float64) / math.sqrt(self.square)
        axis = unit.clone()
        sign = -1.0 if unit[0] < 0 else 1.0
        axis[0] += sign
        reflection = torch.eye(len(unit), dtype=torch.float64) - torch.outer(axis, axis) / (1 + unit[0].abs())
        # The reflection takes w / ||w|| to -sign e_0.
        reflection[0] *= -sign
        return reflection.to(like, non_blocking=True)
