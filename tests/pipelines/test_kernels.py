"""Kernels of jobs: some that start at once, and one that does not start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.small_project import notebook

TASK = """
from ipykernel.kernelapp import IPKernelApp
from workbench.pipelines import write_result
write_result({"value": n, "transport": IPKernelApp.instance().transport})
"""
# What a kernel does before it answers.
DIES = """
import os
from pathlib import Path
starts = Path(os.environ["IPYTHONDIR"]) / "starts"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
if len(starts.read_text()) <= %d: os._exit(1)
"""


def started(folder: Path, number: int, **environment: str) -> subprocess.Popen:
    """The process of a job, as a runner starts it."""
    place = folder / f"task-{number}"
    place.mkdir()
    notebook(folder, "task", "n: int = 0", TASK)
    job = {"id": place.name, "notebook": str(folder / "task.ipynb"), "parameters": {"n": number}, "needs": {}}
    (place / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "workbench.pipelines.job", str(place)]
    given = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"} | environment
    with (place / "log.txt").open("w") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=place, env=given)


def ended(folder: Path, process: subprocess.Popen, number: int) -> str:
    """What the job printed; it ends when its standard input does, as that of a runner that is gone."""
    process.wait(timeout=240)
    process.stdin.close()
    return (folder / f"task-{number}" / "log.txt").read_text()


def test_kernels_that_start_at_once_do_not_meet(tmp_path):
    """By sockets that have names: ports are chosen before they are bound, and two kernels may choose the same."""
    processes = [started(tmp_path, number) for number in range(4)]
    said = [ended(tmp_path, process, number) for number, process in enumerate(processes)]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert "start 1 of" not in "".join(said)
    results = [json.loads((tmp_path / f"task-{number}" / "result.json").read_text()) for number in range(4)]
    assert [result["value"] for result in results] == list(range(4))
    assert {result["transport"] for result in results} == {"ipc"}


@pytest.mark.parametrize(("deaths", "code"), [(1, 0), (3, 1)])
def test_a_kernel_that_does_not_start_is_replaced_twice(tmp_path, deaths, code):
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(DIES % deaths)
    process = started(tmp_path, 7, IPYTHONDIR=str(tmp_path / "ipython"))
    said = ended(tmp_path, process, 7)
    assert process.returncode == code, said
    assert said.count(f"start {deaths} of 3: RuntimeError: Kernel died") == 1
    assert (tmp_path / "task-7" / "result.json").exists() == (code == 0)
