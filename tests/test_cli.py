"""The command line: what it writes, and what it says to bad input (one line, exit code 2, no traceback)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from workbench.cli import main
from workbench.images import load_image, sample_photo, save_image
from workbench.models import DRUNet, DRUNetConfig, load_prior

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--solver", "diffpir", "--set", "steps=2")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Run:
    """Runs the command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "cat.png"
    save_image(sample_photo("cat", 32), path)
    return path


def test_restore_writes_pictures_and_metrics(run, photo, tmp_path):
    out = tmp_path / "new" / "out"
    code, said, errors = run(
        *("restore", photo, "--degrade", "sr:4", "--noise", 0.01, "--seed", 3, "--out", out, *QUICK)
    )
    assert code == 0, errors
    assert {file.name for file in out.iterdir()} == {"original.png", "degraded.png", "restored.png", "metrics.json"}
    assert torch.equal(load_image(out / "original.png"), load_image(photo))
    assert load_image(out / "degraded.png").shape == (1, 3, 8, 8)
    assert load_image(out / "restored.png").shape == (1, 3, 32, 32)
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert 5 < metrics["psnr"] < 50
    assert 0 < metrics["ssim"] < 1
    assert metrics["lpips"] is not None or "unavailable: place" in metrics["lpips_reason"]
    assert 0 < metrics["effnet"] < 10
    assert metrics["evaluations"] == 2
    assert metrics["seconds"] > 0
    assert metrics["solver"] == "diffpir"
    assert metrics["solver_settings"]["steps"] == 2
    assert (metrics["operator"], metrics["noise"], metrics["seed"]) == ("sr:4", 0.01, 3)
    assert metrics["size"] == [32, 32]
    assert metrics["photo"] == str(photo)
    assert metrics["environment"]["torch"] == torch.__version__
    assert f"PSNR {metrics['psnr']:.2f}" in said
    assert "diffpir: 100%" in errors  # the progress bar


