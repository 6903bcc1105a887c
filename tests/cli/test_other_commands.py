"""The other commands: lists, help, pipelines, checkpoints."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from workbench.models import available_priors, load_prior
from workbench.pipelines import engine
from workbench.solvers import SOLVERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(shared) -> Path:
    return shared / "reference" / "models" / "ckpt_layout_score_sde_tiny.pth"


def test_lists_say_what_there_is(run):
    assert {line.split()[0] for line in run("solvers")[1].splitlines()} == set(SOLVERS)
    names = {re.split(r"[:[]", line.split()[0])[0] for line in run("operators")[1].splitlines()}
    assert names >= {
        *("sr", "blur", "motion", "inpaint", "block", "text", "gray", "oldphoto", "hadamard", "jpeg", "denoise")
    }
    *cards, others = run("models")[1].splitlines()
    assert {line.split()[0] for line in cards if not line.startswith(" ")} == set(available_priors())
    assert not [line for line in cards if re.search(r"\b1 minutes", line)]
    assert all(kind in others for kind in ("FILE", "hf:", "diffusers:", "deepinv:", "spandrel:"))


@pytest.mark.parametrize(("states", "expected"), [(("done", "kept"), 0), (("done", "failed"), 1), (("skipped",), 1)])
def test_run_ends_with_a_table_and_code_1_if_a_job_failed(run, tmp_path, monkeypatch, states, expected):
    outcomes = [engine.Outcome(str(index), f"job {index}", state, 1.0) for index, state in enumerate(states)]
    monkeypatch.setattr(engine, "run_pipeline", lambda *_: outcomes)
    (tmp_path / "out").mkdir()
    code, said, _ = run("run", ROOT / "pipelines" / "quick.yaml", "--out", "out")
    assert code == expected
    assert [line.split()[2] for line in said.splitlines()[1:-1]] == list(states)
    assert said.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"


def test_bad_commands_and_pipelines_are_one_line(refused, tmp_path):
    assert re.search("'restor'.*'restore'", refused("restor"))
    assert "none.yaml: no such file" in refused("run", "none.yaml")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "p.yaml").write_text("name: p\ntitle: p\njobs: [{notebook: restore}]")
    (tmp_path / "notebooks" / "jobs").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "jobs" / "restore.ipynb", tmp_path / "notebooks" / "jobs")
    assert "workers must be at least 1" in refused("run", "p/p.yaml", "--workers", "0")


def test_exam_prints_a_table_and_writes_figures(run, refused, tmp_path):
    code, said, _ = run(
        "exam", "ddrm", "--set", "steps=2", *2 * ("--task", "mixture-blur"), "--repetitions", 20, "--out", "e.json"
    )
    assert code == 0
    head, row = said.splitlines()
    assert head.split()[:3] == ["task", "distance", "variance"]
    assert head.split()[5:8] == ["directions", "pixels", "region"]  # the names of docs/exam.md
    assert (row.split()[0], row.split()[-1]) == ("mixture-blur", "fail")
    (figures,) = json.loads((tmp_path / "e.json").read_text())
    assert (figures["sampler"], figures["evaluations"], figures["passed"]) == ("ddrm", 2, False)
    assert "--out is a file" in refused("exam", "ddrm", "--out", tmp_path)
    assert "learned must be false for the control exact, which asks no prior" in refused("exam", "exact", "--learned")
    assert "unknown solver 'ddmr', did you mean" in refused("exam", "ddmr")
    assert "unknown task 'blur'" in refused("exam", "ddrm", "--task", "blur")
    assert "unknown setting of ddrm 'step'" in refused("exam", "ddrm", "--set", "step=2")


def test_models_says_what_a_checkpoint_is_and_convert_writes_a_file_that_restores_like_it(
    run, refused, restored, photo, checkpoint, tmp_path
):
    assert "NCSN++" in run("models", checkpoint)[1]
    assert "--prior-set goes with a PRIOR" in refused("models", "--prior-set", "weights=raw")
    assert "--prior-set device: not a setting" in refused("models", checkpoint, "--prior-set", "device=cpu")
    said = refused("models", checkpoint, "--prior-set", "weights=best")
    assert said == f"workbench: {checkpoint}: weights must be 'auto', 'ema' or 'raw', got 'best'\n"
    code, said, errors = run("convert", checkpoint, "--to", "new/mine.safetensors")
    assert code == 0, errors
    assert "written to new/mine.safetensors" in said
    first, second = (restored(photo, "--prior", p, "--degrade", "sr:2") for p in (checkpoint, "new/mine.safetensors"))
    assert first.files == second.files
    assert all(len(done.metrics["prior_source"]["sha256"]) == 64 for done in (first, second))
    origin = load_prior(tmp_path / "new" / "mine.safetensors").card["converted_from"]
    assert (origin["file"], origin["weights"]) == ("ckpt_layout_score_sde_tiny.pth", "ema")
    assert "--to must end with .safetensors" in refused("convert", checkpoint, "--to", "mine.pth")


def test_a_denoiser_serves_diffpir_and_says_why_it_does_not_serve_samplers(restored, refused, photo, shared):
    tensors = load_file(shared / "reference" / "models" / "drunet_a.safetensors")
    torch.save({k.removeprefix("state/"): v for k, v in tensors.items() if k.startswith("state/")}, "drunet.pth")
    drunet = ("--prior", "drunet.pth", "--degrade", "sr:2")
    assert "Note: drunet knows noise up to sigma = 0.196: levels were lowered" in restored(photo, *drunet).said
    for solver in ("ddnm", "deqir"):
        assert "knows noise up to 0.196: use diffpir" in refused("restore", photo, *drunet, "--solver", solver)
    restored(photo, *drunet, "--solver", "ddnm", "--set", "steps=2", "--set", "sigma_start=0.19")
