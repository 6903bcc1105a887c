"""The job notebooks that train: a prior comes out that `load_prior` takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.pipelines.small_project import pipeline_of, run_to_report
from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior
from workbench.operators import Identity
from workbench.solvers import DDIM, LATINO, PnPReG
from workbench.trainers import Consistency, Curriculum, TrainSettings


@pytest.fixture
def jobs(tmp_path: Path) -> Callable[[str], tuple[list[Path], list[dict]]]:
    """Runs jobs on a file of the user's, ``PRIOR``, given relative to where the run was started."""
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")

    def run(text: str) -> tuple[list[Path], list[dict]]:
        text = text.replace("PRIOR", f"{tmp_path}/mine.safetensors, size: 16, batch_size: 2, workers: 0")
        ran = run_to_report(pipeline_of(tmp_path, text), tmp_path / "out")
        return [folder / "resume" for folder in ran.folders], ran.results

    return run


def test_the_mupet_notebook_fine_tunes_and_saves_a_prior(jobs) -> None:
    """Its control beside."""
    folders, results = jobs("""
- {notebook: train_mupet, parameters: {prior: PRIOR, steps: 4, save_every: 2}, grid: {alpha: [1.0, 0.0]}}
""")
    tuned, control = (load_prior(folder / "prior.safetensors") for folder in folders)
    assert [(r["step"], r["images"], p.card["images"]) for r, p in zip(results, (tuned, control), strict=True)] == [
        (4, 8, 8)
    ] * 2
    assert {"map", "evaluations", "converged"} <= set(results[0]["log"][-1])
    assert "map" not in results[1]["log"][-1]
    assert "MUPET" in tuned.card["summary"]
    assert "control" in control.card["summary"]
    assert not torch.equal(next(tuned.parameters()), next(control.parameters()))


def test_the_mtdeq_notebook_trains_a_task_and_the_control(jobs) -> None:
    folders, results = jobs("""
- {notebook: train_mtdeq, parameters: {prior: PRIOR, steps: 3, max_steps: 3, task: completion}}
- {notebook: train_mtdeq, parameters: {prior: PRIOR, steps: 3, max_steps: 3, weight: 0.0, denoising: 1.0}}
""")
    assert [result["step"] for result in results] == [3] * 2
    cards = [load_prior(folder / "prior.safetensors").card["summary"] for folder in folders]
    assert cards[0].startswith("trained at equilibria (MTDEQ,")
    assert cards[1].startswith("Gaussian denoising continued")
    assert "equilibrium" in results[0]["log"][-1]
    assert set(results[1]["log"][-1]) & {"equilibrium", "denoising"} == {"denoising"}


def test_the_reg_notebook_saves_a_regulariser_that_its_solver_takes(jobs) -> None:
    (folder,), _ = jobs("- {notebook: train_reg, parameters: {prior: PRIOR, steps: 4}}")
    regulariser, denoiser = (load_prior(folder / f"{name}.safetensors") for name in ("regulariser", "denoiser"))
    assert not torch.equal(next(regulariser.parameters()), next(denoiser.parameters()))
    y = torch.rand(1, 3, 16, 16)
    assert PnPReG(max_steps=2, level=0.03)(y, Identity(), regulariser, sigma_noise=0.1).image.isfinite().all()


def test_progressive_distillation_gives_a_denoiser_and_distillation_a_consistency_model(jobs) -> None:
    """As Salimans and Ho have it: the student steps as DDIM does, and is itself the next teacher."""
    given = "prior: PRIOR, steps: 3, levels: 4, sigma_max: 5.0"
    folders, _ = jobs(f"""
- {{notebook: train_consistency, name: half, parameters: {{{given}, target: progressive}}}}
- {{notebook: train_consistency, parameters: {{{given}}}}}
- {{notebook: train_consistency, needs: [half],
    parameters: {{prior: "job:half", size: 16, batch_size: 2, workers: 0, steps: 1, levels: 2, target: progressive}}}}
""")
    half, jumps, quarter = (load_prior(folder / "prior.safetensors") for folder in folders)
    assert [prior.kind for prior in (half, jumps, quarter)] == ["denoiser", "consistency", "denoiser"]
    assert [prior.sigma_max for prior in (half, jumps, quarter)] == [5.0] * 3
    assert half.card["title"] == "Denoiser for 4 DDIM steps, by progressive distillation"
    y = torch.rand(1, 3, 16, 16)
    assert LATINO()(y, Identity(), jumps, sigma_noise=0.1).image.isfinite().all()
    with pytest.raises(ValueError, match=r"latino needs a consistency model, such as photo-cm; .* is a denoiser"):
        LATINO()(y, Identity(), half, sigma_noise=0.1)
    assert DDIM(4, schedule="karras")(half, (1, 3, 16, 16)).image.isfinite().all()
    settings, teacher = TrainSettings(steps=10), small_prior()
    with pytest.raises(ValueError, match="progressive of a student needs a denoiser"):
        Consistency("progressive").task(jumps, teacher, settings)
    stages = Curriculum(first=8, steps=5, halving=True)
    with pytest.raises(ValueError, match="train one stage"):
        Consistency("progressive", stages).task(small_prior(), teacher, settings)
    Consistency("progressive", stages).task(small_prior(), teacher, TrainSettings(steps=5))


def test_the_ud2m_notebook_adapts_a_prior_that_another_job_trained(jobs) -> None:
    """Its file names the base by the place where it is found: what a job calls it means nothing elsewhere."""
    folders, _ = jobs("""
- {notebook: train_mtdeq, name: tuned, parameters: {prior: PRIOR, steps: 1, max_steps: 2}}
- notebook: train_ud2m
  needs: [tuned]
  parameters: {prior: "job:tuned", size: 16, batch_size: 1, workers: 0, steps: 1, layers: all, depth: 1, distance: none}
""")
    assert load_prior(folders[-1] / "prior.safetensors").kind == "unfolded"
