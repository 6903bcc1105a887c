"""The solvers on every kind of operator of the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import curved_prior, gaussian_prior, replay
from workbench.operators import (
    JPEG,
    Blur,
    Compose,
    FunctionOperator,
    Grayscale,
    Identity,
    Inpainting,
    Operator,
    Separable,
    SuperResolution,
    WalshHadamard,
    decimation,
    gaussian_kernel,
    parse_operator,
    random_mask,
)
from workbench.random import Draws, generator
from workbench.solvers import DDNM, DDRM, DPS, ILVR, DeqIR, DiffPIR, PiGDM, PseudoInverse, RePaint
from workbench.solvers.base import initial_image
from workbench.trainers import Degradations

SIZE = 16
PRIOR, GAUSSIAN = curved_prior(channels=3), gaussian_prior(SIZE, 3)


def linear_operators() -> dict[str, Operator]:
    size = (SIZE, SIZE)
    mask = random_mask(size, 0.6, generator(0))
    return {
        "denoise": Identity(),
        "inpaint": Inpainting(mask),
        "inpaint-each": Inpainting(random_mask(size, 0.6, generator(1), batch=2)),
        "blur": Blur(gaussian_kernel((1.5, 1.5))),
        "blur-reflect": Blur(gaussian_kernel((0.5, 0.5)), boundary="reflect"),
        "bicubic": SuperResolution(4),
        "ragged": Separable(decimation(SIZE, 3), decimation(SIZE, 3)),
        "separable": Separable(torch.eye(SIZE)[:9] + 0.3 * torch.eye(SIZE).roll(1, 1)[:9], decimation(SIZE, 2)),
        "degradations": Degradations(("super-resolution", "pixels")).sample(2, size, Draws(generator(7))),
        "average": SuperResolution(2, "average"),
        "gray": Grayscale(),
        "old-photo": Compose(Inpainting(mask), Grayscale()),
        "hadamard": WalshHadamard(size, 0.5, generator(2)),
        "function": FunctionOperator(lambda x: x[..., ::2] - 0.5 * x[..., 1::2], (3, SIZE, SIZE)),
    }


def measure(op: Operator, dtype: torch.dtype, sigma_noise: float) -> Tensor:
    """Data of two images drawn from the Gaussian prior."""
    white = torch.randn(2, 3, SIZE, SIZE, generator=generator(3), dtype=torch.float64)
    x = 0.5 + torch.fft.ifft2(GAUSSIAN.spectrum.sqrt() * torch.fft.fft2(white)).real
    y = op(x.to(dtype))
    return y + sigma_noise * torch.randn(y.shape, generator=generator(4), dtype=dtype)


@pytest.mark.parametrize("sigma_noise", [0.0, 0.05])
@pytest.mark.parametrize("name", linear_operators())
def test_deqir_is_ddnm_s_chain(name, sigma_noise):
    op = linear_operators()[name]
    y = measure(op, torch.float64, sigma_noise)
    run = {"sigma_noise": sigma_noise, "prior": PRIOR}
    expected = DDNM(8, 0.3)(y, op, generator=generator(0), **run).image
    image = DeqIR(8, 8, 0.3, tolerance=0.0)(y, op, generator=generator(0), **run).image
    # Operators without a closed form stop their conjugate gradients at 4e-11.
    torch.testing.assert_close(image, expected, atol=1e-7, rtol=0)


SAMPLERS = {
    "ddnm": DDNM(30),
    "deqir": DeqIR(),
    "diffpir": DiffPIR(30),
    "diffpir-vp": DiffPIR(15, schedule="vp"),
    "ddrm": DDRM(),
    "pigdm": PiGDM(30),
    "ilvr": ILVR(30),
    "repaint": RePaint(25, 3, 2),
}


@pytest.mark.parametrize("solver", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("name", linear_operators())
def test_noise_free_data_are_met_and_noisy_ones_nearly(name, solver):
    op = linear_operators()[name]
    y = measure(op, torch.float32, 0.0)
    image = solver(y, op, PRIOR, generator=generator(0)).image
    assert image.dtype == torch.float32
    # float32: conjugate gradients stop at 2.4e-5 of the gradient, the blur cuts singular values below 3.5e-4.
    torch.testing.assert_close(op(image), y, atol=1e-3, rtol=0)
    noisy = measure(op, torch.float32, 0.05)
    image = solver(noisy, op, GAUSSIAN, sigma_noise=0.05, generator=generator(0)).image
    assert 0.005 < float((op(image) - noisy).square().mean().sqrt()) < 0.1


FEW = [DDNM(8), DeqIR(8, 6), DiffPIR(8), DDRM(8), PiGDM(8), DPS(8), ILVR(4), RePaint(2, 1, 2)]


@pytest.mark.parametrize("solver", FEW, ids=lambda solver: type(solver).__name__)
def test_a_mask_per_image_goes_with_its_image(solver):
    """Also when images stop at different iterations: the operator always sees the whole batch."""
    masks = random_mask((SIZE, SIZE), 0.6, generator(1), batch=3)
    stored = torch.randn(9, 3, 3, SIZE, SIZE, generator=generator(5), dtype=torch.float64)
    stored[:, 1] = 0
    y = torch.rand(3, 3, SIZE, SIZE, generator=generator(3), dtype=torch.float64) * masks
    y[1] = 0.5 * masks[1]
    together = solver(y, Inpainting(masks), PRIOR, noise=replay(stored))
    for b in range(3):
        part = slice(b, b + 1)
        alone = solver(y[part], Inpainting(masks[part]), PRIOR, noise=replay(stored[:, part]))
        torch.testing.assert_close(together.image[part], alone.image, atol=1e-10, rtol=0)
        assert together.iterations[b] == alone.iterations[0]


@pytest.mark.parametrize("factor", [3, 5])
def test_ragged_super_resolution_starts_from_an_upscaled_picture(factor):
    """Apart from the border, where the picture wraps around; and every solver takes it."""
    x = torch.nn.functional.interpolate(
        torch.rand(1, 3, 3, 3, generator=generator(0), dtype=torch.float64), size=(32, 32), mode="bicubic"
    )
    op = parse_operator(f"sr:{factor}", (3, 32, 32))
    y = op(x)
    enlarged = torch.nn.functional.interpolate(y, scale_factor=factor, mode="bicubic")[..., :32, :32]
    start = initial_image(op, y, torch.zeros(1, dtype=torch.float64))
    inside = (..., slice(4, -4), slice(4, -4))
    assert float((start - enlarged)[inside].square().mean().sqrt()) < 0.25 * float(x[inside].std())
    assert float((start - x)[inside].square().mean().sqrt()) < 0.25 * float(x[inside].std())
    for solver in (PseudoInverse(), DDNM(6), DeqIR(6, 4), DiffPIR(6), DDRM(6), PiGDM(6), ILVR(6), RePaint(6, 2, 2)):
        image = solver(y, op, PRIOR, generator=generator(0)).image
        assert image.shape == x.shape
        torch.testing.assert_close(op(image), y, atol=1e-3, rtol=0)


def test_jpeg_is_for_diffpir_and_dps():
    op, x = JPEG(30), torch.rand(1, 3, SIZE, SIZE, generator=generator(3))
    y = op(x)
    image = DiffPIR(8)(y, op, PRIOR, sigma_noise=0.02, generator=generator(0)).image
    assert image.isfinite().all()
    assert DPS(8)(y, op, PRIOR, generator=generator(0)).image.isfinite().all()
    for solver in (DDNM(3), DeqIR(3), DDRM(3), PiGDM(3), ILVR(3), RePaint(3)):
        with pytest.raises(ValueError, match="JPEG is not: use diffpir"):
            solver(y, op, PRIOR)
