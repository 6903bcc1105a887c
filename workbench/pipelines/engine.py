"""Runs the jobs of a pipeline: each in a process of its own, those that are done already not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from tqdm import tqdm

from workbench.pipelines.job import JOB, LOG, NOTEBOOK, PROGRESS, RESULT, RESUME, is_done
from workbench.pipelines.schema import Job, Pipeline, commit_of
from workbench.text import write_json

POLL = 0.2  # seconds between looks at a running job


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``state`` is done, kept (``note``: since when), failed or skipped (``note``: why)."""

    id: str
    label: str
    state: str
    seconds: float
    note: str = ""


@dataclass
class _Running:
    """What the threads share."""

    stopping: threading.Event = field(default_factory=threading.Event)
    shares: dict[str, float] = field(default_factory=dict)  # of each running job that is done, for the progress bar


def run_pipeline(pipeline: Pipeline, out: str | Path, workers: int = 1) -> list[Outcome]:
    """Run what is not done yet, and write ``summary.json`` into ``out``.

    Each job has the folder ``out/jobs/ID`` with the executed notebook, the log and, once it is done, ``result.json``.
    A job that fails, dies or exceeds its time leaves notebook and log only; running again tries it again, and what it
    had put into ``resume/`` is still there (checkpoints of a training run).

    Raises:
        ValueError: ``out`` cannot be written, or another run is using it.
        KeyboardInterrupt: passed on after the running jobs were ended and their folders emptied.
    """
    out = Path(out).resolve()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    try:
        (out / "jobs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        with lock:
            for half in (out / "cells").glob(".*"):  # of a run that was killed
                half.unlink()
            return _run(pipeline, out, workers)
    except Timeout:
        raise ValueError(f"{out}: another run is writing there") from None
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror or error})") from None


def table(outcomes: list[Outcome]) -> str:
    """The jobs and how they ended, as text."""
    rows = [("job", "state", "time", "")] + [
        (o.label, o.state, f"{o.seconds:.0f} s" if o.state in ("done", "failed") else "", o.note) for o in outcomes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def _run(pipeline: Pipeline, out: Path, workers: int) -> list[Outcome]:
    running = _Running()
    outcomes: dict[str, Outcome] = {}
    waiting = list(pipeline.jobs)
    futures: dict[Future[Outcome], Job] = {}

    def finish(outcome: Outcome) -> None:
        outcomes[outcome.id] = outcome
        _write_summary(pipeline, out, outcomes)

    bar = tqdm(total=len(waiting), bar_format="{l_bar}{bar}| {n:.1f}/{total} jobs, {elapsed}<{remaining}{postfix}")
    shown = 0.0
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or futures:
                for job in list(waiting):
                    needed = [outcomes.get(need) for ids in job.needs.values() for need in ids]
                    if is_done(out / "jobs" / job.id):
                        finish(Outcome(job.id, job.label, "kept", 0.0, _note(out / "jobs" / job.id, "finished")))
                    elif any(other is not None and other.state in ("failed", "skipped") for other in needed):
                        finish(Outcome(job.id, job.label, "skipped", 0.0, "a job it needs failed"))
                    elif all(other is not None for other in needed):
                        futures[pool.submit(_run_job, job, out, workers, running, pipeline.code)] = job
                    else:
                        continue
                    waiting.remove(job)
                finished, _ = wait(futures, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in finished:
                    finish(future.result())
                    del futures[future]
                names = [job.label for job in futures.values() if job.id in running.shares]
                bar.set_postfix_str(", ".join(names), refresh=False)
                bar.n = len(outcomes) + sum(running.shares.values())
                # A line a second on a screen, one per finished job in a log.
                if finished or (not waiting and not futures) or (sys.stderr.isatty() and time.monotonic() > shown + 1):
                    bar.refresh()
                    shown = time.monotonic()
        except BaseException:
            running.stopping.set()
            for future in futures:
                future.cancel()
            raise
    return [outcomes[job.id] for job in pipeline.jobs]


def _run_job(job: Job, out: Path, workers: int, running: _Running, code: str) -> Outcome:
    folder = out / "jobs" / job.id
    folder.mkdir(exist_ok=True)
    _clear(folder, RESUME)
    needs = {name: [str(out / "jobs" / need) for need in ids] for name, ids in job.needs.items()}
    specification: dict[str, Any] = {
        "id": job.id,
        "notebook": str(job.notebook),
        "parameters": job.parameters,
        "needs": needs,
    }
    specification |= {"started_in": str(Path.cwd()), "commit": commit_of(Path.cwd())}
    specification |= {"code": code, "defaults": job.defaults, "files": job.files}
    write_json(folder / JOB, specification | {"cells": str(out / "cells")})
    started = time.monotonic()
    running.shares[job.id] = 0.0
    try:
        note = _execute(folder, job.timeout, workers, running)
    finally:
        del running.shares[job.id]
        (folder / PROGRESS).unlink(missing_ok=True)
    seconds = time.monotonic() - started
    if note == "" and is_done(folder):
        return Outcome(job.id, job.label, "done", seconds, _note(folder, "cells"))
    _clear(folder, NOTEBOOK, LOG, JOB, RESUME)
    note = note or f"the notebook ended without writing {RESULT}"
    return Outcome(job.id, job.label, "failed", seconds, f"{note} [{folder / LOG}]")


def _note(folder: Path, key: str) -> str:
    """What the result says under ``key``: when it was "finished", or how many of its "cells" were there, if any."""
    said = json.loads((folder / RESULT).read_text(encoding="utf-8")).get(key)
    if said and key == "finished":
        return f"from {datetime.fromisoformat(said):%-d %B %Y, %H:%M}"
    return "{computed} restorations computed, {kept} kept".format(**said) if said and said["kept"] else ""


def _clear(folder: Path, *kept: str) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _execute(folder: Path, timeout: float, workers: int, running: _Running) -> str:
    """Run the job's process to its end and return what went wrong, or an empty string."""
    # A user's own kernel called python3 must not win over this environment's.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    if workers > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    command = [sys.executable, "-m", "workbench.pipelines.job", str(folder)]
    deadline = time.monotonic() + timeout
    with (folder / LOG).open("wb") as log:
        # A session of its own: Ctrl-C reaches the runner alone, which then ends its jobs in order.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
        )
        try:
            while process.poll() is None:
                if running.stopping.is_set():
                    return "interrupted"
                if time.monotonic() > deadline:
                    return f"took more than {timeout:g} s"
                running.shares[folder.name] = _share(folder)
                time.sleep(POLL)
        finally:
            _end(process)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "" if process.returncode == 0 else (lines[-1] if lines else f"exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its kernel, which has a session of its own."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _share(folder: Path) -> float:
    try:
        said = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return min(1.0, said["done"] / said["total"])
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 0.0


def _write_summary(pipeline: Pipeline, out: Path, outcomes: dict[str, Outcome]) -> None:
    rows: list[dict[str, Any]] = []
    for job in pipeline.jobs:
        outcome = outcomes.get(job.id)
        rows.append({"parameters": job.parameters} | (asdict(outcome) if outcome else {"id": job.id, "state": "open"}))
    write_json(out / "summary.json", {"pipeline": pipeline.name, "code": pipeline.code, "jobs": rows})
