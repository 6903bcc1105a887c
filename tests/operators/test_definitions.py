"""What each operator is: sums over taps written out, other libraries, pictures with known answers."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from tests.operators.operator_cases import normal
from workbench.operators import (
    Blur,
    FunctionOperator,
    Grayscale,
    Operator,
    SpectralOperator,
    SuperResolution,
    WalshHadamard,
    block_mask,
    gaussian_kernel,
    motion_kernel,
    parse_operator,
    random_mask,
    scratches_mask,
    stripes_mask,
    text_mask,
    uniform_kernel,
)
from workbench.operators.hadamard import walsh_hadamard

F64 = torch.float64


@pytest.mark.parametrize(
    ("boundary", "numpy_mode"),
    [("circular", "wrap"), ("reflect", "reflect"), ("replicate", "edge"), ("zeros", "constant")],
)
def test_blur_is_a_sum_over_taps(boundary: str, numpy_mode: str) -> None:
    kernel, x = normal((4, 5), 1), normal((1, 2, 9, 11), 2)
    expected = torch.zeros_like(x)
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode=numpy_mode))
    for i in range(4):
        for j in range(5):
            down, right = 10 - i, 10 - j
            expected += kernel[i, j] * padded[..., down : down + 9, right : right + 11]
    torch.testing.assert_close(Blur(kernel, boundary=boundary)(x), expected, rtol=0, atol=1e-13)


def test_valid_blur_is_the_inside_of_any_other() -> None:
    kernel, x = normal((4, 5), 1), normal((2, 3, 9, 11), 2)
    inside = Blur(kernel, boundary="valid")(x)
    assert inside.shape == (2, 3, 6, 7)
    torch.testing.assert_close(inside, Blur(kernel)(x)[..., 1:7, 2:9], rtol=0, atol=1e-13)
    smallest = Blur(torch.ones(9, 11), boundary="valid")(x)
    torch.testing.assert_close(smallest, x.sum((2, 3), keepdim=True), rtol=0, atol=1e-12)


def test_kernel_larger_than_the_image_wraps() -> None:
    kernel, x = normal((13, 17), 1), normal((1, 1, 5, 4), 2)
    tiled = Blur(kernel)(x.repeat(1, 1, 5, 7))[..., :5, :4]
    torch.testing.assert_close(Blur(kernel)(x), tiled, rtol=0, atol=1e-12)
    op = SuperResolution(2, kernel)
    x = normal((1, 1, 6, 4), 3)
    torch.testing.assert_close(op(x), op(x.repeat(1, 1, 5, 7))[..., :3, :2], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("factor", "taps"), [(2, 3), (3, 4), (4, 16), (1, 3)])
def test_super_resolution_is_a_sum_over_taps(factor: int, taps: int) -> None:
    kernel, x = normal((taps, taps), 1), normal((1, 2, 4 * factor, 5 * factor), 2)
    # The kernel's middle over the block's: (s - 1)/2 + (k - 1)/2, rounded up.
    origin = math.ceil((factor - 1) / 2 + (taps - 1) / 2)
    expected = torch.zeros(1, 2, 4, 5, dtype=F64)
    for i in range(taps):
        for j in range(taps):
            expected += kernel[i, j] * x.roll((i - origin, j - origin), (2, 3))[..., ::factor, ::factor]
    torch.testing.assert_close(SuperResolution(factor, kernel)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3])
def test_average_super_resolution_is_pooling(factor: int) -> None:
    for dtype in (torch.float32, F64):
        x = normal((2, 3, 6 * factor, 5 * factor), 1, dtype)
        assert torch.equal(SuperResolution(factor, "average")(x), avg_pool2d(x, factor))
    # The same kernel as a tensor takes the Fourier path.
    general = SuperResolution(factor, uniform_kernel(factor, F64))(x)
    torch.testing.assert_close(general, avg_pool2d(x, factor), rtol=0, atol=1e-13)


@pytest.mark.parametrize("factor", [2, 3])
def test_bicubic_super_resolution_is_torchs_antialiased_resize(factor: int) -> None:
    x = torch.rand(1, 3, 16 * factor, 20 * factor, dtype=F64, generator=torch.Generator().manual_seed(1))
    resized = interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    # The kernel reaches 2 low-resolution pixels; torch cuts it at the border where ours wraps.
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(SuperResolution(factor)(x)[inside], resized[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3])
def test_pixels_of_gaussian_super_resolution_sit_in_the_middle_of_their_blocks(factor: int) -> None:
    """A ramp becomes the ramp at the block centres."""
    ramp = torch.arange(20.0 * factor, dtype=F64)
    x = (ramp[:, None] - 2 * ramp)[None, None]
    centres = factor * torch.arange(20, dtype=F64) + (factor - 1) / 2
    y = SuperResolution(factor, "gaussian")(x)
    expected = (centres[:, None] - 2 * centres)[None, None]
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(y[inside], expected[inside], rtol=0, atol=1e-11)


@pytest.mark.parametrize("factor", [2, 3])
def test_gaussian_super_resolution_has_the_standard_deviation_asked_for(factor: int) -> None:
    """The weights of one pixel of y, whether or not the factor divides the size."""
    side, sigma = 64, 3.5
    op = parse_operator(f"sr:{factor}:gaussian,{sigma}", (1, side, side))
    y = torch.zeros(op.measurement_shape((1, 1, side, side)), dtype=F64)
    y[..., y.shape[-2] // 2, y.shape[-1] // 2] = 1
    weights, place = op.adjoint(y)[0, 0].sum(0), torch.arange(side, dtype=F64)
    variance = (weights * (place - (weights * place).sum()) ** 2).sum()
    assert float(variance.sqrt()) == pytest.approx(sigma, rel=0.002)


def test_gaussian_kernels() -> None:
    for size in (21, 20):
        offsets = torch.arange(size, dtype=F64) - (size - 1) / 2
        line = torch.exp(-(offsets**2) / (2 * 1.5**2))
        expected = torch.outer(line, line) / line.sum() ** 2
        torch.testing.assert_close(gaussian_kernel(1.5, size=size, dtype=F64), expected, rtol=0, atol=1e-16)
    # (along the rows, across): wide and flat; 90 degrees turns it, 45 degrees leans it to the upper right.
    wide = gaussian_kernel((4.0, 1.0), dtype=F64)
    assert wide.shape == (9, 33)
    torch.testing.assert_close(gaussian_kernel((4.0, 1.0), angle=90, dtype=F64), wide.T, rtol=0, atol=1e-15)
    leaning = gaussian_kernel((4.0, 1.0), angle=45, size=21, dtype=F64)
    assert leaning[4, 16] > 100 * leaning[4, 4]
    down, right = torch.meshgrid(*[torch.arange(21, dtype=F64) - 10] * 2, indexing="ij")
    covariance = (leaning * down * right).sum()
    # (1 - 16)/2 by rotation, a little less by the cut at 10 pixels.
    assert float(covariance) == pytest.approx(-7.5, rel=0.05)
    tiny = gaussian_kernel(0.01, size=4, dtype=F64)
    assert float(tiny[1:3, 1:3].sum()) == pytest.approx(1)


def test_motion_kernels() -> None:
    torch.testing.assert_close(motion_kernel(5, 0, F64)[2], torch.full((5,), 0.2, dtype=F64), rtol=0, atol=1e-15)
    rising = motion_kernel(9, 45, F64)
    assert rising[:4, 5:].sum() > 0.3
    assert rising[:4, :4].sum() == 0
    assert motion_kernel(1, 30).shape == (1, 1)
    assert float(motion_kernel(4, 33, F64).sum()) == pytest.approx(1, abs=1e-15)


def test_grayscale() -> None:
    x = normal((2, 3, 5, 4), 1)
    torch.testing.assert_close(Grayscale()(x), x.mean(1, keepdim=True), rtol=0, atol=1e-15)
    luma = Grayscale((0.299, 0.587, 0.114))
    expected = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(luma(x), expected, rtol=0, atol=1e-15)


def test_walsh_hadamard_is_the_matrix() -> None:
    matrix = torch.tensor([[1.0]], dtype=F64)
    for _ in range(4):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    torch.testing.assert_close(walsh_hadamard(torch.eye(16, dtype=F64)), matrix / 4, rtol=0, atol=1e-15)


def test_walsh_hadamard_measures_a_share_and_always_the_mean() -> None:
    op = WalshHadamard((8, 16), 0.25, torch.Generator().manual_seed(0))
    x = normal((2, 3, 8, 16), 1)
    y = op(x)
    assert y.shape == (2, 3, 32)
    torch.testing.assert_close(y[..., 0], x.sum((2, 3)) / math.sqrt(128), rtol=0, atol=1e-13)
    same = WalshHadamard((8, 16), 0.25, torch.Generator().manual_seed(0))
    other = WalshHadamard((8, 16), 0.25, torch.Generator().manual_seed(1))
    assert torch.equal(same(x), y)
    assert not torch.equal(other(x), y)
    assert torch.linalg.matrix_rank(op(torch.eye(128, dtype=F64).view(128, 1, 8, 16)).flatten(1)) == 32
    assert WalshHadamard((8, 16), 1.0)(x).square().sum() == pytest.approx(float(x.square().sum()))
    assert WalshHadamard((1, 1), 1e-6)(x[..., :1, :1]).shape == (2, 3, 1)


def test_random_masks() -> None:
    masks = random_mask((32, 32), 0.8, torch.Generator().manual_seed(0), batch=3)
    assert masks.shape == (3, 1, 32, 32)
    assert (1 - masks).sum((1, 2, 3)).tolist() == [819.0] * 3
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(random_mask((32, 32), 0.8, torch.Generator().manual_seed(0)), masks[:1])
    assert random_mask((5, 5), 0).all()
    assert not random_mask((5, 5), 1).any()


def test_block_masks() -> None:
    centred = block_mask((10, 12), 4)
    assert not centred[..., 3:7, 4:8].any()
    assert float(centred.sum()) == 120 - 16
    places = {
        tuple(block_mask((10, 12), (4, 2), torch.Generator().manual_seed(s)).flatten().tolist()) for s in range(20)
    }
    assert len(places) > 10
    assert not block_mask((4, 4), 4).any()


@pytest.mark.parametrize("size", [(65, 47), (8, 8), (1, 1)])
def test_text_masks_leave_a_picture_under_the_letters(size: tuple[int, int]) -> None:
    mask = text_mask(size)
    assert mask.shape == (1, 1, *size)
    assert bool(((mask == 0) | (mask == 1)).all())
    if min(size) >= 47:
        # Ink is a sixth of the area or so: letters to read, picture to restore from, everywhere.
        assert 0.08 < float(1 - mask.mean()) < 0.35
        for half in (mask[..., : size[1] // 2], mask[..., size[1] // 2 :], mask[..., : size[0] // 2, :]):
            assert 0.05 < float(1 - half.mean()) < 0.4
        assert not torch.equal(mask, text_mask(size, "other words "))


def test_stripes_and_scratches() -> None:
    stripes = stripes_mask((16, 24))
    assert float(1 - stripes.mean()) == 0.25
    assert torch.equal(stripes[0, 0, 1, :-1], stripes[0, 0, 0, 1:])
    scratches = scratches_mask((64, 64), generator=torch.Generator().manual_seed(0))
    assert 0.05 < float(1 - scratches.mean()) < 0.4
    assert torch.equal(scratches, scratches_mask((64, 64), generator=torch.Generator().manual_seed(0)))


def test_function_operator_is_what_the_function_is() -> None:
    kernel = normal((3, 4), 1)
    blur = Blur(kernel)
    op = FunctionOperator(blur, (2, 6, 7))
    x, y = normal((3, 2, 6, 7), 2), normal((3, 2, 6, 7), 3)
    assert torch.equal(op(x), blur(x))
    torch.testing.assert_close(op.adjoint(y), blur.adjoint(y), rtol=0, atol=1e-14)
    pooled: Operator = FunctionOperator(lambda image: image.mean(dim=(1, 2, 3)), (2, 6, 7))
    assert pooled(x).shape == (3,)
    torch.testing.assert_close(pooled.pinv(pooled(x)), x.mean((1, 2, 3), keepdim=True).expand_as(x), rtol=0, atol=1e-12)


def test_singular_values_without_a_batch_are_refused() -> None:
    class Scaling(SpectralOperator):
        def analysis(self, x: torch.Tensor) -> torch.Tensor:
            return x

        synthesis = data_analysis = data_synthesis = analysis

        def singular_values(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linspace(0, 1, x.shape[-1])

    with pytest.raises(ValueError, match=r"the 4 dimensions of the coefficients \(1, 3, 4, 5\).*got shape \(5,\)"):
        Scaling()(torch.rand(1, 3, 4, 5))
