"""The operator for some images of a batch, whatever it holds."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape


class Taken(Operator):
    """``op`` for the images ``rows`` (b,) of a batch of ``count``: the others are computed along, as ones.

    Raises:
        ValueError: a row more than once, since each image of the batch is computed once.
    """

    def __init__(self, op: Operator, rows: Tensor, count: int) -> None:
        if len(rows.unique()) < len(rows):
            raise ValueError(f"take needs each image of the batch once at most, got rows {rows.tolist()}")
        super().__init__(tolerance=op.tolerance, max_iterations=op.max_iterations)
        self.op, self.rows, self.count, self.linear = op, rows, count, op.linear

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` for images (b, C, H, W)."""
        return self._apply(self.op, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (b, C, H, W)."""
        return self._apply(self.op.adjoint, y)

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """See :meth:`Operator.damped_pinv`."""
        return self._apply(self.op.damped_pinv, r, weight.to(r.device).expand(len(r)))

    def pinv(self, y: Tensor) -> Tensor:
        """That of ``op``, which is a stand-in of its own where it is not linear."""
        return self._apply(self.op.pinv, y)

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """See :meth:`Operator.prox`."""
        return self._apply(self.op.prox, z, y, torch.as_tensor(weight, dtype=z.dtype, device=z.device).expand(len(z)))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """See :meth:`Operator.residual`."""
        return self._apply(self.op.residual, x, y)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """That of ``op``, for another number of images."""
        return (image_shape[0], *self.op.measurement_shape((self.count, *image_shape[1:]))[1:])

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """That of ``op``, for another number of images."""
        return (measurement_shape[0], *self.op.image_shape((self.count, *measurement_shape[1:]))[1:])

    def _apply(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        whole = [t.new_ones(self.count, *t.shape[1:]).index_copy(0, self.rows, t) for t in tensors]
        return function(*whole)[self.rows]
