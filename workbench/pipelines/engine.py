"""Runs the jobs of a pipeline: each in a process of its own, those that are done already not at all."""

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from workbench.pipelines.attempt import LOCK, POLL, STOP, Outcome, kept, share
from workbench.pipelines.engines import Engine, Start, dask
from workbench.pipelines.identity import commit_of
from workbench.pipelines.job import PROGRESS, is_done
from workbench.pipelines.schema import Job, Pipeline
from workbench.text import columns, require, write_json

BAR = "{l_bar}{bar}| {n:.1f}/{total} jobs, {elapsed}<{remaining}{postfix}"
HALF = 3600  # seconds after which a half-written file has no writer any more
RETRIES = 3  # of a job whose worker died; Dask has its own, as many unless it is told otherwise
PATIENCE = 10.0  # seconds that running jobs have to end after Ctrl-C


def run_pipeline(
    pipeline: Pipeline, out: str | Path, workers: int | None = None, engine: Engine = dask
) -> list[Outcome]:
    """Run what is not done yet, and write ``summary.json`` into ``out``.

    Each job has the folder ``out/jobs/ID`` with the executed notebook, the log and, once it is done, ``result.json``.
    A job that fails, dies or exceeds its time leaves notebook and log only; running again tries it again, and what it
    had put into ``resume/`` is still there (checkpoints of a training run).

    Args:
        workers: jobs at the same time; one, unless the engine has its own idea.

    Raises:
        ValueError: ``out`` cannot be written, another run is using it, or the engine cannot run the jobs.
        KeyboardInterrupt: passed on after the running jobs were ended and their folders emptied.
    """
    out = Path(out).resolve()
    require(workers is None or workers >= 1, "workers", "at least 1", workers)
    try:
        (out / "jobs").mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=0):
            (out / STOP).unlink(missing_ok=True)
            for half in (out / "cells").glob(".*"):  # of a job that was killed; others may still run on a cluster
                if time.time() - half.stat().st_mtime > HALF:
                    half.unlink()
            return _run(pipeline, out, workers, engine)
    except Timeout:
        raise ValueError(f"{out}: another run is writing there") from None
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror or error})") from None


def table(outcomes: list[Outcome]) -> str:
    """The jobs and how they ended, as text."""
    rows = [("job", "state", "time", "")] + [
        (o.label, o.state, f"{o.seconds:.0f} s" if o.state in ("done", "failed") else "", o.note) for o in outcomes
    ]
    return "\n".join(columns(rows, "<<><"))


def _run(pipeline: Pipeline, out: Path, workers: int | None, engine: Engine) -> list[Outcome]:
    outcomes = {job.id: kept(job, folder) for job in pipeline.jobs if is_done(folder := out / "jobs" / job.id)}
    _write_summary(pipeline, out, outcomes)
    missing = [job for job in pipeline.jobs if job.id not in outcomes]
    facts = {"started_in": str(Path.cwd()), "commit": commit_of(Path.cwd()), "code": pipeline.code}
    with tqdm(total=len(pipeline.jobs), bar_format=BAR) as bar:
        bar.n = len(outcomes)
        if missing:
            with engine(missing, out, facts, workers) as start:
                _work(pipeline, out, outcomes, start, bar)
        bar.refresh()
    return [outcomes[job.id] for job in pipeline.jobs]


def _work(pipeline: Pipeline, out: Path, outcomes: dict[str, Outcome], start: Start, bar: tqdm) -> None:
    """Start every job that has no outcome once those that it needs are done, and wait for all."""
    running: dict[str, tuple[Job, Any]] = {}
    lost: Counter[str] = Counter()
    shown = 0.0
    try:
        while len(outcomes) < len(pipeline.jobs):
            before = len(outcomes)
            ready = [job for job in _ready(pipeline.jobs, outcomes) if job.id not in running]
            for job in ready:
                (out / "jobs" / job.id / PROGRESS).unlink(missing_ok=True)  # of a worker that died
            running |= {job.id: (job, handle) for job, handle in zip(ready, start(ready), strict=True)}
            for job, handle in [pair for pair in running.values() if pair[1].done()]:
                del running[job.id]
                try:
                    outcomes[job.id] = handle.result()
                except Exception as error:  # of the engine; submitit's, a RuntimeError, knows no retries
                    lost[job.id] += 1
                    if not isinstance(error, RuntimeError) or lost[job.id] > RETRIES:
                        note = f"its worker died or was lost: {type(error).__name__}: {error}".splitlines()[0]
                        outcomes[job.id] = Outcome(job.id, job.label, "failed", 0.0, note)
            if len(outcomes) > before:
                _write_summary(pipeline, out, outcomes)
            else:
                time.sleep(POLL)
            # A line a second on a screen, one per finished job in a log.
            if len(outcomes) > before or (sys.stderr.isatty() and time.monotonic() > shown + 1):
                looks = [(job.label, share(out / "jobs" / job.id)) for job, _ in running.values()]
                bar.set_postfix_str(", ".join(label for label, part in looks if part is not None), refresh=False)
                bar.n = len(outcomes) + sum(part or 0.0 for _, part in looks)
                bar.refresh()
                shown = time.monotonic()
    except BaseException:
        _stop(out, running.values())
        raise


def _ready(jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> list[Job]:
    """The jobs without an outcome whose needs are done; those with a need that is not get theirs here."""
    ready = []
    for job in jobs:
        needed = [outcomes.get(need) for ids in job.needs.values() for need in ids]
        if job.id in outcomes:
            continue
        if any(other is not None and other.state in ("failed", "skipped") for other in needed):
            outcomes[job.id] = Outcome(job.id, job.label, "skipped", 0.0, "a job it needs failed")
        elif all(other is not None for other in needed):
            ready.append(job)
    return ready


def _stop(out: Path, running: Collection[tuple[Job, Any]]) -> None:
    """End what runs, wherever that is; what has not begun is taken back."""
    with suppress(OSError):  # a full disk: the jobs of this machine end with this process
        (out / STOP).touch()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(share(out / "jobs" / job.id) is not None for job, _ in running):
            time.sleep(POLL)
    for _, handle in running:
        handle.cancel()


def _write_summary(pipeline: Pipeline, out: Path, outcomes: dict[str, Outcome]) -> None:
    rows: list[dict[str, Any]] = []
    for job in pipeline.jobs:
        outcome = outcomes.get(job.id)
        rows.append({"parameters": job.parameters} | (asdict(outcome) if outcome else {"id": job.id, "state": "open"}))
    write_json(out / "summary.json", {"pipeline": pipeline.name, "code": pipeline.code, "jobs": rows})
