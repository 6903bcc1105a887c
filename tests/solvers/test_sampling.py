"""Noise schedules, and samples of the prior against closed forms."""

import math

import pytest
import torch

from tests.solvers.solver_problems import gaussian_prior, replay
from workbench.random import generator
from workbench.solvers import DDIM, EDM, PredictorCorrector
from workbench.solvers.base import Iterate
from workbench.solvers.prior_samples import PriorSampler
from workbench.solvers.schedules import geometric_sigmas, sampling_sigmas, vp_sigmas


def test_vp_levels_start_where_they_are_told():
    levels = vp_sigmas(20, 2.0)
    assert 1.5 < levels[0] <= 2.0
    assert levels[-1] == vp_sigmas(1000)[-1] == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)) / 2)
    assert (levels.diff() < 0).all()
    with pytest.raises(ValueError, match="steps must be between 1 and"):
        vp_sigmas(1001)


def test_bad_schedules_are_named():
    with pytest.raises(ValueError, match="'vp', 'geometric', 'karras' or a list of levels, got 'cosine'"):
        sampling_sigmas("cosine", 5, 0.01, 1.0)
    for levels in ([1.0, 0.0], [1.0, 0.5, 0.1], [1.0, 2.0, 0.0], [1.0, math.nan, 0.0]):
        with pytest.raises(ValueError, match="expected 3 descending levels that end with 0"):
            sampling_sigmas(levels, 2, 0.01, 10.0)
    with pytest.raises(ValueError, match="knows noise up to sigma = 10, the schedule starts at 11"):
        sampling_sigmas([11.0, 1.0, 0.0], 2, 0.01, 10.0)
    with pytest.raises(ValueError, match="levels must be positive, finite and descending"):
        geometric_sigmas(3, 0.1, 1.0)


class Grey(PriorSampler):
    """Gives back what it starts from."""

    def iterate(self, prior, grey, draw):
        yield Iterate(grey, None, grey, 1)


def test_samples_are_drawn_where_the_prior_is():
    prior, shape = gaussian_prior(6).to("meta"), (2, 1, 6, 6)
    assert Grey()(prior, shape).image.device.type == "meta"
    assert Grey()(prior, shape).image.dtype == torch.float32
    assert torch.equal(Grey()(prior, shape, like=torch.zeros(0)).image, torch.full(shape, 0.5))
    assert Grey()(lambda x, sigma: x, shape).image.device.type == "cpu"


def test_deterministic_ddim_is_the_probability_flow():
    """Gaussian prior: x_0 = mean + sqrt(S / (S + sigma_T^2)) (x_T - mean) per frequency, first order in the step."""
    prior = gaussian_prior(6, sigma_min=1e-3, sigma_max=20.0)
    unit = torch.randn(3, 1, 6, 6, generator=generator(0), dtype=torch.float64)
    gain = (prior.spectrum / (prior.spectrum + 400.0)).sqrt()
    expected = 0.5 + torch.fft.ifft2(gain * torch.fft.fft2(20.0 * unit)).real

    def error(steps: int) -> float:
        result = DDIM(steps, schedule="geometric")(prior, unit.shape, noise=replay([unit]), like=unit)
        return float((result.image - expected).abs().max())

    fine = error(500)
    assert fine < 2.4e-2
    assert error(250) / fine == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [
        (DDIM(200, 1.0, "karras"), 200),
        (EDM(100, churn=40.0), 199),  # the prior's highest level takes no churn: beyond it the prior knows nothing
        (PredictorCorrector(200), 400),
    ],
)
def test_samples_have_the_prior_s_mean_and_spectrum(sampler, evaluations):
    prior = gaussian_prior(8, sigma_min=0.01, sigma_max=20.0)
    result = sampler(prior, (1000, 1, 8, 8), generator=generator(0), like=torch.empty(0, dtype=torch.float64))
    power = torch.fft.fft2(result.image - 0.5, norm="ortho").abs().square().mean((0, 1))
    assert abs(float(result.image.mean()) - 0.5) < 0.02
    # Monte Carlo: 4.5 % per frequency; the rest is the number of levels, and the step's bias on images this small.
    torch.testing.assert_close(power, prior.spectrum[0], rtol=0.25, atol=0)
    assert float((power / prior.spectrum[0]).mean()) == pytest.approx(1, abs=0.1)
    assert result.evaluations[0] == evaluations


@pytest.mark.parametrize("sampler", [DDIM(10, 0.5), PredictorCorrector(10)])
def test_samples_repeat_and_do_not_depend_on_their_batch(sampler):
    prior, like = gaussian_prior(4, sigma_max=20.0), torch.empty(0, dtype=torch.float64)
    together = sampler(prior, (2, 1, 4, 4), generator=[generator(5), generator(6)], like=like).image
    for b in range(2):
        alone = sampler(prior, (1, 1, 4, 4), generator=generator(5 + b), like=like).image
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-11, rtol=0)
    assert sampler(prior, (2, 1, 4, 4), generator=generator(0)).image.dtype == torch.float32
