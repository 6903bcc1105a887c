"""What becomes of jobs that succeed, fail, die and hang, of runs that are interrupted, and of their kernels."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from tests.pipelines.small_project import notebook, project, yaml_of
from workbench.pipelines import progress, write_result
from workbench.pipelines.engine import Outcome, run_pipeline, table
from workbench.pipelines.schema import load_pipeline

JOBS = """
- {notebook: task, name: base, grid: {noise: [0.25, 1]}}
- {notebook: task, parameters: {how: badly}, name: bad}
- {notebook: task, parameters: {how: slowly}, timeout: 3}
- {notebook: task, parameters: {how: after}, needs: [base]}
- {notebook: task, parameters: {how: never}, needs: [bad]}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("project")
    path = project(folder, JOBS)
    out = folder / "results {1}"
    return path, out, run_pipeline(load_pipeline(path), out, workers=2)


def test_outcomes_are_told_apart(ran):
    _, _, outcomes = ran
    assert [o.state for o in outcomes] == ["done", "done", "failed", "failed", "done", "skipped"]
    notes = [o.note for o in outcomes]
    assert "RuntimeError: the network diverged" in notes[2]
    assert "took more than 3 s" in notes[3]
    assert "a job it needs failed" in notes[5]
    text = table(outcomes)
    assert len(text.splitlines()) == 7
    assert "task noise=1" not in text  # the entry's name is used where there is one
    assert "base noise=1 " in text


def test_done_jobs_hold_their_result_and_failed_ones_no_part_of_it(ran):
    path, out, outcomes = ran
    jobs = {job.id: job for job in load_pipeline(path).jobs}
    for outcome in outcomes:
        folder = out / "jobs" / outcome.id
        files = {p.name for p in folder.iterdir()} if folder.exists() else set()
        if outcome.state == "done":
            assert files == {"job.json", "notebook.ipynb", "log.txt", "half.txt", "result.json"}
            result = json.loads((folder / "result.json").read_text())
            assert result["job"] == outcome.id
            assert "Warning" not in (folder / "log.txt").read_text()
            assert result["value"] == 2 * jobs[outcome.id].parameters.get("noise", 0.1)
        elif outcome.state == "failed":
            # A job that ran out of time may not have come as far as its notebook.
            assert files - {"notebook.ipynb"} == {"job.json", "log.txt"}
        else:
            assert not files
    summary = json.loads((out / "summary.json").read_text())
    assert [job["state"] for job in summary["jobs"]] == [o.state for o in outcomes]
    assert not alive_in(out)  # no kernel outlives its job


def alive_in(out: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(out))]


def wait_until(reached: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def test_running_again_keeps_what_is_done_and_tries_the_rest(ran):
    path, out, outcomes = ran
    done = [out / "jobs" / o.id / "result.json" for o in outcomes if o.state == "done"]
    before = [file.stat().st_mtime_ns for file in done]
    # One result is damaged, one belongs to another job: neither counts.
    done[1].write_text('{"job": "task-0123", "value": 7}')
    done[2].write_text('{"job": ')
    text = "\n".join(line for line in JOBS.splitlines() if "slowly" not in line)
    path.write_text(yaml_of(text))
    again = run_pipeline(load_pipeline(path), out)
    assert [o.state for o in again] == ["kept", "done", "failed", "done", "skipped"]
    assert done[0].stat().st_mtime_ns == before[0]
    assert json.loads(done[1].read_text())["value"] == 2


def test_a_job_that_died_goes_on_from_what_it_kept(tmp_path):
    counting = """
import os
from pathlib import Path
from workbench.pipelines import write_result
Path("resume").mkdir(exist_ok=True)
count = Path("resume/count.txt")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
if count.read_text() == "1": os.kill(os.getpid(), 9)
"""
    path = project(tmp_path)
    notebook(tmp_path / "notebooks" / "jobs", "task", "size = 64", counting, 'write_result({"n": count.read_text()})')
    pipeline = load_pipeline(path)
    died, again = (run_pipeline(pipeline, tmp_path / "out")[0] for _ in range(2))
    assert (died.state, again.state) == ("failed", "done")
    assert "DeadKernelError" in died.note
    result = tmp_path / "out" / "jobs" / pipeline.jobs[0].id / "result.json"
    assert json.loads(result.read_text())["n"] == "2"


def test_a_folder_in_use_or_that_cannot_be_written_is_refused(tmp_path):
    pipeline = load_pipeline(project(tmp_path))
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another run is writing there"):
        run_pipeline(pipeline, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        run_pipeline(pipeline, tmp_path / "file" / "out")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_its_jobs(tmp_path, how):
    path = project(tmp_path, "- {notebook: task, parameters: {how: slowly}}")
    out = tmp_path / "out"
    # A shell that starts the tests in the background has SIGINT ignored, which children inherit.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from workbench.cli import main; main(sys.argv[1:])"
    runner = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(path), "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: bool(list(out.glob("jobs/*/half.txt"))), 60, "the job did not start")
    os.kill(runner.pid, how)
    _, errors = runner.communicate(timeout=30)
    assert runner.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in errors
    if how == signal.SIGINT:
        said = f"What is done stays in {out}: the same command goes on from there\nworkbench: interrupted\n"
        assert errors.endswith(said)
    wait_until(lambda: not alive_in(out), 20, "a job outlived its runner")
    assert not list(out.glob("jobs/*/result.json"))


def test_by_hand_a_notebook_writes_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_result({"value": 1})
    progress(1, 2)
    assert not list(tmp_path.iterdir())
    assert "Not run by a pipeline" in capsys.readouterr().out


def test_a_result_that_json_does_not_know_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.json").write_text('{"id": "task-0", "parameters": {}}')
    with pytest.raises(ValueError, match="Out of range float"):
        write_result({"value": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


# Kernels.

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
    processes = [started(tmp_path, number) for number in range(3)]
    said = [ended(tmp_path, process, number) for number, process in enumerate(processes)]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert "start 1 of" not in "".join(said)
    results = [json.loads((tmp_path / f"task-{number}" / "result.json").read_text()) for number in range(3)]
    assert [result["value"] for result in results] == list(range(3))
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
