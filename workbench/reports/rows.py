"""The rows of a report and what their differences say.

A row is one complete setting: a method's label with its solver, all of its settings, its prior, tiles and device. Seeds
are averaged within a photo first, so that means, standard deviations and intervals are over photos, each counted once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from workbench.evaluation.metrics import FIGURES as METRICS
from workbench.evaluation.metrics import Metric
from workbench.evaluation.statistics import Interval, mean_interval, paired_difference
from workbench.reports.comparison import distinct

SCORES = ("psnr", "ssim", "lpips", "effnet")  # with a best; Consistency of noisy data has none, FID needs many
FIGURES = (*SCORES, "consistency", "fid", "frechet_effnet", "evaluations", "iterations", "seconds")
TASK = ("operator", "noise", "size", "prior")  # what the records of one block of the report have in common
Record = dict[str, Any]


def with_methods(records: Sequence[Record]) -> list[Record]:
    """Each record once, with ``method``: its label, and the settings that differ between rows of that label in a block.

    Records are the same where task, photo, seed and complete setting are; the first one counts. A label of several
    solvers has the solver's name in it.
    """
    solvers = distinct((record["solver"], _kind(record)) for record in records)
    rows: dict[str, Record] = {}
    for record in records:
        label, task, setting = record["solver"], _text([record[key] for key in TASK]), _setting(record)
        method = label if sum(label == other for other, _ in solvers) == 1 else f"{label}, {_kind(record)}"
        key = _text([task, method, setting, record["photo"], record["seed"]])
        rows.setdefault(key, record | {"method": method, "task": task, "setting": setting})
    differing: dict[str, list[str]] = {}
    for (method, _), own in itertools.groupby(sorted(rows.values(), key=_block), key=_block):
        settings = distinct(row["setting"] for row in own)
        names = distinct(name for setting in settings for name in setting)
        found = [name for name in names if len({_text(setting.get(name)) for setting in settings}) > 1]
        differing[method] = distinct([*differing.get(method, []), *found])
    for row in rows.values():
        known = {name: row["setting"][name] for name in differing[row["method"]] if name in row["setting"]}
        shown = [f"{name} {str(value)[:8] if name == 'prior sha256' else value}" for name, value in known.items()]
        row["method"] = ", ".join([row["method"], *shown])
    return list(rows.values())


def prior_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and source of the prior."""
    return {**record.get("prior_settings", {}), **record.get("prior_source", {})}


def averages(records: Sequence[Record], reference: str) -> list[dict[str, Any]]:
    """The rows of one block, in order of their first records.

    Args:
        reference: a method, or the label of one, which the others are compared with; "" is the best by mean PSNR.

    Returns:
        One per method: ``method``, ``solver``, the mean of each figure (NaN where a photo lacks it), numbers of
        ``photos`` and ``seeds``, ``reference`` (a method's name, or None) and ``spread``: of each score the ``std``
        over photos, the ``interval`` of the mean, ``seeds`` (the standard deviation over seeds, averaged over photos),
        the ``difference`` from the reference (intervals as dictionaries; None where there is nothing) and ``mark``:
        "best", "level" or "", see :func:`marks`.
    """
    table = pd.DataFrame(records)
    cells = table[list(FIGURES)].astype(float).groupby([table["method"], table["photo"]], sort=False)
    photos, spread = cells.agg(lambda column: column.mean(skipna=False)), cells.std()
    counts = table.groupby("method", sort=False)[["photo", "seed"]].nunique()
    solvers = table.groupby("method", sort=False)["solver"].first()
    means = photos.groupby("method", sort=False).agg(lambda column: column.mean(skipna=False))
    chosen = _reference(reference, means["psnr"], solvers)
    values = {key: {method: photos.loc[method][key] for method in means.index} for key in SCORES}
    marked = {key: marks(own, METRICS[key]) for key, own in values.items()}
    return [
        {
            **mean.to_dict(),
            "method": method,
            "solver": solvers[method],
            "photos": int(counts.loc[method, "photo"]),
            "seeds": int(counts.loc[method, "seed"]),
            "reference": chosen,
            "spread": {
                key: {
                    "std": own[method].std(),
                    "interval": None if own[method].isna().any() else asdict(mean_interval(own[method])),
                    "seeds": spread.loc[method][key].mean(),
                    "difference": _dict(_paired(own[method], own[chosen])) if chosen else None,
                    "mark": marked[key].get(method, ""),
                }
                for key, own in values.items()
            },
        }
        for method, mean in means.iterrows()
    ]


def marks(values: Mapping[str, pd.Series], metric: Metric) -> dict[str, str]:
    """Which methods to mark in a column: {the best: "best"} where its paired difference from every other method has a
    95 % interval without 0, otherwise "level" for it and all that it cannot be told from. None where nothing can be
    told, as with a single photo.

    Args:
        values: of each method a figure per photo, indexed by photo; methods with a missing one do not take part.
    """
    means = {method: own.mean() for method, own in values.items() if not own.isna().any()}
    if len(means) < 2:
        return {}
    best = metric.best(means, key=means.__getitem__)
    differences = {method: _paired(values[best], values[method]) for method in means if method != best}
    if all(each is None or each.low is None for each in differences.values()):
        return {}
    better = 1 if metric.larger_is_better else -1
    level = [method for method, each in differences.items() if each is None or each.sign != better]
    return dict.fromkeys([best, *level], "level") if level else {best: "best"}


def _paired(new: pd.Series, old: pd.Series) -> Interval | None:
    """The mean difference over the photos that both have."""
    both = pd.concat([new, old], axis=1, join="inner").dropna()
    return paired_difference(both.iloc[:, 0], both.iloc[:, 1]) if len(both) else None


def _reference(wanted: str, psnr: pd.Series, solvers: pd.Series) -> str | None:
    """The method to compare with: the first of that name or label, else the best; None where there is none such."""
    if not wanted:
        return None if psnr.isna().all() else str(psnr.idxmax())
    return next(iter([*solvers.index[solvers.index == wanted], *solvers.index[solvers == wanted]]), None)


def _setting(record: Mapping[str, Any]) -> dict[str, Any]:
    """All that a figure depends on beside solver, task and photo, by name."""
    prior = {f"prior {name}": value for name, value in prior_facts(record).items()}
    tiles = {key: record[key] for key in ("tile", "overlap") if key in record}
    return {**record["solver_settings"], **prior, **tiles, "device": record["environment"].get("device")}


def _block(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["method"], row["task"]


def _kind(record: Mapping[str, Any]) -> str:
    return str(record.get("solver_kind", record["solver"]))


def _dict(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
