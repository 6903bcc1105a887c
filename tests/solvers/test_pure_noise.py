"""Where nothing but noise was added, the prior applied once is the answer; solvers come as near as they can."""

import pytest
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.restore import degrade, restore, solver_of, usual_prior

# Estimates come near. Samples of the posterior lose up to 10 lg 2 = 3 dB to its mean: to the mean's squared error they
# add that of the sample around it, which is as large. DiffPIR and jumps of a consistency model only resemble samplers.
LOSES = {"admm": 0.5, "hqs": 0.8, "cm4ir": 2.0, "ddrm": 3.0, "ddnm": 3.0, "deqir": 3.0, "daps": 3.0, "ilvr": 3.0}
STEPS = {"diffpir": 20, "ddnm": 20, "daps": 20, "ilvr": 20, "repaint": 20}
LOSES |= {"repaint": 3.0, "diffpir": 4.0, "consistency": 4.0}


@pytest.fixture(scope="module")
def photos():
    return sample_photos(64, ("coffee", "cat"))


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_defaults_beside_the_prior_once(photos, noise):
    noisy, prior = degrade(photos, "denoise", noise), load_prior("photo")
    with torch.no_grad():
        once = float(psnr(prior(noisy.y, noise), photos).mean())
    for name, loss in LOSES.items():
        steps = {"steps": STEPS[name]} if name in STEPS else {}
        network = load_prior(usual_prior(name))
        reached = float(psnr(restore(noisy, solver_of(name, steps), network).image, photos).mean())
        assert reached > once - loss, name


def test_the_mean_of_samples_is_as_good_as_the_prior_once(photos):
    """What a sampler of the posterior loses it gains back."""
    noise, prior = 0.2, load_prior("photo")
    noisy = degrade(photos[:1].expand(8, -1, -1, -1), "denoise", noise, numbers=[0] * 8)
    seeded = type(noisy)(noisy.op, noisy.y, noisy.original, "denoise", noise, 0, noisy.numbers, tuple(range(8)))
    mean = restore(seeded, solver_of("ddnm", {"steps": 15}), prior).image.mean(0, keepdim=True)
    with torch.no_grad():
        once = float(psnr(prior(noisy.y[:1], noise), photos[:1]))
    assert float(psnr(mean, photos[:1])) > once - 0.3


def test_masked_pixels_lose_their_noise_too(photos):
    """Levels that stop at the noise leave half of it in."""
    noisy, scores = degrade(photos, "inpaint:0.5", 0.2), []
    for settings in ({}, {"sigma_end": 0.01}):
        image = restore(noisy, solver_of("diffpir", {"steps": 20} | settings), load_prior("photo")).image
        scores.append(float(psnr(image, photos).mean()))
    assert scores[0] > scores[1] + 2
