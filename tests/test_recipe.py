"""Recipes: what a file may say, what its bad ones are told, and that they say all that fixes a restoration."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.images import sample_photo
from workbench.models import TiledPrior, load_prior
from workbench.recipe import (
    Method,
    Recipe,
    fit_prior,
    folder_name,
    load_priors,
    load_recipe,
    measure,
    run_method,
    save_recipe,
)
from workbench.restore import degrade, observe, restore
from workbench.solvers import DiffPIR
from workbench.text import parse_settings

PINV = {"solver": "pinv", "prior": "photo"}
LEAST = {"photo": "cat.png", "degrade": "sr:4", "methods": [PINV]}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_recipe_comes_back_as_it_was_written(tmp_path):
    recipe = Recipe(
        photo=str(tmp_path / "cat.png"),
        degrade="none",
        operator="sr:4",
        noise=0.1 + 0.2,  # all digits
        seed=2**62,
        samples=3,
        methods=(
            Method(name="mine", solver="diffpir", settings={"steps": 3, "schedule": [1.0, 0.1]}, prior="photo"),
            Method(solver="ddnm", prior="hf:some/one", prior_settings={"weights": "raw"}, tile=16),
        ),
        workbench="0.1.0",
        results=[{"psnr": 20.5, "lpips": None}],
        reproduce="workbench restore run.json --out again",
    )
    save_recipe(recipe, tmp_path / "run.json")
    assert load_recipe(tmp_path / "run.json") == recipe
    assert (tmp_path / "run.json").read_text().count("\n") > 10
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_what_json_does_not_know_is_refused_and_the_file_stays(tmp_path):
    path = written(tmp_path / "run.json", LEAST)
    for value in (math.nan, {1, 2}):
        method = Method(solver="pinv", prior="photo", settings={"steps": value})
        with pytest.raises(ValueError, match=r"run.json: not all of the recipe can be written as JSON"):
            save_recipe(Recipe(photo="a", degrade="sr:4", methods=(method,)), path)
    assert json.loads(path.read_text()) == LEAST
    with pytest.raises(ValueError, match=r"none/run.json: cannot be written"):
        save_recipe(load_recipe(path), tmp_path / "none" / "run.json")


def test_files_are_found_beside_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))

    def files(**changes: Any) -> tuple[str, str, str | None]:
        recipe = load_recipe(written(tmp_path / "run.json", LEAST | changes))
        return recipe.photo, recipe.degrade, recipe.operator

    assert files(photo="a b,c:d.png") == (f"{tmp_path}/a b,c:d.png", "sr:4", None)
    assert files(photo="/a.png", degrade="mask:in/a b,c:d.png") == ("/a.png", f"mask:{tmp_path}/in/a b,c:d.png", None)
    assert files(degrade="mask:/m.png")[1] == "mask:/m.png"
    assert files(degrade="mask:~/m.png")[1] == f"mask:{tmp_path}/mine/m.png"
    assert files(degrade="oldphoto,m.png")[1] == f"oldphoto:{tmp_path}/m.png"
    assert files(degrade="none", operator="oldphoto: m.png")[1:] == ("none", f"oldphoto:{tmp_path}/ m.png")
    assert files(degrade="blur:k.npz:kernel1")[1] == f"blur:{tmp_path}/k.npz:kernel1"
    assert files(degrade="sr:4,~/k.png")[1] == f"sr:4:{tmp_path}/mine/k.png"
    for spec in ("oldphoto", "mask:", "blur:2,1", "sr:4:bicubic", "none"):
        assert files(degrade=spec, operator="gray" if spec == "none" else None)[1] == spec
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(written(Path("run.json"), "\ufeff" + json.dumps(LEAST)))  # as some editors begin it
    assert (recipe.photo, recipe.operator, recipe.noise, recipe.samples) == ("cat.png", None, 0, 1)


def method(**changes: Any) -> dict[str, Any]:
    return LEAST | {"methods": [PINV, PINV | changes]}


BAD = [
    ("{", r"Invalid JSON: .*line 1"),
    (LEAST | {"foto": "x"}, "unknown field 'foto', did you mean 'photo'"),
    (method(tle=3), r"methods\[1\]: unknown field 'tle', did you mean 'tile'"),
    (LEAST | {"methods": [PINV] * 17}, r"methods: .* at most 16 items .*, not 17, got .{60}$"),
    (LEAST | {"noise": "loud"}, "noise is SIGMA, poisson:PEAK, .*, got 'loud'"),
    (LEAST | {"seed": -1}, "seed must be 0 or more, a whole number, got -1"),
    (LEAST | {"samples": 65}, "samples: input should be less than or equal to 64, got 65"),
    (method(prior_settings={"device": "cpu"}), r"methods\[1\]: prior_settings device: not a setting of the prior"),
    (LEAST | {"degrade": "none"}, "go together: .* got degrade none, operator not given"),
]


def test_bad_recipes_get_one_line_that_begins_with_the_path(tmp_path):
    for content, message in BAD:
        path = written(tmp_path / "run.json", content)
        with pytest.raises(ValueError, match=rf"^{path}: .*{message}") as caught:
            load_recipe(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250 + len(str(path))


def test_files_that_are_no_recipe(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(10_000_001)
    for name, message in {
        "none.json": "no such file",
        "folder.json": "expected a recipe, a JSON file",
        "bytes.json": "Invalid JSON",
        "huge.json": "10,000,001 bytes, a recipe has at most 10,000,000",
        f"{'x' * 300}.json": "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}: .*{message}|{name}: {message}"):
            load_recipe(tmp_path / name)


def test_folder_names_are_safe():
    for label, solver, prior, expected in (
        ("", "diffpir", "photo-control", "1-diffpir-photo-control"),
        ("", "ddnm+", "hf:some/one", "1-ddnm+-hf-some-one"),
        ("../../etc/passwd", "pinv", "a", "1-..-..-etc-passwd"),
        ("照片", "pinv", "a", "1"),
        ("a\x00\n b.", "pinv", "a", "1-a-b"),
        ("x" * 100, "pinv", "a", "1-" + "x" * 58),
    ):
        assert folder_name(1, Method(name=label, solver=solver, prior=prior)) == expected


def test_a_method_gives_what_the_functions_give(tmp_path):
    photo, prior = sample_photo("cat", 32), load_prior("photo")
    some = Method(solver="diffpir", settings={"steps": 2, "zeta": 0.3}, prior="photo")
    recipe = Recipe(photo="a", degrade="inpaint:0.5", noise=0.05, seed=4, methods=(some, some))
    expected = restore(degrade(photo, "inpaint:0.5", 0.05, 4, prior), DiffPIR(steps=2, zeta=0.3), prior, name="diffpir")
    steps = []
    result = run_method(measure(recipe, photo), some, prior, steps.append)
    assert torch.equal(result.image, expected.image)
    assert len(steps) == 2
    timeless = [record | {"seconds": 0} for record in (result.records[0], expected.records[0])]
    assert timeless[0] == timeless[1]
    old = Recipe(photo="a", degrade="none", operator="sr:4", noise=0.05, samples=2, methods=(some,))
    measured = measure(old, photo, prior)
    assert torch.equal(measured.y[1:], observe(photo, "sr:4", 0.05).y)
    assert measured.solver_seeds == (0, 1)
    with pytest.raises(ValueError, match="steps of diffpir must be int, got '2'"):
        run_method(measured, Method(solver="diffpir", settings={"steps": "2"}, prior="photo"), prior)
    started = Method(solver="ddnm", settings={"steps": 2, "sigma_start": 0.1}, prior="photo")
    begun = run_method(measure(recipe, photo), started, prior, initial=photo)
    assert not torch.equal(begun.image, run_method(measure(recipe, photo), started, prior).image)


@pytest.mark.parametrize("degradation", ["sr:4", "blur:2"])
def test_how_a_photo_lies_in_memory_changes_no_bit(degradation):
    """A demo cuts and copies pictures; load_image gives them with the channels last. Convolutions round differently."""
    loaded, prior = sample_photo("cat", 32), load_prior("photo")
    some = Method(solver="diffpir", settings={"steps": 2}, prior="photo")
    larger = torch.zeros(2, 3, 40, 40)
    larger[:1, :, 4:36, 4:36] = loaded
    layouts = [loaded, loaded.contiguous(), loaded.clone(memory_format=torch.channels_last), larger[:1, :, 4:36, 4:36]]
    expected = restore(degrade(loaded, degradation, 0.02), DiffPIR(steps=2), prior).image
    for samples in (1, 2):
        recipe = Recipe(photo="a", degrade=degradation, noise=0.02, samples=samples, methods=(some,))
        images = [run_method(measure(recipe, photo), some, prior).image for photo in layouts]
        assert all(torch.equal(image, images[0]) for image in images)
        assert samples == 2 or torch.equal(images[0], expected)
    both = measure(recipe.model_copy(update={"samples": 1}), torch.cat([loaded.flip(3), loaded]))
    torch.testing.assert_close(both.y[1:], degrade(loaded, degradation, 0.02).y, rtol=0, atol=1e-6)  # each as if alone
    with pytest.raises(ValueError, match="samples are of one measurement, got a batch of 2"):
        measure(recipe, larger)


def test_priors_fit_the_restored_size_and_equal_ones_are_loaded_once():
    methods = [Method(solver="pinv", prior=name, tile=tile) for name, tile in (("photo", None), ("photo", 16))]
    methods.append(Method(solver="pinv", prior="photo-mupet", tile=0))
    photo, cpu = sample_photo("cat", 12), [torch.device("cpu")]  # twice that is a multiple of 8
    whole, tiled, other = load_priors(
        Recipe(photo="a", degrade="none", operator="sr:2", methods=tuple(methods)), photo, cpu
    )
    assert not isinstance(whole, TiledPrior)
    assert isinstance(tiled, TiledPrior)
    assert tiled.prior is whole
    assert other.name == "photo-mupet"
    (shared,) = load_priors(Recipe(photo="a", degrade="sr:2", methods=(methods[0],)), sample_photo("cat", 16), cpu * 2)
    assert shared.name == "photo on cpu, cpu"
    assert fit_prior(whole, 0, 33, 32) is whole
    assert isinstance(fit_prior(whole, None, 33, 32), TiledPrior)
    assert fit_prior(whole, None, 32, 32) is whole
    with pytest.raises(ValueError, match="multiples of"):
        fit_prior(whole, 3, 32, 32)


def test_settings_written_as_text():
    expected = {"steps": 50, "zeta": 0.3, "schedule": "vp", "deep": True, "none": None, "x": (1, 2)}
    assert parse_settings(["steps=50", "zeta=0.3", "schedule=vp", "deep=True", "none=none", "x=(1,2)"]) == expected
    assert parse_settings(["text=a=b", "brackets={[]:1}"]) == {"text": "a=b", "brackets": "{[]:1}"}
    for pairs, message in (
        (["steps"], "settings expects NAME=VALUE, got 'steps'"),
        (["a b=3"], "settings expects NAME=VALUE, got 'a b=3'"),
        (["a=1", "a=2"], "settings a is given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_settings(pairs, "settings")
    with pytest.raises(ValueError, match="--prior-set dtype: not a setting of the prior"):
        parse_settings(["dtype=1"], "--prior-set")
    assert parse_settings(["dtype=1"]) == {"dtype": 1}
