"""DDRM's steps in closed form, and what it does without a spectral form."""

import math

import pytest
import torch

from tests.solvers.solver_problems import (
    MatrixOperator,
    Recorder,
    Unspectral,
    curved_prior,
    explicit,
    replay,
    stored,
)
from workbench.random import generator
from workbench.solvers import DDRM
from workbench.solvers.null_space import replaced, spectral_step

VALUES = torch.tensor([0.0, 1e-3, 0.02, 0.1, 0.5, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(("noise", "eta_b"), [(0.0, 1.0), (0.1, 1.0), (0.1, 0.6)])
def test_every_coefficient_carries_the_noise_of_its_level(noise, eta_b):
    """Proposition 3.1: with the true image in place of D, the state of level s is N(x0, s^2) over data and draws.

    That asks for e, too, to be unit noise; the data's noise is drawn anew.
    """
    batch, level, g = 40000, 0.4, generator(0)
    op = MatrixOperator(torch.diag(VALUES), (1, 2, 3))
    draw = lambda: torch.randn(batch, 6, generator=g, dtype=torch.float64)  # noqa: E731
    x = torch.rand(1, 6, generator=g, dtype=torch.float64).expand(batch, 6)
    y = VALUES * x + noise * draw()
    rule = spectral_step(op, y, torch.full((batch,), noise).double(), 0.6, eta_b)
    w = rule.weights(level)
    c, data = op.analysis(x.reshape(-1, 1, 2, 3)), op.data_analysis(y)
    state = w.clean * c + w.data * data + w.seen * draw() + w.fresh * draw()
    error = (state - c) / level
    # Monte Carlo: sqrt(2 / 40000) = 0.7 % on the diagonal.
    torch.testing.assert_close(error.T @ error / batch, torch.eye(6, dtype=torch.float64), atol=0.03, rtol=0)
    assert float(error.mean(0).abs().max()) < 4 / math.sqrt(batch)


def test_without_a_spectral_form_the_noise_free_step_is_the_same():
    """In image space, by projections alone."""
    op = explicit()
    clean, seen, fresh, x = stored(4)
    y, eta, level = op(x), 0.6, 0.3
    w = spectral_step(op, y, torch.zeros(2, dtype=torch.float64), eta).weights(level)
    parts = (w.clean * op.analysis(clean), w.data * op.data_analysis(y), w.seen * op.analysis(seen))
    expected = op.synthesis(sum(parts) + w.fresh * op.analysis(fresh))
    got = replaced(Unspectral(op), y, torch.zeros(2, dtype=torch.float64), eta)(clean, seen, fresh, level)
    torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)


def test_eta_b_asks_for_singular_values():
    op = Unspectral(explicit())
    with pytest.raises(ValueError, match=r"eta_b = 0.5 asks for singular values, Unspectral has none: use eta_b = 1"):
        DDRM(3, eta_b=0.5)(torch.zeros(1, 18, dtype=torch.float64), op, curved_prior())


def test_the_sampler_takes_equation_8_with_its_eta_b():
    """Where the data are better than the level, the state follows them by ``eta_b``."""
    op = MatrixOperator(torch.diag(VALUES), (1, 2, 3))
    y, noise, level, eta_b = torch.rand(1, 6, generator=generator(0), dtype=torch.float64), 0.1, 0.8, 0.6
    fresh = torch.randn(3, 1, 1, 2, 3, generator=generator(1), dtype=torch.float64)
    prior = Recorder(curved_prior())
    DDRM(2, eta_b=eta_b, schedule=[3.0, level, 0.0])(y, op, prior, sigma_noise=noise, noise=replay(fresh))
    got, clean = op.analysis(prior.calls[1][0])[0], op.analysis(prior.calls[0][2])[0]
    data, unit = op.data_analysis(y)[0], fresh[1].flatten()
    followed = [i for i, value in enumerate(op.values.tolist()) if value * level >= noise]
    assert followed
    for i in followed:
        value = float(op.values[i])
        spread = math.sqrt(level**2 - (eta_b * noise / value) ** 2)
        expected = clean[i] + eta_b * (data[i] / value - clean[i]) + spread * unit[i]
        torch.testing.assert_close(got[i], expected, atol=1e-10, rtol=0)
