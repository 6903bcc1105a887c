"""The report of a pipeline: one HTML file that needs nothing else, and the same figures as CSV and JSON.

It shows jobs whose result has ``records``: a list of rows as :func:`workbench.restore.restore` makes them, each with
``photo`` and the file names ``original``, ``degraded`` and ``image`` in the job's folder. Results with ``comparison``,
``search`` or ``samples`` have parts of their own (``report_comparison``), and so have those with ``sweep``
(``report_methods``).
"""

from __future__ import annotations

import base64
import csv
import io
import json
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from workbench.evaluation import metrics
from workbench.evaluation.metrics import as_text
from workbench.pipelines.engine import Outcome
from workbench.pipelines.job import RESULT, is_done
from workbench.pipelines.published import Published
from workbench.pipelines.schema import Pipeline
from workbench.reports.comparison import (
    comparison_records,
    comparison_view,
    distinct,
    in_percent,
    printed,
    samples_view,
    search_view,
    with_margin,
)
from workbench.reports.methods import SCORES, beside_paper, best_scores, overview, sweeps_view
from workbench.text import replacing, write_json

COSTS = ("evaluations", "iterations", "seconds")
FIGURES = (*SCORES, "consistency", "fid", "frechet_effnet", *COSTS)
COLUMNS = ("photo", "size", "operator", "noise", "solver", *FIGURES, "effnet2", "haarpsi", "prior", "seed", "job")


def write_report(pipeline: Pipeline, outcomes: list[Outcome], out: str | Path) -> Path:
    """Write ``report.html``, ``table.csv`` and ``table.json`` into ``out`` and return the path of the first.

    What is not done yet is missing from the tables and named as such.
    """
    out = Path(out).resolve()
    results = [result for job in pipeline.jobs for result in _result(out / "jobs" / job.id)]
    # A result of before a score existed lacks it.
    records = [
        dict.fromkeys(FIGURES) | record | {"job": result["job"]}
        for result in results
        for record in result.get("records", [])
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": as_text, "inline": _inline}
    environment.filters |= {"plain": printed, "margin": with_margin, "percent": in_percent}
    groups = _groups(records, out, pipeline.published)
    html = environment.get_template("report.html.j2").render(
        pipeline=pipeline,
        outcomes=outcomes,
        groups=groups,
        overview=overview(groups),
        headings={key: metrics.FIGURES[key].column for key in _shown(records)},
        scores=SCORES,
        comparison=comparison_view(results, pipeline.published),
        search=search_view(results),
        samples=samples_view(results),
        sweeps=sweeps_view(results),
        methods=_settings(records),
        environments=distinct(record["environment"] for record in records),
        priors=distinct(record["prior"] for record in records),
        cards={card["name"]: card for card in _cards()},
        unavailable=_unavailable(records),
        out=out,
        date=f"{datetime.now().astimezone():%-d %B %Y, %H:%M %Z}",
    )
    with replacing(out / "report.html") as file:
        file.write_text(html, encoding="utf-8")
    rows = records + comparison_records(results)
    with replacing(out / "table.csv") as file:
        file.write_text(_csv(rows), encoding="utf-8")
    write_json(out / "table.json", [{column: row.get(column) for column in COLUMNS} for row in rows])
    return out / "report.html"


def _result(folder: Path) -> list[dict[str, Any]]:
    """The result of a job and its ``folder``, or nothing where it is not done."""
    if not is_done(folder):
        return []
    return [json.loads((folder / RESULT).read_text(encoding="utf-8")) | {"folder": folder}]


def _shown(records: list[dict[str, Any]]) -> list[str]:
    """The figures that have a column: FID where it was asked for, what results of before it existed lack not."""
    optional = {"fid": "fid_reason", "frechet_effnet": "", "consistency": "", "iterations": ""}
    return [
        key
        for key in FIGURES
        if key not in optional or any(r[key] is not None or r.get(optional[key]) for r in records)
    ]


def _unavailable(records: list[dict[str, Any]]) -> list[str]:
    """A sentence for each metric that could not be computed, once per reason."""
    names = {key: metrics.FIGURES[key].title for key in ("lpips", "effnet", "fid")}
    said = ((name, record.get(f"{key}_reason")) for key, name in names.items() for record in records)
    return [f"{name} is {reason}." for name, reason in distinct(said) if reason]


def _groups(records: list[dict[str, Any]], out: Path, published: list[Published]) -> list[dict[str, Any]]:
    """One group per operator, size, noise and prior: its averages per method, and its photos with their pictures."""
    groups: list[dict[str, Any]] = []
    operators = distinct(record["operator"] for record in records)
    keys = distinct(map(_key, records))
    priors = distinct(key[3] for key in keys)
    for key in sorted(keys, key=lambda key: (operators.index(key[0]), key[2], -key[1])):
        operator, noise, size, prior = key
        rows = [record for record in records if _key(record) == key]
        methods = distinct(row["solver"] for row in rows)
        averages = [{"solver": m} | _average([row for row in rows if row["solver"] == m]) for m in methods]
        photos = []
        for photo, job in distinct((row["photo"], row["job"]) for row in rows):
            shots = [row for row in rows if (row["photo"], row["job"]) == (photo, job)]
            folder = out / "jobs" / job
            if "image" not in shots[0]:  # of many photos, the first ones alone have pictures
                photos.append({"photo": photo, "original": None, "shots": shots})
                continue
            photos.append(
                {
                    "photo": photo,
                    "original": _inline(folder / shots[0]["original"]),
                    "degraded": _inline(folder / shots[0]["degraded"]),
                    "shots": [shot | {"picture": _inline(folder / shot["image"])} for shot in shots],
                    "best": best_scores(shots),
                }
            )
        groups.append(
            {
                "anchor": f"group{len(groups) + 1}",
                "operator": operator,
                "noise": noise,
                "size": f"{size[1]}×{size[0]}",
                "prior": prior if len(priors) > 1 else "",
                "averages": averages,
                "best": best_scores(averages),
                "paper": beside_paper(averages, rows[0].get("published_task", ""), published),
                "photos": photos,
                "methods": methods,
            }
        )
    return groups


def _key(record: dict[str, Any]) -> tuple[str, float, list[int], str]:
    """What makes a group of records."""
    return record["operator"], record["noise"], record["size"], record["prior"]


def _average(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each figure over the photos, or None where one photo has none."""
    columns = {key: [row[key] for row in rows] for key in FIGURES}
    return {key: None if None in values else fmean(values) for key, values in columns.items()} | {"photos": len(rows)}


def _settings(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each method with its settings, once per distinct setting."""
    kinds = {record["solver"]: record.get("solver_kind", record["solver"]) for record in records}
    said = distinct((record["solver"], json.dumps(record["solver_settings"])) for record in records)
    return [
        (name, ", ".join([*_kind(name, kinds[name]), *(f"{k} = {v}" for k, v in json.loads(text).items())]))
        for name, text in said
    ]


def _kind(label: str, solver: str) -> list[str]:
    return [] if label == solver else [solver]


def _cards() -> list[dict[str, Any]]:
    from workbench.models import describe_priors

    return describe_priors()


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _csv(records: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        row = record | {"size": "x".join(map(str, record["size"]))}
        writer.writerow(["" if row.get(column) is None else row[column] for column in COLUMNS])
    return text.getvalue()