def test_the_seed_decides_and_results_are_replaced(run, photo, tmp_path):
    def restored(seed: int) -> torch.Tensor:
        code, _, errors = run("restore", photo, "--degrade", "inpaint:0.8", "--seed", seed, "--out", "out", *QUICK)
        assert code == 0, errors
        return torch.cat([load_image(tmp_path / "out" / f"{name}.png") for name in ("degraded", "restored")])

    first, again, other = restored(0), restored(0), restored(1)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], other[0])  # other pixels are missing
    assert not torch.equal(first[1], other[1])
    assert not [file.name for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_a_photo_that_came_degraded_has_no_scores(run, photo, tmp_path):
    run("restore", photo, "--out", "out", *QUICK)
    small = tmp_path / "small.png"
    save_image(sample_photo("cat", 8), small)
    code, said, errors = run("restore", small, "--degrade", "none", "--operator", "sr:4", "--out", "out", *QUICK)
    assert code == 0, errors
    assert "no original to compare" in said
    assert torch.equal(load_image(tmp_path / "out" / "degraded.png"), load_image(small))
    assert load_image(tmp_path / "out" / "restored.png").shape == (1, 3, 32, 32)
    assert not (tmp_path / "out" / "original.png").exists()  # that of the run before would be misleading
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["psnr"] is None
    assert metrics["lpips_reason"] == "no original to compare"
    assert metrics["effnet"] is None
    assert metrics["effnet_reason"] == "no original to compare"


@pytest.mark.parametrize("degrade", ["blur:1", "gray", "block:8", "text", "hadamard:0.5", "jpeg:10", "denoise"])
def test_every_kind_of_measurement_has_a_picture(run, photo, tmp_path, degrade):
    code, _, errors = run("restore", photo, "--degrade", degrade, "--noise", 0.02, "--out", "out", *QUICK)
    assert code == 0, errors
    assert load_image(tmp_path / "out" / "degraded.png").shape == (1, 3, 32, 32)


def test_devices_share_the_work(run, photo, tmp_path):
    records = []
    for device in ("cpu", "cpu,cpu"):
        code, _, errors = run("restore", photo, "--device", device, "--out", "out", *QUICK)
        assert code == 0, errors
        records.append(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert records[1]["prior"] == f"{records[0]['prior']} on cpu, cpu"
    assert records[1]["psnr"] == pytest.approx(records[0]["psnr"], abs=1e-3)


def test_size_takes_the_centre_and_wide_photos_work(run, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (40, 72, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "wide.png")
    assert run("restore", "wide.png", "--out", "a", "--degrade", "blur:1", *QUICK)[0] == 0
    assert load_image(tmp_path / "a" / "restored.png").shape == (1, 3, 40, 72)
    assert run("restore", "wide.png", "--out", "b", "--size", 32, *QUICK)[0] == 0
    assert load_image(tmp_path / "b" / "restored.png").shape == (1, 3, 32, 32)


def test_photos_of_any_size_are_denoised_in_tiles_where_they_must(run, tmp_path):
    """34x35 is no multiple of 4: tiles by themselves; 32x32: whole; and the record reproduces the run."""
    picture = np.random.default_rng(0).integers(0, 255, (34, 35, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "odd.png")
    Image.fromarray(picture[:32, :32]).save(tmp_path / "even.png")
    restored = {}
    for photo, options, tile in (
        ("odd.png", (), 128),
        ("odd.png", ("--tile", 16), 16),
        ("odd.png", ("--degrade", "none", "--operator", "blur:1"), 128),
        ("even.png", (), 0),
        ("even.png", ("--tile", 0), 0),
        ("even.png", ("--tile", 16), 16),
    ):
        code, said, errors = run("restore", photo, "--degrade", "blur:1", "--out", "out", *options, *QUICK)
        assert code == 0, errors
        assert (f"Denoised in tiles of {tile} pixels" in said) == (tile > 0)
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["tile"] == tile
        restored[(photo, *options)] = image = load_image(tmp_path / "out" / "restored.png")
        assert list(image.shape[2:]) == metrics["size"]
    assert torch.equal(restored[("even.png",)], restored[("even.png", "--tile", 0)])
    assert not torch.equal(restored[("even.png",)], restored[("even.png", "--tile", 16)])


def test_an_old_photo_with_a_painted_mask(run, photo, tmp_path):
    """White in the mask is filled, whatever the scratches look like, and colours come back from grey."""
    scratched = load_image(photo)
    scratched[..., 10:13, :] = 1
    paint = torch.zeros_like(scratched)
    paint[..., 9:14, :] = 1
    save_image(scratched, tmp_path / "old.png")
    save_image(paint, tmp_path / "my mask, new.png")
    spec = "oldphoto:my mask, new.png"
    code, _, errors = run("restore", "old.png", "--degrade", "none", "--operator", spec, "--out", "out", *QUICK)
    assert code == 0, errors
    degraded, restored = (load_image(tmp_path / "out" / f"{name}.png") for name in ("degraded", "restored"))
    assert not bool(degraded[..., 9:14, :].any())
    assert float(restored[..., 9:14, :].mean()) > 0.1
    kept = torch.cat([restored[..., :9, :], restored[..., 14:, :]], -2).mean(1)
    expected = torch.cat([scratched[..., :9, :], scratched[..., 14:, :]], -2).mean(1)
    # The mean over channels is the data; rounding to 8 bits, and what was clipped, are not.
    assert float((kept - expected).abs().mean()) < 0.01
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["operator"] == spec


def test_start_from_another_restoration(run, photo, tmp_path):
    """The photo itself as the other restoration: with little noise on it the result is nearer to it."""
    psnr = []
    for options in ((), ("--initial", photo, "--set", "sigma_start=0.05")):
        code, _, errors = run(
            *("restore", photo, "--solver", "ddnm", "--set", "steps=3", "--set", "eta=0.0", "--out", "out"), *options
        )
        assert code == 0, errors
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        psnr.append(metrics["psnr"])
        assert metrics["initial"] == (str(photo) if options else None)
        assert metrics["solver_settings"]["sigma_start"] == (0.05 if options else None)
        assert metrics["evaluations"] == 3
    assert psnr[1] > psnr[0] + 3


def recipe_of(folder: Path, **changes: object) -> Path:
    """A recipe of two methods in a new folder, with its photo and a mask beside it."""
    folder.mkdir()
    save_image(sample_photo("cat", 32), folder / "original.png")
    paint = torch.zeros(1, 3, 32, 32)
    paint[..., 9:14, :] = 1
    save_image(paint, folder / "my mask, new.png")
    methods = [
        {"solver": "diffpir", "settings": {"steps": 2}, "prior": "photo-control"},
        {"name": "DDNM 3", "solver": "ddnm", "settings": {"steps": 3, "eta": 0.5}, "prior": "photo", "tile": 16},
    ]
    content = {"photo": "original.png", "degrade": "inpaint:0.5", "noise": 0.02, "seed": 3, "samples": 2}
    path = folder / "run.json"
    path.write_text(json.dumps(content | {"methods": methods} | changes))
    return path


def pictures(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.png")}


def test_a_recipe_gives_again_what_it_gave_and_what_its_commands_give(run, tmp_path):
    recipe = recipe_of(tmp_path / "unzipped")
    for out in ("one", "two"):
        code, said, errors = run("restore", recipe, "--out", out)
        assert code == 0, errors
    names = ["1-diffpir-photo-control", "2-DDNM-3"]
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == names
    lines = said.splitlines()
    assert [line.rpartition(" ")[2] for line in lines if "PSNR" in line] == [f"two/{name}" for name in names]
    assert all("sample 1 of 2" in line for line in lines if "PSNR" in line)
    assert "diffpir, photo-control: 100%" in errors
    assert "DDNM 3: 100%" in errors
    common = ("--degrade", "inpaint:0.5", "--noise", 0.02, "--seed", 3, "--samples", 2, "--out", "alone")
    options = {
        names[0]: ("--solver", "diffpir", "--set", "steps=2", "--prior", "photo-control"),
        names[1]: ("--solver", "ddnm", "--set", "steps=3", "--set", "eta=0.5", "--prior", "photo", "--tile", 16),
    }
    for name in names:
        first = pictures(tmp_path / "one" / name)
        assert set(first) == {"original.png", "degraded.png", "restored.png", "restored-2.png"}
        assert first["restored.png"] != first["restored-2.png"]
        assert pictures(tmp_path / "two" / name) == first
        code, _, errors = run("restore", recipe.parent / "original.png", *common, *options[name])
        assert code == 0, errors
        assert pictures(tmp_path / "alone") == first
        metrics = [json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in (f"one/{name}", "alone")]
        assert metrics[0] | {"seconds": 0} == metrics[1] | {"seconds": 0}
        assert [sample["solver_seed"] for sample in metrics[0]["samples"]] == [4]


def test_a_recipe_finds_its_files_from_anywhere(run, tmp_path, monkeypatch):
    spec = "oldphoto:my mask, new.png"
    recipe = recipe_of(tmp_path / "unzipped", degrade="none", operator=spec, samples=1, noise=0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, said, errors = run("restore", Path("..") / "unzipped" / "run.json", "--out", "again", "--device", "cpu")
    assert code == 0, errors
    assert said.count("no original to compare") == 2
    for name in ("1-diffpir-photo-control", "2-DDNM-3"):
        assert set(pictures(elsewhere / "again" / name)) == {"degraded.png", "restored.png"}
        assert not bool(load_image(elsewhere / "again" / name / "degraded.png")[..., 9:14, :].any())
    recipe.write_text(recipe.read_text().replace("my mask, new", "no mask"))
    code, _, errors = run("restore", recipe, "--out", "again")
    assert code == 2
    assert "unzipped/no mask.png: no such file" in errors


@pytest.mark.parametrize(
    "option", ["--seed=0", "--degrade=sr:4", "--set=steps=2", "--tile=0", "--samples=2", "--size=32"]
)
def test_a_recipe_goes_with_no_other_option(run, tmp_path, option):
    recipe = recipe_of(tmp_path / "unzipped")
    code, said, errors = run("restore", recipe, "--out", "again", option)
    assert (code, said) == (2, "")
    name = option.split("=")[0]
    assert f"{name} cannot be given with a recipe, only --out and --device" in errors
    assert len(errors.splitlines()) == 1


def test_a_recipe_whose_last_method_is_wrong_does_not_begin(run, tmp_path):
    good = {"solver": "diffpir", "settings": {"steps": 2}, "prior": "photo-control"}
    for number, (wrong, message) in enumerate(
        [
            ({"solver": "difpir"}, "unknown solver 'difpir'"),
            ({"settings": {"steps": 0}}, "steps must be at least 1, got 0"),
            ({"prior": "photo-mupt"}, "unknown prior 'photo-mupt'"),
            ({"tile": 3}, "tiles of photo-control must be positive multiples"),
            ({"prior": "grey.pth"}, "grey takes grey images"),
        ]
    ):
        torch.save(DRUNet(DRUNetConfig(channels=1, widths=(8, 8, 8, 8), blocks=1)).state_dict(), "grey.pth")
        recipe = recipe_of(tmp_path / f"run{number}", methods=[good, good | wrong])
        code, _, errors = run("restore", recipe, "--out", "again")
        assert code == 2
        assert message in errors
        assert len(errors.splitlines()) == 1
        assert not list((tmp_path / "again").iterdir())


def test_samples_of_one_photo(run, photo, tmp_path):
    code, said, errors = run("restore", photo, "--prior", "photo", "--samples", 3, "--out", "out", *QUICK)
    assert code == 0, errors
    assert "; sample 1 of 3; written to out" in said
    assert len(pictures(tmp_path / "out")) == 5
    code, said, errors = run("restore", photo, "--prior", "photo", "--out", "out", *QUICK)
    assert "sample" not in said
    assert len(pictures(tmp_path / "out")) == 3


BAD = {
    "no file": (["restore", "none.png"], "none.png: no such file"),
    "a folder": (["restore", "."], "is a folder"),
    "not an image": (["restore", "text.png"], "text.png: not an image"),
    "empty": (["restore", "empty.png"], "empty.png: the file is empty"),
    "unknown solver": (["restore", "cat.png", "--solver", "deqri"], "unknown solver 'deqri'.*'deqir'"),
    "unknown prior": (["restore", "cat.png", "--prior", "phto"], "unknown prior 'phto'.*'photo'"),
    "no checkpoint": (["restore", "cat.png", "--prior", "none.safetensors"], "none.safetensors"),
    "unknown operator": (["restore", "cat.png", "--degrade", "blurr:2"], "'blurr'.*blur"),
    "bad factor": (["restore", "cat.png", "--degrade", "sr:x"], "sr:x"),
    "zero factor": (["restore", "cat.png", "--degrade", "sr:0"], "sr:0|factor"),
    "bad share": (["restore", "cat.png", "--degrade", "inpaint:1.5"], "1.5"),
    "size and operator": (["restore", "odd.png", "--degrade", "hadamard:0.5"], r"34x34.*size 32 would do"),
    "size and prior": (
        ["restore", "odd.png", "--degrade", "blur:1", "--tile", "0"],
        r"multiples of 8, got 34x34; size 32 would do; or in tiles \(--tile",
    ),
    "size and prior, degraded": (
        ["restore", "odd.png", "--degrade", "none", "--operator", "blur:1", "--tile", "0"],
        "multiples of 8, got 34x34",
    ),
    "bad tile": (["restore", "cat.png", "--tile", "30"], "tiles of photo must be positive multiples of 8, got 30"),
    "tile below 0": (["restore", "cat.png", "--tile", "-4"], "positive multiples of 8, got -4"),
    "no mask": (["restore", "cat.png", "--degrade", "mask"], "needs the file of a mask"),
    "no mask file": (["restore", "cat.png", "--degrade", "mask:none.png"], "none.png: no such file"),
    "mask of another size": (
        ["restore", "cat.png", "--degrade", "oldphoto:odd.png"],
        r"'oldphoto:odd.png' .*: the mask has 34x34 pixels .* the image has 32x32",
    ),
    "mask is no image": (["restore", "cat.png", "--degrade", "mask:text.png"], "text.png: not an image"),
    "no initial image": (["restore", "cat.png", "--initial", "none.png"], "none.png: no such file"),
    "initial of another size": (
        ["restore", "cat.png", "--solver", "ddnm", "--initial", "odd.png"],
        r"the shape of the result, \(1, 3, 32, 32\), got \(1, 3, 34, 34\)",
    ),
    "initial for another solver": (
        ["restore", "cat.png", "--solver", "pinv", "--initial", "cat.png"],
        "pinv takes no initial image; these do: .*ddnm",
    ),
    "start below 0": (["restore", "cat.png", "--solver", "ddnm", "--set", "sigma_start=-1"], "sigma_start must be"),
    "no size": (["restore", "cat.png", "--size", "0"], "at least 1 pixel"),
    "noise below 0": (["restore", "cat.png", "--noise", "-0.1"], "noise .* got -0.1"),
    "noise nan": (["restore", "cat.png", "--noise", "nan"], "noise .* got nan"),
    "noise inf": (["restore", "cat.png", "--noise", "inf"], "noise .* got inf"),
    "noise text": (["restore", "cat.png", "--noise", "much"], "--noise"),
    "seed below 0": (["restore", "cat.png", "--seed", "-1"], "seed must be 0 or more"),
    "no samples": (["restore", "cat.png", "--samples", "0"], "--samples"),
    "too many samples": (["restore", "cat.png", "--samples", "65"], "--samples"),
    "no recipe": (["restore", "none.json"], "none.json: no such file"),
    "recipe is text": (["restore", "text.json"], "text.json: Invalid JSON"),
    "seed text": (["restore", "cat.png", "--seed", "x"], "--seed"),
    "unknown setting": (["restore", "cat.png", "--set", "step=3"], "setting of deqir 'step', did you mean 'steps'"),
    "bad setting": (["restore", "cat.png", "--set", "steps=0"], "steps must be at least 1, got 0"),
    "setting of wrong type": (
        ["restore", "cat.png", "--set", "steps=many"],
        "setting steps of deqir must be int, got 'many'",
    ),
    "fraction of a step": (["restore", "cat.png", "--set", "steps=2.5"], "setting steps of deqir must be int, got 2.5"),
    "no setting": (["restore", "cat.png", "--set", "steps"], "NAME=VALUE"),
    "setting twice": (["restore", "cat.png", "--set", "steps=2", "--set", "steps=3"], "steps is given twice"),
    "solver and operator": (["restore", "cat.png", "--degrade", "jpeg:10", "--solver", "ddnm"], "linear"),
    "none alone": (["restore", "cat.png", "--degrade", "none"], "degrade none, operator not given"),
    "operator alone": (["restore", "cat.png", "--operator", "sr:4"], "degrade none and an operator go together"),
    "chance": (["restore", "cat.png", "--degrade", "none", "--operator", "inpaint:0.8"], "which"),
    "no picture": (["restore", "cat.png", "--degrade", "none", "--operator", "hadamard:0.5"], "hadamard"),
    "no device": (["restore", "cat.png", "--device", "abacus"], "no device 'abacus'"),
    "no second device": (["restore", "cat.png", "--device", "cpu,abacus"], "no device 'abacus'"),
    "out is a file": (["restore", "cat.png", "--out", "text.png"], "cannot write to the folder text.png"),
    "out in a file": (["restore", "cat.png", "--out", "text.png/x"], "cannot write to the folder"),
    "no photo": (["restore"], "Missing argument 'PHOTO'"),
    "unknown option": (["restore", "cat.png", "--sed", "1"], "No such option: --sed"),
    "unknown command": (["restor"], "'restor'.*'restore'"),
    "no pipeline": (["run", "none.yaml"], "none.yaml: no such file"),
    "no workers": (["run", "p/p.yaml", "--workers", "0"], "workers must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_line_and_code_2(run, photo, tmp_path, case):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.json").write_text("no recipe")
    (tmp_path / "empty.png").touch()
    save_image(sample_photo("cat", 34), tmp_path / "odd.png")
    if case == "no workers":
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "p.yaml").write_text("name: p\ntitle: p\njobs: [{notebook: restore}]")
        jobs = tmp_path / "notebooks" / "jobs"
        jobs.mkdir(parents=True)
        jobs.joinpath("restore.ipynb").write_bytes(
            (Path(__file__).parents[1] / "notebooks" / "jobs" / "restore.ipynb").read_bytes()
        )
    arguments, message = BAD[case]
    code, said, errors = run(*arguments)
    assert code == 2
    assert said == ""
    lines = [line for line in errors.splitlines() if line.startswith("workbench: ")]
    assert len(lines) == 1, errors
    assert len(errors.splitlines()) == 1, errors

    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("restored/*"))


def test_bugs_are_not_hidden(run, photo, monkeypatch):
    import workbench.recipe

    def bug(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(workbench.recipe, "restore", bug)
    with pytest.raises(TypeError, match="a bug"):
        main(["restore", str(photo)])


def test_lists_say_what_there_is(run):
    from workbench.models import available_priors
    from workbench.solvers import SOLVERS

    code, said, _ = run("solvers")
    assert code == 0
    assert {line.split()[0] for line in said.splitlines()} == set(SOLVERS)
    code, said, _ = run("operators")
    assert code == 0
    assert {re.split(r"[:[]", line.split()[0])[0] for line in said.splitlines()} >= {
        *("sr", "blur", "motion", "inpaint", "block", "text", "gray", "oldphoto", "hadamard", "jpeg", "denoise")
    }
    code, said, _ = run("models")
    assert code == 0
    *cards, others = said.splitlines()
    assert {line.split()[0] for line in cards if not line.startswith(" ")} == set(available_priors())
    assert all(kind in others for kind in ("FILE", "hf:", "diffusers:", "deepinv:"))


@pytest.mark.parametrize("command", [(), ("restore",), ("run",), ("models",), ("solvers",), ("operators",)])
def test_help_is_there(run, command):
    code, said, _ = run(*command, "--help")
    assert code == 0
    assert said.startswith("Usage: ")
    assert run()[1].startswith("Usage: ")  # without arguments too


def test_the_installed_command_says_its_line_and_nothing_else(tmp_path):
    command = Path(sys.executable).parent / "workbench"
    done = subprocess.run([command, "restore", "none.png"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "workbench: none.png: no such file\n"


def test_a_closed_pipe_is_no_error():
    command = Path(sys.executable).parent / "workbench"
    pipe = subprocess.Popen([command, "operators"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipe.stdout.close()
    _, errors = pipe.communicate()
    assert errors == b""


@pytest.mark.parametrize(("states", "expected"), [(("done", "kept"), 0), (("done", "failed"), 1), (("skipped",), 1)])
def test_run_ends_with_a_table_and_code_1_if_a_job_failed(run, tmp_path, monkeypatch, states, expected):
    from workbench.pipelines import engine as runner
    from workbench.pipelines.engine import Outcome

    outcomes = [Outcome(str(index), f"job {index}", state, 1.0) for index, state in enumerate(states)]
    monkeypatch.setattr(runner, "run_pipeline", lambda plan, out, workers: outcomes)
    (tmp_path / "out").mkdir()
    pipeline = Path(__file__).parents[1] / "pipelines" / "quick.yaml"
    code, said, _ = run("run", pipeline, "--out", "out")
    assert code == expected
    assert [line.split()[2] for line in said.splitlines()[1:-1]] == list(states)
    assert said.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"


def test_models_says_what_a_checkpoint_is(run, shared):
    file = shared / "reference" / "models" / "ckpt_layout_score_sde_tiny.pth"
    code, said, _ = run("models", file)
    assert code == 0
    assert "NCSN++" in said
    assert "EMA weights" in said
    assert "raw weights" in run("models", file, "--prior-set", "weights=raw")[1]
    code, _, errors = run("models", file, "--prior-set", "weights=best")
    assert code == 2
    assert errors == f"workbench: {file}: weights must be 'auto', 'ema' or 'raw', got 'best'\n"


def test_convert_writes_a_file_that_restores_like_the_original(run, photo, shared, tmp_path):
    original = shared / "reference" / "models" / "ckpt_layout_score_sde_tiny.pth"
    code, said, errors = run("convert", original, "--to", "new/mine.safetensors")
    assert code == 0, errors
    assert "written to new/mine.safetensors" in said
    pictures = []
    for prior in (original, "new/mine.safetensors"):
        code, _, errors = run("restore", photo, "--prior", prior, "--degrade", "sr:2", "--out", "out", *QUICK)
        assert code == 0, errors
        pictures.append((tmp_path / "out" / "restored.png").read_bytes())
        source = json.loads((tmp_path / "out" / "metrics.json").read_text())["prior_source"]
        assert len(source["sha256"]) == 64
    assert pictures[0] == pictures[1]
    card = load_prior(tmp_path / "new" / "mine.safetensors").card
    assert card["converted_from"]["file"] == "ckpt_layout_score_sde_tiny.pth"
    assert card["converted_from"]["weights"] == "ema"
    code, _, errors = run("convert", original, "--to", "mine.pth")
    assert code == 2
    assert "--to must end with .safetensors" in errors


def test_a_denoiser_serves_diffpir_and_says_why_it_does_not_serve_samplers(run, photo, shared, tmp_path):
    tensors = load_file(shared / "reference" / "models" / "drunet_a.safetensors")
    torch.save({k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}, "drunet.pth")
    code, said, errors = run("restore", photo, "--prior", "drunet.pth", "--degrade", "sr:2", *QUICK)
    assert code == 0, errors
    assert "Note: drunet knows noise up to sigma = 0.196: levels were lowered to that from 3" in said
    for solver in ("ddnm", "deqir"):
        code, _, errors = run("restore", photo, "--prior", "drunet.pth", "--degrade", "sr:2", "--solver", solver)
        assert code == 2
        assert "knows noise up to 0.196: use diffpir" in errors
    some = ("--solver", "ddnm", "--set", "steps=2", "--set", "sigma_start=0.19")
    code, _, errors = run("restore", photo, "--prior", "drunet.pth", "--degrade", "sr:2", *some)
    assert code == 0, errors


def test_a_grey_prior_is_refused_for_a_colour_photo(run, photo, tmp_path):
    torch.save(DRUNet(DRUNetConfig(channels=1, widths=(8, 8, 8, 8), blocks=1)).state_dict(), "grey.pth")
    code, _, errors = run("restore", photo, "--prior", "grey.pth", "--degrade", "sr:2", *QUICK)
    assert code == 2
    assert "grey takes grey images (B, 1, H, W), got shape (1, 3, 32, 32)" in errors


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("device=cpu", "--prior-set device: not a setting of the prior"),
        ("weights={[]:1}", "weights must be"),
        ("content=3", "'content'"),
        ("sigma_max=-1", "noise levels must be 0 < sigma_min < sigma_max"),
    ],
)
def test_wrong_settings_of_a_prior_are_one_line(run, shared, setting, message):
    file = str(shared / "reference" / "models" / "ckpt_layout_score_sde_tiny.pth")
    code, said, errors = run("models", file, "--prior-set", setting)
    assert (code, said) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
