"""One attempt at a job, on whatever machine an engine found for it: its process is started, watched and ended."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psutil

from workbench.pipelines.job import JOB, LOG, NOTEBOOK, PROGRESS, RESULT, RESUME, is_done
from workbench.pipelines.schema import Job
from workbench.text import write_json

POLL = 0.2  # seconds between looks at a running job
LOCK, LOCKS = ".lock", ".locks"  # of the run, and of its jobs
STOP = ".stop"  # in the results folder: running jobs end, those that wait do not begin


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``state`` is done, kept (``note``: since when), failed or skipped (``note``: why)."""

    id: str
    label: str
    state: str
    seconds: float
    note: str = ""


def attempt(job: Job, out: Path, facts: Mapping[str, Any], slots: int = 1) -> Outcome:
    """Run ``job`` in ``out/jobs/ID``, unless an earlier attempt at it still runs and succeeds: that is waited for. Its
    runner was killed, its worker was not, or was lost sight of.

    Args:
        facts: of the run, for the job's ``job.json``.
        slots: how many jobs share this machine.
    """
    folder = out / "jobs" / job.id
    (out / LOCKS).mkdir(exist_ok=True)
    with (out / LOCKS / job.id).open("a") as lock:
        while not (stopped := (out / STOP).exists()) and not lock_free(lock):
            time.sleep(POLL)
        if stopped:
            return Outcome(job.id, job.label, "failed", 0.0, "interrupted")
        if is_done(folder):
            return kept(job, folder)
        started = time.monotonic()
        folder.mkdir(exist_ok=True)
        _clear(folder, RESUME)
        needs = {name: [str(out / "jobs" / need) for need in ids] for name, ids in job.needs.items()}
        said = {"id": job.id, "notebook": str(job.notebook), "parameters": job.parameters, "needs": needs}
        said |= {"defaults": job.defaults, "files": job.files}
        said |= {"cells": str(out / "cells"), "started": datetime.now().astimezone().isoformat(timespec="seconds")}
        write_json(folder / JOB, {**said, **facts})
        write_json(folder / PROGRESS, {"done": 0, "total": 1})
        try:
            note = _execute(folder, job, slots, lock)
        finally:
            (folder / PROGRESS).unlink(missing_ok=True)
        seconds = time.monotonic() - started
        if note == "" and is_done(folder):
            return Outcome(job.id, job.label, "done", seconds, _note(folder, "cells"))
        _clear(folder, NOTEBOOK, LOG, JOB, RESUME)
        note = note or f"the notebook ended without writing {RESULT}"
        return Outcome(job.id, job.label, "failed", seconds, f"{note} [{folder / LOG}]")


def kept(job: Job, folder: Path) -> Outcome:
    """Of a job whose result was there already."""
    return Outcome(job.id, job.label, "kept", 0.0, _note(folder, "finished"))


def lock_free(file: IO[str]) -> bool:
    """Take the lock of an open file if nobody has it: whether this one has it now.

    Processes that inherit the file hold it too. The system lets go of it when the last of them ends, however that is.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(folder: Path) -> float | None:
    """How much of a job is done, from 0 to 1; None if it does not run."""
    try:
        said = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return min(1.0, float(said["done"] / said["total"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return 0.0


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    if (said := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in said.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


_jobs_on: Counter[str] = Counter()  # by GPU
_choosing = threading.Lock()


@contextmanager
def _gpus(wanted: float | None, slots: int) -> Iterator[dict[str, str]]:
    """The environment that shows a job its own GPUs, those with the fewest jobs. Where it does not say how many it
    wants, that is one if jobs run in parallel and there are several, else the job sees what there is."""
    devices = visible_gpus() if wanted or (wanted is None and slots > 1) else []
    if wanted is None and len(devices) < 2:
        yield {}
        return
    with _choosing:
        own = sorted(devices, key=_jobs_on.__getitem__)[: 1 if wanted is None else int(wanted)]
        _jobs_on.update(own)
    try:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(own)}
    finally:
        with _choosing:
            _jobs_on.subtract(own)


def _execute(folder: Path, job: Job, slots: int, lock: IO[str]) -> str:
    """Run the job's process to its end and return what went wrong, or an empty string."""
    # A user's own kernel called python3 must not win over this environment's.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONUNBUFFERED": "1"}
    if cpus := job.resources.get("cpus"):
        environment["OMP_NUM_THREADS"] = f"{cpus:g}"
    elif slots > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // slots)))
    # The package imports the module that -m runs, which Python would warn of at the head of every log.
    command = [sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m", "workbench.pipelines.job", str(folder)]
    deadline = time.monotonic() + job.timeout
    with (folder / LOG).open("wb") as log, _gpus(job.resources.get("gpus"), slots) as own:
        # A session of its own: Ctrl-C reaches the runner alone, which then ends its jobs in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment | own,
            cwd=folder,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
        try:
            while process.poll() is None:
                if (folder.parents[1] / STOP).exists():
                    return "interrupted"
                if time.monotonic() > deadline:
                    return f"took more than {job.timeout:g} s"
                time.sleep(POLL)
        finally:
            _end(process)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "" if process.returncode == 0 else (lines[-1] if lines else f"exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its kernel, which has a session of its own."""
    if process.poll() is None:
        own = psutil.Process(process.pid)
        for member in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _note(folder: Path, key: str) -> str:
    """What the result says under ``key``: when it was "finished", or how many of its "cells" were there, if any."""
    said = json.loads((folder / RESULT).read_text(encoding="utf-8")).get(key)
    if said and key == "finished":
        return f"from {datetime.fromisoformat(said):%-d %B %Y, %H:%M}"
    return "{computed} restorations computed, {kept} kept".format(**said) if said and said["kept"] else ""


def _clear(folder: Path, *names: str) -> None:
    """Remove what is in ``folder`` but for ``names``."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
