"""Samples of one photo: one measurement, a solver's stream for each, and how they are recorded and saved."""

import json
from dataclasses import replace

import pytest
import torch

from workbench.images import load_image, sample_photos
from workbench.models import load_prior
from workbench.records import save
from workbench.restore import degrade, observe, restore, samples
from workbench.solvers import DeqIR, DiffPIR, OptimiseNoise, PseudoInverse
from workbench.solvers.deqir.losses import colour_distance


@pytest.fixture(scope="module")
def mini():
    return load_prior("photo-control")


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_photos(32, ("cat", "coffee"))


@pytest.mark.parametrize("spec", ["inpaint:0.8", "jpeg:10"])
def test_samples_differ_in_the_solver_noise_alone(photos, mini, spec):
    """Sample k is a restoration of the same measurement with a solver's stream of seed + k."""
    alone = degrade(photos[:1], spec, 0.05, seed=5, prior=mini)
    three = samples(alone, 3)
    assert three.solver_seeds == (5, 6, 7)
    for index in range(3):
        assert torch.equal(three.y[index], alone.y[0])
        assert torch.equal(three.picture[index], alone.picture[0])
    result = restore(three, DiffPIR(steps=2), mini)
    assert [record["solver_seed"] for record in result.records] == [5, 6, 7]
    assert all(record["seed"] == 5 for record in result.records)
    for index in range(3):
        again = restore(replace(alone, solver_seeds=(5 + index,)), DiffPIR(steps=2), mini)
        # Convolutions round differently for different batch sizes.
        torch.testing.assert_close(again.image[0], result.image[index], rtol=0, atol=1e-4)
        assert again.records[0]["psnr"] == pytest.approx(result.records[index]["psnr"], abs=1e-2)
    assert not torch.allclose(result.image[0], result.image[1], rtol=0, atol=1e-3)
    first = restore(alone, DiffPIR(steps=2), mini)
    assert torch.equal(first.image, restore(samples(alone, 1), DiffPIR(steps=2), mini).image)
    torch.testing.assert_close(first.image[0], result.image[0], rtol=0, atol=1e-4)


def test_solvers_without_noise_and_of_their_own_streams_take_samples(photos, mini):
    grey = samples(degrade(photos[:1], "gray", seed=1), 2)
    same = restore(grey, PseudoInverse(), mini)
    assert torch.equal(same.image[0], same.image[1])
    assert [record["solver_seed"] for record in same.records] == [1, 2]
    steered = OptimiseNoise(colour_distance(photos[1:]), DeqIR(steps=2), steps=1)
    result = restore(grey, steered, mini)
    alone = restore(replace(degrade(photos[:1], "gray", seed=1), solver_seeds=(2,)), steered, mini)
    torch.testing.assert_close(result.image[1], alone.image[0], rtol=0, atol=1e-3)
    assert not torch.allclose(result.image[0], result.image[1], rtol=0, atol=1e-2)


def test_samples_are_of_one_measurement(photos):
    with pytest.raises(ValueError, match="one measurement, got a batch of 2"):
        samples(degrade(photos, "sr:4"), 2)
    for count in (0, 1.5, "2"):
        with pytest.raises(ValueError, match=f"a whole number, at least 1, got {count!r}"):
            samples(degrade(photos[:1], "sr:4"), count)
    with pytest.raises(ValueError, match=r"one solver seed per image \(2\), got 1"):
        replace(degrade(photos, "sr:4"), solver_seeds=(0,))
    observed = samples(observe(photos[:1], "gray", seed=3), 2)
    assert observed.original is None
    assert observed.y.shape == (2, 1, 32, 32)


def test_saved_samples_are_numbered_and_those_of_before_go(photos, mini, tmp_path):
    alone = degrade(photos[:1], "inpaint:0.5", 0, 0, mini)
    (tmp_path / "restored-mine.png").touch()
    result = restore(samples(alone, 3), DiffPIR(steps=2), mini)
    save(result, tmp_path)
    names = {"original.png", "degraded.png", "metrics.json", "restored-mine.png", "restored.png"}
    assert {file.name for file in tmp_path.iterdir()} == {*names, "restored-2.png", "restored-3.png"}
    for name, image in zip(("restored", "restored-2", "restored-3"), result.image, strict=True):
        saved = load_image(tmp_path / f"{name}.png")[0]
        torch.testing.assert_close(saved, image.clamp(0, 1), atol=0.51 / 255, rtol=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    others = metrics.pop("samples")
    assert metrics == result.records[0]
    assert [other["solver_seed"] for other in others] == [1, 2]
    assert [other["psnr"] for other in others] == [record["psnr"] for record in result.records[1:]]
    assert set(others[0]) == {
        *("solver_seed", "psnr", "ssim", "lpips", "effnet", "consistency"),
        *("evaluations", "iterations", "converged", "message"),
    }
    save(restore(samples(alone, 2), DiffPIR(steps=2), mini), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*names, "restored-2.png"}
    save(restore(alone, DiffPIR(steps=2), mini), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == names
    assert "samples" not in json.loads((tmp_path / "metrics.json").read_text())
