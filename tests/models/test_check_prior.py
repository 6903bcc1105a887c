"""``check_prior``: each way in which a network is mistaken for a prior is named; priors that are some pass."""

from collections.abc import Callable
from functools import cache
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.models import (
    EDMPrecond,
    GaussianPrior,
    PlainDenoiser,
    TiledPrior,
    VPNoise,
    available_priors,
    check_prior,
    load_prior,
)
from workbench.operators import Identity, Inpainting, block_mask
from workbench.solvers import DiffPIR

D = Callable[[Tensor, Tensor], Tensor]
right = cache(lambda: load_prior("photo-mupet"))


def column(sigma: Tensor) -> Tensor:
    return sigma.view(-1, 1, 1, 1)


def mine(wrong: Callable[[D, Tensor, Tensor], Tensor], **options: float) -> PlainDenoiser:
    """``wrong(D, x, sigma)``, with D the denoiser of a shipped prior, as a network of one's own."""
    return PlainDenoiser(lambda x, sigma: wrong(right().denoise, x, sigma), name="mine", **options)


def fine(d: D, x: Tensor, s: Tensor) -> Tensor:
    return d(x, s)


def tiny() -> Tensor:
    return torch.full((1, 3, 16, 16), 0.5)


WRONG = {
    "returns the noise, of standard deviation 1": lambda d, x, s: (x - d(x, s)) / column(s),
    "returns the noise, as large as it is in x": lambda d, x, s: x - d(x, s),
    "returns the score": lambda d, x, s: (d(x, s) - x) / column(s) ** 2,
    r"returns images in \[-1, 1\]": lambda d, x, s: 2 * d(x, s) - 1,
    "returns values in 0..255": lambda d, x, s: 255 * d(x, s),
    "takes values in 0..255": lambda d, x, s: 255 * d(x / 255, s / 255),
    "wants sigma in 255 units": lambda d, x, s: d(x, s / 255),
    "takes its sigma 255 times too large": lambda d, x, s: d(x, (255 * s).clamp(max=50)),
    "wants sigma twice as large": lambda d, x, s: d(x, s / 2),
    "wants sigma half as large": lambda d, x, s: d(x, 2 * s),
    "looks like no denoiser of photos: at noise 0.5 its": lambda d, x, s: x,
    "not finite": lambda d, x, s: x * torch.nan,
    r"got shape \(3, 6, 64, 64\)": lambda d, x, s: x.repeat(1, 2, 1, 1),
    "writes into its input": lambda d, x, s: d(x.add_(0.1), s) - 0.1,
    "got tuple": lambda d, x, s: (x, s),
    "answers otherwise for an image alone than in a batch": lambda d, x, s: d(x, s[:1].expand(len(s))),
    "for an image alone than in a batch: each has a sigma of its own": lambda d, x, s: d(x, s) * x.amax() / 2.5,
    "answers otherwise each time": lambda d, x, s: d(x, s) + 0.05 * torch.randn_like(x),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_sentence_says_what_it_looks_like(says: str) -> None:
    with pytest.raises(ValueError, match=rf"^mine .*{says}"):
        check_prior(mine(WRONG[says]))


def test_adapters_given_what_does_not_suit_them() -> None:
    ddpm = cast(VPNoise, load_prior("photo-ddpm"))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"VPNoise has wrong noise levels: .*cumprod\(1 - betas, 0\)\?"):
        check_prior(VPNoise(ddpm.net, alphas_cumprod=1 - betas))
    check_prior(VPNoise(ddpm.net, alphas_cumprod=torch.cumprod(1 - betas, 0)))
    with pytest.raises(ValueError, match="no denoiser of photos"):
        check_prior(VPNoise(ddpm.net, prediction="velocity"))
    with pytest.raises(ValueError, match="network that denoises by itself: PlainDenoiser"):
        check_prior(EDMPrecond(lambda u, s: 2 * right()((u + 1) / 2, s / 2) - 1))


