"""One step of DDNM under noise: variances in closed form, and against the posterior of a Gaussian prior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import MatrixOperator, Unspectral, curved_prior, gaussian_prior, replay
from workbench.random import generator
from workbench.solvers import DDNM, DeqIR
from workbench.solvers.null_space import transition


def blurred(size: int = 12, batch: int = 16) -> tuple[MatrixOperator, Tensor, Tensor, Tensor]:
    """A blur with singular values down to 1e-3, images of the prior, their noisy data, the mean posterior variance."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    response = torch.exp(-2 * (torch.pi * 1.2) ** 2 * (f[:, None] ** 2 + f[None, :] ** 2)).clamp(min=1e-3)
    basis = torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size)
    op = MatrixOperator(torch.fft.ifft2(response * torch.fft.fft2(basis)).real.flatten(1).T, (1, size, size))
    spectrum = gaussian_prior(size).spectrum
    white = torch.randn(batch, 1, size, size, generator=generator(0), dtype=torch.float64)
    x = 0.5 + torch.fft.ifft2(spectrum.sqrt() * torch.fft.fft2(white)).real
    y = op(x) + 0.01 * torch.randn(batch, size * size, generator=generator(1), dtype=torch.float64)
    return op, x, y, (spectrum * 1e-4 / (response**2 * spectrum + 1e-4)).mean()


@pytest.mark.parametrize(
    ("solver", "spectral", "bound"),
    [
        (DDNM(100), True, 2.5),
        (DeqIR(), True, 2.5),
        (DeqIR(iterations=20), True, 2.5),
        (DDNM(100), False, 2.5),
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


@pytest.mark.parametrize("spectral", [True, False])
def test_the_noisy_step_carries_noise_of_the_next_level(spectral):
    """With a perfect denoiser (clean = x0) every coefficient of the DDNM+ step is x0 plus noise of variance s^2.

    The general form may not exceed it where data and prior weigh the same: 1.25 s^2.
    """
    matrix = torch.diag(torch.tensor([0.0, 1e-3, 0.02, 0.1, 0.5, 2.0], dtype=torch.float64))
    op = MatrixOperator(matrix, (1, 2, 3))
    batch, noise, level, eta = 40000, 0.1, 0.4, 0.6
    draw = lambda: torch.randn(batch, 1, 2, 3, generator=g, dtype=torch.float64)  # noqa: E731
    g = generator(0)
    x, levels = torch.rand(1, 1, 2, 3, dtype=torch.float64).expand(batch, 1, 2, 3), torch.full((batch,), noise)
    y = op(x) + noise * draw().flatten(1)
    step = transition(op if spectral else Unspectral(op), y, levels.double(), eta)
    error = op.analysis(step(x, draw(), draw(), level) - x)
    variance = (error.T @ error / batch) / level**2
    # Monte Carlo: sqrt(2 / 40000) = 0.7 % on the diagonal.
    if spectral:
        torch.testing.assert_close(variance, torch.eye(6, dtype=torch.float64), atol=0.03, rtol=0)
    else:
        assert (variance.diagonal() > 0.7).all()
        assert (variance.diagonal() < 1.3).all()


def test_images_with_and_without_noise_share_a_batch():
    op = MatrixOperator(torch.eye(36, dtype=torch.float64)[:18], (1, 6, 6))
    y = torch.rand(2, 18, generator=generator(1), dtype=torch.float64)
    stored = torch.randn(21, 2, 1, 6, 6, generator=generator(0), dtype=torch.float64)
    levels = torch.tensor([0.0, 0.05], dtype=torch.float64)
    for solver in (DDNM(20), DeqIR()):
        together = solver(y, op, curved_prior(), sigma_noise=levels, noise=replay(stored)).image
        for b in range(2):
            alone = solver(
                y[b : b + 1], op, curved_prior(), sigma_noise=float(levels[b]), noise=replay(stored[:, b : b + 1])
            )
            torch.testing.assert_close(together[b : b + 1], alone.image, atol=1e-9, rtol=0)
