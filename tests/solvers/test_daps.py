"""DAPS: a step by hand, its draw against the Gaussian it stands for, and what one inner step is better at."""

from __future__ import annotations

import math

import pytest
import torch

from tests.solvers.solver_problems import SHAPE, explicit, gaussian_prior, problem, replay
from workbench.exam import make_task
from workbench.models import GaussianPrior
from workbench.random import generator
from workbench.solvers import DAPS, make_solver
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


def test_one_inner_step_samples_a_gaussian_and_five_are_too_wide():
    task = make_task("gaussian-inpaint")
    _, y = task.measure(1, generator(0))
    exact = task.prior.posterior(task.matrix, y, task.sigma_noise)
    ratios = []
    for settings in ({"steps": 200, "spread": 0.5}, {"steps": 50, "inner": 5, "spread": 50.0}):
        copies = y.expand(300, -1, -1, -1).contiguous()
        result = make_solver("daps", **settings)(
            copies, task.op, task.prior, sigma_noise=task.sigma_noise, generator=generator(1)
        )
        assert int(result.evaluations[0]) == settings["steps"] * settings.get("inner", 1)
        ratios.append(float(result.image.flatten(1).var(0).sum() / exact.variance.sum()))
    assert ratios[0] == pytest.approx(1, abs=0.1)
    assert ratios[1] > 1.6


def test_single_images_give_what_a_batch_gives_and_seeds_repeat():
    op, y = problem()
    prior, noises = gaussian_prior(6), []

    def record(like):
        noises.append(torch.randn(like.shape, generator=generator(len(noises)), dtype=like.dtype))
        return noises[-1]

    together = DAPS(4, 2)(y, op, prior, sigma_noise=0.1, noise=record).image
    for b in range(2):
        alone = DAPS(4, 2)(y[b : b + 1], op, prior, sigma_noise=0.1, noise=replay(n[b : b + 1] for n in noises)).image
        torch.testing.assert_close(alone, together[b : b + 1])
