"""Gaussian mixtures and Laplace increments against quadrature, finite differences and each other."""

import pytest
import torch
from torch import Tensor

from workbench.evaluation.posterior import dense_matrix, exact_posterior
from workbench.exam.tasks import mixture_images, smooth_covariance
from workbench.models import GaussianMixturePrior, GaussianPrior, LaplaceIncrements
from workbench.operators import Inpainting
from workbench.operators.masks import random_mask
from workbench.random import generator


def two_pixels() -> GaussianMixturePrior:
    """Three correlated components on images of 1x2 pixels."""
    means = torch.tensor([[0.2, 0.3], [0.8, 0.4], [0.5, 0.9]]).view(3, 1, 1, 2)
    roots = torch.randn(3, 2, 2, generator=generator(0), dtype=torch.float64) * 0.15
    return GaussianMixturePrior(torch.tensor([1.0, 2.0, 1.0]), means, roots @ roots.mT + 0.002 * torch.eye(2).double())


def grid(low: float, high: float, points: int, dimensions: int = 2) -> tuple[Tensor, float]:
    """Points (N, dimensions) of a regular grid, and the volume of a cell."""
    axis = torch.linspace(low, high, points, dtype=torch.float64)
    cells = torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij"), -1).view(-1, dimensions)
    return cells, float(axis[1] - axis[0]) ** dimensions


def test_density_and_denoiser_are_those_of_quadrature_and_the_score_is_their_gradient():
    prior, sigma, h = two_pixels(), 0.2, 1e-5
    cells, volume = grid(-1.5, 2.5, 241)
    density = prior.log_density(cells).exp()
    assert float(density.sum() * volume) == pytest.approx(1, abs=1e-6)
    x = torch.tensor([[0.3, 0.5], [0.7, 0.8]], dtype=torch.float64)
    like = torch.exp(-((x[:, None] - cells) ** 2).sum(-1) / (2 * sigma**2))
    expected = (like * density) @ cells / (like * density).sum(1, keepdim=True)
    torch.testing.assert_close(prior(x.view(2, 1, 1, 2), sigma).flatten(1), expected, atol=1e-6, rtol=0)
    noisy = (like * density).sum(1) * volume / (2 * torch.pi * sigma**2)
    torch.testing.assert_close(prior.log_density(x, sigma), noisy.log(), atol=1e-6, rtol=0)
    for level in (0.05, 1.0):
        moves = h * torch.eye(2, dtype=torch.float64)
        slope = (prior.log_density(x[0] + moves, level) - prior.log_density(x[0] - moves, level)) / (2 * h)
        torch.testing.assert_close(prior.score(x[:1].view(1, 1, 1, 2), level).flatten(), slope, atol=1e-6, rtol=1e-6)


def test_the_posterior_is_that_of_quadrature_and_its_samples_have_its_moments():
    prior, sigma = two_pixels(), 0.15
    matrix, y = torch.tensor([[0.6, 0.7]], dtype=torch.float64), torch.tensor([[0.5], [0.9]], dtype=torch.float64)
    cells, _ = grid(-1.5, 2.5, 241)
    mass = prior.log_density(cells).exp() * torch.exp(-((y - cells @ matrix.T[:, 0]) ** 2) / (2 * sigma**2))
    mass = mass / mass.sum(1, keepdim=True)
    exact = prior.posterior(matrix, y, sigma)
    torch.testing.assert_close(exact.mean, mass @ cells, atol=1e-6, rtol=0)
    torch.testing.assert_close(exact.variance, mass @ cells**2 - (mass @ cells) ** 2, atol=1e-6, rtol=0)
    samples = exact.sample(20000, generator(1))
    # Monte Carlo: 1/sqrt(20000) = 0.7 % of a deviation, 1 % of a variance; more for two modes.
    assert float(((samples.mean(1) - exact.mean) / exact.variance.sqrt()).abs().max()) < 0.03
    torch.testing.assert_close(samples.var(1), exact.variance, rtol=0.05, atol=0)


def test_one_component_is_the_gaussian_prior_and_samples_of_several_have_their_modes():
    f = torch.fft.fftfreq(8, dtype=torch.float64)
    power = 1 / (0.02 + f[:, None] ** 2 + f[None, :] ** 2)
    plain = GaussianPrior((0.25**2 * power / power.mean())[None], torch.tensor([0.5]), sigma_min=0.0)
    means = torch.full((1, 1, 8, 8), 0.5)
    prior = GaussianMixturePrior(torch.ones(1), means, smooth_covariance(0.25)[None], sigma_min=0.0)
    x = torch.rand(3, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(prior(x, 0.3), plain(x, 0.3), atol=1e-10, rtol=0)
    op = Inpainting(random_mask((8, 8), 0.5, generator(0)))
    one = exact_posterior(op, plain, op(x[:1]), 0.1)
    other = prior.posterior(dense_matrix(op, (1, 8, 8)), op(x[:1]), 0.1)
    torch.testing.assert_close(other.mean[0], one.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(other.covariances[0], one.covariance, atol=1e-9, rtol=0)
    prior = mixture_images()
    x = prior.sample(4000, generator(0)).flatten(1)
    shares = torch.bincount(torch.cdist(x, prior.means).argmin(1), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.4, 0.3, 0.2, 0.1]), atol=0.03, rtol=0)
    assert prior(x.view(-1, 1, 8, 8).float(), 0.1).dtype == torch.float32


