"""The noise of a photo, estimated."""

import math

import pytest
import torch

from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.noise_level import estimate_noise, noise_of
from workbench.operators import Grayscale, Inpainting
from workbench.restore import observe, restore, solver_of


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_white_noise_on_photos_is_measured_to_a_tenth(level):
    photos = torch.cat([sample_photo(name, 128) for name in ("cat", "coffee")])
    noisy = photos + level * torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    estimated = estimate_noise(noisy)
    assert estimated.shape == (2, 3)
    torch.testing.assert_close(estimated, torch.full_like(estimated, level), rtol=0.15, atol=0)


def test_channels_are_told_apart_where_they_differ():
    photo = sample_photo("cat", 128)
    unit = torch.randn(photo.shape, generator=torch.Generator().manual_seed(1))
    strengths = torch.tensor([0.2, 0.1, 0.1]).view(1, 3, 1, 1)
    level, text = noise_of(photo + strengths * unit)
    assert level == pytest.approx(float(strengths.square().mean().sqrt()), rel=0.1)
    assert text.startswith("noise estimated: 0.1")
    assert "(red 0.2" in text
    assert "(" not in noise_of(photo + 0.1 * unit)[1]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_an_even_area_has_none(level):
    half = 0.5 + 0.1 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    half[..., :70] = level  # white sky, the ground of a cut-out: more than half of the photo
    assert noise_of(half)[0] == pytest.approx(0.1, rel=0.1)
    level, text = noise_of(torch.full((1, 3, 32, 32), 0.3))
    assert level == pytest.approx(0, abs=1e-9)
    assert text == "noise estimated: 0.000"


def test_what_is_no_photo_is_refused():
    with pytest.raises(ValueError, match=r"8 pixels a side at least, got shape \(1, 3, 4, 9\)"):
        estimate_noise(torch.zeros(1, 3, 4, 9))


def test_a_photo_that_came_noisy_is_restored_at_its_own_level():
    noisy = sample_photo("cat", 64) + 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    measured = observe(noisy, "denoise", "auto")
    level, said = noise_of(noisy)
    assert measured.noise == level
    record = restore(measured, solver_of("hqs", {"max_steps": 2}), load_prior("photo")).records[0]
    assert (record["noise"], record["message"]) == (level, said)
    with pytest.raises(ValueError, match="noise auto is for one photo at a time, got 2 photos"):
        observe(torch.cat([noisy, noisy]), "denoise", "auto")
    with pytest.raises(ValueError, match="got 'much'"):
        observe(noisy, "denoise", "much")


def test_the_noise_is_that_of_the_measurement_without_what_is_lost():
    draws = torch.Generator().manual_seed(4)
    noisy = sample_photo("cat", 128).mean(1, keepdim=True) + 0.1 * torch.randn(1, 3, 128, 128, generator=draws)
    assert observe(noisy, Grayscale(), "auto").noise == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    kept = torch.rand(128, 128, generator=draws) > 0.05
    spots = noisy.where(kept, 0.0)
    assert noise_of(spots)[0] > 0.12
    assert observe(spots, Inpainting(kept), "auto").noise == pytest.approx(0.1, rel=0.1)
    few = torch.rand(128, 128, generator=draws) > 0.9
    with pytest.raises(ValueError, match="too little of the photo is known to estimate its noise: give the noise"):
        observe(noisy, Inpainting(few), "auto")
