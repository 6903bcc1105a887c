"""The job notebooks that train: a prior comes out that `load_prior` takes."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.pipelines.small_project import pipeline_of, run_to_report
from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior
from workbench.operators import Identity
from workbench.solvers import PnPReG


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


def test_the_mtdeq_notebook_trains_each_task_and_the_control(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")
    job = f"""
- notebook: train_mtdeq
  parameters: &common
    {{prior: {tmp_path}/mine.safetensors, size: 16, batch_size: 2, steps: 3, max_steps: 3, workers: 0}}
  grid: {{task: [multi, completion]}}
- {{notebook: train_mtdeq, parameters: {{<<: *common, weight: 0.0, denoising: 1.0}}}}
"""
    ran = run_to_report(pipeline_of(tmp_path, job), tmp_path / "out")
    assert [result["step"] for result in ran.results] == [3] * 3
    cards = [load_prior(folder / "resume" / "prior.safetensors").card["summary"] for folder in ran.folders]
    assert [card.split(",")[0] for card in cards[:2]] == ["trained at equilibria (MTDEQ"] * 2
    assert cards[2].startswith("Gaussian denoising continued")
    assert "equilibrium" in ran.results[0]["log"][-1]
    assert set(ran.results[2]["log"][-1]) & {"equilibrium", "denoising"} == {"denoising"}


def test_the_reg_notebook_saves_a_regulariser_that_its_solver_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")
    job = f"""
- {{notebook: train_reg, parameters: {{prior: {tmp_path}/mine.safetensors, size: 16, batch_size: 2, steps: 4,
    workers: 0}}}}
"""
    ran = run_to_report(pipeline_of(tmp_path, job), tmp_path / "out")
    regulariser, denoiser = (
        load_prior(ran.folders[0] / "resume" / f"{name}.safetensors") for name in ("regulariser", "denoiser")
    )
    assert not torch.equal(next(regulariser.parameters()), next(denoiser.parameters()))
    y = torch.rand(1, 3, 16, 16)
    assert PnPReG(max_steps=2, level=0.03)(y, Identity(), regulariser, sigma_noise=0.1).image.isfinite().all()
