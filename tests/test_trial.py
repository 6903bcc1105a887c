"""Trials: the same measurements for every prior, independent images, results that do not depend on batches."""

from __future__ import annotations

import pytest
import torch

from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.random import stream
from workbench.solvers import DiffPIR
from workbench.trial import best_combinations, check_labels, combinations, measure, restore_measured

PHOTOS = sample_photos(16)
NAMES = list("abcd")


@pytest.mark.parametrize("spec", ["sr:4", "inpaint:0.8", "blur:2", "block:4"])
def test_batches_change_nothing(spec):
    whole = measure(PHOTOS, NAMES, range(4), spec, 0.1, seed=3)
    parts = [measure(PHOTOS[k : k + 1], NAMES[k : k + 1], [k], spec, 0.1, seed=3) for k in range(4)]
    torch.testing.assert_close(whole.y, torch.cat([part.y for part in parts]))
    prior = load_prior("photo")
    solver = DiffPIR(steps=2, sigma_start=1.0)
    image, rows = restore_measured(whole, solver, prior)
    alone, (row,) = restore_measured(parts[2], solver, prior)
    torch.testing.assert_close(image[2:3], alone, atol=1e-4, rtol=0)
    assert rows[2]["photo"] == row["photo"] == "c"
    assert rows[2]["psnr"] == pytest.approx(row["psnr"], abs=1e-2)
    assert row["evaluations"] == 2


def test_every_image_has_noise_and_missing_pixels_of_its_own():
    same = PHOTOS[:1].expand(3, -1, -1, -1)
    blurred = measure(same, NAMES[:3], range(3), "blur:2", 0.1, seed=0)
    assert not torch.allclose(blurred.y[0], blurred.y[1])
    masked = measure(same, NAMES[:3], range(3), "inpaint:0.8", 0.0, seed=0)
    lost = masked.y == 0
    assert not torch.equal(lost[0], lost[1])
    noise = (blurred.y - blurred.op(same)).flatten(1)
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 0.12  # 768 pixels: three standard errors are 0.11
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)


def test_random_operators_that_are_no_masks_go_one_by_one():
    with pytest.raises(ValueError, match="set batch to 1"):
        measure(PHOTOS, NAMES, range(4), "hadamard:0.5", 0.0, seed=0)
    assert measure(PHOTOS[:1], NAMES[:1], [0], "hadamard:0.5", 0.0, seed=0).y.shape[0] == 1


@pytest.mark.parametrize("noise", [-0.1, float("inf"), float("nan")])
def test_impossible_noise_is_refused(noise):
    with pytest.raises(ValueError, match="noise is a standard deviation"):
        measure(PHOTOS, NAMES, range(4), "sr:4", noise, seed=0)


def test_streams_differ_by_purpose_number_and_seed():
    first = [float(torch.rand((), generator=stream(*given))) for given in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1))]
    assert len(set(first)) == 4
    assert float(torch.rand((), generator=stream(0, "a"))) == first[0]


def test_grids_and_their_best():
    assert combinations({}) == [{}]
    assert combinations({"a": [1, 2], "b": [3]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    with pytest.raises(ValueError, match="no values for a"):
        combinations({"a": []})
    tried = [
        {"prior": "A", "settings": {"zeta": 0.1}, "psnr": 20.0, "effnet": 0.2},
        {"prior": "A", "settings": {"zeta": 0.3}, "psnr": 21.0, "effnet": 0.3},
    ]
    best = {row["metric"]: row["settings"]["zeta"] for row in best_combinations(tried, ["A"])}
    assert best == {"psnr": 0.3, "effnet": 0.1}


def test_labels_are_checked():
    check_labels({"MUPET": {}}, {"DSM": "x", "MUPET": "y"})
    with pytest.raises(ValueError, match="unknown prior 'MUPT', did you mean 'MUPET'"):
        check_labels({"MUPT": {}}, {"DSM": "x", "MUPET": "y"})
    with pytest.raises(ValueError, match="priors is empty"):
        check_labels({}, {})
