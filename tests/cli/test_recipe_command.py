"""``workbench restore RECIPE``: again what it gave, and what the commands of its methods give."""

import json
from pathlib import Path

import torch

from workbench.images import load_image, sample_photo, save_image

NAMES = ["1-diffpir-photo-control", "2-DDNM-3"]


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


def test_a_recipe_gives_again_what_it_gave_and_what_its_commands_give(run, restored, tmp_path):
    recipe = recipe_of(tmp_path / "unzipped")
    for out in ("one", "two"):
        code, said, errors = run("restore", recipe, "--out", out)
        assert code == 0, errors
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == NAMES
    lines = [line for line in said.splitlines() if "PSNR" in line]
    assert [line.rpartition(" ")[2] for line in lines] == [f"two/{name}" for name in NAMES]
    assert all("sample 1 of 2" in line for line in lines)
    assert "diffpir, photo-control: 100%" in errors
    assert "DDNM 3: 100%" in errors
    common = ("--degrade", "inpaint:0.5", "--noise", 0.02, "--seed", 3, "--samples", 2)
    diffpir = ("--solver", "diffpir", "--set", "steps=2", "--prior", "photo-control")
    ddnm = ("--solver", "ddnm", "--set", "steps=3", "--set", "eta=0.5", "--prior", "photo", "--tile", 16)
    for name, options in zip(NAMES, (diffpir, ddnm), strict=True):
        first = pictures(tmp_path / "one" / name)
        assert set(first) == {"original.png", "degraded.png", "restored.png", "restored-2.png"}
        assert first["restored.png"] != first["restored-2.png"]
        assert pictures(tmp_path / "two" / name) == first
        alone = restored(recipe.parent / "original.png", *common, *options)
        assert alone.files == first
        metrics = json.loads((tmp_path / "one" / name / "metrics.json").read_text())
        assert metrics | {"seconds": 0} == alone.metrics | {"seconds": 0}
        assert [sample["solver_seed"] for sample in metrics["samples"]] == [4]


def test_a_recipe_finds_its_files_from_anywhere(run, refused, tmp_path, monkeypatch):
    spec = "oldphoto:my mask, new.png"
    recipe = recipe_of(tmp_path / "unzipped", degrade="none", operator=spec, samples=1, noise=0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, said, errors = run("restore", Path("..") / "unzipped" / "run.json", "--out", "again", "--device", "cpu")
    assert code == 0, errors
    assert said.count("no original to compare") == 2
    for name in NAMES:
        assert set(pictures(elsewhere / "again" / name)) == {"degraded.png", "restored.png"}
        assert not bool(load_image(elsewhere / "again" / name / "degraded.png")[..., 9:14, :].any())
    recipe.write_text(recipe.read_text().replace("my mask, new", "no mask"))
    assert "unzipped/no mask.png: no such file" in refused("restore", recipe, "--out", "again")


def test_a_recipe_goes_with_no_other_option(refused, tmp_path):
    recipe = recipe_of(tmp_path / "unzipped")
    for option in ("--seed=0", "--set=steps=2", "--tile=0"):
        said = refused("restore", recipe, "--out", "again", option)
        assert f"{option.split('=')[0]} cannot be given with a recipe, only --out, --bits, --device" in said


def test_a_recipe_whose_last_method_is_wrong_does_not_begin(refused, tmp_path, grey_prior):
    good = {"solver": "diffpir", "settings": {"steps": 2}, "prior": "photo-control"}
    for number, (wrong, message) in enumerate(
        (
            ({"settings": {"steps": 0}}, "steps must be at least 1, got 0"),
            ({"tile": 3}, "tiles of photo-control must be positive multiples"),
            ({"prior": "grey.pth"}, "grey takes grey images"),
        )
    ):
        recipe = recipe_of(tmp_path / f"run {number}", methods=[good, good | wrong])
        assert message in refused("restore", recipe, "--out", "again")
        assert not (tmp_path / "again").exists()
