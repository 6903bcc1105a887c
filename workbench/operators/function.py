"""A user's own linear function as an operator; its adjoint comes from autograd."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape
from workbench.operators.checks import check_image
from workbench.operators.contract import check_map
from workbench.operators.least_squares import vjp


class FunctionOperator(Operator):
    """``y = f(x)`` for any linear, differentiable torch function of image batches; the first dimension stays the batch.

    ``adjoint`` is the vector-Jacobian product of ``f`` (one call forward, one backward), ``pinv`` and ``prox`` are
    conjugate gradients. ``f`` is tried out on random images when the operator is made. Complex results are held by
    their real view (``torch.view_as_real``), (B, ..., 2), real and imaginary part last; noise is that of each.

    Args:
        function: from (B, C, H, W) to (B, ...), each image by itself, following dtype and device of its input.
        image_shape: (C, H, W).
        tolerance, max_iterations: see :class:`Operator`.
        device: where ``function`` is tried out.

    Raises:
        ValueError: ``function`` is not linear (an affine one is not either), or breaks another rule of ``check_map``.

    >>> FunctionOperator(lambda x: x.diff(dim=-1), (1, 1, 3)).adjoint(torch.tensor([[[[1.0, 0.0]]]]))
    tensor([[[[-1.,  1.,  0.]]]])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        image_shape: tuple[int, int, int],
        *,
        tolerance: float | None = None,
        max_iterations: int = 500,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(tolerance=tolerance, max_iterations=max_iterations)
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (C, H, W), got {tuple(image_shape)}")
        self.function = function
        self.size = tuple(image_shape)
        *_, seen = check_map(self._real, (2, *self.size), "the function", alone=True, device=device)
        self.seen_size = tuple(seen.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """``f(x)`` for images (B, C, H, W)."""
        check_image(x)
        self.measurement_shape(x.shape)
        return self._real(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``J^T y`` by autograd, images (B, C, H, W)."""
        return vjp(self._real, y.new_zeros(self.image_shape(y.shape)), y)

    def _real(self, x: Tensor) -> Tensor:
        y = self.function(x)
        return torch.view_as_real(y.resolve_conj()) if isinstance(y, Tensor) and y.is_complex() else y

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, ...). Raises ValueError for images of another size."""
        if tuple(image_shape[1:]) != self.size:
            raise ValueError(f"expected images (B, {', '.join(map(str, self.size))}), got {tuple(image_shape)}")
        return (image_shape[0], *self.seen_size)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W). Raises ValueError for measurements of another size."""
        if tuple(measurement_shape[1:]) != self.seen_size:
            raise ValueError(
                f"expected measurements (B, {', '.join(map(str, self.seen_size))}), got {tuple(measurement_shape)}"
            )
        return (measurement_shape[0], *self.size)