@pytest.mark.parametrize("sigma", [0.01, 0.06, 0.3])
def test_the_denoiser_of_laplace_increments_is_that_of_quadrature(sigma):
    """Three values, at steps finer than the noise; with and without a jump."""
    prior = LaplaceIncrements(3, sigma_min=0.0)
    for middle in (0.52, 0.75):
        x = torch.tensor([0.5, middle, 0.55], dtype=torch.float64)
        centre = prior(x.view(1, 1, 1, 3), sigma).flatten()
        cells, _ = grid(-1, 1, 101, 3)
        points = centre + cells * 8 * min(sigma, 0.12)
        log = prior.log_density(points) - ((points - x) ** 2).sum(1) / (2 * sigma**2)
        mass = log.softmax(0)
        torch.testing.assert_close(centre, mass @ points, atol=2e-3 * min(sigma, 0.05), rtol=0)


def test_the_laplace_denoiser_does_not_depend_on_its_batch_and_its_jacobian_is_symmetric():
    prior = LaplaceIncrements(8)
    x = prior.sample(4, generator(0))
    levels = torch.tensor([0.01, 0.04, 0.05, 3.0], dtype=torch.float64)
    noisy = x + levels.view(4, 1, 1, 1) * torch.randn(x.shape, generator=generator(1), dtype=torch.float64)
    alone = torch.cat([prior(row[None], float(level)) for row, level in zip(noisy, levels, strict=True)])
    torch.testing.assert_close(prior(noisy, levels), alone, atol=1e-10, rtol=0)
    for row, level in zip(noisy, levels.tolist(), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z, s=level: prior(z, s).flatten(), row[None])
        jacobian = jacobian.view(8, 8)
        # Windows move with the image, by whole lattice points: no gradient is missing but for what they cut off.
        torch.testing.assert_close(jacobian, jacobian.T, atol=2e-3, rtol=0)
        assert float(torch.linalg.eigvalsh((jacobian + jacobian.T) / 2).min()) > -2e-3


def test_gibbs_samples_have_the_moments_of_quadrature():
    prior, sigma = LaplaceIncrements(2), 0.04
    matrix = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[0.5, 0.52], [0.5, 0.65]], dtype=torch.float64)
    cells, _ = grid(0.1, 1.1, 501)
    off = y[:, None] - cells @ matrix.T
    mass = (prior.log_density(cells) - (off**2).sum(-1) / (2 * sigma**2)).softmax(1)
    mean, second = mass @ cells, mass @ cells**2
    # Many chains of one measurement each: their spread shows how well the mean is known.
    draws = prior.gibbs(matrix, y.repeat_interleave(50, 0), sigma, 10, generator(0), thin=5)
    deviation = (second - mean**2).sqrt()
    found = draws.mean.view(2, 50, 2).mean(1)
    assert float(((found - mean) / deviation).abs().max()) < 0.05
    spread = draws.samples.view(2, 500, 2).var(1)
    torch.testing.assert_close(spread, deviation**2, rtol=0.2, atol=0)


MEANS, COVARIANCES = torch.zeros(2, 1, 1, 2), torch.eye(2).expand(2, -1, -1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixturePrior(torch.ones(3), MEANS, COVARIANCES), r"weights and means must be \(K,\)"),
        (lambda: GaussianMixturePrior(torch.zeros(2), MEANS, COVARIANCES), "weights must be positive"),
        (lambda: GaussianMixturePrior(torch.ones(2), MEANS, COVARIANCES[:1]), r"covariances must be \(2, 2, 2\)"),
        (
            lambda: GaussianMixturePrior(torch.ones(2), MEANS, -COVARIANCES),
            "positive definite, got an eigenvalue of -1",
        ),
        (lambda: two_pixels()(torch.zeros(1, 1, 1, 3), 0.1), "takes 1x2 images, got 1x3"),
        (lambda: two_pixels().posterior(torch.eye(2), torch.zeros(1, 2), 0.0), "sigma_noise must be positive"),
        (lambda: two_pixels().posterior(torch.eye(2), torch.zeros(1, 3), 0.1), r"the matrix must be \(3, 2\)"),
        (lambda: LaplaceIncrements(1), "length must be at least 2, got 1"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
