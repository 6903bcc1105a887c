"""A user's own linear function as an operator; its adjoint comes from autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape
from workbench.operators.checks import check_image
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
        ValueError: ``function`` is not linear (an affine one is not either), or does not keep the batch.

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
        self.seen_size = check_linear(self._real, self.size, device)

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
        return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y

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


def check_linear(
    function: Callable[[Tensor], Tensor], image_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> tuple[int, ...]:
    """Shape of the measurement of one image (C, H, W), if ``f(2 u - 3 v) = 2 f(u) - 3 f(v)`` to 1e-4 on noise.

    Raises:
        ValueError: not linear, not finite, or not one measurement per image.
    """
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 2, *image_shape, generator=generator).to(device)
    with torch.no_grad():
        seen_u, seen_v, mixed = function(u.clone()), function(v.clone()), function(2 * u - 3 * v)
    if seen_u.ndim < 1 or seen_u.shape[0] != 2:
        raise ValueError(f"the function takes 2 images to shape {tuple(seen_u.shape)}: the batch must stay first")
    scale = (2 * seen_u).norm() + (3 * seen_v).norm()
    gap = (mixed - (2 * seen_u - 3 * seen_v)).norm()
    # Written so that NaN fails.
    if not bool(gap <= 1e-4 * scale):
        raise ValueError(f"the function is not linear: f(2u - 3v) is {float(gap / scale):.1e} off 2f(u) - 3f(v)")
    return tuple(seen_u.shape[1:])
