"""One operator after another: ``A = outer inner``. An old photo is a mask after grey."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from workbench.operators.base import Operator, Shape, SpectralOperator
from workbench.operators.color import Grayscale
from workbench.operators.inpainting import Inpainting
from workbench.text import require_kind


class Compose(Operator):
    """``outer(inner(x))``.

    ``pinv`` and ``prox`` are as exact as those of ``outer`` if ``inner`` has orthogonal rows of equal length (grey,
    average pooling, Walsh-Hadamard, identity): with ``G G^T = c``,

        A^T (A A^T + w)^-1 = (1/c) G^T  B^T (B B^T + w/c)^-1

    Otherwise conjugate gradients. ``Compose(Inpainting(m), Grayscale())`` also has a spectral form. If one of
    the two is not linear, ``pinv`` is that of ``outer`` followed by that of ``inner``.

    Args:
        outer, inner: ``inner`` acts first.
        tolerance, max_iterations: see :class:`Operator`.
    """

    outer: Operator
    inner: Operator

    def __new__(cls, outer: Operator | None = None, inner: Operator | None = None, **options: Any) -> Compose:
        # Without operators it is copy or pickle that calls, with the right class.
        closed = cls is Compose and isinstance(outer, Inpainting) and isinstance(inner, Grayscale)
        return super().__new__(MaskedGrayscale if closed else cls)

    def __init__(
        self, outer: Operator, inner: Operator, *, tolerance: float | None = None, max_iterations: int = 500
    ) -> None:
        Operator.__init__(self, tolerance=tolerance, max_iterations=max_iterations)
        for name, op in (("outer", outer), ("inner", inner)):
            require_kind(op, Operator, name, "parse_operator('gray', (3, H, W))")
        self.outer, self.inner = outer, inner
        self.linear = outer.linear and inner.linear

    def forward(self, x: Tensor) -> Tensor:
        """``outer(inner(x))``."""
        return self.outer(self.inner(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """See the class and :meth:`Operator.damped_pinv`."""
        gram = self.inner.row_gram()
        if gram is None:
            return super().damped_pinv(r, weight)
        return self.inner.adjoint(self.outer.damped_pinv(r, weight / gram)) / gram

    def row_gram(self) -> float | None:
        """The product of the two, if both have one."""
        outer, inner = self.outer.row_gram(), self.inner.row_gram()
        return None if outer is None or inner is None else outer * inner

    def pinv(self, y: Tensor) -> Tensor:
        """``A^+ y``, images (B, C, H, W)."""
        return super().pinv(y) if self.linear else self.inner.pinv(self.outer.pinv(y))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """That of ``outer`` after ``inner``."""
        return self.outer.residual(self.inner(x), y)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """That of ``outer`` after ``inner``."""
        return self.outer.measurement_shape(self.inner.measurement_shape(image_shape))

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """That of ``inner`` before ``outer``."""
        return self.inner.image_shape(self.outer.image_shape(measurement_shape))


class MaskedGrayscale(Compose, SpectralOperator):
    """What :class:`Compose` makes of a mask after grey: both are diagonal once the channels are rotated."""

    outer: Inpainting
    inner: Grayscale

    def __init__(self, outer: Inpainting, inner: Grayscale, **options: Any) -> None:
        super().__init__(outer, inner, **options)
        if outer.mask.shape[1] != 1:
            raise ValueError(f"a mask after grey has one channel, got shape {tuple(outer.mask.shape)}")
        self.rcond = outer.rcond

    project_null = Operator.project_null

    def analysis(self, x: Tensor) -> Tensor:
        """As :meth:`Grayscale.analysis`."""
        return self.inner.analysis(x)

    def synthesis(self, c: Tensor) -> Tensor:
        """As :meth:`Grayscale.synthesis`."""
        return self.inner.synthesis(c)

    def data_analysis(self, y: Tensor) -> Tensor:
        """``y`` with the mask's sign, as the first of C channels."""
        return self.inner.data_analysis(self.outer.data_analysis(y))

    def data_synthesis(self, c: Tensor) -> Tensor:
        """The first channel, with the mask's sign."""
        return self.outer.data_synthesis(self.inner.data_synthesis(c))

    def singular_values(self, x: Tensor) -> Tensor:
        """``||w|| |m|`` and zeros, (1 or B, C, H, W)."""
        return self.inner.singular_values(x) * self.outer.singular_values(x[:, :1])
