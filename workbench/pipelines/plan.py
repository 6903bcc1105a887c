"""What a run would do: ``workbench run FILE --dry-run``. Nothing is written."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any, NamedTuple

from workbench.pipelines.attempt import kept
from workbench.pipelines.job import JOB, RESULT, is_done
from workbench.pipelines.schema import Job, Pipeline
from workbench.text import columns


class Cost(NamedTuple):
    """Of a job; None where it is not known. Evaluations of the network are summed over images."""

    seconds: float | None = None
    evaluations: float | None = None


def what_would_run(pipeline: Pipeline, out: Path) -> str:
    """The jobs and their parameters, which are done, and what the others may cost, as text."""
    known = _known_costs(out)
    first, *others = (job.parameters for job in pipeline.jobs)
    shared = {key: value for key, value in first.items() if others and all(o.get(key) == value for o in others)}
    rows, said, costs = [("job", "state", "evaluations", "time")], [_said("all: ", shared)], []
    for job in pipeline.jobs:
        if is_done(folder := out / "jobs" / job.id):
            rows.append((job.label, f"kept {kept(job, folder).note}".rstrip(), "", ""))
        else:
            costs.append(estimate(job, known))
            rows.append((job.label, "to do", _number(costs[-1].evaluations), _time(costs[-1].seconds)))
        said.append(_said("", {key: value for key, value in job.parameters.items() if key not in shared}))
    text = [line for pair in zip(columns(rows, "<<>>"), said, strict=True) for line in pair if line]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    of = f" for {len(seconds)} of them" if len(seconds) < len(costs) else ""
    count = len(rows) - 1
    counts = f"{count} job{'s' * (count != 1)}: {count - len(costs)} kept, {len(costs)} to do"
    guess = f"; by earlier results about {_time(sum(seconds))}{of}, one after the other" if seconds else ""
    return "\n".join([*text, counts + guess])


def estimate(job: Job, known: Iterable[tuple[str, Mapping[str, Any], Cost]]) -> Cost:
    """The mean cost of the jobs in ``known`` (notebook, parameters, cost) of the same notebook that are most alike."""
    alike: dict[int, list[Cost]] = {}
    for notebook, parameters, cost in known:
        if notebook == job.notebook.stem:
            alike.setdefault(sum(parameters.get(key) == job.parameters[key] for key in job.parameters), []).append(cost)
    nearest = alike[max(alike)] if alike else []
    means = ([figure for figure in figures if figure is not None] for figures in zip(*nearest, strict=True))
    return Cost(*(fmean(figures) if figures else None for figures in means))


def _known_costs(out: Path) -> list[tuple[str, Mapping[str, Any], Cost]]:
    """Of all done jobs in ``out``."""
    known = []
    for folder in (out / "jobs").glob("*"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a job that is not done, or of long ago
            job, result = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (JOB, RESULT))
            began, ended = (datetime.fromisoformat(text) for text in (job["started"], result["finished"]))
            rows = result.get("records") or result.get("comparison", {}).get("rows", [])
            spent = [row["evaluations"] for row in rows if "evaluations" in row]
            cost = Cost((ended - began).total_seconds(), sum(spent) if spent else None)
            known.append((Path(job["notebook"]).stem, job["parameters"], cost))
    return known


def _said(start: str, parameters: Mapping[str, Any]) -> str:
    said = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in parameters.items())
    return fill(start + said, 118, initial_indent="    ", subsequent_indent="    ") if said else ""


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None or seconds < 100:
        return f"{_number(seconds)} s" if seconds is not None else _number(None)
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
