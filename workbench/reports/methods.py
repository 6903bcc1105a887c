"""The parts of a report that compare methods: the overview over all tasks, what a paper has of the same, sweeps.

Results of ``notebooks/jobs/restore`` hold records with ``published_task``, which names the columns of a published table
to show beside a group: all that begin with it ("SR x4" is "SR x4 PSNR", ...), or the table by its id ("deqir-3").
Results of ``sweep_solver`` hold a ``sweep``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.evaluation.metrics import FIGURES, as_text
from workbench.pipelines.published import Published
from workbench.reports.comparison import distinct

METRICS = {metric.paper: key for key, metric in FIGURES.items() if metric.paper}
SCORES = ("psnr", "ssim", "lpips", "effnet")  # with a best; Consistency of noisy data has none, FID needs many
BASELINE = {"pinv": "Baseline"}  # the paper's name; of super-resolution its baseline is bicubic upscaling, not A^+ y


def overview(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean PSNR of every method (rows) in every group (columns), or None for fewer than three groups."""
    if len(groups) < 3:
        return None
    rows = []
    for method in distinct(method for group in groups for method in group["methods"]):
        means = [next((r for r in group["averages"] if r["solver"] == method), None) for group in groups]
        cells = [as_text(mean["psnr"], "psnr") if mean else "" for mean in means]
        best = [text != "" and text == group["best"]["psnr"] for text, group in zip(cells, groups, strict=True)]
        rows.append({"method": method, "cells": list(zip(cells, best, strict=True))})
    return {"groups": groups, "rows": rows}


def best_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """The best value of each score, as it is printed: equal printed figures are equally good."""
    best: dict[str, str | None] = {}
    for key in SCORES:
        values = [row[key] for row in rows if row[key] is not None]
        choose = max if FIGURES[key].larger_is_better else min
        best[key] = as_text(choose(values), key) if len(values) > 1 else None
    return best


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
    metrics = distinct(metric for _, metric in columns.values())
    figures: dict[str, dict[tuple[str, str], float | None]] = {}
    for row in table.rows:
        *groups, method = map(str, row[: len(table.labels)])
        for name, value in zip(table.columns, row[len(table.labels) :], strict=True):
            if name in columns:
                owner, metric = columns[name]
                figures.setdefault(method, {})[owner or " ".join(groups), metric] = value
    sets = distinct(owner for values in figures.values() for owner, _ in values)
    measured = {_paper_name(row["solver"], task, figures): row for row in averages}
    rows = []
    for method in [*measured, *(name for name in figures if name not in measured)]:
        own, theirs = measured.get(method), figures.get(method, {})
        rows.append(
            {
                "method": own["solver"] if own else method,
                "measured": [as_text(own[METRICS[metric]], METRICS[metric]) if own else "" for metric in metrics],
                "paper": [_printed(theirs, owner, metric) for owner in sets for metric in metrics],
                "only_paper": own is None,
            }
        )
    return {"table": table, "metrics": metrics, "sets": sets, "rows": rows}


def sweeps_view(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What ``sweeps.html.j2`` shows: each result with a ``sweep``, its plot as a path, each setting with its best."""
    views = []
    for result in results:
        if "sweep" in result:
            sweep = result["sweep"]
            parts = [
                {"setting": setting, "rows": own, "best": best_scores(own)}
                for setting in distinct(row["setting"] for row in sweep["rows"])
                for own in [[row for row in sweep["rows"] if row["setting"] == setting]]
            ]
            views.append({**sweep, "parts": parts, "plot": Path(result["folder"]) / sweep["plot"]})
    return views


def _place(column: str, task: str, table: Published) -> tuple[str, str] | None:
    """(data set, metric) of a column of the table where it is one of the task's, else None."""
    *words, metric = column.split()
    if metric not in METRICS or not task:
        return None
    if task == table.id:
        return " ".join(words), metric
    return ("", metric) if " ".join(words) == task else None


def _paper_name(label: str, task: str, figures: Mapping[str, Any]) -> str:
    """The paper's name of a method: the same but for capitals, or the label itself where the paper has none."""
    if label in BASELINE and not task.startswith("SR"):
        label = BASELINE[label]
    return next((name for name in figures if name.casefold() == label.casefold()), label)


def _printed(figures: Mapping[tuple[str, str], float | None], owner: str, metric: str) -> str:
    """A published figure as measured ones are printed; nothing at all for a method that the paper has not."""
    return as_text(figures.get((owner, metric)), METRICS[metric]) if figures else ""
