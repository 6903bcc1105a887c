"""``workbench restore``: what it writes, and what it says to bad input (one line, exit code 2, no traceback)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.cli import main
from workbench.evaluation.metrics import paper_scores
from workbench.images import load_image, sample_photo, save_image


def test_restore_writes_pictures_and_metrics(restored, photo):
    done = restored(photo, "--degrade", "sr:4", "--noise", 0.01, "--seed", 3, out="new/out")
    assert set(done.files) == {"original.png", "degraded.png", "restored.png"}
    assert torch.equal(done.images["original"], load_image(photo))
    assert done.images["degraded"].shape == (1, 3, 8, 8)
    assert done.images["restored"].shape == (1, 3, 32, 32)
    metrics = done.metrics
    assert 5 < metrics["psnr"] < 50
    assert 0 < metrics["ssim"] < 1
    assert metrics["lpips"] is not None or "unavailable: place" in metrics["lpips_reason"]
    assert 0 < metrics["effnet"] < 10
    assert metrics["seconds"] > 0
    expected = {"evaluations": 2, "solver": "diffpir", "operator": "sr:4", "noise": 0.01, "seed": 3, "size": [32, 32]}
    assert metrics | expected | {"photo": str(photo)} == metrics
    assert metrics["solver_settings"]["steps"] == 2
    assert metrics["environment"]["torch"] == torch.__version__
    assert f"PSNR {metrics['psnr']:.2f}" in done.said
    assert "diffpir: 100%" in done.errors  # the progress bar


def test_super_resolution_is_also_scored_as_its_papers_do(restored, photo):
    """From the pictures that are written."""
    done = restored(photo, "--degrade", "sr:4", "--solver", "pinv")
    found = paper_scores(done.images["restored"], done.images["original"], crop=4)
    assert {"psnr_y_crop4", "ssim_y_crop4"} < set(found)
    assert {key: done.metrics[key] for key in found} == pytest.approx({k: float(v) for k, v in found.items()})


def test_a_photo_that_came_degraded_has_no_scores(restored, photo, tmp_path):
    restored(photo)
    (tmp_path / "new").mkdir()
    another = Path(shutil.copy(photo, tmp_path / "new" / "original.png"))
    small = tmp_path / "small.png"
    save_image(sample_photo("cat", 8), small)
    done = restored(small, "--degrade", "none", "--operator", "sr:4")
    assert "no original to compare" in done.said
    assert torch.equal(done.images["degraded"], load_image(small))
    assert done.images["restored"].shape == (1, 3, 32, 32)
    assert "original" not in done.images  # that of the run before would be misleading
    for score in ("lpips", "effnet"):
        assert (done.metrics[score], done.metrics[f"{score}_reason"]) == (None, "no original to compare")
    assert done.metrics["psnr"] is None
    for _ in range(2):  # what no earlier result wrote stays
        restored(small, "--degrade", "none", "--operator", "denoise", out="new")
        assert another.exists()


def test_a_result_without_a_score_is_not_one_without_an_original(restored, tmp_path):
    """A strip that nothing is lost of: PSNR is infinite, and the others need larger pictures."""
    Image.fromarray(np.full((3, 128, 3), 90, np.uint8)).save(tmp_path / "strip.png")
    done = restored("strip.png", "--degrade", "denoise", "--solver", "pinv")
    assert done.said.startswith("infinite: the restored image equals the original; 0 network evaluations")


@pytest.mark.parametrize("settings", [(), ("--set", "sigma_start=0.1")])
def test_an_initial_image_that_noise_hides_is_said(restored, photo, settings):
    done = restored(photo, "--initial", photo, *settings)
    assert ("diffpir begins with noise that hides --initial" in done.said) == (not settings)
    assert ("hides" in done.metrics["message"]) == (not settings)


def test_devices_share_the_work(restored, photo):
    one, two = (restored(photo, "--device", device).metrics for device in ("cpu", "cpu,cpu"))
    assert two["prior"] == f"{one['prior']} on cpu, cpu"
    assert two["psnr"] == pytest.approx(one["psnr"], abs=1e-3)


def test_photos_of_any_size_are_denoised_in_tiles_where_they_must(restored, tmp_path):
    """34x36 is no multiple of 8: tiles by themselves; its centre of 32x32: whole, unless it is told otherwise."""
    picture = np.random.default_rng(0).integers(0, 255, (34, 36, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "odd.png")
    for options, tile in ((), 128), (("--size", 32), 0), (("--size", 32, "--tile", 16), 16):
        done = restored("odd.png", "--degrade", "blur:1", *options)
        assert (f"Denoised in tiles of {tile} pixels" in done.said) == (tile > 0)
        assert done.metrics["tile"] == tile
        assert list(done.images["restored"].shape[2:]) == done.metrics["size"] == ([32, 32] if options else [34, 36])
    assert "tiles" not in restored("odd.png", "--degrade", "blur:1", "--solver", "pinv").said  # that asks no prior


def read(path: Path) -> tuple[str, np.ndarray]:
    """Mode and pixels of a picture."""
    with Image.open(path) as file:
        return file.mode, np.asarray(file)


def test_photos_of_every_kind_are_restored_and_what_they_are_is_kept(restored, photo, tmp_path):
    """The mode that is written, and what is said of the reading; in metrics.json too. Other kinds: test_photo_file."""
    with Image.open(photo) as file:
        picture = file.copy()
    clear = picture.copy()
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([0, 255]), 16)[None].repeat(32, 0)))
    kinds = {
        "cmyk.jpg": (picture.convert("CMYK"), "RGB", "CMYK converted to RGB"),
        "grey colours.png": (picture.convert("L").convert("RGB"), "L", ""),
        "clear.png": (clear, "RGBA", "alpha kept"),
        "grey and clear.png": (clear.convert("LA"), "LA", "alpha kept"),
    }
    for name, (kind, mode, remark) in kinds.items():
        kind.save(tmp_path / name)
        done = restored(name, "--degrade", "blur:1", "--seed", 1, "--solver", "ddrm", "--set", "steps=4")
        written, pixels = read(tmp_path / "out" / "restored.png")
        assert (name, written, pixels.shape[:2]) == (name, mode, (32, 32))
        assert done.metrics["remark"] == remark
        assert done.said.startswith(f"Note: {name}: {remark}\n" if remark else "PSNR")
        if mode.endswith("A"):
            assert np.array_equal(pixels[..., -1], np.asarray(clear)[..., -1])
        assert torch.equal(done.images["original"], load_image(tmp_path / name))


def test_alpha_grows_with_a_photo_that_came_small(restored, photo, tmp_path):
    with Image.open(photo) as file:
        file.putalpha(Image.fromarray(np.repeat(np.uint8([0, 255]), 16)[None].repeat(32, 0)))
        file.save(tmp_path / "clear.png")
    restored("clear.png", "--degrade", "none", "--operator", "sr:2")
    alpha = read(tmp_path / "out" / "restored.png")[1][..., 3]
    assert alpha.shape == (64, 64)
    assert (alpha[:, :28].max(), alpha[:, 36:].min()) == (0, 255)
    assert read(tmp_path / "out" / "degraded.png")[0] == "RGB"


def test_sixteen_bits_are_written_on_request(restored, tmp_path):
    ramp = np.linspace(1000, 60000, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    plain = ("--degrade", "denoise", "--solver", "pinv")
    deep = restored("deep.png", *plain, "--bits", 16)
    assert read(tmp_path / "out" / "restored.png")[0] == "I;16"
    assert np.array_equal(read(tmp_path / "out" / "restored.png")[1], ramp)
    assert torch.equal(deep.images["original"], load_image(tmp_path / "deep.png"))
    restored("deep.png", *plain)
    assert np.array_equal(read(tmp_path / "out" / "restored.png")[1], np.round(ramp / 257))


def test_the_share_that_a_mask_fills_is_said(restored, photo, tmp_path):
    Image.fromarray((np.arange(32)[:, None] < 28).repeat(32, 1)).save(tmp_path / "mask.png")
    done = restored(photo, "--degrade", "mask:mask.png", "--solver", "pinv")
    assert "The mask fills 87.5 % of the photo: is it inverted?\n" in done.said
    assert "inverted" not in restored(photo, "--degrade", "inpaint:0.8").said


# What follows restore, and the line that it ends with. More of what is refused: where it is checked.
BAD = {
    "none.png": "none.png: no such file",
    "cat.png --solver DDNM": "unknown solver 'DDNM', did you mean 'ddnm'",
    "cat.png --solver deqri": "unknown solver 'deqri'.*'deqir'",
    "cat.png --degrade blurr:2": "'blurr'.*blur",
    "odd.png --degrade hadamard:0.5": r"34x34.*size 32 would do",
    "cat.png --tile 30": "tiles of photo must be positive multiples of 8, got 30",
    "cat.png --tile 20000": "workbench: methods.0..tile: input should be less than or equal to 7071, got 20000\n$",
    "cat.png --out=": "argument 3 is empty: '--out='",
    "cat.png --solver diffpir --initial original.png --out .": "would replace .*original.png",
    "cat.png --degrade mask:none.png": "none.png: no such file",
    "cat.png --solver ddnm --initial odd.png": r"shape of the result, \(1, 3, 32, 32\), got \(1, 3, 34, 34\)",
    "cat.png --solver pinv --initial cat.png": "pinv takes no initial image; .*ddnm",
    "cat.png --size 0": "at least 1 pixel",
    "cat.png --noise 25": r"noise .* on the \[0, 1\] scale, got 25.0; 25/255 = 0.098\?",
    "cat.png --bits 12": "8 or 16 bits a channel, got 12",
    "cat.png --samples 65": "--samples",
    "cat.png --seed -1": "seed must be 0 or more",
    "text.json": "text.json: Invalid JSON",
    "cat.png --set step=3": "setting of deqir 'step', did you mean 'steps'",
    "cat.png --degrade jpeg:10 --solver ddnm": "linear",
    "cat.png --operator sr:4": "degrade none and an operator go together",
    "cat.png --device cpu,abacus": "device 'abacus' cannot be used",
    "original.png --out .": "would replace original.png",
    "cat.png --out text.json": "cannot write to the folder text.json",
    f"{300 * 'a'}.png": "workbench: File name too long: 'aaa",
    "": "Missing argument 'PHOTO'",
}


def test_bad_input_ends_with_one_line_and_code_2(refused, photo, tmp_path):
    (tmp_path / "text.json").write_text("no recipe")
    for name in ("odd", "original"):
        save_image(sample_photo("cat", 34), tmp_path / f"{name}.png")
    for arguments, message in BAD.items():
        assert re.search(message, refused("restore", *arguments.split())), arguments
    assert not (tmp_path / "restored").exists()


def test_bugs_are_not_hidden(photo, monkeypatch):
    import workbench.recipe

    monkeypatch.setattr(workbench.recipe, "restore", None)
    with pytest.raises(TypeError, match="not callable"):
        main(["restore", str(photo)])


def test_a_closed_pipe_is_no_error(tmp_path):
    pipe = subprocess.Popen(
        [sys.executable, "-m", "workbench", "operators"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pipe.stdout.close()
    assert pipe.communicate()[1] == b""
