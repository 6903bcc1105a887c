"""The report of a pipeline: one HTML file that needs nothing else, and the same figures as CSV and JSON.

It shows jobs whose result has ``records``: a list of rows as :func:`workbench.restore.restore` makes them, each with
``photo`` and the file names ``original``, ``degraded`` and ``image`` in the job's folder. ``published_task`` names the
columns of a published table to show beside them: all that begin with it ("SR x4" is "SR x4 PSNR", ...), or the table by
its id ("deqir-3"). Results with a ``sweep`` or an ``exam`` have a part of their own, and so
have those of ``comparison.py``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from workbench.evaluation import metrics
from workbench.evaluation.metrics import as_text
from workbench.models import describe_priors
from workbench.pipelines.engine import Outcome
from workbench.pipelines.job import RESULT, is_done
from workbench.pipelines.published import Published
from workbench.pipelines.schema import Pipeline
from workbench.reports.comparison import (
    best_texts,
    comparison_records,
    comparison_view,
    distinct,
    in_percent,
    samples_view,
    search_view,
    with_margin,
)
from workbench.text import replacing, write_json

SCORES = ("psnr", "ssim", "lpips", "effnet")  # with a best; Consistency of noisy data has none, FID needs many
COSTS = ("evaluations", "iterations", "seconds")
FIGURES = (*SCORES, "consistency", "fid", "frechet_effnet", *COSTS)
COLUMNS = ("photo", "size", "operator", "noise", "solver", *FIGURES, "effnet2", "haarpsi", "prior", "seed", "job")
# Figures that have a column only where some record has them, or this reason why not.
OPTIONAL = {"fid": "fid_reason", "frechet_effnet": "", "consistency": "", "iterations": ""}
PAPER_NAMES = {metric.paper: key for key, metric in metrics.FIGURES.items() if metric.paper}
BASELINE = {"pinv": "Baseline"}  # the paper's name; of super-resolution its baseline is bicubic upscaling, not A^+ y


def write_report(pipeline: Pipeline, outcomes: list[Outcome], out: str | Path) -> Path:
    """Write ``report.html``, ``table.csv`` and ``table.json`` into ``out`` and return the path of the first.

    What is not done yet is missing from the tables and named as such.
    """
    out = Path(out).resolve()
    folders = [folder for job in pipeline.jobs if is_done(folder := out / "jobs" / job.id)]
    results = [json.loads((folder / RESULT).read_text(encoding="utf-8")) | {"folder": folder} for folder in folders]
    # A result of before a score existed lacks it.
    records = [
        dict.fromkeys(FIGURES) | record | {"job": result["job"]}
        for result in results
        for record in result.get("records", [])
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": as_text, "inline": _inline, "margin": with_margin, "percent": in_percent}
    groups = _groups(records, out, pipeline.published)
    html = environment.get_template("report.html.j2").render(
        pipeline=pipeline,
        outcomes=outcomes,
        groups=groups,
        overview=overview(groups),
        headings={key: metrics.FIGURES[key].column for key in FIGURES if _shown(key, records)},
        scores=SCORES,
        comparison=comparison_view(results, pipeline.published),
        search=search_view(results),
        samples=samples_view(results),
        sweeps=_sweeps(results),
        exam=_exam(results),
        methods=_settings(records),
        environments=distinct(record["environment"] for record in records),
        priors=distinct(record["prior"] for record in records),
        cards={card["name"]: card for card in describe_priors()},
        unavailable=_unavailable(records) + distinct(f"Left out: {s}." for r in results for s in r.get("skipped", ())),
        out=out,
        date=f"{datetime.now().astimezone():%-d %B %Y, %H:%M %Z}",
    )
    with replacing(out / "report.html") as file:
        file.write_text(html, encoding="utf-8")
    rows = records + comparison_records(results)
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    table["size"] = ["x".join(map(str, row["size"])) for row in rows]
    with replacing(out / "table.csv") as file:
        table.to_csv(file, index=False, lineterminator="\n")
    write_json(out / "table.json", [{column: row.get(column) for column in COLUMNS} for row in rows])
    return out / "report.html"


def overview(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean PSNR of every method (rows) in every group (columns), or None for fewer than three groups."""
    if len(groups) < 3:
        return None
    means = pd.concat([pd.DataFrame(group["averages"]).set_index("solver")["psnr"] for group in groups], axis=1)
    rows = []
    for method in distinct(row["solver"] for group in groups for row in group["averages"]):
        texts = ["" if pd.isna(mean) else as_text(mean, "psnr") for mean in means.loc[method]]
        best = [text != "" and text == group["best"]["psnr"] for text, group in zip(texts, groups, strict=True)]
        rows.append({"method": method, "cells": list(zip(texts, best, strict=True))})
    return {"groups": groups, "rows": rows}


def beside_paper(
    averages: Sequence[Mapping[str, Any]], task: str, published: Sequence[Published]
) -> dict[str, Any] | None:
    """Measured and published figures of one task, a row per method; methods of the paper alone are marked.

    Args:
        averages: a row per method, with ``solver`` and the means.
        task: see the module; "" for none.

    Returns:
        ``table``, ``metrics`` (the paper's names), ``sets`` (the paper's data sets) and ``rows`` of ``method``,
        ``measured``, ``paper`` (texts, all metrics of each set in turn) and ``only_paper``. None where the paper has
        nothing of the task.
    """
    for table in published:
        columns = {name: place for name in table.columns if (place := _place(name, task, table)) is not None}
        if columns:
            break
    else:
        return None
    figures: dict[str, dict[tuple[str, str], float | None]] = {}
    for (*groups, method), values in table.figures():
        for name, (owner, metric) in columns.items():
            figures.setdefault(method, {})[owner or " ".join(groups), metric] = values[name]
    shown = distinct(metric for _, metric in columns.values())
    sets = distinct(owner for values in figures.values() for owner, _ in values)
    measured = {_paper_name(row["solver"], task, figures): row for row in averages}
    rows = []
    for method in distinct([*measured, *figures]):
        own, theirs = measured.get(method), figures.get(method)
        rows.append(
            {
                "method": own["solver"] if own else method,
                "measured": [as_text(own[PAPER_NAMES[metric]], PAPER_NAMES[metric]) if own else "" for metric in shown],
                "paper": [
                    as_text(theirs.get((owner, metric)), PAPER_NAMES[metric]) if theirs else ""
                    for owner in sets
                    for metric in shown
                ],
                "only_paper": own is None,
            }
        )
    return {"table": table, "metrics": shown, "sets": sets, "rows": rows}


