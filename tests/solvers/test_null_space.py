"""One step of DDNM under noise: variances in closed form, and against the posterior of a Gaussian prior."""

import pytest
import torch

from tests.solvers.solver_problems import MatrixOperator, Unspectral, blurred, gaussian_prior
from workbench.random import generator
from workbench.solvers import DDNM, DDRM, DeqIR
from workbench.solvers.null_space import transition


@pytest.mark.parametrize(
    ("solver", "spectral", "bound"),
    [
        (DDNM(100), True, 2.5),
        (DDNM(100), False, 2.5),
        (DDRM(), True, 2.5),
        (DDRM(), False, 2.5),
        (DeqIR(), False, 3.5),
    ],
)
def test_noise_is_not_amplified(solver, spectral, bound):
    """A^+ y is useless here; the restored image is as good as a sample of the posterior.

    Such a sample is off by twice the posterior variance on average; the samplers are approximate, hence the bounds.
    """
    op, x, y, variance = blurred()
    result = solver(y, op if spectral else Unspectral(op), gaussian_prior(12), sigma_noise=0.01, generator=generator(2))
    assert (op.pinv(y) - x).square().mean() > 100 * variance
    assert (result.image - x).square().mean() < bound * variance


def test_the_noisy_step_carries_noise_of_about_the_next_level_without_a_spectral_form():
    """With a perfect denoiser (clean = x0) every coefficient of the DDNM+ step is x0 plus noise of variance s^2; with a
    spectral form, see ``test_ddrm.py``, exactly.

    The general form may not exceed it where data and prior weigh the same: 1.25 s^2.
    """
    matrix = torch.diag(torch.tensor([0.0, 1e-3, 0.02, 0.1, 0.5, 2.0], dtype=torch.float64))
    op = MatrixOperator(matrix, (1, 2, 3))
    batch, noise, level, eta = 40000, 0.1, 0.4, 0.6
    draw = lambda: torch.randn(batch, 1, 2, 3, generator=g, dtype=torch.float64)  # noqa: E731
    g = generator(0)
    x, levels = torch.rand(1, 1, 2, 3, dtype=torch.float64).expand(batch, 1, 2, 3), torch.full((batch,), noise)
    y = op(x) + noise * draw().flatten(1)
    step = transition(Unspectral(op), y, levels.double(), eta)
    error = op.analysis(step(x, draw(), draw(), level) - x)
    variance = (error.T @ error / batch) / level**2
    # Monte Carlo: sqrt(2 / 40000) = 0.7 % on the diagonal.
    assert (variance.diagonal() > 0.7).all()
    assert (variance.diagonal() < 1.3).all()
