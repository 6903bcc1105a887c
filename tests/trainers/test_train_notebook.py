"""The job notebook `train_prior`, run as a pipeline runs it: a prior comes out that `load_prior` takes."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.pipelines.small_project import pipeline_of, run_to_report
from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior


def test_the_notebook_trains_and_saves_a_prior(tmp_path: Path) -> None:
    job = """
- {notebook: train_prior, parameters: {widths: [8, 8], blocks: [1, 1], size: 16, batch_size: 2, steps: 4,
    save_every: 2, sample_every: 2, workers: 0}}
"""
    ran = run_to_report(pipeline_of(tmp_path, job), tmp_path / "out")
    (folder,), (result,) = ran.folders, ran.results
    assert (result["step"], result["images"]) == (4, 8)
    assert [file.name for file in sorted((folder / "resume" / "samples").iterdir())] == ["0000002.png", "0000004.png"]
    prior = load_prior(folder / "resume" / "prior.safetensors")
    assert prior.card["images"] == 8
    assert prior(torch.rand(1, 3, 24, 20), 0.1).shape == (1, 3, 24, 20)


def test_the_mupet_notebook_fine_tunes_and_saves_a_prior(tmp_path: Path) -> None:
    """`train_mupet` from a file of the user's, given relative to where the run was started; its control beside."""
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")
    job = f"""
- {{notebook: train_mupet, parameters: {{prior: {tmp_path}/mine.safetensors, size: 16, batch_size: 2, steps: 4,
    save_every: 2, workers: 0}}, grid: {{alpha: [1.0, 0.0]}}}}
"""
    ran = run_to_report(pipeline_of(tmp_path, job), tmp_path / "out")
    results = []
    for folder, result in zip(ran.folders, ran.results, strict=True):
        prior = load_prior(folder / "resume" / "prior.safetensors")
        assert (result["step"], result["images"], prior.card["images"]) == (4, 8, 8)
        results.append((result["log"][-1], prior))
    (mupet, tuned), (control, continued) = results
    assert {"map", "evaluations", "converged"} <= set(mupet)
    assert "map" not in control
    assert "MUPET" in tuned.card["summary"]
    assert "control" in continued.card["summary"]
    assert not torch.equal(next(tuned.parameters()), next(continued.parameters()))
