"""DAPS: a step by hand, its draw against the Gaussian it stands for, and what one inner step is better at."""

import math

import pytest
import torch

from tests.solvers.solver_problems import SHAPE, explicit, gaussian_prior
from workbench.models import GaussianPrior, Prior
from workbench.operators import Inpainting
from workbench.random import generator
from workbench.solvers import DAPS
from workbench.solvers.zero_shot.daps import flow


def test_a_step_is_a_draw_of_the_gaussian_given_the_data():
    """One step to 0 of many copies: mean and covariance by dense algebra."""
    op, prior, level, noise, spread, count = explicit(), gaussian_prior(6), 0.4, 0.1, 0.5, 20000
    y = op(prior.sample(1, generator(0)))
    state = 0.5 + level * torch.randn(1, *SHAPE, generator=generator(1), dtype=torch.float64)
    draws = iter([(state - 0.5) / level])

    def noise_source(like):
        first = next(draws, None)
        if first is not None:
            return first.expand(like.shape)
        return torch.randn(like.shape, generator=random, dtype=like.dtype)

    random = generator(2)
    solver = DAPS(1, spread=spread, schedule=[level, 0.0])
    image = solver(y.expand(count, -1), op, prior, sigma_noise=noise, noise=noise_source).image.flatten(1)
    r2, a = 1 / (1 / level**2 + 1 / spread**2), op.matrix
    precision = a.T @ a / noise**2 + torch.eye(36, dtype=torch.float64) / r2
    centre = prior(state, level).flatten()
    mean = torch.linalg.solve(precision, a.T @ y[0] / noise**2 + centre / r2)
    covariance = torch.linalg.inv(precision)
    # Monte Carlo: 0.7 % of a deviation for the mean, 1 % of the variances; 36 numbers and 666 of them.
    assert float(((image.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max()) < 0.03
    assert float((torch.cov(image.T) - covariance).abs().max()) < 0.05 * float(covariance.diagonal().max())


def test_the_flow_of_a_gaussian():
    """Its end is ``mean + sqrt(S/(S + s^2)) (x - mean)``; one step is the denoiser."""
    prior = GaussianPrior(torch.full(SHAPE, 0.04, dtype=torch.float64), torch.tensor([0.5]), sigma_min=1e-3)
    x = torch.rand(2, *SHAPE, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(flow(prior, x, 0.3, 1), torch.lerp(prior(x, 0.3), x, 0.0))
    expected = 0.5 + math.sqrt(0.04 / (0.04 + 0.09)) * (x - 0.5)
    torch.testing.assert_close(flow(prior, x, 0.3, 400), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("spread", [0.1, 1e6])
def test_what_the_draw_adds_counts_as_noise_of_the_next_state(spread):
    """Nothing is seen, and the image is known: what a state has beside it is noise of the level that is told."""
    asked = []

    class Known(Prior):
        def denoise(self, x, sigma):
            asked.append((float((x - 0.5).square().mean().sqrt()), float(sigma[0])))
            return torch.full_like(x, 0.5)

    prior = Known(sigma_min=0.01, sigma_max=10.0, channels=1)
    op, y = Inpainting(torch.zeros(256, 256)), torch.zeros(1, 1, 256, 256)
    for counts in (True, False):
        DAPS(3, spread=spread, count_noise=counts, schedule=[0.4, 0.3, 0.2, 0.0])(y, op, prior, generator=generator(0))
    counted, apart = asked[-6:-3], asked[-3:]
    assert [told for _, told in counted] == pytest.approx([0.4, 0.3, 0.2] if spread < 1 else [0.4, 0.4, 0.3])
    for there, told in counted:
        assert there == pytest.approx(told, rel=0.01)  # 65,536 pixels: 0.3 % of a standard deviation
    assert [told for _, told in apart] == pytest.approx([0.4, 0.3, 0.2])
    assert apart[-1][0] == pytest.approx(math.hypot(0.2, 0.3 * spread / math.hypot(0.3, spread)), rel=0.01)
