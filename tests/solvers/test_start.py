"""Chains that start from another restoration, part of the way down the noise levels."""

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import (
    MatrixOperator,
    Recorder,
    curved_prior,
    explicit,
    gaussian_prior,
    replay,
    stored,
)
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.random import generator
from workbench.restore import degrade, restore
from workbench.solvers import DDNM, DeqIR, DiffPIR
from workbench.solvers.schedules import sampling_sigmas, vp_sigmas
from workbench.solvers.start import first_estimate


def sampled(name: str = "means") -> tuple[MatrixOperator, Tensor, Tensor]:
    """An explicit operator, a sample of the Gaussian prior, and what is measured of it."""
    op, prior, (unit,) = explicit(name), gaussian_prior(), stored(1, seed=1)
    x = 0.5 + torch.fft.ifft2(prior.spectrum.sqrt() * torch.fft.fft2(unit)).real
    return op, x, op(x)


@pytest.mark.parametrize("schedule", ["vp", "geometric", "karras"])
def test_levels_are_spread_between_the_start_and_zero(schedule):
    start = 1.0
    levels = sampling_sigmas(schedule, 10, 0.01, 50.0, start)
    assert levels.shape == (11,)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    expected = {"vp": vp_sigmas(10, start)[0], "geometric": start, "karras": start}
    assert levels[0] == pytest.approx(float(expected[schedule]))
    assert levels[0] <= start
    assert torch.equal(sampling_sigmas(schedule, 10, 0.01, 50.0, 50.0), sampling_sigmas(schedule, 10, 0.01, 50.0))


def test_one_step_from_an_image_in_closed_form():
    """steps = 1: denoise ``initial + s n`` and put the data in, A^+ y + N D(initial + s n)."""
    op, x, y = sampled()
    unit = torch.randn(x.shape, generator=generator(2), dtype=torch.float64)
    initial = 0.9 * x
    prior = curved_prior()
    s = float(vp_sigmas(1, 0.3)[0])
    result = DDNM(steps=1, sigma_start=0.3)(y, op, prior, noise=replay([unit, unit]), initial=initial)
    expected = op.pinv(y) + op.project_null(prior(initial + s * unit, s))
    torch.testing.assert_close(result.image, expected, rtol=1e-10, atol=1e-10)
    assert result.evaluations.tolist() == [1, 1]
    # Without an image: the smooth estimate.
    result = DDNM(steps=1, sigma_start=0.3)(y, op, prior, noise=replay([unit, unit]))
    start = first_estimate(op, y, y.new_zeros(2))
    torch.testing.assert_close(result.image, op.pinv(y) + op.project_null(prior(start + s * unit, s)))


def test_a_denoiser_serves_from_what_it_knows():
    """Levels up to 0.196 only, as DRUNet: refused from pure noise, and every call within its range with a start."""
    op, x, y = sampled("mask")
    prior = Recorder(gaussian_prior(), sigma_min=0.0, sigma_max=50 / 255)
    with pytest.raises(ValueError, match=r"or start from another image \(sigma_start up to 0.196\)"):
        DDNM(steps=8)(y, op, prior)
    solver = DDNM(steps=8, sigma_start=50 / 255, travel_length=2, travel_repeat=2)
    result = solver(y, op, prior, generator=generator(0))
    assert max(prior.told) <= 50 / 255
    assert len(prior.calls) == int(result.evaluations[0]) == 8 + 2 * 3
    start = first_estimate(op, y, y.new_zeros(2), "data")
    assert float((result.image - x).square().mean()) < float((start - x).square().mean())


@pytest.mark.parametrize("start", ["data", "picture", "smooth"])
def test_diffpir_starts_from_the_estimate_of_its_name(start):
    op, x, y = sampled("mask")
    prior, unit = Recorder(gaussian_prior()), torch.randn(x.shape, generator=generator(2), dtype=torch.float64)
    DiffPIR(steps=1, start=start, sigma_start=0.2)(y, op, prior, noise=replay([unit]))
    torch.testing.assert_close(prior.calls[0][0], first_estimate(op, y, y.new_zeros(2), start) + 0.2 * unit)


def test_from_the_smooth_estimate_few_steps_fill_missing_pixels():
    """At least 2 dB better than from pure noise. In 20 steps 2.7 (DiffPIR) and 5.4 (DDNM) on ten photos."""
    degraded, prior = degrade(sample_photos(64, ("cat", "coffee")), "inpaint:0.8", 0.01), load_prior("photo")

    def score(solver):
        return float(psnr(restore(degraded, solver, prior).image, degraded.original).mean())

    assert score(DDNM(steps=10, sigma_start=0.2)) > score(DDNM(steps=10)) + 2
    assert score(DiffPIR(steps=10, sigma_start=0.2, start="smooth")) > score(DiffPIR(steps=10)) + 2


def test_bad_starts_are_refused():
    op, x, y = sampled()
    prior = gaussian_prior(6, sigma_min=0.01, sigma_max=20.0)
    with pytest.raises(ValueError, match="sigma_start must be positive and finite, got -1"):
        DDNM(sigma_start=-1.0)
    for start in (20.5, 0.001):
        with pytest.raises(ValueError, match=f"sigma_start must be .* what the prior knows, 0.01 to 20, got {start}"):
            DDNM(sigma_start=start)(y, op, prior)
    with pytest.raises(ValueError, match="schedule must be a name where sigma_start is given"):
        DDNM(steps=1, schedule=[1.0, 0.0], sigma_start=0.5)(y, op, prior)
    with pytest.raises(ValueError, match=r"initial must be of the shape of the result, \(2, 1, 6, 6\), got"):
        DDNM(sigma_start=0.5)(y, op, prior, initial=x[:1])


@pytest.mark.parametrize(
    ("prediction", "window", "given"), [("photos", None, False), ("photos", 3, True), ("published", None, True)]
)
def test_deqir_starts_like_the_chain_it_solves(prediction, window, given):
    op, x, y = sampled("mask")
    run = {"prior": curved_prior(), "sigma_noise": 0.05, "initial": 0.9 * x if given else None}
    expected = DDNM(8, 0.3, sigma_start=0.5)(y, op, generator=generator(0), **run).image
    solver = DeqIR(8, 8, 0.3, prediction=prediction, tolerance=0.0, window=window, sigma_start=0.5)
    torch.testing.assert_close(solver(y, op, generator=generator(0), **run).image, expected, atol=1e-9, rtol=0)
