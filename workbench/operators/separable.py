"""Rows and columns treated apart, ``Y = L X R^T`` in every channel: small matrices in place of fast transforms.

With the two singular value decompositions ``L = U_L diag(s_L) V_L^T`` and ``R = U_R diag(s_R) V_R^T`` the operator is

    Y = U_L (S * (V_L^T X V_R)) U_R^T,    S = s_L s_R^T

so that everything is in closed form for any matrices, at the price of full matrix products. That is little for images
of a few hundred pixels a side, and it allows what transforms do not: factors that do not divide the size, and another
matrix for each image of a batch.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.operators.base import Shape, SpectralOperator, damped_gain
from workbench.operators.checks import check_image, check_real
from workbench.operators.fourier import Memo
from workbench.operators.super_resolution import named_kernel


class Side(NamedTuple):
    """A matrix and its singular value decomposition ``u diag(s) v^T``, laid out as the pixels it is applied to.

    Attributes:
        matrix: (b, h, H), takes H pixels to h.
        u: (b, h, H), orthonormal columns, zero from the h-th on if h < H (there ``s`` is zero too).
        s: (b, H), at least 0.
        v: (b, H, H), orthogonal.
    """

    matrix: Tensor
    u: Tensor
    s: Tensor
    v: Tensor


class TwoSided(SpectralOperator):
    """What :class:`Separable` and ``Degradation`` share: all that follows from the decompositions of both sides.

    A subclass gives ``_part(side, part, like)``: of side "left" or "right" the "matrix", "u", "s" or "v" of
    :class:`Side` with the dtype and device of ``like``.
    """

    @abstractmethod
    def _part(self, side: str, part: str, like: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """``L X R^T`` for images (B, C, H, W)."""
        self._check_images(x)
        return self._products(x, "matrix")

    def adjoint(self, y: Tensor) -> Tensor:
        """``L^T Y R``, images (B, C, H, W)."""
        self._check_measurements(y)
        return self._products(y, "matrix", transposed=True)

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """Closed form, see :meth:`Operator.prox`."""
        checked, s = self.check_prox(z, y, weight), self.singular_values(z)
        # The residual is formed among coefficients, where a small one does not drown in the rounding of large ones.
        residual = self.data_analysis(y) - s * self.analysis(z)
        return z + self.synthesis(damped_gain(s, checked, self.rcond) * residual)

    def analysis(self, x: Tensor) -> Tensor:
        """``V_L^T X V_R``, (B, C, H, W)."""
        self._check_images(x)
        return self._products(x, "v", transposed=True)

    def synthesis(self, c: Tensor) -> Tensor:
        """``V_L c V_R^T``, (B, C, H, W)."""
        return self._products(c, "v")

    def data_analysis(self, y: Tensor) -> Tensor:
        """``U_L^T Y U_R``, (B, C, H, W); where there are more measurements than pixels, without what A cannot reach."""
        self._check_measurements(y)
        return self._products(y, "u", transposed=True)

    def data_synthesis(self, c: Tensor) -> Tensor:
        """``U_L c U_R^T``, measurements."""
        return self._products(c, "u")

    def singular_values(self, x: Tensor) -> Tensor:
        """``s_L s_R^T``, (1 or B, 1, H, W)."""
        return self._part("left", "s", x)[:, None, :, None] * self._part("right", "s", x)[:, None, None, :]

    def _check_images(self, x: Tensor) -> None:
        check_image(x)
        self.measurement_shape(x.shape)

    def _check_measurements(self, y: Tensor) -> None:
        check_image(y, name="measurements")
        self.image_shape(y.shape)

    def _products(self, x: Tensor, part: str, transposed: bool = False) -> Tensor:
        left, right = (self._part(side, part, x)[:, None] for side in ("left", "right"))
        return left.mT @ x @ right if transposed else left @ x @ right.mT


class Separable(TwoSided):
    """``Y = L X R^T``: images (B, C, H, W) to (B, C, h, w). Smaller, larger and rank-deficient matrices alike.

    Args:
        left: (h, H) or (1 or B, h, H), for the columns of pixels, real.
        right: (w, W) or (1 or B, w, W), for the rows of pixels, real. Both are constants: gradients do not reach them.
        rcond: see :class:`SpectralOperator`.

    Raises:
        ValueError: matrices of another shape, complex or not finite; when called, images of another size than H x W.

    >>> halves = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    >>> Separable(halves, halves)(torch.arange(16.0).view(1, 1, 4, 4))[0, 0]
    tensor([[ 2.5000,  4.5000],
            [10.5000, 12.5000]])
    """

    left: Tensor
    right: Tensor

    def __init__(self, left: Tensor, right: Tensor, *, rcond: float | None = None) -> None:
        super().__init__(rcond=rcond)
        self.register_buffer("left", check_real("left", left, "(1 or B, h, H)").detach())
        self.register_buffer("right", check_real("right", right, "(1 or B, w, W)").detach())
        if len({1, self.left.shape[0], self.right.shape[0]}) > 2:
            raise ValueError(f"left and right are for batches of {self.left.shape[0]} and {self.right.shape[0]} images")
        self._memo = Memo(limit=32)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, C, h, w). Raises ValueError unless the images are H x W, and as many as there are matrices."""
        return self._exchanged(image_shape, 2, 1, "images")

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W). Raises ValueError unless the measurements are h x w, and as many as there are matrices."""
        return self._exchanged(measurement_shape, 1, 2, "measurements")

    def _exchanged(self, shape: Shape, given: int, wanted: int, name: str) -> tuple[int, ...]:
        sides = self.left, self.right
        expected, count = tuple(m.shape[given] for m in sides), max(m.shape[0] for m in sides)
        if len(shape) != 4 or tuple(shape[2:]) != expected or count not in (1, shape[0]):
            batch = "B" if count == 1 else count
            raise ValueError(f"takes {name} ({batch}, C, {expected[0]}, {expected[1]}), got shape {tuple(shape)}")
        return (*shape[:2], *(m.shape[wanted] for m in sides))

    def _part(self, side: str, part: str, like: Tensor) -> Tensor:
        source: Tensor = getattr(self, side)

        def compute() -> Tensor:
            if part == "matrix":
                return source.to(like)
            factors: Side = self._memo.get(source, side, lambda: decompose(source))
            return getattr(factors, part).to(like)

        return self._memo.get(source, (side, part, like.dtype, like.device), compute)


def decompose(matrix: Tensor) -> Side:
    """The singular value decomposition of ``matrix`` (b, h, H), in float64 on the CPU, as :class:`Side` lays it out."""
    matrix = matrix.detach().cpu().double()
    u, s, vh = torch.linalg.svd(matrix)
    missing = matrix.shape[2] - s.shape[1]
    return Side(matrix, pad(u[:, :, : s.shape[1]], (0, missing)), pad(s, (0, missing)), vh.mT.contiguous())


def decimation(size: int, factor: int, kernel: str = "bicubic", sigma: float | None = None) -> Tensor:
    """One side of super-resolution: ``size`` pixels to ceil(size / factor), (ceil(size / factor), size), float64.

    Row i is the low-pass filter on the torus over the block of pixels ``factor i`` to ``factor (i + 1) - 1``. Where
    the factor does not divide the size the last block wraps around. ``Separable`` of two of them is
    ``SuperResolution(factor, kernel)``.

    Args:
        kernel: "bicubic", "average" or "gaussian", see :class:`SuperResolution`.
        sigma: standard deviation of "gaussian", in pixels; half the factor if not given.

    Raises:
        ValueError: size or factor below 1, an unknown kernel.
    """
    if size < 1 or factor < 1:
        raise ValueError(f"size and factor must be at least 1, got {size} and {factor}")
    line = named_kernel(kernel, factor, sigma).sum(0)
    return _rows(size, -(-size // factor), factor, line, (factor + len(line) - 1) // 2)


def circulant(size: int, kernel: Tensor) -> Tensor:
    """One side of a blur on the torus: convolution of ``size`` pixels with ``kernel`` (k,), (size, size), float64.

    Its middle is tap k // 2, as for :class:`Blur`. ``Separable`` of two of them is ``Blur`` with their outer product.

    Raises:
        ValueError: size below 1, or a kernel of another shape.
    """
    if size < 1 or kernel.ndim != 1 or len(kernel) < 1:
        raise ValueError(f"expected a size from 1 and a kernel (k,), got {size} and shape {tuple(kernel.shape)}")
    return _rows(size, size, 1, kernel.double(), len(kernel) // 2)


def _rows(size: int, count: int, step: int, line: Tensor, origin: int) -> Tensor:
    """Row i sums ``line[j]`` times pixel ``step i + origin - j`` of ``size``, modulo the size."""
    taps = torch.arange(len(line), device=line.device)
    columns = (step * torch.arange(count, device=line.device)[:, None] + origin - taps) % size
    return line.new_zeros(count, size).scatter_add_(1, columns, line.expand(count, -1))
