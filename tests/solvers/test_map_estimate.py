"""MAP estimates: against closed forms, the two rules against each other, per-sample stopping, what cannot converge."""

import pytest
import torch

from tests.solvers.solver_problems import FunctionPrior, MatrixOperator, curved_prior, gaussian_prior, matrices
from workbench.operators import Inpainting
from workbench.operators.masks import random_mask
from workbench.random import generator
from workbench.solvers import MapByAdam, MapByGradient, MapByProx, stationarity

SIZE = 6


@pytest.mark.parametrize(("name", "sigma"), [("dense", 0.3), ("mask", 5.0), ("blur", 0.02)])
def test_gaussian_prior_has_the_closed_form_estimate(name: str, sigma: float) -> None:
    """p_sigma has covariance C + sigma^2: (A^T A + sigma^2 (C + sigma^2)^-1) (x - m) = A^T (y - A m)."""
    prior = gaussian_prior(SIZE)
    op = MatrixOperator(matrices(SIZE)[name], (1, SIZE, SIZE))
    a, n = op.matrix, SIZE * SIZE
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + 0.2 * torch.randn(2, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    y = op(x) + sigma * torch.randn(op(x).shape, generator=generator, dtype=torch.float64)
    precision = torch.linalg.inv(prior.covariance() + sigma**2 * torch.eye(n, dtype=torch.float64))
    mean = torch.full((n,), 0.5, dtype=torch.float64)
    exact = mean + torch.linalg.solve(a.T @ a + sigma**2 * precision, (y - a @ mean) @ a, left=False)
    found = MapByProx(tolerance=1e-11, memory=20, max_steps=400)(y, op, prior, sigma_noise=sigma)
    assert found.converged.all()
    torch.testing.assert_close(found.image.flatten(1), exact, atol=1e-7, rtol=0)
    residual = stationarity(prior, op, y, exact.view_as(found.image), sigma)
    assert float(residual.abs().max()) < 1e-10 * max(1.0, sigma)


def test_the_reported_stationarity_is_that_of_the_image_returned() -> None:
    prior, op = curved_prior(channels=3), Inpainting(random_mask((16, 16), 0.5, torch.Generator().manual_seed(5)))
    y = op(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(6)))
    found = MapByProx(tolerance=1e-6, max_steps=2)(y, op, prior, sigma_noise=0.1)
    expected = stationarity(prior, op, y, found.image, 0.1).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(found.extras["stationarity"], expected, atol=1e-6, rtol=0)


def test_below_the_levels_of_the_prior_the_stationarity_is_the_solvers() -> None:
    """The prior answers at its lowest level; a score of that level times a smaller sigma^2 would be another vector."""
    prior, op = FunctionPrior(lambda x, s: 0.5 + 0.8 * (x - 0.5), sigma_min=0.1), Inpainting(torch.ones(1, 1, 8, 8))
    y = op(torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(6)))
    found = MapByProx(tolerance=1e-6, max_steps=30)(y, op, prior, sigma_noise=0.01)
    assert float(stationarity(prior, op, y, found.image, 0.01).abs().max()) < 1e-7
    reached = stationarity(prior, op, y, y, 0.01).flatten(1).square().mean(1).sqrt()
    for rule in (MapByProx(), MapByGradient(), MapByAdam()):  # noise-free too: what is near enough is not 0
        assert bool(rule(y, op, prior, sigma_noise=0.0, generator=generator(0)).converged.all()), rule
    once = MapByProx(max_steps=1)(y, op, prior, sigma_noise=0.01, initial=y)
    torch.testing.assert_close(once.extras["stationarity"], reached)


def test_an_expansive_prior_gives_the_best_iterate_and_says_so() -> None:
    """Where the data say nothing D(x) = 1/2 + 3 (x - 1/2) runs away; the start (grey) is stationary but for noise."""
    prior = FunctionPrior(lambda x, sigma: 0.5 + 3 * (x - 0.5) + 0.1 * torch.sin(20 * x))
    op = Inpainting(torch.zeros(1, 1, 8, 8))
    y = op(torch.rand(2, 3, 8, 8))
    found = MapByProx(tolerance=1e-9, max_steps=40)(y, op, prior, sigma_noise=0.1)
    assert bool(found.image.isfinite().all())
    start = stationarity(prior, op, y, torch.full_like(y, 0.5), 0.1).flatten(1).square().mean(1).sqrt()
    assert bool((found.extras["stationarity"] <= start + 1e-7).all())
