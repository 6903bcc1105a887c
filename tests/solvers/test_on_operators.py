"""The solvers on every kind of operator of the package."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.operators.operator_cases import CASES
from tests.solvers.solver_problems import curved_prior, gaussian_prior, replay
from workbench.operators import Inpainting, Operator, parse_operator, random_mask
from workbench.random import generator
from workbench.solvers import DAPS, DDNM, DDRM, DPS, ILVR, MMPS, DeqIR, DiffPIR, PiGDM, PseudoInverse, RePaint
from workbench.solvers.base import initial_image

SIZE = 8
SHAPE = (2, 3, SIZE, SIZE)
PRIOR, GAUSSIAN = curved_prior(channels=3), gaussian_prior(SIZE, 3)
# Each class, with a mask, kernel or matrix for the batch and for each image.
SOME = {
    *("identity", "inpainting random, each its own", "inpainting real", "blur gaussian", "blur reflect"),
    *("sr 4 bicubic", "sr 2 gaussian", "sr 3, ragged", "separable, smaller, each its own", "degradations, shrunk"),
    *("grey", "old photo", "hadamard", "mask after average", "function", "fourier, each its own", "fourier, coils"),
}
EACH = pytest.mark.parametrize("op", [c.make(SHAPE) for c in CASES if c.name in SOME], ids=lambda op: type(op).__name__)


def measure(op: Operator, dtype: torch.dtype, sigma_noise: float) -> Tensor:
    """Data of two images drawn from the Gaussian prior."""
    y = op(GAUSSIAN.sample(2, generator(3)).to(dtype))
    return y + sigma_noise * torch.randn(y.shape, generator=generator(4), dtype=dtype)


@pytest.mark.parametrize("sigma_noise", [0.0, 0.05])
@EACH
def test_deqir_is_ddnm_s_chain(op, sigma_noise):
    y = measure(op, torch.float64, sigma_noise)
    expected, got = (
        solver(y, op, PRIOR, sigma_noise=sigma_noise, generator=generator(0)).image
        for solver in (DDNM(5, 0.3), DeqIR(5, 5, 0.3, tolerance=0.0))
    )
    # Operators without a closed form stop their conjugate gradients at 4e-11.
    torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)


SAMPLERS = [
    DDNM(20),
    DeqIR(),
    DiffPIR(20),
    DDRM(),
    PiGDM(20),
    ILVR(20),
    RePaint(15, 3, 2),
    DAPS(20, spread=0.5),
    MMPS(10),
]
FEW = [replace(solver, steps=5) for solver in SAMPLERS]


@pytest.mark.parametrize(("solver", "few"), zip(SAMPLERS, FEW, strict=True), ids=lambda solver: type(solver).__name__)
@EACH
def test_noise_free_data_are_met_and_noisy_ones_nearly(op, solver, few):
    y = measure(op, torch.float32, 0.0)
    image = few(y, op, PRIOR, generator=generator(0)).image
    assert image.dtype == torch.float32
    # float32: conjugate gradients stop at 2.4e-5 of the gradient, the blur cuts singular values below 3.5e-4.
    torch.testing.assert_close(op(image), y, atol=1e-3, rtol=0)
    noisy = measure(op, torch.float32, 0.05)
    image = solver(noisy, op, GAUSSIAN, sigma_noise=0.05, generator=generator(0)).image
    gain = max(1.0, float(op(torch.ones(SHAPE)).abs().mean()))
    assert 0.005 < float((op(image) - noisy).square().mean().sqrt()) < 0.1 * gain


@pytest.mark.parametrize("solver", [*FEW, DPS(5)], ids=lambda solver: type(solver).__name__)
def test_a_mask_per_image_goes_with_its_image(solver):
    """Also when images stop at different iterations: the operator always sees the whole batch."""
    masks = random_mask((SIZE, SIZE), 0.6, generator(1), batch=3)
    draws = torch.randn(40, 3, 3, SIZE, SIZE, generator=generator(5), dtype=torch.float64)
    draws[:, 1] = 0
    y = torch.rand(3, 3, SIZE, SIZE, generator=generator(3), dtype=torch.float64) * masks
    y[1] = 0.5 * masks[1]
    together = solver(y, Inpainting(masks), PRIOR, noise=replay(draws))
    for b in range(3):
        part = slice(b, b + 1)
        alone = solver(y[part], Inpainting(masks[part]), PRIOR, noise=replay(draws[:, part]))
        torch.testing.assert_close(together.image[part], alone.image, atol=1e-10, rtol=0)
        assert together.iterations[b] == alone.iterations[0]


@pytest.mark.parametrize("factor", [3, 5])
def test_ragged_super_resolution_starts_from_an_upscaled_picture(factor):
    """Apart from the border, where the picture wraps around; and every solver takes it."""
    x = interpolate(torch.rand(1, 3, 3, 3, generator=generator(0)).double(), size=(32, 32), mode="bicubic")
    op = parse_operator(f"sr:{factor}", (3, 32, 32))
    y = op(x)
    start = initial_image(op, y, torch.zeros(1, dtype=torch.float64))
    inside = (..., slice(4, -4), slice(4, -4))
    for picture in (interpolate(y, scale_factor=factor, mode="bicubic")[..., :32, :32], x):
        assert float((start - picture)[inside].square().mean().sqrt()) < 0.25 * float(x[inside].std())
    for solver in (PseudoInverse(), *FEW):
        image = solver(y, op, PRIOR, generator=generator(0)).image
        assert image.shape == x.shape
        torch.testing.assert_close(op(image), y, atol=1e-3, rtol=0)
