"""Photos that came degraded: what lies beyond their border is estimated, and their borders do not ring."""

import math

import numpy as np
import pytest
import torch
from PIL import ImageFilter

from workbench.images import from_pillow, sample_photo, to_pillow
from workbench.models import load_prior
from workbench.operators import Blur, Identity, Inpainting, SuperResolution
from workbench.operators.border import continue_beyond, frame_of
from workbench.operators.kernels import gaussian_kernel, motion_kernel
from workbench.restore import degrade, observe, restore, solver_of
from workbench.solvers import DDRM, DiffPIR

OPERATORS = {
    "blur": Blur(gaussian_kernel((1.0, 0.7), 30.0, size=(5, 4))),
    "motion": Blur(motion_kernel(5, 20.0)),
    "sr": SuperResolution(2, "bicubic"),
    "row": Blur(torch.full((1, 5), 0.2)),
    "box": Blur(torch.full((7, 7), 1 / 49)),  # blind to some frequencies
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_continuation_is_the_conditional_mean_of_a_gaussian_field(name):
    """Against explicit covariance matrices of the measurement on the larger torus, in float64."""
    op = OPERATORS[name]
    frame = frame_of(op, (9, 8))
    assert any(wide > side for wide, side in zip(frame.wide, frame.size, strict=True))
    y = torch.randn(1, 1, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = y.cumsum(-1).cumsum(-2) / 20
    continued = continue_beyond(y, op, frame, sigma=0.05)
    torch.testing.assert_close(frame.cut(continued), y)

    rows, columns = (np.fft.fftfreq(side) for side in frame.image_size)
    squared = rows[:, None] ** 2 + columns**2
    squared[0, 0] = squared[squared > 0].min()
    pixels = math.prod(frame.image_size)
    eye = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *frame.image_size)
    field = torch.fft.ifft2(torch.fft.fft2(eye) / torch.from_numpy(squared)).real
    first = op(field).flatten(1)  # A K, one row per pixel
    covariance = op(first.T.reshape(-1, 1, *frame.image_size)).flatten(1)  # A K A^T
    covariance = covariance / covariance[0, 0] * y.var(correction=0)
    seen = frame.cut(torch.arange(math.prod(frame.wide)).view(frame.wide)).flatten()
    inner = covariance[seen][:, seen] + 0.05**2 * torch.eye(len(seen), dtype=torch.float64)
    expected = covariance[:, seen] @ torch.linalg.solve(inner, (y - y.mean()).flatten()) + y.mean()
    outside = torch.ones(len(expected), dtype=torch.bool)
    outside[seen] = False
    gap = (continued.flatten() - expected)[outside].norm() / (expected - y.mean())[outside].norm()
    assert gap < 2e-4  # conjugate gradients stop at 1e-4


def test_what_needs_no_frame_has_none():
    """Nothing of these measurements depends on what is outside the picture."""
    for op in (Identity(), Inpainting(torch.ones(8, 8)), SuperResolution(4, "average"), Blur(torch.ones(1, 1))):
        assert frame_of(op, (8, 8), 8) is None


def test_even_areas_and_single_pixels_are_continued():
    op = Blur(gaussian_kernel(1.0))
    for y in (torch.full((1, 3, 6, 6), 0.4), torch.full((1, 1, 1, 1), 0.4)):
        continued = continue_beyond(y, op, frame_of(op, tuple(y.shape[-2:])), 0.0)
        torch.testing.assert_close(continued, torch.full_like(continued, 0.4))


@pytest.mark.parametrize(("solver", "least"), [("diffpir", 25.2), ("deqir", 25.0), ("hqs", 24.5)])
def test_a_photo_blurred_elsewhere_is_sharpened_up_to_its_border(solver, least):
    """Pillow repeats the border pixel. With a circular border this gave 13.5 dB by diffpir, and waves."""
    photo = sample_photo("coffee", 64)
    blurred = from_pillow(to_pillow(photo).filter(ImageFilter.GaussianBlur(2)))
    measured = observe(blurred, "blur:2", 0.01)
    assert torch.equal(measured.y, blurred)
    settings = {} if solver == "hqs" else {"steps": 30}
    image = restore(measured, solver_of(solver, settings), load_prior("photo")).image
    assert image.shape == photo.shape
    assert float(-10 * (image.clamp(0, 1) - photo).square().mean().log10()) > least
    assert float(image.min()) > -0.2
    assert float(image.max()) < 1.2


def test_enlarged_photos_have_borders_as_good_as_their_middle():
    photo = sample_photo("astronaut", 256)
    small = from_pillow(to_pillow(photo).resize((64, 64), resample=3))[..., 8:-8, 8:-8]  # a part: no border of Pillow's
    image = restore(observe(small, "sr:4", 0.0), DDRM(steps=10), load_prior("photo")).image
    error = (image - photo[..., 32:-32, 32:-32]).square().mean((0, 1))
    inner = error[16:-16, 16:-16].mean()
    outer = torch.cat([error[:16].flatten(), error[-16:].flatten(), error[:, :16].flatten(), error[:, -16:].flatten()])
    assert float(outer.mean()) < 2 * float(inner)


def test_callbacks_records_and_starts_have_the_size_of_the_photo():
    photo, shown = sample_photo("cat", 32), []
    measured = observe(photo, "motion:7,30", 0.02)
    solver = DiffPIR(steps=3)
    result = restore(measured, solver, load_prior("photo"), callback=shown.append, initial=photo)
    assert {step.image.shape for step in shown} == {photo.shape}
    assert torch.equal(shown[-1].image, result.image)
    assert result.records[0]["size"] == [32, 32]
    assert measured.predicted(photo).shape == measured.y.shape
    with pytest.raises(ValueError, match="initial: expected 32x32 pixels, got 16x16"):
        restore(measured, solver, load_prior("photo"), initial=photo[..., :16, :16])


def test_simulated_measurements_keep_their_circular_border():
    """The published experiments are circular, and what was simulated so is restored so."""
    photo = sample_photo("cat", 32)
    degraded = degrade(photo, "blur:2", 0.02)
    assert degraded.frame() is None
    direct = DiffPIR(steps=3)(degraded.y, degraded.op, load_prior("photo"), sigma_noise=0.02)
    assert direct.image.shape == photo.shape
