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


@pytest.mark.parametrize(
    ("text", "pair", "message"),
    [
        (
            '# %% tags=["parameters"]\nsteps: int = 3\n\n# %%\nx = 1\n',
            "stepz=1",
            "unknown parameter 'stepz', did you mean",
        ),
        ('# %% tags=["parameters"]\nsteps: int = 3\n\n# %%\nx = 1\n', "steps", "parameters expects NAME=VALUE"),
        ("# %%\nx = 1\n", "steps=1", "expected a cell with tags"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path, text, pair, message):
    (tmp_path / "job.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        run_script(tmp_path / "job.py", [pair])


def test_errors_name_the_line(tmp_path):
    (tmp_path / "job.py").write_text('# %% tags=["parameters"]\na = 1\n\n# %%\nb = a\nraise RuntimeError(b)\n')
    with pytest.raises(RuntimeError) as raised:
        run_script(tmp_path / "job.py", ["a=5"])
    assert raised.value.args == (5,)
    assert raised.traceback[-1].lineno == 5
