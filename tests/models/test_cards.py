"""The figures on a shipped prior's card are those that the shipped weights give, on photos that no training saw."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.conftest import program
from workbench.models import available_priors, describe_priors, load_prior
from workbench.models.load import shipped_kind
from workbench.photo_file import read_photo

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def denoising() -> ModuleType:
    return program("benchmarks", "denoising")


@pytest.mark.parametrize("name", [name for name in available_priors() if shipped_kind(name) == "denoiser"])
def test_the_denoising_figures_can_be_measured_again(shared: Path, denoising: ModuleType, name: str) -> None:
    prior = load_prior(name)
    card, level, data = prior.card["denoising_psnr"], 25, shared / "data"
    if "crops" in card:  # as the first cards were: centres of 128x128 of BSDS500 test, one stream of noise for all
        group, denoise, rng, values = "bsds500", denoising.network(prior), np.random.default_rng(level), []
        for file in denoising.photos(data, sets=["bsds500-test"], count=card["crops"])["bsds500-test"]:
            pixels = read_photo(file, flat=True).levels / 255.0
            top, left = (pixels.shape[0] - 128) // 2, (pixels.shape[1] - 128) // 2
            clean = pixels[top : top + 128, left : left + 128]
            noisy = clean + rng.normal(0, level / 255, clean.shape)
            values.append(denoising.psnr(denoise(noisy, level / 255), clean))
    else:
        group, files = "set5", denoising.photos(data, sets=["set5"], count=card["images"]["set5"])
        values = [float(row[str(level)]) for row in denoising.score("this prior", prior, files, [level])]
    stated = card["psnr"][group]["this prior"][card["sigma_255"].index(level)]
    # Printed to 0.01 dB; another processor rounds differently.
    assert float(np.mean(values)) == pytest.approx(stated, abs=0.02)


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("BSDS500 train and val (300 photos), 30,000 thumbnails", {"cbsd68"}),
        ("BSDS500 train (200 photos), 30,000 thumbnails", set()),
        ("30,000 thumbnails, BSDS500 train, val and test", {"cbsd68", "bsds500-test"}),
        ("['.data/bsds500/train', '.data/bsds500/val']", {"cbsd68"}),
        ("BSD500, 30,000 training photos", {"cbsd68", "bsds500-test"}),
    ],
)
def test_a_set_seen_in_training_is_refused(denoising: ModuleType, data: str, seen: set[str]) -> None:
    assert {group for group in denoising.SETS if denoising.saw({"data": data}, group)} == seen


def test_shipped_cards_state_what_a_user_needs_and_no_figures_on_photos_of_their_training(denoising) -> None:
    for card in describe_priors():
        assert card["megabytes"] <= 8.0
        figures = "denoising_psnr" if shipped_kind(card["name"]) == "denoiser" else "restoration"
        assert {"summary", "data", "images", "seconds", "hardware", figures} <= set(card), card["name"]
        groups = card["denoising_psnr"]["psnr"] if "denoising_psnr" in card else ["bsds500-test"]
        assert not [group for group in groups if denoising.saw(card, group)], card["name"]
