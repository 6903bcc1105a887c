"""A prior in overlapping tiles: what is exactly that of the whole image, what is bounded, what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from tests.solvers.solver_problems import FunctionPrior, Recorder
from workbench.models import PlainDenoiser, TiledPrior
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.solvers import DDNM, DeqIR, DiffPIR

SIZES = [(64, 64), (41, 67), (16, 90), (33, 8), (5, 3), (1, 1), (130, 16)]


def noisy(size: tuple[int, int], images: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(images, 3, *size, generator=generator(seed), dtype=torch.float64)


def level(sigma: Tensor) -> Tensor:
    return sigma.view(-1, 1, 1, 1)


def smooth(radius: int, multiple: int = 1) -> Callable[[Tensor, Tensor], Tensor]:
    """A curved denoiser of ``multiple`` pixels per cell that looks ``radius`` cells far, zeros around the image."""
    kernel = torch.rand(3, 3, 2 * radius + 1, 2 * radius + 1, generator=generator(1), dtype=torch.float64) - 0.4

    def f(x: Tensor, sigma: Tensor) -> Tensor:
        wide = interpolate(conv2d(avg_pool2d(x, multiple), kernel, padding=radius), scale_factor=float(multiple))
        return torch.tanh(wide / (1 + level(sigma))) + 0.1 * x

    return f


@pytest.mark.parametrize(("tile", "overlap"), [(16, None), (16, 0), (24, 5), (8, 7)])
def test_windows_sum_to_one_and_pointwise_denoisers_do_not_notice(tile, overlap):
    """A curved function of one pixel and its image's level, up to rounding."""
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    prior = TiledPrior(
        FunctionPrior(lambda x, s: torch.tanh(x / level(s)), multiple=1 if overlap == 7 else 4), tile, overlap
    )
    for size in SIZES:
        x = noisy(size)
        torch.testing.assert_close(prior(x, sigma), torch.tanh(x / level(sigma)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("radius", "multiple", "tile", "overlap"), [(1, 1, 16, 4), (3, 1, 24, 12), (2, 4, 48, 35)])
def test_a_near_sighted_prior_gives_what_it_gives_on_the_whole_image(radius, multiple, tile, overlap):
    """Exact everywhere, also at the image's own border: it sees at most overlap // 4 pixels, and the same grid.

    Cells of 4 pixels and 2 around them: from a pixel, 3 + 2 * 4 = 11 pixels at most, but tiles start with a cell, so
    what matters is that the window is zero (35 // 4 = 8 pixels) over the 2 cells that miss a neighbour.
    """
    inner = FunctionPrior(smooth(radius, multiple), multiple=multiple)
    for size in ((48, 100), (20, 36), (16, 68)):
        x = noisy(size)
        torch.testing.assert_close(TiledPrior(inner, tile, overlap)(x, 0.5), inner(x, 0.5), rtol=1e-12, atol=1e-12)


def test_a_far_sighted_prior_differs_where_tiles_meet_and_nowhere_else():
    """Radius 6, overlap 8: tile borders at 16 - 24 of 40. Windows are 1 up to pixel 18, so 0..11 see all they need."""
    inner = FunctionPrior(smooth(6))
    x = noisy((40, 24))
    gap = (TiledPrior(inner, 24, 8)(x, 0.5) - inner(x, 0.5)).abs().amax((0, 1, 3))
    assert max(float(gap[:18].max()), float(gap[22:].max())) < 1e-12
    assert float(gap[18:22].max()) > 1e-3


def test_smooth_windows_leave_no_step_and_missing_strips_are_mirrored():
    """A prior that answers with a number per tile: the blend moves from one to the next within the overlap."""
    seen = []

    def number(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return torch.arange(float(len(x))).view(-1, 1, 1, 1).expand(x.shape)

    prior = TiledPrior(FunctionPrior(number), 32, 16)
    blend = prior(torch.zeros(1, 3, 32, 48), 1.0)[0, 0, 0]
    assert (blend[:20].tolist(), blend[28:].tolist()) == ([0.0] * 20, [1.0] * 20)
    assert float(blend.diff().min()) >= 0
    assert float(blend.diff().max()) < 0.2  # sin^2 over 8 pixels: pi / 2 / 8 = 0.196 at its steepest
    assert float(blend[23] + blend[24]) == pytest.approx(1.0)
    hard = TiledPrior(FunctionPrior(number), 32, 0)(torch.zeros(1, 3, 32, 64), 1.0)[0, 0, 0]
    assert hard.tolist() == [0.0] * 32 + [1.0] * 32
    TiledPrior(FunctionPrior(number, image_size=8))(torch.tensor([[0.0, 1, 2], [3, 4, 5]]).expand(1, 3, 2, 3), 1.0)
    assert seen[-1][0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert seen[-1][0, 0, :, 0].tolist() == [0, 3, 0, 3, 0, 3, 0, 3]


def test_it_takes_every_size_and_the_prior_inside_only_its_own():
    inner = Recorder(FunctionPrior(lambda x, s: x, image_size=32, multiple=8))
    prior = TiledPrior(inner)
    assert (prior.tile, prior.image_size, prior.multiple) == (32, None, 1)
    for size in SIZES:
        assert prior(noisy(size), 1.0).shape == (2, 3, *size)
    assert {x.shape[-2:] for x, _, _ in inner.calls} == {(32, 32)}
    free = Recorder(FunctionPrior(lambda x, s: x, multiple=8))
    for size, expected in {(41, 67): (32, 32), (20, 70): (24, 32), (9, 16): (16, 16)}.items():
        free.calls.clear()
        TiledPrior(free, 32)(noisy(size), 1.0)
        assert {x.shape[-2:] for x, _, _ in free.calls} == {expected}


def test_the_network_never_sees_more_tiles_than_allowed():
    inner = Recorder(FunctionPrior(lambda x, s: x))
    TiledPrior(inner, 32, 8, 5)(noisy((200, 180), 3), 1.0)
    assert inner.images == 3 * 8 * 8  # 1 + ceil(168 / 24), 1 + ceil(148 / 24)
    assert max(len(x) for x, _, _ in inner.calls) <= 5


def test_gradients_keep_one_batch_of_activations_at_a_time():
    """Bytes that autograd holds after the forward pass: they do not grow with the activations of the network."""
    held = []

    class Wide(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return torch.stack([torch.tanh(k * x) for k in range(1, 21)]).mean(0)

    prior = TiledPrior(PlainDenoiser(Wide()), 16, 4, batch=2)
    x = noisy((64, 64), 1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        value = prior(x, 1.0)
    assert sum(held) < 8 * x.numel()  # of 20 times as much in the 1.8 times more pixels of the tiles
    (gradient,) = torch.autograd.grad(value.sum(), x)
    expected = sum(k * (1 - torch.tanh(k * x) ** 2) for k in range(1, 21)) / 20
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 100])
def test_gradients_and_images_of_a_batch_are_those_of_each_alone(batch):
    """Finite differences; groups of tiles do not see one another either; each image has its own level."""
    inner = FunctionPrior(smooth(3), multiple=4)
    prior = TiledPrior(inner, 8, 4, batch)
    x = noisy((9, 14), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prior(x, torch.tensor([0.4, 3.0])), (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: prior(x, 0.7), (x,), fast_mode=True)
    x, sigma = noisy((50, 37), 5), torch.tensor([0.02, 0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    together = prior(x, sigma)
    for index in range(5):
        alone = TiledPrior(inner, 8, 4, 64)(x[index : index + 1], sigma[index])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 30}, "positive multiples of 4, got 30"),
        ({"tile": 16, "overlap": 13}, "tiles of 16 can share 0 to 12 pixels, got an overlap of 13"),
        ({"tile": 16, "batch": 0}, "batch must be at least 1 tile, got 0"),
        ({"tile": 64, "image_size": 32}, "takes 32x32 images, so tiles of 32, got 64"),
    ],
)
def test_bad_tiles_are_refused(options, message):
    inner = FunctionPrior(lambda x, s: x, image_size=options.pop("image_size", None), multiple=4, name="fake")
    with pytest.raises(ValueError, match=message):
        TiledPrior(inner, **options)


@pytest.mark.parametrize("solver", [DiffPIR(steps=3), DDNM(steps=3), DeqIR(steps=3, iterations=4)])
def test_every_solver_works_on_any_size_as_if_there_were_no_tiles(solver):
    inner = FunctionPrior(smooth(1))
    x = noisy((27, 38), 1) / 4 + 0.5
    op = parse_operator("blur:1", (3, 27, 38))
    images = [
        solver(op(x), op, prior, sigma_noise=0.02, generator=generator(0)).image
        for prior in (inner, TiledPrior(inner, 16, 4))
    ]
    torch.testing.assert_close(*images, rtol=1e-9, atol=1e-9)
