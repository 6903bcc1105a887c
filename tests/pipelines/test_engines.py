"""Jobs on workers of Dask and as SLURM arrays: what is refused before, workers that die, runners that die."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed import LocalCluster

from tests.pipelines.small_project import notebook, project, yaml_of
from workbench.pipelines.attempt import Outcome, lock_free
from workbench.pipelines.engine import run_pipeline
from workbench.pipelines.engines import check_resources, dask, look, slurm
from workbench.pipelines.identity import code_version
from workbench.pipelines.schema import Pipeline, load_pipeline

# The first attempt of a job waits in "begun"; a second one finds no process of the first.
TASK = """
import os, time
from pathlib import Path
import psutil
from workbench.pipelines import needed, progress, write_result
Path("resume").mkdir(exist_ok=True)
tries = Path("resume/tries.txt")
before = tries.read_text().split() if tries.exists() else []
assert not any(psutil.pid_exists(int(pid)) for pid in before)
tries.write_text(" ".join([*before, str(os.getpid())]))
progress(1, 2)
while wait == "once" and not before or wait and wait != "once" and not Path(wait).exists(): time.sleep(0.05)
"""
LAST = 'write_result({"value": 2 * noise, "tries": len(before) + 1, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")})'


@pytest.fixture
def make(tmp_path):
    """Pipelines of one notebook, whose job waits: once (if it is tried again it does not) or until there is a file."""

    def made(jobs: str) -> Pipeline:
        path = project(tmp_path)
        notebook(tmp_path / "notebooks" / "jobs", "task", 'noise: float = 0.1\nwait: str = ""', TASK, LAST)
        path.write_text(yaml_of(jobs))
        return load_pipeline(path)

    return made


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, resources={"gpus": 1}) as cluster:
        yield cluster


def started(out: Path) -> list[Path]:
    return list(out.glob("jobs/*/resume/tries.txt"))


def until(reached, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def results(out: Path, outcomes: list[Outcome]) -> list[dict]:
    assert [outcome.state for outcome in outcomes] == ["done"] * len(outcomes), outcomes
    return [json.loads((out / "jobs" / outcome.id / "result.json").read_text()) for outcome in outcomes]


def ports() -> set[tuple[str, int]]:
    return {tuple(c.laddr) for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}


def in_background(work) -> tuple[threading.Thread, list]:
    found: list = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_job_whose_dask_worker_is_killed_is_done_by_another(tmp_path, make, cluster):
    pipeline, out = make("- {notebook: task, parameters: {wait: once}, gpus: 1}"), tmp_path / "out"
    engine = partial(dask, address=cluster.scheduler_address)
    thread, found = in_background(lambda: run_pipeline(pipeline, out, engine=engine))
    until(lambda: started(out))
    (worker,) = cluster.workers.values()
    os.kill(worker.pid, 9)
    thread.join(60)
    (result,) = results(out, found[0])
    assert (result["value"], result["tries"]) == (0.2, 2)


def test_a_job_that_outlives_its_runner_is_waited_for(tmp_path, make, cluster):
    """The next run must neither write into its folder nor do its work again."""
    go = tmp_path / "go"
    pipeline, out = make(f"- {{notebook: task, parameters: {{wait: {go}}}}}"), tmp_path / "out"
    code = "import sys; from workbench.cli import main; main(sys.argv[1:])"
    options = ["--out", out, "--engine", "dask", "--address", cluster.scheduler_address]
    runner = subprocess.Popen([sys.executable, "-c", code, "run", tmp_path / "pipelines" / "p.yaml", *options])
    until(lambda: started(out))
    runner.kill()
    runner.wait()
    engine = partial(dask, address=cluster.scheduler_address)
    thread, found = in_background(lambda: run_pipeline(pipeline, out, engine=engine))
    time.sleep(1)
    go.touch()
    thread.join(60)
    ((outcome,),) = found
    assert outcome.state == "kept"
    result = json.loads((out / "jobs" / outcome.id / "result.json").read_text())
    assert (result["value"], result["tries"]) == (0.2, 1)


def test_jobs_side_by_side_have_their_own_gpus_and_nobody_else_is_let_in(tmp_path, make, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    go = tmp_path / "go"
    pipeline, out = make(f"- {{notebook: task, parameters: {{wait: {go}}}, grid: {{noise: [1, 2]}}}}"), tmp_path / "out"
    before = ports()
    thread, found = in_background(lambda: run_pipeline(pipeline, out, workers=2))
    until(lambda: len(started(out)) == 2)
    assert {ip for ip, _ in ports() - before} <= {"127.0.0.1"}  # nobody else is let in
    go.touch()
    thread.join(60)
    assert {result["gpus"] for result in results(out, found[0])} == {"3", "5"}


def test_slurm_arrays_and_a_task_that_is_killed(tmp_path, make):
    pipeline, out = make("- {notebook: task, parameters: {wait: once}}"), tmp_path / "out"
    thread, found = in_background(lambda: run_pipeline(pipeline, out, engine=partial(slurm, cluster="local")))
    until(lambda: started(out))
    tasks = [p for p in psutil.process_iter(["cmdline"]) if str(out) in (p.info["cmdline"] or [""])[-1]]
    (task,) = [p for p in tasks if "submitit.core._submit" in p.info["cmdline"]]
    task.kill()
    thread.join(90)
    (result,) = results(out, found[0])
    assert (result["value"], result["tries"]) == (0.2, 2)


def test_options_of_sbatch_have_their_long_names(tmp_path, run):
    said = run("run", project(tmp_path), "--out", tmp_path / "out", "--engine", "slurm", "--slurm", "mem-per-cpu=4G")[2]
    assert "there is no sbatch here" in said


def test_what_slurm_is_asked(tmp_path, make, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    pipeline = make("- {notebook: task, grid: {noise: [1, 2]}, cpus: 4, gpus: 1, memory: 1.5, timeout: 600}")
    with pytest.raises(ValueError, match="there is no sbatch here"):
        run_pipeline(pipeline, tmp_path / "out", engine=slurm)
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": "", "sbatch": f'echo "$@" >> {tmp_path}/asked; echo Submitted batch job 7'}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with slurm(pipeline.jobs, tmp_path / "out", {}, 1, {"partition": "gpu", "time": 5}) as start:
        assert len(start(pipeline.jobs)) == 2
    tested, _ = (tmp_path / "asked").read_text().splitlines()
    assert tested.startswith(
        "--test-only --job-name=task --time=5 --cpus-per-task=4 --gpus-per-node=1 --mem=1536MB --partition=gpu"
    )
    script = next((tmp_path / "out" / "slurm").glob("*.sh")).read_text()
    for line in ("cpus-per-task=4", "gpus-per-node=1", "mem=1536MB", "partition=gpu", "time=5", "array=0-1%1"):
        assert f"#SBATCH --{line}\n" in script
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho no such node >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"task noise=[12]: SLURM refuses --job-name=task --time=11 .*: no such node"):
        run_pipeline(pipeline, tmp_path / "out", engine=slurm)


def test_a_job_that_needs_more_than_there_is_is_refused(tmp_path, make, cluster):
    pipeline = make("- {notebook: task, name: big, gpus: 2}")
    match = r"^big: needs gpus 2, and no worker has that \(they have gpus 1\)$"
    with pytest.raises(ValueError, match=match):
        run_pipeline(pipeline, tmp_path / "out", engine=partial(dask, address=cluster.scheduler_address))
    with pytest.raises(ValueError, match=r"big: needs gpus 2, and no worker has that \(they have cpus \d"):
        run_pipeline(pipeline, tmp_path / "out", engine=partial(slurm, cluster="local"))
    assert not list((tmp_path / "out" / "jobs").iterdir())
    (tmp_path / "p.yaml").write_text(yaml_of("- {notebook: task, memory: 0}"))
    with pytest.raises(ValueError, match="job 1: memory: input should be greater than 0, got 0"):
        load_pipeline(tmp_path / "p.yaml")
    check_resources(pipeline.jobs, [{"cpus": 1}, {"gpus": 2}])


def test_workers_that_cannot_take_part(tmp_path, make):
    worker = SimpleNamespace(state=SimpleNamespace(total_resources={}))
    probe, code = tmp_path / "out" / ".probe-1", code_version()
    assert look(probe, [], code, worker)[1] == f"there is no {probe.parent} there"
    probe.parent.mkdir()
    assert "another folder" in look(probe, [], code, worker)[1]
    probe.touch()
    assert look(probe, [tmp_path / "a.ipynb"], code, worker)[1] == f"there is no {tmp_path / 'a.ipynb'} there"
    assert "other code" in look(probe, [], "0", worker)[1]
    assert "locks do not reach" in look(probe, [], code, worker)[1]
    with (probe.parent / ".lock").open("a") as lock:
        assert lock_free(lock)
        assert look(probe, [], code, worker)[1] == ""
    with pytest.raises(ValueError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        run_pipeline(make("- notebook: task"), tmp_path / "out", engine=partial(dask, address="tcp://127.0.0.1:9"))
