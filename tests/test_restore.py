"""From photo to result: what the seed fixes, what a batch means, which sizes are proposed, what is recorded."""

import json

import pytest
import torch

from tests.own_code import FAILING
from workbench.evaluation.metrics import NOT_FINITE, score
from workbench.fitting import fitting_size
from workbench.images import is_grey, sample_photos, save_image
from workbench.models import PlainDenoiser, TiledPrior, check_prior, load_prior
from workbench.operators import FunctionOperator, Inpainting
from workbench.random import stream_of
from workbench.recipe import Method, run_method
from workbench.restore import degrade, measured, observe, restore, solver_of
from workbench.solvers import DDNM, DDRM, DPS, DiffPIR, PseudoInverse


@pytest.fixture(scope="module")
def prior():
    return load_prior("photo")


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_photos(32, ("cat", "coffee"))


@pytest.mark.parametrize("spec", ["inpaint:0.8", "hadamard:0.5"])
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
    # Of neighbouring seeds, too. 3072 draws: the correlation has a standard error of 0.018, 0.08 is 4.4 of them; the
    # standard deviation is known to 1.3 %.
    seeds = torch.cat([(degrade(same[:1], "denoise", 0.1, seed).y - same[:1]).flatten(1) for seed in range(6)])
    for drawn in (noise, seeds):
        assert float((torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().max()) < 0.08
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    for spec in ("inpaint:0.8", "oldphoto"):
        lost = degrade(same, spec).y == 0
        assert not torch.equal(lost[0], lost[1])
    pattern = degrade(same, "hadamard:0.5").y  # of the instrument: one for all
    assert torch.equal(pattern[0], pattern[1])
    with pytest.raises(ValueError, match=r"one number per image \(3\), got 2"):
        degrade(same, "denoise", numbers=[0, 1])


def test_the_noise_does_not_depend_on_the_operator(photos):
    """Operator and noise draw from streams of their own: noise is the same whichever pixels are missing."""
    noise = degrade(photos, "denoise", 0.1, seed=3).y - photos
    masked = degrade(photos, "inpaint:0.8", 0.1, seed=3)
    torch.testing.assert_close(masked.y - masked.op(photos), noise, rtol=0, atol=1e-6)
    assert torch.equal(masked.op(photos), degrade(photos, "inpaint:0.8", 0.0, seed=3).y)


def test_a_size_that_fits_is_proposed(photos, prior):
    assert prior.multiple == 8
    assert fitting_size("sr:5", 66) == 66
    assert fitting_size("hadamard:0.5", 100) == 64
    assert fitting_size("sr:1000", 64) is None
    with pytest.raises(ValueError, match=r"size 16 would do"):
        degrade(photos[..., :24, :24], "hadamard:0.5", prior=prior)
    with pytest.raises(ValueError, match="sr:x") as caught:  # a bad operator at any size
        degrade(photos, "sr:x")
    assert "would do" not in str(caught.value)


def test_a_photo_that_came_degraded_is_measured_by_an_image_of_the_right_size(photos, prior):
    photo = photos[:1, :, :10, :12]
    sizes = {"sr:3": (30, 36), "sr:2:average": (20, 24), "blur:1": (10, 12), "sr:16": (160, 192), "sr:4.0": (40, 48)}
    for spec, size in sizes.items():
        degraded = observe(photo, spec)
        assert torch.equal(degraded.y, photo)
        assert degraded.op.pinv(degraded.y).shape == (1, 3, *size)
    grey = observe(photo, "gray")
    torch.testing.assert_close(grey.y, photo.mean(dim=1, keepdim=True))
    with pytest.raises(ValueError, match="takes grey images"):
        observe(photo, "blur:1", prior=PlainDenoiser(lambda x, sigma: x, channels=1))
    with pytest.raises(ValueError, match=r"at random: .* paint them white .*: mask:FILE or oldphoto:FILE"):
        observe(photo, "inpaint:0.8")
    with pytest.raises(ValueError, match=r"'sr:1000' would make a picture of 32000x32000 pixels, the limit is"):
        observe(photos[:1], "sr:1000")
    with pytest.raises(ValueError, match="hadamard"):
        observe(photos[:1], "hadamard:0.5")


@pytest.mark.parametrize("spec", ["blur:2", "oldphoto"])
def test_photos_that_came_degraded_give_in_a_batch_what_they_give_alone(photos, prior, spec, tmp_path):
    """Also at their border: how long it is estimated must not depend on the others, here a dark one."""
    if spec == "oldphoto":
        spec = f"oldphoto:{paint(tmp_path / 'mask.png', (32, 32), (slice(4, 7), slice(None)))}"
    some = torch.cat([photos, photos[:1] / 20])
    solver = DDRM(steps=3)
    together = restore(observe(some, spec, 0.02, seed=5, prior=prior), solver, prior)
    assert together.degraded.numbers == (0, 0, 0)
    for index in range(3):
        alone = restore(observe(some[index : index + 1], spec, 0.02, seed=5, prior=prior), solver, prior)
        torch.testing.assert_close(together.image[index], alone.image[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", ["sr:2", "jpeg:10"])
def test_grey_photos_are_restored_grey_and_others_as_before(photos, prior, spec):
    """Each photo of a batch by itself. The mean of the channels is that of the solver's result."""
    grey = photos[:1].mean(dim=1, keepdim=True).expand(1, 3, -1, -1)
    solver = DDRM(steps=2) if spec != "jpeg:10" else DPS(steps=3)
    batch = degrade(torch.cat([photos[:1], grey]), spec, 0.05, prior=prior)
    streams = [stream_of(0, "solver", number) for number in batch.numbers]
    with torch.no_grad():
        plain = solver(batch.y, batch.op, prior, sigma_noise=0.05, generator=streams).image
    assert float((plain[1] - plain[1].mean(dim=0)).abs().max()) > 0.01
    result = restore(batch, solver, prior)
    assert torch.equal(result.image[0], plain[0])
    torch.testing.assert_close(result.image[1], plain[1].mean(dim=0).expand(3, -1, -1), rtol=0, atol=0)
    assert result.records[1]["psnr"] > score(plain[1:], grey)[0]["psnr"]


def test_a_grey_photo_that_came_degraded_is_restored_grey_but_colours_are_put_where_they_are_asked_for(photos, prior):
    grey = photos[:1].mean(dim=1, keepdim=True).expand(1, 3, -1, -1)
    for spec, colours in (("sr:2", False), ("denoise", False), ("gray", True)):
        image = restore(observe(grey, spec, 0.05, prior=prior), DDRM(steps=4), prior).image
        assert bool(is_grey(image)) != colours


def test_the_share_that_a_mask_fills_is_recorded(photos, prior, tmp_path):
    mask = paint(tmp_path / "mask.png", (32, 32), (slice(4, 7), slice(None)))
    for spec, share in (("sr:2", None), ("inpaint:0.75", 0.75), (f"mask:{mask}", 3 / 32), (f"oldphoto:{mask}", 3 / 32)):
        result = restore(degrade(photos, spec), PseudoInverse(), prior)
        assert result.records[0]["mask_fills"] == share


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


def test_any_size_is_restored_in_tiles_where_the_prior_does_not_take_it_and_they_are_recorded(photos, prior):
    odd = photos[:1, :, :30, :27]
    result = restore(degrade(odd, "blur:1", 0.05), DiffPIR(steps=6), prior)
    assert result.image.shape == odd.shape
    assert result.records[0]["tile"] == 128
    assert result.records[0]["message"] == "photo does not take 30 x 27 pixels: asked in tiles"
    expected = restore(degrade(odd, "blur:1", 0.05), DiffPIR(steps=6), TiledPrior(prior))
    assert torch.equal(result.image, expected.image)
    assert expected.records[0]["message"] == ""
    tiled = TiledPrior(prior, 16)
    record = restore(degrade(odd, "blur:1", prior=tiled), DiffPIR(steps=1), tiled).records[0]
    assert (record["prior"], record["tile"], record["overlap"]) == ("photo in tiles of 16", 16, 4)
    assert record["prior_source"] == prior.source


def test_a_measurement_may_be_one_number(photos, prior):
    brightness = FunctionOperator(lambda x: x.mean((1, 2, 3)), (3, 32, 32))
    result = restore(degrade(photos, brightness), DDNM(steps=1), prior)
    assert torch.allclose(result.image.mean((1, 2, 3)), photos.mean((1, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_a_record_without_scores_and_leaves_the_others_theirs(photos, prior, value, tmp_path):
    """In Python; the command line and the page, which want pictures, say that there is none."""
    (tmp_path / "mine.py").write_text(FAILING.replace("nan", str(value)))
    degraded = degrade(photos, "sr:4", 0.01)
    failing, fine = solver_of(f"{tmp_path}/mine.py:Failing", {}), restore(degraded, PseudoInverse(), prior)
    dark = (fine.image.mean((1, 2, 3)) < 0.4).tolist()
    assert 0 < sum(dark) < len(dark)
    found = restore(degraded, failing, prior)
    for lost, record, expected in zip(dark, found.records, fine.records, strict=True):
        scores = {key: expected[key] for key in ("psnr", "ssim", "effnet", "consistency")}
        expected = dict.fromkeys(scores) if lost else pytest.approx(scores, rel=1e-4)  # batches round differently
        assert {key: record[key] for key in scores} == expected
        assert record.get("psnr_reason") == (NOT_FINITE if lost else None)
        assert record["message"] == f"{sum(dark)} of {len(dark)} images have NaN or infinite values"
    json.dumps(found.records, allow_nan=False)
    with pytest.raises(ValueError, match=r"the restored image must have values in \[0, 1\], got"):
        run_method(degraded, Method(solver=f"{tmp_path}/mine.py:Failing", prior="photo"), prior)


def test_arguments_of_another_kind_are_told(photos, prior):
    solver, degraded = DDNM(steps=1), degrade(photos, "blur:1", 0.02)
    for function, wrong, said in (
        (restore, (degraded, "ddnm", prior), r'make_solver\("ddnm"\); got str'),
        (restore, (degraded, solver, "photo"), r'load_prior\("photo"\); got str'),
        (restore, (photos, solver, prior), "degraded must be of type Degraded"),
        (solver, (degraded.y, "blur:1", prior), "op must be of type Operator.*got str"),
        (measured, (degraded.op, degraded.y.numpy()), "y must be of type Tensor.*got ndarray"),
        (solver, (degraded.y[0], degraded.op, prior), r"measurements \(B, ...\) of images .*, got shape \(3, 32, 32\)"),
        (solver, (degraded.y / 0, degraded.op, prior), "values that are NaN or infinite"),
        (measured, (degraded.op, degraded.y, 0.0, 0, photos[:1]), "original must be images of shape .*got"),
        (check_prior, ("photo",), "prior must be of type Prior.*got str"),
        (degrade, (photos, "blur:1", [0.1, 0.2]), r"noise must be a number, text, .* got \[0.1, 0.2\]"),
        (Inpainting, ([[1.0]],), "mask must be of type Tensor.*got list"),
    ):
        with pytest.raises(ValueError, match=said):
            function(*wrong)
    for options, said in (
        ({"generator": 0}, r"torch.manual_seed\(0\)"),
        ({"generator": ["a", "b"]}, "generator must be a torch.Generator, or one per image, got .*a"),
        ({"noise": "a"}, "noise must be a function"),
        ({"callback": "a"}, "callback must be a function"),
    ):
        with pytest.raises(ValueError, match=said):
            solver(degraded.y, degraded.op, prior, **options)
    for level in ("0.02", None):
        with pytest.raises(ValueError, match="sigma_noise must be a number"):
            solver(degraded.y, degraded.op, prior, sigma_noise=level)
    with pytest.raises(ValueError, match=r"initial must be of type Tensor.*got list"):
        DiffPIR(steps=1)(degraded.y, degraded.op, prior, initial=[0.5])
