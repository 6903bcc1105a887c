"""The DSM loss: its value for known denoisers, its levels, its gradient."""

import math

import pytest
import torch
from torch import Tensor

from workbench.models import ConsistencyModel, PlainDenoiser
from workbench.random import Draws
from workbench.trainers import DSM


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


class Identity(torch.nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x


def test_doing_nothing_costs_one_per_pixel() -> None:
    """D(x) = x leaves the error sigma eps: under the score weighting its square has mean one (MUPET, eq. 5), and under
    (sigma^2 + d^2) / (sigma d)^2 = 1 / sigma^2 + 1 / d^2 it is 1 + sigma^2 / d^2. Levels begin above 0, also of a prior
    that knows all low ones, such as DRUNet: there is nothing to learn at 0, and the loss divides by it."""

    def cost(objective: DSM, low: float, high: float, seed: int = 0) -> float:
        images = torch.rand(64, 3, 16, 16, generator=draws().generator)
        return float(objective(PlainDenoiser(Identity(), sigma_min=low, sigma_max=high), images, draws(seed))[0])

    score = DSM(weighting="score")
    for low, high in ((0.01, 50.0), (0.0, 0.2)):
        assert cost(score, low, high) == pytest.approx(1.0, abs=0.02)  # 49,152 squared normals: deviation 0.006
    assert cost(DSM(sigma_data=0.25), 0.2, 0.2) == pytest.approx(1 + 0.2**2 / 0.25**2, rel=0.02)
    assert cost(score, 0.01, 5.0) == cost(score, 0.01, 5.0) != cost(score, 0.01, 5.0, seed=1)
    with pytest.raises(ValueError, match=r"levels of training must be above 0, finite .* sigma_max inf"):
        DSM()(PlainDenoiser(Identity()), torch.rand(1, 3, 8, 8), draws())
    with pytest.raises(ValueError, match="denoising score matching needs a denoiser"):
        DSM()(ConsistencyModel(Identity()), torch.rand(1, 3, 8, 8), draws())


def test_levels_are_log_normal_within_the_range() -> None:
    levels = DSM(sigma_median=0.1, sigma_spread=0.5, uniform_share=0.0).levels(20_000, 0.001, 50.0, draws())
    assert float(levels.log().mean()) == pytest.approx(math.log(0.1), abs=0.02)
    assert float(levels.log().std()) == pytest.approx(0.5, abs=0.02)
    levels = DSM(uniform_share=1.0).levels(20_000, 0.01, 100.0, draws())
    assert float((levels < 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert 0.01 <= float(levels.min()) < 0.0101 < 99 < float(levels.max()) <= 100


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
