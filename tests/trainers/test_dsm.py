"""The DSM loss: its value for known denoisers, its levels, its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workbench.models import PlainDenoiser
from workbench.random import Draws
from workbench.trainers import DSM


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


class Identity(torch.nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x


def test_doing_nothing_costs_one_per_pixel() -> None:
    """D(x) = x leaves the error sigma eps: under the score weighting its square has mean one (MUPET, eq. 5)."""
    prior = PlainDenoiser(Identity(), sigma_min=0.01, sigma_max=50.0)
    loss, _ = DSM(weighting="score")(prior, torch.rand(64, 3, 16, 16), draws())
    assert float(loss) == pytest.approx(1.0, abs=0.02)  # 49,152 squared normals: standard deviation 0.006


def test_edm_weight_is_the_published_one() -> None:
    """(sigma^2 + d^2) / (sigma d)^2 = 1 / sigma^2 + 1 / d^2: doing nothing costs 1 + sigma^2 / d^2."""
    level, data = 0.2, 0.25
    prior = PlainDenoiser(Identity(), sigma_min=level, sigma_max=level)
    loss, _ = DSM(sigma_data=data)(prior, torch.rand(64, 3, 16, 16), draws())
    assert float(loss) == pytest.approx(1 + level**2 / data**2, rel=0.02)


def test_levels_are_log_normal_within_the_range() -> None:
    levels = DSM(sigma_median=0.1, sigma_spread=0.5, uniform_share=0.0).levels(20_000, 0.001, 50.0, draws())
    assert float(levels.log().mean()) == pytest.approx(math.log(0.1), abs=0.02)
    assert float(levels.log().std()) == pytest.approx(0.5, abs=0.02)
    levels = DSM(uniform_share=1.0).levels(20_000, 0.01, 100.0, draws())
    assert float((levels < 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert 0.01 <= float(levels.min()) < 0.0101 < 99 < float(levels.max()) <= 100


def test_a_prior_that_knows_all_low_levels_is_trained_above_zero() -> None:
    """DRUNet's lowest level is 0, where nothing can be learnt and the loss divides by it."""
    loss, _ = DSM(weighting="score")(PlainDenoiser(Identity(), sigma_max=0.2), torch.rand(64, 3, 16, 16), draws())
    assert float(loss) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ValueError, match=r"levels of training must be above 0, finite .* sigma_max inf"):
        DSM()(PlainDenoiser(Identity()), torch.rand(1, 3, 8, 8), draws())


def test_gradient_by_finite_differences() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.scale * x

    net = Scaled()
    prior = PlainDenoiser(net, sigma_min=0.01, sigma_max=5.0)
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=draws(1).generator)

    def loss() -> Tensor:
        return DSM()(prior, images, draws())[0]

    (gradient,) = torch.autograd.grad(loss(), net.parameters())
    with torch.no_grad():
        net.scale += 1e-4
        above = loss()
        net.scale -= 2e-4
        below = loss()
    # The loss is quadratic in the scale: central differences are exact up to rounding.
    assert float(gradient) == pytest.approx(float(above - below) / 2e-4, rel=1e-5)


def test_same_draws_same_loss() -> None:
    prior = PlainDenoiser(Identity(), sigma_min=0.01, sigma_max=5.0)
    images = torch.rand(2, 3, 8, 8)
    first, second, third = (float(DSM()(prior, images, draws(seed))[0]) for seed in (0, 0, 1))
    assert first == second != third


@pytest.mark.parametrize("options", [{"weighting": "dsm"}, {"sigma_median": 0.0}, {"uniform_share": 1.5}])
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="got"):
        DSM(**options)
