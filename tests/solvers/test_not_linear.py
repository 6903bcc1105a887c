"""Operators that are not linear: more steps do not hurt, and nothing is worse than what plain decoding gives."""

from functools import cache

import pytest
import torch
from torch import Tensor

from workbench.images import sample_photo
from workbench.models import Prior, load_prior
from workbench.operators import JPEG, Compose, Inpainting, Operator
from workbench.restore import Degraded, degrade, restore, samples
from workbench.solvers import make_solver
from workbench.solvers.start import first_estimate


class Exposed(Operator):
    """Brighter, gamma 1/2.2, and clipped at both ends: a camera's curve."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return (1.2 * x.clamp(min=1e-4) ** (1 / 2.2) - 0.1).clamp(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def pinv(self, y: Tensor) -> Tensor:
        return ((y + 0.1) / 1.2).clamp(min=0) ** 2.2


@cache
def photo_prior(name: str) -> Prior:
    return load_prior(name)


def degraded(kind: object, noise: float = 0.02) -> Degraded:
    side = 64 if kind == "jpeg:20" else 32  # the descent through a curve takes long, and JPEG needs its blocks
    photos = torch.cat([sample_photo(name, side) for name in ("cat", "astronaut")])
    return degrade(photos, kind, noise)


def psnr(image: Tensor, given: Degraded) -> float:
    assert given.original is not None
    return float(-10 * (image - given.original).square().mean((1, 2, 3)).log10().mean())


def restored(given: Degraded, name: str, prior: str = "photo", **settings: int) -> float:
    return psnr(restore(given, make_solver(name, **settings), photo_prior(prior)).image, given)


@pytest.mark.parametrize("kind", ["jpeg:20", Exposed()], ids=["jpeg", "exposed"])
def test_more_steps_do_not_hurt(kind: object) -> None:
    """On JPEG with noise they did: 21.6, 19.2 and 17.5 dB, decoded 24.5; the camera's curve stopped half-way."""
    given = degraded(kind)
    few, more = (restored(given, "diffpir", steps=steps) for steps in (5, 10))
    assert few > psnr(given.op.pinv(given.y), given)
    assert more > few - 0.1


@pytest.mark.parametrize("solver", ["hqs", "red", "daps"])
def test_no_estimate_is_below_the_decoded_photo(solver: str) -> None:
    given = degrade(sample_photo("cat", 64), "jpeg:20", 0.02)
    assert restored(given, solver) > psnr(given.y, given)


def test_noisier_data_count_for_as_much() -> None:
    """With a spread of 0.01 beside noise 0.05 they hardly did: 19.3 dB, decoded 24.5."""
    given = degrade(sample_photo("cat", 64), "jpeg:50", 0.05)
    assert restored(given, "daps", steps=50) > psnr(given.y, given) + 0.5


@pytest.mark.parametrize(("solver", "prior"), [("latino", "photo-cm"), ("ud2m", "photo-ud2m")])
def test_the_mean_of_samples_is_above_the_decoded_photo(solver: str, prior: str) -> None:
    """A sample has up to twice the error of the posterior mean, 3 dB; so single ones may lie below."""
    given = degrade(sample_photo("cat", 64), "jpeg:20", 0.02)
    found = restore(samples(given, 4), make_solver(solver), photo_prior(prior)).image
    decoded = psnr(given.y, given)
    assert psnr(found.mean(0, keepdim=True), given) > decoded + 0.5
    assert psnr(found[:1], given) > decoded - 3


@pytest.mark.parametrize(
    ("solver", "prior", "settings"), [("red", "photo", {"max_steps": 20}), ("ud2m", "photo-ud2m", {})]
)
def test_what_starts_from_the_data_starts_from_them_decoded(solver: str, prior: str, settings: dict[str, int]) -> None:
    """From the camera's picture itself, through its curve, they had 14 to 17 dB, decoded 26."""
    given = degraded(Exposed(), 0.05)
    assert restored(given, solver, prior, **settings) > psnr(given.op.pinv(given.y), given)


def test_what_comes_before_a_codec_is_seen_by_the_start() -> None:
    photo, mask = sample_photo("cat", 32), torch.ones(32, 32)
    mask[8:20, 8:20] = 0
    op, holes = Compose(JPEG(50), Inpainting(mask)), Inpainting(mask)
    seen = op(photo)
    start = first_estimate(op, seen, torch.full((1,), 0.01))
    torch.testing.assert_close(start, first_estimate(holes, seen, torch.full((1,), 0.01), "picture"))
