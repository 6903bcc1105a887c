"""One job: executing its notebook (``python -m workbench.pipelines.job FOLDER``), and what a notebook calls.

The runner puts ``job.json`` into the job's folder and starts this module there, one process per job: output,
environment and working directory are the job's own, and a job can be ended without harm to others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from workbench import own
from workbench.machine import hardware, versions
from workbench.pipelines.identity import named_paths
from workbench.text import replacing, write_json

if TYPE_CHECKING:
    from workbench.data import Photos

JOB, RESULT, PROGRESS = "job.json", "result.json", "progress.json"
NOTEBOOK, LOG = "notebook.ipynb", "log.txt"
STARTS = 3  # of the kernel, at most
RESUME = "resume"  # what a job keeps here survives its failure: it goes on from there when it is run again


def write_result(result: dict[str, Any]) -> None:
    """Say that this job is done: the last cell of a job notebook calls it, once, with what the report needs.

    Writes ``result.json`` in one step, stamped with the job's id, the time, and all that decides it: code, parameters
    (seeds and defaults too), hashes of files and of the priors that were loaded, versions and hardware. In a notebook
    opened by hand it writes nothing.

    Raises:
        ValueError: ``result`` holds NaN or infinity, which JSON cannot.
    """
    if not (job := this_job()):
        print("Not run by a pipeline, so no result file is written.")
        return
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    loading = sys.modules.get("workbench.models.load")
    facts = {"job": job["id"], "parameters": job.get("defaults", {}) | job["parameters"], "finished": now}
    facts |= {key: job.get(key) for key in ("commit", "code", "files")}
    facts |= {"priors": loading.LOADED if loading else {}, "versions": versions(), "hardware": hardware()}
    write_json(Path(RESULT), facts | result)


def this_job() -> dict[str, Any]:
    """What the runner says of the job in the working directory; empty in a notebook opened by hand."""
    return dict(json.loads(Path(JOB).read_text(encoding="utf-8"))) if Path(JOB).is_file() else {}


def folder_of(name: str, kept: str = "") -> Path:
    """Where the job notebook called ``name`` writes: ``kept`` in its job's folder, or runs/NAME if opened by hand."""
    folder = Path(kept) if this_job() else Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def input_path(path: str | Path) -> Path:
    """A path that a parameter gives: a relative one starts where the pipeline was started, not in the job's folder."""
    return Path(this_job().get("started_in", "")) / path


own.place_of = input_path  # FILE.py:NAME too


def input_source(source: str) -> str:
    """A prior as ``load_prior`` takes it; a file or folder, also behind ``diffusers:`` or before ``:NAME`` of what it
    holds, is an :func:`input_path`. FILE.py:NAME stays as it is written, also in records: ``place_of`` finds it.

    ``job:NAME`` is the prior that the job NAME trained, which this one needs.
    """
    kind, _, rest = source.partition(":")
    if kind == "job":
        return str(needed(rest)[0] / RESUME / "prior.safetensors")
    for start, end in named_paths(source, input_path("")):
        path = input_path(os.path.expanduser(source[start:end]))
        if end == len(source) or path.is_file():
            return source if path.suffix == ".py" else f"{source[:start]}{path}{source[end:]}"
    return source


def training_photos(
    data: Sequence[str],
    folder: Path,
    *,
    size: int,
    batch_size: int,
    weights: Sequence[float] = (),
    scales: Sequence[Sequence[float]] = (),
    seed: int = 0,
) -> tuple[Photos, list[str]]:
    """The photos that a training notebook's parameters name, and their sources; without ``data`` the sample photos.

    Args:
        data: folders, .npz/.npy files, tar shards, hf:NAME; files are relative to where the run was started.
        folder: of the run, which keeps the sample photos.
        weights, scales: per source; empty: equal shares, zooms from 0.5 to 1.
    """
    import numpy as np

    from workbench.data import Photos
    from workbench.images import SAMPLES, sample_photo, to_uint8

    folder.mkdir(parents=True, exist_ok=True)
    sources = [spec if spec.startswith("hf:") else str(input_path(spec)) for spec in data]
    if not sources:
        sources = [str(folder / "samples.npy")]
        with replacing(sources[0]) as half, half.open("wb") as file:  # processes that train together all write it
            np.save(file, np.concatenate([to_uint8(sample_photo(name, 128)) for name in SAMPLES]))
    photos = Photos(
        sources,
        size=size,
        batch_size=batch_size,
        weights=list(weights) or None,
        scales=[(low, high) for low, high in scales] or (0.5, 1.0),
        preload=True,
        seed=seed,
    )
    return photos, sources


def needed(name: str) -> list[Path]:
    """The folders of the jobs of the entry called ``name``, which this job needs: their results and files.

    Raises:
        ValueError: this job does not need an entry of that name.
    """
    needs = this_job().get("needs", {})
    if name not in needs:
        raise ValueError(f"this job does not need {name!r}, it needs {', '.join(needs) or 'nothing'}")
    return [Path(folder) for folder in needs[name]]


def progress(done: int, total: int) -> None:
    """Tell the runner's progress bar how far this job is; nothing happens in a notebook opened by hand."""
    if Path(JOB).is_file():
        write_json(Path(PROGRESS), {"done": done, "total": total})


def is_done(folder: Path) -> bool:
    """Whether ``folder`` holds the result of the job it is named after. Nothing else counts.

    papermill's own record does not: it calls a notebook whose kernel died, or that ran out of time, completed.
    """
    try:
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))["job"] == folder.name
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(folder: Path) -> int:
    """Execute the notebook of the job in ``folder``; the last line printed says what went wrong."""
    for slow in ("rfc3987_syntax", "pyarrow"):  # jsonschema would build its grammar, papermill look for HDFS: seconds
        sys.modules.setdefault(slow, cast(ModuleType, None))
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    # papermill takes braces in a path for the name of a parameter.
    paths = (path.replace("{", "{{").replace("}", "}}") for path in (job["notebook"], str(folder / NOTEBOOK)))
    files = *paths, job["parameters"]
    for attempt in range(1, STARTS + 1):
        # Sockets by a name of their own: a port that is free when it is chosen may be taken when the kernel starts.
        config = Config(KernelManager={"transport": "ipc", "ip": f"@{uuid4()}"})
        config.NotebookClient.shutdown_kernel = "immediate"  # all is written; a kernel takes 2 s to end by itself
        try:
            options = {"kernel_name": "python3", "cwd": str(folder), "progress_bar": False, "autosave_cell_every": 5}
            papermill.execute_notebook(*files, config=config, **options)
            return 0
        except papermill.PapermillExecutionError as error:
            print(error, file=sys.stderr)
            print(f"{error.ename}: {error.evalue}".splitlines()[0], file=sys.stderr)
            return 1
        except Exception as error:  # a dead kernel, a missing kernel, a full disk: all end this process, none is a bug
            # Before the first cell, the only RuntimeErrors are those of a kernel that does not start.
            starting = isinstance(error, RuntimeError) and not isinstance(error, DeadKernelError)
            place = f"start {attempt} of {STARTS}: " if starting else ""
            print(f"{place}{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
            if not starting:
                return 1
    return 1


def _end_with_the_runner() -> None:
    # The runner holds the other end of standard input: it closes when the runner ends in whatever way.
    import psutil

    sys.stdin.read()
    for kernel in psutil.Process().children(recursive=True):  # it would notice, and end itself, a second later
        with suppress(psutil.NoSuchProcess):
            kernel.kill()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
