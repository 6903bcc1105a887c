"""DPS, PiGDM, MMPS: gradients against explicit Jacobians, one step by hand, and graphs that end with the step."""

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import (
    SHAPE,
    MatrixOperator,
    Unspectral,
    curved_prior,
    explicit,
    gaussian_prior,
    replay,
    stored,
)
from workbench.models import GaussianPrior
from workbench.random import generator
from workbench.solvers import DPS, PiGDM
from workbench.solvers.zero_shot.dps import residual_gradient
from workbench.solvers.zero_shot.mmps import moment_guidance
from workbench.solvers.zero_shot.pigdm import pseudo_inverse_guidance


def measured(name: str = "dense") -> tuple[MatrixOperator, Tensor, Tensor]:
    op = explicit(name)
    x, z = torch.rand(2, 2, *SHAPE, generator=generator(1), dtype=torch.float64)
    return op, x, op(z)


def jacobian(prior, x: Tensor, sigma: float) -> Tensor:
    """dD/dx of one image, (n, n), by central differences."""
    step = 1e-5
    moves = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *SHAPE)
    return ((prior(x + moves, sigma) - prior(x - moves, sigma)) / (2 * step)).flatten(1).T


def test_the_gradient_of_dps():
    op, x, y = measured()
    prior, sigma = curved_prior(), 0.2
    clean, gradient, residual, longest = residual_gradient(prior, op, x, y, sigma)
    torch.testing.assert_close(clean, prior(x, sigma))
    for b in range(2):
        off = (op(clean) - y)[b]
        expected = jacobian(prior, x[b], sigma).T @ (op.matrix.T @ off) / off.norm()
        torch.testing.assert_close(gradient[b].flatten(), expected, atol=1e-8, rtol=0)
        assert float(residual[b]) == pytest.approx(float(off.norm()))
        # A step of that length in the image takes the distance, as far as it is a plane, to 0.
        slope = (op.matrix.T @ off / off.norm()).norm()
        assert float(longest[b]) == pytest.approx(float(off.norm() / slope**2))
    # Where the data are met it does not pull.
    _, gradient, residual, longest = residual_gradient(prior, op, x, op(prior(x, sigma)), sigma)
    assert float(residual.max()) == float(longest.max()) == float(gradient.abs().max()) == 0


@pytest.mark.parametrize(("weight", "spectral"), [(0.0, True), (0.3, True), (0.3, False)])
def test_the_guidance_of_pigdm(weight, spectral):
    op, x, y = measured()
    prior, sigma = curved_prior(), 0.2
    weights = torch.full((2,), weight, dtype=torch.float64)
    clean, guidance = pseudo_inverse_guidance(prior, op if spectral else Unspectral(op), x, y, sigma, weights)
    gram = op.matrix @ op.matrix.T + weight * torch.eye(18, dtype=torch.float64)
    for b in range(2):
        pull = op.matrix.T @ torch.linalg.solve(gram, (y - op(clean))[b])
        expected = jacobian(prior, x[b], sigma).T @ pull
        torch.testing.assert_close(guidance[b].flatten(), expected, atol=1e-7, rtol=0)


def test_a_step_of_dps_in_the_published_coordinates():
    """Algorithm 1 for [-1, 1] images and VP states in float64, with the code's step: zeta times the norm's gradient."""
    op, _, y = measured()
    prior, levels, zeta = gaussian_prior(6), [2.0, 0.7, 0.0], 0.8
    unit = stored(2, seed=2)
    image = DPS(2, zeta, levels)(y, op, prior, noise=replay(unit)).image
    alpha_bar = [1 / (1 + 4 * level**2) for level in levels]
    state = math.sqrt(alpha_bar[0]) * 2 * levels[0] * unit[0]
    target = 2 * y - op(torch.ones(2, *SHAPE, dtype=torch.float64))
    for i in range(2):
        here, there = alpha_bar[i], alpha_bar[i + 1]
        alpha = here / there
        state = state.detach().requires_grad_()
        clean = (
            2 * prior.denoise((state / math.sqrt(here) + 1) / 2, torch.full((2,), levels[i], dtype=torch.float64)) - 1
        )
        norms = (target - op(clean)).flatten(1).norm(dim=1)
        (gradient,) = torch.autograd.grad(norms.sum(), state)
        mean = math.sqrt(alpha) * (1 - there) / (1 - here) * state + math.sqrt(there) * (1 - alpha) / (1 - here) * clean
        spread = math.sqrt((1 - there) / (1 - here) * (1 - alpha))
        noise = unit[1] if i == 0 else torch.zeros_like(unit[1])
        state = mean + spread * noise - zeta * gradient
    torch.testing.assert_close(image, ((state + 1) / 2).detach(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("adaptive", [True, False])
def test_pigdm_on_a_white_gaussian_is_the_posterior_mean(adaptive):
    """One step to 0 gives D_y; for white images of that spread it is E[x0 | x, y] unless the weights are adaptive."""
    op, _, y = measured()
    spread, level, noise = 0.25, 0.5, 0.1
    prior = GaussianPrior(torch.full(SHAPE, spread**2, dtype=torch.float64), torch.tensor([0.5]))
    (unit,) = stored(1, seed=2)
    image = PiGDM(1, spread=spread, adaptive=adaptive, schedule=[level, 0.0])(
        y, op, prior, sigma_noise=noise, noise=replay([unit])
    ).image
    a, state = op.matrix, (0.5 + level * unit).flatten(1)
    eye = torch.eye(36, dtype=torch.float64)
    precision = a.T @ a / noise**2 + (1 / level**2 + 1 / spread**2) * eye
    mean = torch.linalg.solve(precision, (y @ a / noise**2 + state / level**2 + 0.5 / spread**2).T).T
    denoised = 0.5 + spread**2 / (spread**2 + level**2) * (state - 0.5)
    share = spread**2 / (spread**2 + level**2) if adaptive else 1.0
    torch.testing.assert_close(image.flatten(1), denoised + share * (mean - denoised), atol=1e-9, rtol=0)


def test_mmps_on_a_gaussian_is_the_posterior_mean():
    """After as many iterations as there are numbers; and images of a batch with levels of their own."""
    op, _, y = measured()
    prior, level, noise = gaussian_prior(6), 0.5, torch.tensor([0.05, 0.2], dtype=torch.float64)
    state = 0.5 + level * stored(1, seed=2)[0]
    clean, correction = moment_guidance(prior, op, state, y, level, noise, 36)
    covariance, a, eye = prior.covariance(), op.matrix, torch.eye(36, dtype=torch.float64)
    for b in range(2):
        precision = a.T @ a / noise[b] ** 2 + eye / level**2 + torch.linalg.inv(covariance)
        pulled = a.T @ y[b] / noise[b] ** 2 + state[b].flatten() / level**2
        prior_pull = torch.linalg.solve(covariance, torch.full((36,), 0.5, dtype=torch.float64))
        expected = torch.linalg.solve(precision, pulled + prior_pull)
        torch.testing.assert_close((clean + correction)[b].flatten(), expected, atol=1e-5, rtol=0)
