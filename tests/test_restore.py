"""From photo to result: what the seed fixes, what a batch means, which sizes are proposed, what is recorded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch

from workbench.fitting import fitting_size
from workbench.images import load_image, sample_photos, save_image
from workbench.models import PlainDenoiser, TiledPrior, load_prior
from workbench.operators.parse import OPERATORS
from workbench.records import save
from workbench.restore import degrade, observe, restore, samples
from workbench.solvers import DDNM, DeqIR, DiffPIR, OptimiseNoise, PseudoInverse
from workbench.solvers.deqir.losses import colour_distance


@pytest.fixture(scope="module")
def prior():
    return load_prior("photo")


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_photos(32, ("cat", "coffee"))


@pytest.mark.parametrize("spec", ["inpaint:0.8", "blur:1", "sr:4", "oldphoto", "hadamard:0.5"])
def test_a_batch_gives_what_single_photos_give(photos, prior, spec):
    solver = DiffPIR(steps=3)
    together = degrade(photos, spec, 0.05, seed=7, prior=prior)
    result = restore(together, solver, prior)
    for index in range(2):
        alone = degrade(photos[index : index + 1], spec, 0.05, seed=7, prior=prior, numbers=[index])
        torch.testing.assert_close(alone.y[0], together.y[index], rtol=0, atol=1e-6)
        # Convolutions round differently for different batch sizes.
        one = restore(alone, solver, prior)
        torch.testing.assert_close(one.image[0], result.image[index], rtol=0, atol=1e-4)
        ((row,), both) = one.rows(["a"]), result.rows(["a", "b"])
        assert row["psnr"] == pytest.approx(both[index]["psnr"], abs=1e-2)
        assert row["evaluations"] == 3
    first = degrade(photos[:1], spec, 0.05, seed=7, prior=prior)
    assert torch.equal(first.y[0], together.y[0])  # image 0 has the streams of a single photo


def test_every_image_has_noise_and_missing_pixels_of_its_own(photos):
    same = photos[:1].expand(3, -1, -1, -1)
    noise = (degrade(same, "denoise", 0.1).y - same).flatten(1)
    # 3072 draws: the correlation has a standard error of 0.018, the standard deviation is known to 1.3 %.
    assert float((torch.corrcoef(noise) - torch.eye(3)).abs().max()) < 0.08
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    for spec in ("inpaint:0.8", "oldphoto"):
        lost = degrade(same, spec).y == 0
        assert not torch.equal(lost[0], lost[1])
    pattern = degrade(same, "hadamard:0.5").y  # of the instrument: one for all
    assert torch.equal(pattern[0], pattern[1])
    with pytest.raises(ValueError, match=r"one number per image \(3\), got 2"):
        degrade(same, "denoise", numbers=[0, 1])


def test_the_seed_fixes_everything_and_zero_is_a_seed(photos, prior):
    def image(seed: int) -> torch.Tensor:
        return restore(degrade(photos, "inpaint:0.5", 0.1, seed, prior), DiffPIR(steps=2), prior).image

    torch.manual_seed(1)
    first = image(0)
    torch.manual_seed(2)
    assert torch.equal(first, image(0))
    assert not torch.equal(first, image(1))


def test_the_noise_has_the_stated_level_and_does_not_depend_on_the_operator(photos):
    """Operator and noise draw from streams of their own: noise is the same whichever pixels are missing."""
    clean, noisy = degrade(photos, "denoise", 0.0, seed=3), degrade(photos, "denoise", 0.1, seed=3)
    noise = noisy.y - clean.y
    # 3072 draws: the standard deviation is known to 1.3 %.
    assert float(noise[0].std()) == pytest.approx(0.1, rel=0.05)
    assert not torch.equal(noise[0], noise[1])
    masked = degrade(photos, "inpaint:0.8", 0.1, seed=3)
    torch.testing.assert_close(masked.y - masked.op(photos), noise, rtol=0, atol=1e-6)
    assert torch.equal(masked.op(photos), degrade(photos, "inpaint:0.8", 0.0, seed=3).y)


def test_neighbouring_seeds_have_unrelated_noise(photos):
    def noise(seed: int) -> torch.Tensor:
        return (degrade(photos[:1], "denoise", 0.1, seed).y - photos[:1]).flatten()

    correlations = torch.corrcoef(torch.stack([noise(seed) for seed in range(6)])) - torch.eye(6)
    assert float(correlations.abs().max()) < 0.08  # 4.4 standard errors of 3072 draws


def test_the_solver_gets_the_noise_level_and_the_inputs_stay_as_they_are(photos, prior):
    before = photos.clone()
    degraded = degrade(photos, "sr:2", 0.05, 0, prior)
    y = degraded.y.clone()
    seen = []

    class Spy:
        def __call__(self, y, op, prior, *, sigma_noise, generator, callback):
            seen.append((sigma_noise, len(generator)))
            return PseudoInverse()(y, op, prior, sigma_noise=sigma_noise)

    spy = dataclass(Spy)()
    restore(degraded, spy, prior)
    assert seen == [(0.05, 2)]
    assert torch.equal(photos, before)
    assert torch.equal(degraded.y, y)


def test_records_are_json_and_complete(photos, prior):
    result = restore(degrade(photos, "sr:4", 0.01, 0, prior), DiffPIR(steps=2, zeta=0.3), prior, name="diffpir")
    rows = json.loads(json.dumps(result.records, allow_nan=False))
    assert [row["solver"] for row in rows] == ["diffpir"] * 2
    assert rows[0]["solver_settings"]["zeta"] == 0.3
    assert rows[0]["psnr"] != rows[1]["psnr"]
    assert all(row["evaluations"] == 2 and row["prior"] == prior.name and row["batch"] == 2 for row in rows)
    assert all(math.isfinite(row["seconds"]) for row in rows)


def test_small_pictures_are_kept_as_they_are_and_other_measurements_are_shown_in_image_space(photos):
    assert torch.equal(degrade(photos, "sr:4").picture, degrade(photos, "sr:4").y)
    hadamard = degrade(photos, "hadamard:0.5")
    assert hadamard.picture.shape == photos.shape
    torch.testing.assert_close(hadamard.picture, hadamard.op.adjoint(hadamard.y))


def test_a_size_that_fits_is_proposed(photos, prior):
    assert prior.multiple == 8
    assert fitting_size("sr:5", 66, prior) == 64
    assert fitting_size("sr:3", 64, None) == 64
    assert fitting_size("hadamard:0.5", 100, None) == 64
    assert fitting_size("sr:1000", 64, None) is None
    with pytest.raises(ValueError, match=r"size 16 would do"):
        degrade(photos[..., :24, :24], "hadamard:0.5", prior=prior)
    only = PlainDenoiser(lambda x, sigma: x)
    only.image_size = 16
    with pytest.raises(ValueError, match="size 16 would do"):
        degrade(photos, "sr:4", prior=only)


def test_a_bad_operator_is_reported_as_such_without_a_size(photos):
    with pytest.raises(ValueError, match="sr:x") as caught:
        degrade(photos, "sr:x")
    assert "would do" not in str(caught.value)


@pytest.mark.parametrize(("noise", "seed"), [(-0.1, 0), (math.nan, 0), (math.inf, 0), (0.1, -1)])
def test_bad_numbers_are_refused(photos, noise, seed):
    with pytest.raises(ValueError, match=r"noise is .* got|seed must be"):
        degrade(photos, "sr:4", noise, seed)
    with pytest.raises(ValueError, match=r"noise is .* got|seed must be"):
        observe(photos[:1], "sr:4", noise, seed)


def test_a_photo_that_came_degraded_is_measured_by_an_image_of_the_right_size(photos, prior):
    photo = photos[:1, :, :10, :12]
    sizes = {
        "sr:3": (30, 36), "sr:4": (40, 48), "sr:2:average": (20, 24), "blur:1": (10, 12), "denoise": (10, 12),
        # 150 pixels would shrink to 10 as well.
        "sr:16": (160, 192), "sr:32": (320, 384), "sr:4.0": (40, 48),
    }  # fmt: skip
    for spec, size in sizes.items():
        degraded = observe(photo, spec)
        assert torch.equal(degraded.y, photo)
        assert degraded.op.pinv(degraded.y).shape == (1, 3, *size)
    grey = observe(photo, "gray")
    torch.testing.assert_close(grey.y, photo.mean(dim=1, keepdim=True))
    with pytest.raises(ValueError, match="multiples of 8, got 10x12"):
        observe(photo, "blur:1", prior=prior)
    with pytest.raises(ValueError, match="at random"):
        observe(photo, "inpaint:0.8")
    with pytest.raises(ValueError, match=r"'sr:1000' would make a picture of 32000x32000 pixels, the limit is"):
        observe(photos[:1], "sr:1000")
    with pytest.raises(ValueError, match=r"'sr:x' \(sr:FACTOR\[:KERNEL\]\): needs a number"):
        observe(photos[:1], "sr:x")
    with pytest.raises(ValueError, match="hadamard"):
        observe(photos[:1], "hadamard:0.5")


def paint(path, size, lost):
    """A mask file of ``size`` (H, W), white in the slice ``lost``."""
    picture = torch.zeros(1, 3, *size)
    picture[(..., *lost)] = 1
    save_image(picture, path)
    return path


def test_what_a_painted_mask_hides_of_a_photo_has_no_influence(photos, prior, tmp_path):
    """Scratches as they are and other scratches under the same mask: the same measurement, the same result."""
    mask = paint(tmp_path / "a:b,c.png", (32, 32), (slice(4, 7), slice(None)))
    scratched, other = photos[:1].clone(), photos[:1].clone()
    scratched[..., 4:7, :], other[..., 4:7, :] = 1.0, torch.rand(3, 32)
    for spec, channels in ((f"mask:{mask}", 3), (f"oldphoto:{mask}", 1)):
        first, second = observe(scratched, spec, prior=prior), observe(other, spec, prior=prior)
        assert first.y.shape[1] == channels
        assert torch.equal(first.y, second.y)
        assert not bool(first.y[..., 4:7, :].any())
        kept = first.y[..., 8:, :]
        assert torch.equal(kept, (photos[:1] if channels == 3 else photos[:1].mean(1, keepdim=True))[..., 8:, :])
        image = restore(first, DDNM(steps=3), prior).image
        seen = image if channels == 3 else image.mean(1, keepdim=True)
        torch.testing.assert_close(seen[..., 8:, :], kept, rtol=0, atol=1e-5)
    for spec in ("inpaint:0.8", "oldphoto"):
        with pytest.raises(ValueError, match=r"at random: .* paint them white .*: mask:FILE or oldphoto:FILE"):
            observe(photos[:1], spec)
    small = paint(tmp_path / "small.png", (64, 64), (slice(4, 7), slice(None)))
    with pytest.raises(ValueError, match=r"small.png: the mask has 64x64 pixels .* the image has 32x32"):
        observe(photos[:1], f"mask:{small}")


def test_tiles_are_proposed_and_recorded(photos, prior):
    odd = photos[:1, :, :30, :27]
    with pytest.raises(ValueError, match=r"multiples of 8, got 30x27; size 24 would do; or in tiles \(--tile"):
        degrade(odd, "blur:1", prior=prior)
    only = PlainDenoiser(lambda x, sigma: x)
    only.image_size = 64
    with pytest.raises(ValueError, match=r"takes 64x64 images, got 30x27; or in tiles \(--tile, TiledPrior\)"):
        degrade(odd, "blur:1", prior=only)
    tiled = TiledPrior(prior, 16)
    result = restore(degrade(odd, "blur:1", prior=tiled), DiffPIR(steps=1), tiled)
    record = result.records[0]
    assert (record["prior"], record["tile"], record["overlap"]) == ("photo in tiles of 16", 16, 4)
    assert record["prior_source"] == prior.source
    whole = restore(degrade(photos[:1], "blur:1"), PseudoInverse(), prior).records[0]
    assert (whole["tile"], whole["overlap"]) == (0, 0)


def test_an_initial_image_reaches_the_solver_or_is_refused(photos, prior):
    degraded = degrade(photos, "sr:4")
    solver = DDNM(steps=2, sigma_start=0.1)
    image = restore(degraded, solver, prior, initial=photos).image
    assert float((image - photos).square().mean()) < 0.5 * float(
        (restore(degraded, solver, prior).image - photos).square().mean()
    )
    with pytest.raises(ValueError, match=r"pinv takes no initial image; these do: .*ddnm"):
        restore(degraded, PseudoInverse(), prior, initial=photos)
    with pytest.raises(ValueError, match=r"the shape of the result, \(.*, 32\), got \(.*, 16\)"):
        restore(degraded, solver, prior, initial=photos[..., :16])


def test_saved_pictures_are_those_of_the_result(photos, prior, tmp_path):
    result = restore(degrade(photos[:1], "sr:4", 0, 0, prior), PseudoInverse(), prior)
    save(result, tmp_path)
    torch.testing.assert_close(load_image(tmp_path / "restored.png"), result.image.clamp(0, 1), atol=0.5 / 255, rtol=0)
    assert torch.equal(load_image(tmp_path / "original.png"), photos[:1])


SPECS = {
    "sr": "sr:4", "blur": "blur:2,1", "motion": "motion:5,30", "inpaint": "inpaint:0.8", "block": "block:8",
    "hadamard": "hadamard:0.5", "jpeg": "jpeg:10",
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_differ_in_the_solver_noise_alone(photos, tmp_path, name):
    """Every operator: sample k is a restoration of the same measurement with a solver's stream of seed + k."""
    mask = paint(tmp_path / "mask.png", (32, 32), (slice(4, 9), slice(None)))
    spec = f"mask:{mask}" if name == "mask" else SPECS.get(name, name)
    mini = load_prior("photo-control")
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


def test_solvers_without_noise_and_of_their_own_streams_take_samples(photos):
    mini = load_prior("photo-control")
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
    with pytest.raises(ValueError, match="at least 1, got 0"):
        samples(degrade(photos[:1], "sr:4"), 0)
    with pytest.raises(ValueError, match=r"one solver seed per image \(2\), got 1"):
        replace(degrade(photos, "sr:4"), solver_seeds=(0,))
    observed = samples(observe(photos[:1], "gray", seed=3), 2)
    assert observed.original is None
    assert observed.y.shape == (2, 1, 32, 32)


def test_saved_samples_are_numbered_and_those_of_before_go(photos, tmp_path):
    mini = load_prior("photo-control")
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
