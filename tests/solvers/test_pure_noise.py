"""Where nothing but noise was added, the prior applied once is the answer; solvers come as near as they can."""

import pytest
import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo, sample_photos
from workbench.models import load_prior
from workbench.restore import degrade, restore, solver_of, usual_prior
from workbench.solvers import SOLVERS

# dB. Estimates come near. Samples of the posterior lose up to 10 lg 2 = 3 dB to its mean: to the mean's squared error
# they add that of the sample around it, which is as large. Some only resemble samplers, or approximate the posterior.
ESTIMATES = {"admm": 0.5, "hqs": 0.8, "forward-backward": 2.0, "cm4ir": 2.0, "red": 4.0}
SAMPLES = dict.fromkeys(("ddrm", "ddnm", "ddnm+", "deqir", "daps", "ilvr", "repaint"), 3.0)
OTHERS = {"diffpir": 4.0, "consistency": 4.0, "dps": 5.0, "ud2m": 4.5, "mmps": 5.0, "pigdm": 5.0, "latino": 6.0}
LOSES = ESTIMATES | SAMPLES | OTHERS
# By definition half of the noise stays in, and all of it; docs/degraded_photos.md says why.
KEEP = {"map": 3.5, "map-gd": 3.5, "map-adam": 3.0, "pnp-reg": 3.5, "pinv": 0.0}
FEWER = {"map-adam": 150, "daps": 20, "ddnm": 20, "ddnm+": 20, "diffpir": 20, "ilvr": 20}
FEWER |= {"mmps": 16, "repaint": 20}


@pytest.fixture(scope="module")
def photos():
    return sample_photos(64, ("coffee", "cat"))


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_every_solver_beside_the_prior_once(noise):
    """With its defaults, but for the number of steps."""
    ours = {name for name, kind in SOLVERS.items() if kind.__module__.startswith("workbench.")}
    assert ours - {"network"} == set(LOSES) | set(KEEP)
    photo = sample_photo("cat", 48)
    noisy, prior = degrade(photo, "denoise", noise), load_prior("photo")
    score = lambda image: float(psnr(image, photo, clip=True))  # noqa: E731
    with torch.no_grad():
        once = score(prior(noisy.y, noise))
    for name in LOSES | KEEP:
        steps = {"max_steps" if name == "map-adam" else "steps": FEWER[name]} if name in FEWER else {}
        reached = score(restore(noisy, solver_of(name, steps), load_prior(usual_prior(name))).image)
        assert reached >= (once - LOSES[name] if name in LOSES else score(noisy.y) + KEEP[name]), name


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
