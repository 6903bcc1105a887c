"""Separable operators: equal to the transforms where those exist, and right where they do not."""

import re

import pytest
import torch

from tests.operators.operator_cases import matrices, normal
from workbench.operators import Blur, Separable, SuperResolution, circulant, decimation, gaussian_kernel

F64 = torch.float64
SHAPE = (2, 3, 6, 8)


@pytest.mark.parametrize(
    ("size", "factor", "kernel"), [(32, 1, "gaussian"), (32, 4, "bicubic"), (15, 3, "average"), (4, 4, "bicubic")]
)
def test_is_super_resolution_where_the_factor_divides(size: int, factor: int, kernel: str) -> None:
    """Also where the kernel is larger than the image."""
    fast = SuperResolution(factor, kernel)
    op = Separable(decimation(size, factor, kernel), decimation(2 * size, factor, kernel))
    x, z = normal((2, 3, size, 2 * size), 1), normal((2, 3, size, 2 * size), 2)
    y = normal(fast.measurement_shape(x.shape), 3)
    torch.testing.assert_close(op(x), fast(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(op.adjoint(y), fast.adjoint(y), rtol=0, atol=1e-13)
    torch.testing.assert_close(op.prox(z, y, 0.01), fast.prox(z, y, 0.01), rtol=0, atol=1e-11)
    # Singular values of the gaussian kernel, which pinv inverts, go down to 1e-4.
    torch.testing.assert_close(op.pinv(y), fast.pinv(y), rtol=0, atol=1e-11 * float(fast.pinv(y).abs().max()))


@pytest.mark.parametrize(("size", "sigma"), [(32, 0.6), (31, 2.0), (5, 8.0), (1, 0.01)])
def test_is_gaussian_blur(size: int, sigma: float) -> None:
    kernel = gaussian_kernel(sigma, dtype=F64)
    op, fast = Separable(circulant(size, kernel.sum(0)), circulant(size + 4, kernel.sum(0))), Blur(kernel)
    x, z, y = (normal((2, 3, size, size + 4), seed) for seed in (1, 2, 3))
    torch.testing.assert_close(op(x), fast(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(op.adjoint(y), fast.adjoint(y), rtol=0, atol=1e-13)
    torch.testing.assert_close(op.prox(z, y, 0.01), fast.prox(z, y, 0.01), rtol=0, atol=1e-11)


def test_ragged_blocks_wrap_around() -> None:
    expected = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 1, 1]], dtype=F64) / 3
    torch.testing.assert_close(decimation(5, 3, "average"), expected, rtol=0, atol=1e-15)
    # A block larger than the image sees some pixels twice.
    torch.testing.assert_close(decimation(2, 3, "average"), torch.tensor([[2, 1]], dtype=F64) / 3)
    for kernel in ("bicubic", "average", "gaussian"):
        for size, factor in ((32, 3), (47, 5), (5, 9)):
            ragged = decimation(size, factor, kernel)
            assert ragged.shape == (-(-size // factor), size)
            torch.testing.assert_close(ragged.sum(1), torch.ones(len(ragged), dtype=F64))
            # All but the last row are those of a larger torus, cut to this one: the same filter, shifted.
            for row in range(1, len(ragged)):
                torch.testing.assert_close(ragged[row], ragged[0].roll(factor * row), rtol=0, atol=1e-16)


def test_changed_matrices_are_decomposed_again() -> None:
    op, x = Separable(matrices(1, 6, 6), matrices(1, 8, 8)), normal(SHAPE, 1)
    first = op.pinv(x)
    op.left.mul_(2)
    torch.testing.assert_close(op.pinv(x), first / 2)


SQUARE = torch.eye(6)
BAD = {
    "vector": (lambda: Separable(torch.ones(6), SQUARE), "left must be (1 or B, h, H) or its last two dimensions"),
    "image": (lambda: Separable(SQUARE, SQUARE)(torch.ones(1, 3, 8, 6)), "takes images (B, C, 6, 6), got shape"),
    "kernel": (lambda: decimation(4, 2, "sinc"), "one of bicubic, average, gaussian, got 'sinc'"),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_refused(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
