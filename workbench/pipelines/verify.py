"""Does a result reproduce? The job is run again as it was recorded, and figures and files are compared."""

import filecmp
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from workbench.pipelines.engine import run_pipeline
from workbench.pipelines.job import JOB, RESULT, is_done
from workbench.pipelines.schema import Pipeline, load_pipeline

RECORDED = ("code", "files", "priors", "versions", "hardware")  # what a result depends on beside its parameters
UNCOMPARED = {*RECORDED, "job", "parameters", "commit", "cells", "environment", "finished", "seconds", "waiting"}
FILES = ("*.png", "*.npy", "*.safetensors")


def verify(folder: str | Path, tolerance: float) -> tuple[bool, str]:
    """Run the job in ``folder`` again, in a temporary folder, with as many threads as then.

    Returns:
        As :func:`judged`, where all figures are the same so must be the files; with lines that say which files and
        which of ``RECORDED`` are others now.

    Raises:
        ValueError: no result there, or what is needed to run it again is gone.
    """
    folder = Path(folder).resolve()
    if not is_done(folder) or not (folder / JOB).is_file():
        one = "; give the id of one of its jobs too" if (folder / "jobs").is_dir() else ""
        raise ValueError(f"{folder}: expected the folder of a job that is done, with {RESULT} and {JOB}{one}")
    old = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        needs = {name: [Path(need).name for need in ids] for name, ids in job["needs"].items()}
        places = [Path(job[name]) for name in ("started_in", "notebook")]
        before = Path(job.get("cells", folder.parent)).parent  # where the results were, whose files it names
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder}: cannot be run again, {JOB} is damaged") from None
    needed = [folder.parent / need for ids in needs.values() for need in ids]
    for path in (*places, *(need / RESULT for need in needed)):
        if not path.exists():
            raise ValueError(f"{folder}: cannot be run again, {path} is gone")
    if threads := old.get("hardware", {}).get("threads"):
        os.environ["OMP_NUM_THREADS"] = str(threads)  # figures depend on it
    with TemporaryDirectory() as place, chdir(job["started_in"]):
        out = Path(place).resolve()
        (out / "jobs").mkdir()
        for need in needed:
            (out / "jobs" / need.name).symlink_to(need)
        outcome = run_pipeline(_plan(job, needs, out), out)[-1]
        if outcome.state != "done":
            return False, f"does not reproduce: {outcome.note.rpartition(' [')[0] or outcome.note}"
        again = out / "jobs" / job["id"]
        new = json.loads((again / RESULT).read_text(encoding="utf-8").replace(str(out), str(before)))
        names = sorted(file.name for pattern in FILES for file in folder.glob(pattern))
        missing = [name for name in names if not (again / name).is_file()]
        changed = [name for name in names if name not in missing and not _same(folder / name, again / name)]
    good, said = judged(old, new, tolerance)
    if good and (missing or (changed and "to the bit" in said)):  # a picture may differ where figures do a little
        good, said = (
            False,
            said.replace("reproduces", "does not reproduce: files are others, though figures reproduce", 1),
        )
    said += f"; {len(names)} files, {', '.join(changed + missing) or 'none'} differ" if names else ""
    return good, "\n".join([said, *_changes(old, new)])


def _same(file: Path, other: Path) -> bool:
    """To the bit; of weights the tensors, since their card says how long training took."""
    if (same := filecmp.cmp(file, other, shallow=False)) or file.suffix != ".safetensors":
        return same
    try:
        one, two = (load_file(each) for each in (file, other))
    except SafetensorError:  # damaged
        return False
    alike = one.keys() == two.keys() and all(one[name].dtype == two[name].dtype for name in one)
    return alike and all(torch.equal(one[name], two[name]) for name in one)


def judged(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> tuple[bool, str]:
    """Whether no figure differs by more than ``tolerance``, relative to the larger one, and nothing else differs; and a
    line that says how far the result reproduces. Times and ``RECORDED`` do not count."""
    found = list(_differences(old, new))
    largest, where, one, other = max(found, key=lambda each: each[0], default=(0.0, "", 0, 0))
    if largest == 0:
        return True, f"reproduces to the bit: {len(found)} figures"
    then, now = (shorten(str(value), 80) for value in (one, other))
    start = f"{'reproduces' if largest <= tolerance else 'does not reproduce'} within {tolerance:g}: {where} was {then}"
    said = f"{start}, is {now} (relative difference {largest:.1e}, the largest of {len(found)} figures)"
    return largest <= tolerance, said


def _plan(job: dict[str, Any], needs: dict[str, list[str]], out: Path) -> Pipeline:
    """The recorded job and, as jobs that are done, those it needs; checked as any pipeline."""
    notebook, file = Path(job["notebook"]), out / "verify.yaml"
    entry = {"notebook": notebook.stem, "parameters": job["parameters"], "timeout": 1e6}
    file.write_text(yaml.safe_dump({"name": "verify", "title": job["id"], "jobs": [entry]}), encoding="utf-8")
    pipeline = load_pipeline(file, notebook.parent)
    (own,) = pipeline.jobs
    done = [replace(own, id=need, label=need) for ids in needs.values() for need in ids]
    return replace(pipeline, jobs=[*done, replace(own, id=job["id"], label=job["id"], needs=needs)])


def _differences(old: Any, new: Any, place: str = "") -> Iterator[tuple[float, str, Any, Any]]:
    """(relative difference, place, old, new) of each figure and text; infinite where texts or structures differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted((old.keys() | new.keys()) - UNCOMPARED):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f"{place}[{number}]")
    elif isinstance(old, int | float) and isinstance(new, int | float) and old != new:
        yield abs(old - new) / max(abs(old), abs(new)), place, old, new
    else:
        yield (0.0 if old == new else math.inf), place, old, new


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """A line for each thing of ``RECORDED`` that is another now, and one that names what is the same."""
    pairs = [(old.get(key, "not recorded"), new[key], key) for key in RECORDED]
    changed = [each for pair in pairs for each in _differences(*pair) if each[0]]
    same = ", ".join(key for one, other, key in pairs if one == other) or "none"
    lines = [f"{place}: {one}, now {other}" for _, place, one, other in changed] + [f"the same: {same}"]
    return [re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", line) for line in lines]
