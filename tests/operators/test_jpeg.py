"""JPEG beside Pillow's libjpeg, on photos."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from tests.operators.operator_cases import normal
from workbench.operators import JPEG, Compose, Inpainting, SuperResolution, stripes_mask


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return skimage.data.astronaut()[60:317, 130:331]  # 257 x 201: no side is a multiple of 2


def pillow(photo: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def as_image(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize(
    ("quality", "size"),
    [
        (5, (257, 201)),
        (25, (257, 201)),
        (50, (64, 48)),
        (95, (257, 201)),
        (75, (7, 9)),
        (10, (1, 1)),
        (10, (22, 40)),
    ],
)
def test_decodes_as_pillow_does(photo: np.ndarray, quality: int, size: tuple[int, int]) -> None:
    part = np.ascontiguousarray(photo[: size[0], : size[1]])
    ours, theirs = JPEG(quality)(as_image(part)), as_image(pillow(part, quality))
    # The bar is 40. All coefficients agree; what is left is libjpeg's integer arithmetic and rounding to 8 bits.
    assert psnr(ours, theirs) >= 47


def test_stays_in_range_and_follows_dtype() -> None:
    x = torch.rand(2, 3, 20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 - 1
    before = x.clone()
    y = JPEG(20)(x)
    assert 0 <= float(y.min()) <= float(y.max()) <= 1
    assert torch.equal(x, before)
    torch.testing.assert_close(JPEG(20)(x[1:]), y[1:], rtol=0, atol=1e-12)


def test_gradient_passes_straight_through() -> None:
    """The gradient is that of the chain without rounding: colour transform and chroma at half resolution."""
    x = 0.3 + 0.4 * torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    weights = normal(x.shape, 1)
    (gradient,) = torch.autograd.grad((JPEG(5)(x) * weights).sum(), x)
    # At quality 100, steps of 1/255, the differences of a large step see through the rounding: about 1 % is left.
    direction = normal(x.shape, 2)
    fine = JPEG(100)
    ahead, behind = (fine(x.detach() + sign * 0.1 * direction) for sign in (1, -1))
    slope = float(((ahead - behind) * weights).sum() / 0.2)
    assert slope == pytest.approx(
        float((gradient * direction).sum()), abs=0.03 * float(weights.norm() * direction.norm()) / 10
    )


@pytest.mark.parametrize("quality", [10, 90])
def test_what_a_compressed_photo_says_of_another(photo: np.ndarray, quality: int) -> None:
    """The photo that was compressed explains the result, but for pixels rounded to 8 bits on the way; one that does not
    is moved to the nearest that does, or part of the way."""
    op, x = JPEG(quality), as_image(photo[64:128, 64:130]).double()
    y = op(x)
    assert float(op.residual(x, y).square().mean().sqrt()) < 0.4 / 255  # rounding has a deviation of 0.3
    z = x + 0.1 * normal(x.shape, 0)
    gap = op.residual(z, y)
    moved = op.prox(z, y, 0.0)
    assert torch.equal(moved, z + gap)
    assert float(op.residual(moved, y).norm()) < 0.05 * float(gap.norm())  # at 66 pixels; 0 at multiples of 16
    torch.testing.assert_close(op.prox(z, y, 3.0), z + gap / 4, rtol=0, atol=1e-12)
    torch.testing.assert_close(op.prox(z.float(), y.float(), 1e8), z.float(), rtol=0, atol=1e-6)
    # No step is too far: what lies between is not a photo that compresses to y.
    assert float(op.residual(z + 0.9 * gap, y).norm()) > 0.05 * float(gap.norm())


def test_noise_after_compression_is_no_news(photo: np.ndarray) -> None:
    """It is far below the quantisation steps, so that their numbers are known, and the photo explains noisy data."""
    op, x = JPEG(20), as_image(photo[64:128, 64:128]).double()
    noise = 0.01 * normal(x.shape, 0)
    assert float(op.residual(x, op(x) + noise).norm()) < 0.1 * float(noise.norm())


def test_the_gradient_of_the_data_step(photo: np.ndarray) -> None:
    op, x = JPEG(30), as_image(photo[64:72, 64:72]).double()
    y, z = op(x), x + 0.1 * normal(x.shape, 0)
    weight = torch.tensor(0.5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, w: op.prox(z, y, w), (z.requires_grad_(), weight), fast_mode=True)


def test_in_a_composition(photo: np.ndarray) -> None:
    x = as_image(photo[:16, :16])
    op = Compose(JPEG(50), SuperResolution(2, "average"))
    assert not op.linear
    y = op(x)
    assert y.shape == (1, 3, 8, 8)
    assert op.pinv(y).shape == x.shape
    z = torch.full_like(x, 0.5)
    better = op.prox(z, y, 1e-3)
    assert float((op(better) - y).norm()) < 0.2 * float((op(z) - y).norm())
    assert Compose(Inpainting(stripes_mask((16, 16))), JPEG(50))(x).shape == x.shape


def test_bad_input() -> None:
    for quality in (0, 101, 10.5, float("nan"), True):
        with pytest.raises(ValueError, match="whole number from 1 to 100"):
            JPEG(quality)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got shape \(1, 1, 8, 8\)"):
        JPEG(50)(torch.zeros(1, 1, 8, 8))