def _place(column: str, task: str, table: Published) -> tuple[str, str] | None:
    """(data set, metric) of a column of the table where it is one of the task's, else None."""
    *words, metric = column.split()
    if metric not in PAPER_NAMES or not task:
        return None
    if task == table.id:
        return " ".join(words), metric
    return ("", metric) if " ".join(words) == task else None


def _paper_name(label: str, task: str, figures: Mapping[str, Any]) -> str:
    """The paper's name of a method: the same but for capitals, or the label itself where the paper has none."""
    if label in BASELINE and not task.startswith("SR"):
        label = BASELINE[label]
    return next((name for name in figures if name.casefold() == label.casefold()), label)


def _sweeps(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What ``sweeps.html.j2`` shows: each result with a ``sweep``, its plot as a path, each setting with its best."""
    views = []
    for result in results:
        if "sweep" in result:
            sweep, parts = result["sweep"], []
            for setting in distinct(row["setting"] for row in sweep["rows"]):
                own = [row for row in sweep["rows"] if row["setting"] == setting]
                parts.append({"setting": setting, "rows": own, "best": best_texts(own, SCORES)})
            views.append({**sweep, "parts": parts, "plot": Path(result["folder"]) / sweep["plot"]})
    return views


def _exam(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What ``exam.html.j2`` shows: the rows of all results with an ``exam``, by task, and their plots."""
    parts = [
        result["exam"] | {"plot": Path(result["folder"]) / result["exam"]["plot"]}
        for result in results
        if "exam" in result
    ]
    tasks: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for row in part["rows"]:
            learned = ", learned prior" if row["prior"] == "learned" else ""
            tasks.setdefault(row["task"], []).append(row | {"label": part["label"] + learned})
    return {"tasks": tasks, "parts": parts} if parts else None


def _shown(key: str, records: list[dict[str, Any]]) -> bool:
    """Whether the figure has a column: FID where it was asked for, what results of before it existed lack not."""
    return key not in OPTIONAL or any(r[key] is not None or r.get(OPTIONAL[key]) for r in records)


def _unavailable(records: list[dict[str, Any]]) -> list[str]:
    """A sentence for each metric that could not be computed, once per reason."""
    said = distinct((key, record.get(f"{key}_reason")) for key in ("lpips", "effnet", "fid") for record in records)
    return [f"{metrics.FIGURES[key].title} is {reason}." for key, reason in said if reason]


def _groups(records: list[dict[str, Any]], out: Path, published: list[Published]) -> list[dict[str, Any]]:
    """One group per operator, size, noise and prior: its averages per method, and its photos with their pictures."""
    operators = distinct(record["operator"] for record in records)
    # Operators as the jobs have them, small pictures first, then much noise first.
    records = sorted(records, key=lambda r: (operators.index(r["operator"]), r["size"], -r["noise"]))
    table = pd.DataFrame(records, columns=["operator", "noise", "prior", "photo", "job", "solver", *FIGURES])
    table["size"] = ["{1}×{0}".format(*record["size"]) for record in records]
    groups: list[dict[str, Any]] = []
    for (operator, noise, size, prior), rows in table.groupby(["operator", "noise", "size", "prior"], sort=False):
        means = rows.groupby("solver", sort=False)[list(FIGURES)].agg(lambda v: v.astype(float).mean(skipna=False))
        averages = means.reset_index().to_dict("records")
        shots = rows.groupby(["photo", "job"], sort=False).groups.values()
        task = records[rows.index[0]].get("published_task", "")
        groups.append(
            {
                "anchor": f"group{len(groups) + 1}",
                "operator": operator,
                "noise": noise,
                "size": size,
                "prior": prior if table["prior"].nunique() > 1 else "",
                "averages": averages,
                "best": best_texts(averages, SCORES),
                "paper": beside_paper(averages, task, published),
                "photos": [_photo([records[k] for k in places], out) for places in shots],
                "methods": list(means.index),
            }
        )
    return groups


def _photo(shots: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """A photo and its restorations; of many photos, the first ones alone have pictures."""
    photo, folder = {"photo": shots[0]["photo"], "original": None, "shots": shots}, out / "jobs" / shots[0]["job"]
    if "image" not in shots[0]:
        return photo
    return photo | {
        "original": _inline(folder / shots[0]["original"]),
        "degraded": _inline(folder / shots[0]["degraded"]),
        "shots": [shot | {"picture": _inline(folder / shot["image"])} for shot in shots],
        "best": best_texts(shots, SCORES),
    }


def _settings(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each method with its settings, once per distinct setting; a label of the pipeline's with the solver's name."""
    said = distinct((r["solver"], r.get("solver_kind", r["solver"]), r["solver_settings"]) for r in records)
    return [
        (label, ", ".join([kind] * (kind != label) + [f"{k} = {v}" for k, v in settings.items()]))
        for label, kind, settings in said
    ]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
