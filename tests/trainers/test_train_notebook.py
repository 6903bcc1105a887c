"""The job notebook `train_prior`, run as a pipeline runs it: a prior comes out that `load_prior` takes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior
from workbench.pipelines.engine import run_pipeline
from workbench.pipelines.schema import load_pipeline

JOBS = Path(__file__).parents[2] / "notebooks" / "jobs"


def test_the_notebook_trains_and_saves_a_prior(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(
        "name: train\ntitle: A prior in seconds\njobs:\n"
        "- {notebook: train_prior, parameters: {widths: [8, 8], blocks: [1, 1], size: 16, batch_size: 2,"
        " steps: 4, save_every: 2, sample_every: 2, workers: 0}}\n"
    )
    pipeline = load_pipeline(tmp_path / "train.yaml", notebooks=JOBS)
    outcomes = run_pipeline(pipeline, tmp_path / "out")
    assert [outcome.state for outcome in outcomes] == ["done"], outcomes[0].note
    folder = tmp_path / "out" / "jobs" / pipeline.jobs[0].id
    result = json.loads((folder / "result.json").read_text())
    assert (result["step"], result["images"]) == (4, 8)
    assert [file.name for file in sorted((folder / "resume" / "samples").iterdir())] == ["0000002.png", "0000004.png"]
    prior = load_prior(folder / "resume" / "prior.safetensors")
    assert prior.card["images"] == 8
    assert prior(torch.rand(1, 3, 24, 20), 0.1).shape == (1, 3, 24, 20)


def test_the_mupet_notebook_fine_tunes_and_saves_a_prior(tmp_path: Path) -> None:
    """`train_mupet` from a file of the user's, given relative to where the run was started; its control beside."""
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")
    (tmp_path / "train.yaml").write_text(
        "name: train\ntitle: Fine-tuning in seconds\njobs:\n"
        f"- {{notebook: train_mupet, parameters: {{prior: {tmp_path}/mine.safetensors, size: 16, batch_size: 2,"
        " steps: 4, save_every: 2, workers: 0}, grid: {alpha: [1.0, 0.0]}}\n"
    )
    pipeline = load_pipeline(tmp_path / "train.yaml", notebooks=JOBS)
    outcomes = run_pipeline(pipeline, tmp_path / "out")
    assert [outcome.state for outcome in outcomes] == ["done", "done"], outcomes[0].note
    results = {}
    for job in pipeline.jobs:
        folder = tmp_path / "out" / "jobs" / job.id
        result = json.loads((folder / "result.json").read_text())
        prior = load_prior(folder / "resume" / "prior.safetensors")
        assert (result["step"], result["images"], prior.card["images"]) == (4, 8, 8)
        results[job.parameters["alpha"]] = result["log"][-1], prior
    (mupet, tuned), (control, continued) = results[1.0], results[0.0]
    assert {"map", "evaluations", "converged"} <= set(mupet)
    assert "map" not in control
    assert "MUPET" in tuned.card["summary"]
    assert "control" in continued.card["summary"]
    assert not torch.equal(next(tuned.parameters()), next(continued.parameters()))
