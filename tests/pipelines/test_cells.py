"""A job restores only what no earlier one has restored in the same way."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipelines.small_project import pipeline_of, run_here
from workbench.images import sample_photo, save_image
from workbench.measurement import degrade, samples
from workbench.models import load_prior, save_prior
from workbench.operators import Inpainting
from workbench.pipelines.cells import Cells
from workbench.restore import restore, solver_of


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """Three photos and a prior."""
    (tmp_path / "mine").mkdir()
    for name in ("astronaut", "cat", "coffee"):
        save_image(sample_photo(name, 16), tmp_path / "mine" / f"{name}.png")
    save_prior(load_prior("photo"), tmp_path / "prior.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, **changes: Any) -> tuple[str, list[str], list[dict[str, Any]]]:
    """State and note of the job, and the records of its result."""
    given = {
        "photos": ["mine:16"],
        "methods": ["pinv", "ddnm"],
        "settings": {"ddnm": {"steps": 2}},
        "prior": "prior.safetensors",
        "degradation": "inpaint:0.5",
    } | changes
    pipeline = pipeline_of(folder, f"- {{notebook: restore, parameters: {json.dumps(given)}}}")
    (outcome,) = run_here(pipeline, folder / "out")
    result = json.loads((folder / "out" / "jobs" / outcome.id / "result.json").read_text())
    assert outcome.state in ("done", "kept"), outcome.note
    return outcome.state, [outcome.note.split(" ")[0], *map(str, result["cells"].values())], result["records"]


def test_only_what_is_new_is_computed(files):
    state, counts, first = run(files)
    assert (state, counts[1:]) == ("done", ["6", "0"])
    state, (note, *_), _ = run(files)
    assert (state, note) == ("kept", "from")

    _, counts, more = run(
        files, methods=["pinv", "ddnm", "diffpir"], settings={"ddnm": {"steps": 2}, "diffpir": {"steps": 2}}
    )
    assert counts == ["3", "3", "6"]
    same = [{key: record[key] for key in first[0]} for record in more if record["solver"] != "diffpir"]
    assert sorted(map(str, same)) == sorted(map(str, first))  # seconds and all

    save_image(sample_photo("rocket", 16), files / "mine" / "rocket.png")  # the last by name
    assert run(files)[1] == ["2", "2", "6"]
    assert run(files, seed=1)[1] == ["", "8", "0"]
    # A label of one's own for the same.
    assert run(files, methods=["mine"], solvers={"mine": "ddnm"}, settings={"mine": {"steps": 2}})[1] == ["0", "0", "4"]

    save_image(sample_photo("rocket", 16).flip(-1), files / "mine" / "cat.png")
    assert run(files)[1] == ["2", "2", "6"]
    save_prior(load_prior("photo-control"), files / "prior.safetensors")
    assert run(files)[1] == ["", "8", "0"]


def test_a_photo_keeps_its_number_whatever_comes_after_it(files):
    """Also where photos of other sizes come later in the list."""
    photos = ["mine/cat.png:16", "mine/coffee.png:12"]
    first = run(files, photos=photos)[2]
    _, counts, more = run(files, photos=[*photos, "mine/astronaut.png:16"])
    assert counts == ["2", "2", "4"]
    assert [r["psnr"] for r in first if r["photo"] == "mine/coffee.png"] == [
        r["psnr"] for r in more if r["photo"] == "mine/coffee.png"
    ]


def in_a_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "job").mkdir()
    job = {"id": "a", "started_in": str(folder), "cells": str(folder / "cells"), "code": "1"}
    (folder / "job" / "job.json").write_text(json.dumps(job))
    monkeypatch.chdir(folder / "job")


def test_what_is_kept_is_what_was_restored(tmp_path, monkeypatch):
    in_a_job(tmp_path, monkeypatch)
    prior, solver = load_prior("photo"), solver_of("ddnm", {"steps": 2})
    photos = torch.cat([sample_photo(name, 16) for name in ("cat", "coffee", "astronaut")])
    whole = degrade(photos, "inpaint:0.5", 0.1)
    expected = restore(whole, solver, prior, name="x")
    cells = Cells()
    cells.restore(degrade(photos[1:2], "inpaint:0.5", 0.1, numbers=(1,)), solver, prior, name="x", given=None)
    found = [cells.restore(whole, solver, prior, name="x", given=None) for _ in range(2)]
    assert cells.counts == {"computed": 3, "kept": 4}
    assert torch.equal(found[0].image, found[1].image)
    torch.testing.assert_close(found[0].image, expected.image, atol=1e-5, rtol=0)
    assert found[0].records == found[1].records
    assert [r["evaluations"] for r in found[0].records] == [r["evaluations"] for r in expected.records]
    # Samples of one measurement are not one photo restored in one way.
    cells.restore(samples(degrade(photos[:1], "sr:4"), 2), solver, prior, name="x", given=None)
    # Nor can an operator that is an object be known by its name.
    for mask in (torch.ones(16, 16), torch.eye(16)):
        cells.restore(degrade(photos[:1], Inpainting(mask)), solver, prior, name="x", given=None)
    assert len(list((tmp_path / "cells").iterdir())) == 3
    for middle in (0.1, 0.2):  # noise is known by all its levels
        levels = torch.tensor([0.05, middle, 0.3]).view(3, 1, 1)
        cells.restore(degrade(photos[:1], "sr:4", levels), solver, prior, name="x", given=None)
    assert len(list((tmp_path / "cells").iterdir())) == 5


def test_another_prior_or_half_a_cell_is_not_taken(tmp_path, monkeypatch):
    in_a_job(tmp_path, monkeypatch)
    prior, solver = load_prior("photo"), solver_of("ddnm", {"steps": 1})
    degraded = degrade(sample_photo("cat", 16), "sr:4")

    def kept(**given: Any) -> int:
        cells = Cells()
        cells.restore(degraded, solver, prior, name="x", **{"given": None, **given})
        return cells.counts["kept"]

    assert [kept(), kept(), kept(judge=True), kept(given={"step": "nearest"})] == [0, 1, 0, 0]
    with torch.no_grad():
        next(prior.parameters()).mul_(1.01)  # of the same name and source
    assert [kept(), kept()] == [0, 1]
    for file in (tmp_path / "cells").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert kept() == 0


def test_a_solver_of_ones_own_counts_by_its_code(tmp_path, monkeypatch):
    in_a_job(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    degraded, prior = degrade(sample_photo("cat", 16), "sr:4"), load_prior("photo")
    for body, expected in (("x = 1", 0), ("'Mine.'\n    x = (1)  # one", 1), ("x = 2", 0)):
        (tmp_path / "own_solver.py").write_text(f"from workbench.solvers import DDNM\nclass Mine(DDNM):\n    {body}\n")
        monkeypatch.delitem(sys.modules, "own_solver", raising=False)
        cells = Cells()
        cells.restore(degraded, import_module("own_solver").Mine(steps=1), prior, name="x", given=None)
        assert cells.counts["kept"] == expected, body
