"""A test set in shards: the merged figures are those of one job, whatever the number of shards."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pipelines.small_project import NOTEBOOKS, ROOT, pipeline_of, run_here
from tests.trainers.small_run import small_prior
from workbench.data.evaluation import evaluation_photos
from workbench.evaluation import fid
from workbench.evaluation.metrics import psnr
from workbench.evaluation.statistics import mean_interval, paired_difference
from workbench.images import sample_photo, sample_photos, save_image
from workbench.models import save_prior
from workbench.pipelines.schema import load_pipeline
from workbench.restore import degrade, restore, solver_of

COUNT, SIZE = 60, 16
JOBS = """
- notebook: evaluate
  name: shards
  parameters: {{photos: [{folder}/photos.npy], count: {count}, size: 16, batch: 10, degradation: "inpaint:0.5",
    steps: 3, solver: ddnm, solvers: {{none: pinv}}, pictures: 2, shards: {shards},
    priors: {{none: {folder}/mine.safetensors, mine: {folder}/mine.safetensors}}}}
  grid: {{shard: {grid}}}
- {{notebook: merge, needs: [shards]}}
"""


def features(levels: Tensor) -> Tensor:
    """Stands in for the published network."""
    return torch.nn.functional.avg_pool2d(levels.double(), 8).flatten(1)


@pytest.fixture(scope="module", autouse=True)
def stand_ins():
    """Quick features for the distance of sets, and no perceptual metric, whose network is slow."""
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if "efficientnet" in name else find(name))
        patch.setattr(fid, "fid_unavailable", lambda: None)
        patch.setattr(fid, "_inception", lambda weights, device: features)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a test set of 64 tiny photos and a prior."""
    folder = tmp_path_factory.mktemp("sharded")
    crops = sample_photos(128).unfold(2, SIZE, 10).unfold(3, SIZE, 10).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    np.save(folder / "photos.npy", (crops[:64] * 255).round().byte().numpy())
    torch.manual_seed(0)
    save_prior(small_prior(), folder / "mine.safetensors")
    return folder


def merged(folder: Path, shards: int, grid: list[int] | None = None, count: int = COUNT) -> dict[str, Any]:
    """The result of merging, and the outcome of the last job as ``outcome``."""
    text = JOBS.format(folder=folder, shards=shards, grid=grid or list(range(shards)), count=count)
    out = folder / f"{count}-{shards}-{grid}"
    *_, last = outcomes = run_here(pipeline := pipeline_of(folder, text), out)
    file = out / "jobs" / last.id / "result.json"
    result = json.loads(file.read_text()) if file.is_file() else {}
    return result | {"outcome": last, "out": out, "pipeline": pipeline, "outcomes": outcomes}


@pytest.fixture(scope="module")
def whole(folder) -> dict[str, Any]:
    return merged(folder, 1)


def test_shards_give_the_figures_of_one(folder, whole):
    """Four of six batches, so that they are of two sizes."""
    one, other = whole["comparison"], merged(folder, 4)["comparison"]
    assert other["count"] == one["count"] == COUNT
    for label in ("none", "mine"):
        assert set(one["means"][label]) == {"psnr", "ssim", "fid"}
        for key, interval in one["means"][label].items():
            again = other["means"][label][key]
            assert again["n"] == interval["n"] == COUNT
            assert again["mean"] == pytest.approx(interval["mean"], rel=1e-9 if key == "fid" else 1e-12)
            assert key == "fid" or again["high"] == pytest.approx(interval["high"], rel=1e-12)
    assert [change["metric"] for change in one["changes"]] == ["psnr", "ssim"]
    for change, again in zip(one["changes"], other["changes"], strict=True):
        assert again["difference"] == pytest.approx(change["difference"], rel=1e-12)
        assert again["verdict"] == change["verdict"]


