"""Job notebooks as scripts: parameters, and errors that name what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.models import load_prior
from workbench.pipelines.script import run_script

JOBS = Path(__file__).parents[2] / "notebooks" / "jobs"


def test_a_training_notebook_runs_as_a_script(tmp_path):
    """As on a machine that only trains, without the libraries of pipelines and notebooks."""
    program = """import sys
sys.modules |= dict.fromkeys(("papermill", "pydantic", "gradio", "lpips", "diffusers"))  # cannot be imported
from pathlib import Path
from workbench.pipelines.script import run_script
run_script(Path(sys.argv[1]), sys.argv[2:])
"""
    given = ["alpha=0.0", "steps=2", "batch_size=2", "workers=0", "folder=run", "scales=[[0.5, 1.0]]"]
    command = [sys.executable, "-c", program, str(JOBS / "train_mupet.py"), *given]
    environment = {"MPLBACKEND": "Agg", "PYTHONPATH": str(JOBS.parents[1]), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert load_prior(tmp_path / "run" / "prior.safetensors").card["steps"] == 2


def test_wrong_parameters_are_refused_and_errors_name_the_line(tmp_path):
    job = tmp_path / "job.py"
    job.write_text('# %% tags=["parameters"]\na = 1\n\n# %%\nb = a\nraise RuntimeError(b)\n')
    for pair, message in (("aa=1", "unknown parameter 'aa', did you mean"), ("a", "parameters expects NAME=VALUE")):
        with pytest.raises(ValueError, match=message):
            run_script(job, [pair])
    with pytest.raises(RuntimeError) as raised:
        run_script(job, ["a=5"])
    assert raised.value.args == (5,)
    assert raised.traceback[-1].lineno == 5
    job.write_text("# %%\nx = 1\n")
    with pytest.raises(ValueError, match="expected a cell with tags"):
        run_script(job, ["x=1"])
