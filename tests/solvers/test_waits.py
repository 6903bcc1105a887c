"""How often solvers wait for the device that computes: next to never within a step."""

import pytest
import torch
from torch import Tensor

from tests.solvers.elsewhere import There, Waits, send
from tests.solvers.solver_problems import FunctionPrior
from workbench.operators import JPEG, Blur, Grayscale, Inpainting, Operator, SuperResolution, gaussian_kernel
from workbench.operators.masks import random_mask
from workbench.random import generator
from workbench.solvers import DDNM, DDRM, DPS, DeqIR, DiffPIR, Solver

SHAPE = (3, 3, 16, 16)
OPERATORS = {
    "mask": lambda: Inpainting(random_mask((16, 16), 0.5, generator(3), batch=3)),
    "weights": lambda: Inpainting(torch.rand(3, 1, 16, 16, generator=generator(3)).clamp(min=0.1)),
    "blur": lambda: Blur(gaussian_kernel(1.0)),
    "sr": lambda: SuperResolution(2),
    "grey": lambda: Grayscale(),
}
PRIOR = FunctionPrior(
    lambda x, sigma: 0.5 + (x - 0.5) * (0.06 / (0.06 + sigma.view(-1, 1, 1, 1) ** 2)) + 0.01 * torch.sin(5 * x),
    sigma_min=0.002,
    sigma_max=80.0,
)


def waits(solver: Solver, make, noise: float | Tensor) -> tuple[int, int]:
    """Waits of a run, and its iterations; its image is that of the same run on the CPU."""
    op: Operator = make()
    y = op(torch.rand(SHAPE, generator=generator(1)))
    y = y + 0.05 * torch.randn(y.shape, generator=generator(2))
    expected = solver(y, op, PRIOR, sigma_noise=noise, generator=generator(0)).image
    with Waits() as counted:
        found = solver(send(y), send(make()), PRIOR, sigma_noise=noise, generator=generator(0))
    assert isinstance(found.image, There)
    torch.testing.assert_close(found.image.here, expected, atol=1e-4, rtol=1e-4)
    return counted.count, int(found.iterations.max())


@pytest.mark.parametrize("name", OPERATORS)
def test_no_step_waits(name: str) -> None:
    for kind, noise in ((DiffPIR, 0.0), (DDNM, 0.05), (DDRM, torch.tensor([0.0, 0.02, 0.05]))):
        few, many = (waits(kind(steps=steps), OPERATORS[name], noise)[0] for steps in (3, 6))
        assert few == many <= 10, kind  # those of the start


@pytest.mark.parametrize("name", ["mask", "blur"])
def test_an_iteration_of_deqir_waits_once_for_how_far_the_states_moved(name: str) -> None:
    count, iterations = waits(DeqIR(steps=8, window=5, tolerance=1e-5), OPERATORS[name], 0.05)
    assert count <= iterations + 8  # those of the start


def test_no_step_of_guidance_through_a_nonlinear_operator_waits() -> None:
    few, many = (waits(DPS(steps=steps), lambda: JPEG(50), 0.0)[0] for steps in (3, 6))
    assert few == many