def test_the_figures_are_those_of_all_images_at_once(folder, whole):
    """Other batches round differently."""
    photos, _ = evaluation_photos([str(folder / "photos.npy")], count=COUNT, size=SIZE, cut="fit")
    degraded = degrade(photos, "inpaint:0.5", 0.01, 0)
    prior = small_prior()
    images = [restore(degraded, one, prior).image for one in (solver_of("pinv", {}), solver_of("ddnm", {"steps": 3}))]
    none, mine = (psnr(image, photos, clip=True).tolist() for image in images)
    found = whole["comparison"]
    for label, expected in (("none", none), ("mine", mine)):
        assert found["means"][label]["psnr"] == pytest.approx(vars(mean_interval(expected)), rel=1e-5)
    assert found["changes"][0]["difference"] == pytest.approx(vars(paired_difference(mine, none)), rel=1e-4)
    assert found["means"]["mine"]["fid"]["mean"] == pytest.approx(fid.fid(images[1], photos), rel=1e-3)


def test_shards_that_are_not_one_evaluation_are_not_merged(folder):
    left_out = merged(folder, 3, [0, 2], count=30)["outcome"]
    assert (left_out.state, left_out.note.partition(" [")[0]) == (
        "failed",
        "ValueError: shards: of 3 shards there is no number 1",
    )
    beyond = merged(folder, 1, count=70)["outcomes"][0]
    assert "asked for 70 photos, but there are only 64" in beyond.note
    many = merged(folder, 7, [0], count=20)["outcomes"][0]
    assert "expected 0 <= shard < shards <= 2 (batches of the set), got shard 0 of 7" in many.note
    pipeline = merged(folder, 1, count=10)["pipeline"]
    job, merging = pipeline.jobs
    other = replace(job, id="evaluate-other", parameters=job.parameters | {"seed": 1, "count": 20})
    jobs = [job, other, replace(merging, needs={"shards": [job.id, other.id]})]
    *_, last = run_here(replace(pipeline, jobs=jobs), folder / "mixed")
    assert "they differ in count, seed" in last.note


def test_a_shard_of_which_nothing_can_be_read_takes_nothing_from_the_others(tmp_path):
    for name in ("cat", "coffee", "rocket"):
        save_image(sample_photo(name, SIZE), tmp_path / f"{name}.png")
    (tmp_path / "coffee.png").write_bytes(b"damaged")
    jobs = JOBS.replace("photos.npy", "").replace("batch: 10", "batch: 1")
    jobs = re.sub(r"priors: \{\{.*\}\}\}\}", "priors: {{none: photo, mine: photo}}}}", jobs)
    found = {}
    for shards in (1, 3):
        text = jobs.format(folder=tmp_path, count=3, shards=shards, grid=list(range(shards)))
        *_, last = run_here(pipeline_of(tmp_path, text), tmp_path / f".{shards}")
        result = json.loads((tmp_path / f".{shards}" / "jobs" / last.id / "result.json").read_text())
        found[shards] = result["comparison"]
    assert found[3]["count"] == found[1]["count"] == 2
    assert found[3]["means"]["mine"]["psnr"] == pytest.approx(found[1]["means"]["mine"]["psnr"], rel=1e-12)
    assert found[3]["means"]["mine"]["fid"]["mean"] == pytest.approx(found[1]["means"]["mine"]["fid"]["mean"], rel=1e-9)
    for name in ("cat", "rocket"):
        (tmp_path / f"{name}.png").write_bytes(b"damaged")
    *_, last = run_here(pipeline_of(tmp_path, text), tmp_path / ".none")
    assert "none of the photos can be read" in last.note


def test_the_documented_pipeline_is_one(tmp_path):
    docs = (ROOT / "docs" / "sharded_evaluation.md").read_text(encoding="utf-8")
    (tmp_path / "p.yaml").write_text(re.search(r"```yaml\n(.*?)```", docs, re.S)[1])
    *shards, merging = load_pipeline(tmp_path / "p.yaml", NOTEBOOKS).jobs
    assert merging.needs == {"shards": [job.id for job in shards]}
    assert [job.parameters["shard"] for job in shards] == list(range(shards[0].parameters["shards"]))
