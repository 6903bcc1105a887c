"""A wrong name in the parameters of a shipped notebook ends a run before its first job."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli import app

RESTORE = 'photos: ["cat:32"], degradation: "sr:2", methods: [diffpir], settings: {diffpir: {steps: 3}}'


@pytest.mark.parametrize(
    ("notebook", "parameters", "said"),
    [
        ("restore", RESTORE.replace("[diffpir]", "[diffpr]"), "'diffpr', did you mean 'diffpir'"),
        ("restore", RESTORE.replace("{diffpir:", "{ddrm:"), "settings: unknown method 'ddrm'"),
        ("restore", RESTORE.replace("steps", "stps"), "unknown setting of diffpir 'stps', did you mean 'steps'"),
        ("restore", RESTORE.replace("steps: 3", "steps: 0"), "steps"),
        ("restore", RESTORE.replace("cat:32", "cats:32"), "photos: cats: no such file"),
        ("restore", RESTORE.replace("cat:32", "cat"), "expected NAME:SIZE"),
        ("restore", RESTORE.replace("sr:2", "sr:x"), "from 1 to 32"),
        ("restore", RESTORE.replace("sr:2", "block:48"), "block"),
        ("restore", RESTORE.replace("sr:2", "jpeg:50").replace("diffpir", "ddrm"), "needs a linear operator"),
        ("restore", f"{RESTORE}, noise: abc", "got 'abc'"),
        ("restore", f"{RESTORE}, noise: 12.0", "12/255"),
        ("restore", f"{RESTORE}, prior: foto", "did you mean 'photo'"),
        ("restore", f"{RESTORE}, prior: photo-cm", "needs a denoiser"),
        ("restore", f"{RESTORE}, prior_settings: {{weights: raw}}", "unknown setting 'weights'"),
        ("evaluate", "photos: [cat]", "photos: cat: no such file"),
        ("evaluate", "photos: [.]", "no images below ."),
        ("compare_priors", "photos: [p.yaml]", "expected a folder, a .npz or .npy file"),
        ("compare_priors", "noise: 'poisson:x'", "poisson:PEAK"),
        ("evaluate", "priors: {A: photo, B: foto}", "did you mean 'photo'"),
        ("evaluate", "priors: {A: photo}, solvers: {B: red}", "solvers: unknown prior 'B'"),
        ("evaluate", "priors: {A: photo}, settings: {A: {zeta: x}}", "setting zeta of diffpir"),
        ("sweep_solver", "values: {steps: [5], etta: [0.1]}", "did you mean 'eta'"),
        ("exam", "tasks: [mixture-blurr]", "did you mean 'mixture-blur'"),
        ("exam", "sampler: ddmr", "unknown solver 'ddmr', did you mean 'ddrm'"),
        ("exam", "sampler: point, learned: true", "learned must be false for the control point"),
        ("exam", "settings: {step: 2}", "unknown setting of ddrm 'step'"),
        ("exam", "sampler: ud2m", "ud2m needs a network that was trained for photos"),
        ("exam", "repetitions: 5", "repetitions must be at least 20, got 5"),
        ("train_ud2m", "family: inpaint", "family: unknown family 'inpaint', did you mean 'inpainting'"),
        ("train_ud2m", "depth: 0", "depth must be at least 1, got 0"),
        ("train_ud2m", "rank: -1", "rank must be at least 1, got -1"),
        ("train_ud2m", "distance: vgg", "distance must be one of lpips, effnet, none"),
        ("train_ud2m", "noise: [0.1]", "noise must be tuple[float, float], got (0.1,)"),
        ("train_mtdeq", "task: complete", "task: unknown task 'complete', did you mean 'completion'"),
        ("train_mtdeq", "memory: -1", "memory must be at least 0, got -1"),
        ("train_reg", "steps: 0", "steps must be at least 1, got 0"),
        ("train_consistency", "target: distil", "target must be one of distillation"),
        ("train_mupet", "data: [nope]", "data: nope: no such file"),
        ("train_mtdeq", "data: [.]", "no images below ."),
        ("train_prior", "batch_size: 0", "size and batch_size must be at least 1, got 32 and 0"),
        ("train_ud2m", "weights: [1.0, 2.0]", "1 sources, 2 weights"),
        ("train_consistency", "scales: [[1.0]]", "scales must be pairs"),
        ("train_reg", "seed: -1", "seed must be at least 0, got -1"),
        ("train_mupet", "precision: fp16", "precision must be no or bf16"),
    ],
)
def test_a_wrong_name_is_found_before_the_first_job(
    notebook: str, parameters: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = "{notebook: sample_prior, parameters: {count: 1}}"
    wrong = f"{{notebook: {notebook}, name: last, parameters: {{{parameters}}}}}"
    Path("p.yaml").write_text(f"name: p\ntitle: P\njobs:\n  - {good}\n  - {wrong}\n")
    run = CliRunner().invoke(app, ["run", "p.yaml"])
    assert isinstance(run.exception, ValueError)
    assert str(run.exception).startswith("last: ")
    assert said in str(run.exception)
    assert not Path("results/p").exists()


def test_what_is_the_jobs_own_business_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own code is not run, nothing is fetched; and the plan is printed before the complaint."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("raise RuntimeError\n")
    own = RESTORE.replace("sr:2", "own.py:Op").replace("{diffpir: {steps: 3}}", "{}").replace("[diffpir]", "[own.py:S]")
    Path("p.yaml").write_text(
        f"name: p\ntitle: P\njobs:\n  - {{notebook: restore, parameters: {{{own}, prior: 'hf:someone/network'}}}}\n"
    )
    run = CliRunner().invoke(app, ["run", "p.yaml", "--dry-run"])
    assert run.exit_code == 0, run.exception
    assert "1 to do" in run.output
