"""RePaint and ILVR: one step by hand on a mask and on averages, resampling, and their treatment of noisy data."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import (
    FunctionPrior,
    MatrixOperator,
    Recorder,
    curved_prior,
    explicit,
    replay,
    stored,
)
from workbench.operators import Inpainting, SuperResolution
from workbench.random import generator
from workbench.solvers import DDNM, ILVR, RePaint
from workbench.solvers.zero_shot.ddnm import travel

LEVELS = [3.0, 0.8, 0.2, 0.0]


def ancestral(prior, x: Tensor, sigma: float, lower: float, unit: Tensor) -> Tensor:
    """DDPM's posterior q(x' | x, x0) with x0 = D."""
    mean = (lower / sigma) ** 2 * x + (1 - (lower / sigma) ** 2) * prior(x, sigma)
    return mean + lower * math.sqrt(1 - (lower / sigma) ** 2) * unit


def test_repaint_on_a_mask_is_equation_8():
    """Known pixels are those of the noised picture, the others the prior's."""
    mask = (torch.rand(8, 8, generator=generator(1)) > 0.5).double()
    y = torch.rand(2, 1, 8, 8, generator=generator(2), dtype=torch.float64) * mask
    prior, noise = curved_prior(), stored(7, size=8)
    image = RePaint(3, 1, 1, LEVELS)(y, Inpainting(mask), prior, noise=replay(noise)).image
    x = 0.5 + LEVELS[0] * noise[0]
    for i in range(3):
        unknown = ancestral(prior, x, LEVELS[i], LEVELS[i + 1], noise[1 + 2 * i])
        known = y + LEVELS[i + 1] * noise[2 + 2 * i]
        x = mask * known + (1 - mask) * unknown
    torch.testing.assert_close(image, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", [RePaint, DDNM])
def test_time_travel_goes_back_the_whole_length(kind):
    """Of levels 0 to 5, every 2 levels 2 back and again: 0 1, 0 1 2 3, 2 3 4."""
    levels, prior = [3.0, 2.0, 1.0, 0.5, 0.2, 0.0], Recorder(curved_prior())
    y = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    kind(5, travel_length=2, travel_repeat=2, schedule=levels)(y, Inpainting(torch.ones(8, 8)), prior)
    assert prior.told == [levels[i] for i in (0, 1, 0, 1, 2, 3, 2, 3, 4)]


def test_ilvr_on_averages_is_its_refinement():
    """x'' = phi(reference) + x' - phi(x'), phi being down and up again."""
    op, prior, noise = SuperResolution(2, "average"), curved_prior(), stored(7, size=8)
    y = torch.rand(2, 1, 4, 4, generator=generator(2), dtype=torch.float64)
    up = lambda v: v.repeat_interleave(2, -1).repeat_interleave(2, -2)  # noqa: E731
    phi = lambda v: up(torch.nn.functional.avg_pool2d(v, 2))  # noqa: E731
    image = ILVR(3, schedule=LEVELS)(y, op, prior, noise=replay(noise)).image
    x = 0.5 + LEVELS[0] * noise[0]
    for i in range(3):
        proposal = ancestral(prior, x, LEVELS[i], LEVELS[i + 1], noise[1 + 2 * i])
        reference = up(y) + LEVELS[i + 1] * noise[2 + 2 * i]
        x = phi(reference) + proposal - phi(proposal)
    torch.testing.assert_close(image, x, atol=1e-10, rtol=0)


def test_going_back_adds_the_noise_that_is_missing():
    """A prior that says 1/2 and data that say nothing: only noise is left, of the level's variance after every move."""
    op = MatrixOperator(torch.zeros(1, 16, dtype=torch.float64), (1, 4, 4))
    prior = Recorder(FunctionPrior(lambda x, sigma: torch.full_like(x, 0.5), channels=1))
    y = torch.zeros(2000, 1, dtype=torch.float64)
    RePaint(3, travel_length=1, travel_repeat=3, schedule=LEVELS)(y, op, prior, generator=generator(0))
    assert prior.told == [LEVELS[before] for before, after in travel(3, 1, 3) if after > before]
    for x, sigma, _ in prior.calls:
        # 32000 numbers: 0.4 %.
        assert float((x - 0.5).std()) == pytest.approx(float(sigma[0]), rel=0.02)


def test_noisy_data_keep_count_of_their_noise():
    """Above the noise a known pixel is y and what noise is missing, below it DDNM+'s step (eta 0.85); by hand."""
    mask, sigma_n, levels = (torch.rand(8, 8, generator=generator(1)) > 0.5).double(), 0.4, [3.0, 0.8, 0.2, 0.0]
    y = torch.rand(2, 1, 8, 8, generator=generator(2), dtype=torch.float64) * mask
    prior, noise, eta = curved_prior(), stored(7, size=8), 0.85
    keep = math.sqrt(1 - eta**2)
    image = RePaint(3, 1, 1, levels)(y, Inpainting(mask), prior, sigma_noise=sigma_n, noise=replay(noise)).image
    x = 0.5 + levels[0] * noise[0]
    for i, (sigma, lower) in enumerate(pairwise(levels)):
        clean, fresh = prior(x, sigma), noise[2 + 2 * i]
        if lower == 0:
            x = clean
            continue
        old = (ancestral(prior, x, sigma, lower, noise[1 + 2 * i]) - clean) / lower
        if lower >= sigma_n:
            known = y + math.sqrt(lower**2 - sigma_n**2) * fresh
        else:
            known = torch.lerp(clean, y, keep * lower / sigma_n) + lower * eta * fresh
        x = mask * known + (1 - mask) * (clean + lower * (keep * old + eta * fresh))
    torch.testing.assert_close(image, x, atol=1e-10, rtol=0)


def test_noise_free_images_of_a_batch_stay_noise_free():
    """As close as conjugate gradients solve."""
    op, prior, noise = explicit(), curved_prior(), stored(7)
    y = torch.rand(2, 18, generator=generator(2), dtype=torch.float64)
    solve = ILVR(3, schedule=LEVELS)
    both = solve(y, op, prior, sigma_noise=torch.tensor([0.0, 0.1]), noise=replay(noise)).image
    for row, sigma_n in enumerate((0.0, 0.1)):
        alone = solve(y, op, prior, sigma_noise=sigma_n, noise=replay(noise)).image
        torch.testing.assert_close(both[row], alone[row], atol=1e-7, rtol=0)