def test_priors_that_are_some_pass() -> None:
    for name in available_priors():
        check_prior(load_prior(name))
    for known in (0.1, 50.0):  # those of FFDNet and DRUNet know little noise
        check_prior(mine(fine, sigma_max=known))
    check_prior(mine(fine, sigma_min=0.3, sigma_max=0.4))
    check_prior(mine(lambda d, x, s: 2 * d((x + 1) / 2, s / 2) - 1))  # made for [-1, 1]: a photo of little contrast
    grey = PlainDenoiser(lambda x, s: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False), channels=1)
    check_prior(grey)  # poor, and no more than that
    check_prior(mine(fine, multiple=24))
    check_prior(mine(fine, image_size=32))
    check_prior(TiledPrior(mine(fine)))
    check_prior(load_prior("deepinv:tv"))
    texture = GaussianPrior(torch.full((1, 8, 8), 1e-3), torch.tensor([0.5]))
    check_prior(texture, texture.sample(1, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="takes 8x8 images, got 64x64"):
        check_prior(texture)
    for photo, message in ((tiny()[0], r"photo must be one image .* \(3, 16, 16\)"), (255 * tiny(), "divide by 255")):
        with pytest.raises(ValueError, match=message):
            check_prior(mine(fine), photo)


def test_the_look_leaves_modes_and_random_streams_alone() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            assert not self.norm.training
            assert not torch.is_grad_enabled()
            torch.rand(5)
            return right().denoise(self.drop(self.norm(x)), sigma)

    net = Noisy()
    net.drop.eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_prior(PlainDenoiser(net))
    assert torch.equal(torch.rand(3), expected)
    assert (net.norm.training, net.drop.training, int(net.norm.num_batches_tracked)) == (True, False, 0)


def test_loading_looks_once_unless_told_not_to() -> None:
    asked = []
    prior = mine(lambda d, x, s: asked.append(len(x)) or d(x, s))
    assert load_prior(prior) is prior
    assert prior.checked
    assert sum(asked) == 6  # three levels, and one alone, with half and with twice its level
    load_prior(prior)
    DiffPIR(steps=3)(tiny(), Identity(), prior, generator=torch.Generator().manual_seed(0))
    assert sum(asked) == 6 + 3
    wrong = mine(WRONG["returns values in 0..255"])
    with pytest.raises(ValueError, match=r"0\.\.255.*check=False"):
        load_prior(wrong)
    assert load_prior(wrong, check=False).checked

    class Mine(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"got forward\(x, t\).*PlainDenoiser, EDMPrecond, VPNoise or VEScore"):
        load_prior(Mine())


def test_a_solver_looks_at_first_use() -> None:
    """Before: values of 1e12 and more, and no word on the prior."""
    run = DiffPIR(steps=20)
    for wrapped in (lambda prior: prior, TiledPrior):
        with pytest.raises(ValueError, match="mine returns the noise, of standard deviation 1"):
            run(tiny(), Identity(), wrapped(mine(WRONG["returns the noise, of standard deviation 1"])))
    known = mine(WRONG["returns the noise, of standard deviation 1"])
    known.checked = True
    hole = Inpainting(block_mask((16, 16), (4, 4)))
    assert run(tiny(), hole, known).message.startswith("the result has values")


def test_what_may_be_in_training_is_a_remark() -> None:
    prior, asked = mine(lambda d, x, s: asked.append(len(x)) or x), []
    for _ in range(2):
        assert "mine looks like no denoiser of photos" in DiffPIR(steps=3)(tiny(), Identity(), prior).message
    looked = asked[:-6]
    assert (asked[-6:], looked[0]) == ([1] * 6, 3)  # three steps each, and one look
    of_one_size = mine(lambda d, x, s: 0 * x + tiny())  # fails for a photo of another size: no reason to stop
    assert DiffPIR(steps=3)(tiny(), Identity(), of_one_size).image.shape == (1, 3, 16, 16)
