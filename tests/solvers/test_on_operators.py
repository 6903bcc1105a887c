"""The solvers on every kind of operator of the package."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import CASES
from tests.solvers.solver_problems import curved_prior, gaussian_prior
from workbench.operators import Operator
from workbench.random import generator
from workbench.solvers import DAPS, DDNM, DDRM, ILVR, MMPS, DeqIR, DiffPIR, PiGDM, RePaint

SIZE = 8
SHAPE = (2, 3, SIZE, SIZE)
PRIOR, GAUSSIAN = curved_prior(channels=3), gaussian_prior(SIZE, 3)
# Each class, with a mask, kernel or matrix for the batch and for each image.
SOME = {
    *("inpainting real", "blur gaussian", "blur reflect", "sr 4 bicubic", "separable, smaller, each its own"),
    *("degradations, shrunk", "old photo", "hadamard", "fourier, each its own", "fourier, coils"),
}
EACH = pytest.mark.parametrize("op", [c.make(SHAPE) for c in CASES if c.name in SOME], ids=lambda op: type(op).__name__)


def measure(op: Operator, dtype: torch.dtype, sigma_noise: float) -> Tensor:
    """Data of two images drawn from the Gaussian prior."""
    y = op(GAUSSIAN.sample(2, generator(3)).to(dtype))
    return y + sigma_noise * torch.randn(y.shape, generator=generator(4), dtype=dtype)


SAMPLERS = [
    DDNM(20),
    DeqIR(),
    DiffPIR(20),
    DDRM(),
    PiGDM(20),
    ILVR(20),
    RePaint(20, 3, 2),
    DAPS(20, count_noise=False),
    MMPS(10),
]
FEW = [replace(solver, steps=5) for solver in SAMPLERS]


@EACH
def test_samplers_meet_noise_free_data(op):
    y = measure(op, torch.float32, 0.0)
    for solver in FEW:
        image = solver(y, op, PRIOR, generator=generator(0)).image
        # float32: conjugate gradients stop at 2.4e-5 of the gradient, the blur cuts singular values below 3.5e-4.
        torch.testing.assert_close(op(image), y, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["inpainting real", "blur reflect"])
def test_samplers_come_near_noisy_data(name):
    (op,) = (case.make(SHAPE) for case in CASES if case.name == name)
    noisy = measure(op, torch.float32, 0.05)
    for solver in SAMPLERS:
        image = solver(noisy, op, GAUSSIAN, sigma_noise=0.05, generator=generator(0)).image
        assert 0.005 < float((op(image) - noisy).square().mean().sqrt()) < 0.1, solver
