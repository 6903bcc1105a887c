"""The Gaussian prior against dense linear algebra."""

import pytest
import torch

from workbench.images import sample_photo
from workbench.models import GaussianPrior
from workbench.random import generator


def spectrum(channels: int = 2, height: int = 4, width: int = 6) -> torch.Tensor:
    """Of real images: power at a frequency and its opposite is one."""
    noise = torch.randn(channels, height, width, generator=generator(0), dtype=torch.float64)
    return torch.fft.fft2(noise).abs() ** 2 / 100 + 0.01


@pytest.mark.parametrize("mean", [torch.tensor([0.3, 0.6]), torch.rand(2, 4, 6, generator=generator(1))])
def test_the_denoiser_is_the_conditional_mean(mean):
    prior = GaussianPrior(spectrum(), mean)
    covariance = prior.covariance()
    torch.testing.assert_close(covariance, covariance.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance), spectrum().flatten().sort().values)
    x = torch.randn(3, 2, 4, 6, generator=generator(2), dtype=torch.float64)
    middle = mean.double().view(2, *(mean.shape[1:] or (1, 1))).expand(2, 4, 6)
    for sigma in (0.0, 0.2, 30.0):
        level = max(sigma, prior.sigma_min)
        gain = covariance @ torch.linalg.inv(covariance + level**2 * torch.eye(48, dtype=torch.float64))
        expected = middle + ((x - middle).flatten(1) @ gain.T).view_as(x)
        torch.testing.assert_close(prior(x, sigma), expected, atol=1e-9, rtol=0)
    assert prior(x.float(), 0.2).dtype == torch.float32


def test_samples_have_the_covariance():
    prior = GaussianPrior(spectrum(), torch.tensor([0.3, 0.6]))
    samples = prior.sample(20000, generator(0))
    assert torch.equal(samples[:3], prior.sample(20000, generator(0))[:3])
    off = samples - prior.mean
    got, expected = off.flatten(1).T @ off.flatten(1) / 20000, prior.covariance()
    # Monte Carlo: about sqrt(2 / 20000) = 1 % of the variance per entry; 2304 entries, so 5 deviations.
    assert float((got - expected).abs().max()) < 0.05 * float(expected.diagonal().max())
    assert float(off.mean((0, 2, 3)).abs().max()) < 0.05


def test_the_spectrum_of_photos_is_that_of_photos():
    photo = sample_photo("cat", 32)
    prior = GaussianPrior.from_images(photo)
    torch.testing.assert_close(prior.mean.flatten().float(), photo.mean((0, 2, 3)))
    variance = photo.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(prior.spectrum.mean((1, 2)), variance + 1e-6, rtol=1e-6, atol=0)
    again = GaussianPrior.from_images(prior.sample(500, generator(0)), floor=0.0)
    # An average of 500 squares: 4.5 % per frequency (6 % at the real ones), 4 deviations at the largest of 3072.
    torch.testing.assert_close(again.spectrum, prior.spectrum, rtol=0.25, atol=0)


ONES = torch.ones(1, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianPrior(-ONES, torch.zeros(1)), r"spectrum must be \(C, H, W\), finite"),
        (lambda: GaussianPrior(ONES, torch.zeros(3)), r"mean must be finite, of shape \(1,\) or \(1, 4, 4\), got"),
        (lambda: GaussianPrior(torch.arange(16.0).view(1, 4, 4), torch.zeros(1)), "at a frequency and its opposite"),
        (lambda: GaussianPrior(ONES, torch.zeros(1))(torch.zeros(1, 1, 6, 6), 0.1), "takes 4x4 images, got 6x6"),
        (lambda: GaussianPrior.from_images(ONES), r"images must be \(N, C, H, W\), got shape \(1, 4, 4\)"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
