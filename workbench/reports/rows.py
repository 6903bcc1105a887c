"""The rows of a report and what their differences say.

A row is one complete setting: a method's label with its solver, all of its settings, its prior, tiles and device. Seeds
are averaged within a photo first, so that means, standard deviations and intervals are over photos, each counted once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from workbench.evaluation.metrics import FIGURES as METRICS
from workbench.evaluation.metrics import Metric
from workbench.evaluation.statistics import Interval, mean_interval, paired_difference

SCORES = ("psnr", "ssim", "lpips", "effnet")  # with a best; Consistency of noisy data has none, FID needs many
FIGURES = (*SCORES, "consistency", "fid", "frechet_effnet", "evaluations", "iterations", "seconds")
TASK = ("operator", "noise", "size", "prior")  # what the records of one block of the report have in common
Record = dict[str, Any]


def with_methods(records: Sequence[Record]) -> list[Record]:
    """Each record once, with ``task`` and ``method``: its label, and the settings in which rows of that label differ in
    some task. Of records that agree in task, photo, seed and complete setting, the first one counts."""
    if not records:
        return []
    settings = [_setting(record) for record in records]
    texts = pd.DataFrame(settings, dtype=object).map(_text)
    facts = [(record["solver"], _text([record[key] for key in TASK])) for record in records]
    rows = pd.DataFrame(facts, columns=["label", "task"])
    differs = texts.groupby([rows["label"], rows["task"]]).nunique().gt(1).groupby("label").any()
    single = [[record["photo"], record["seed"]] for record in records]
    again = pd.concat([texts, rows, pd.DataFrame(single)], axis=1).duplicated()
    kept = []
    for record, setting, (label, task), repeated in zip(records, settings, facts, again, strict=True):
        named = {name: value for name, value in setting.items() if differs.loc[label, name]}
        shown = [f"{name} {str(value)[:8] if name == 'prior sha256' else value}" for name, value in named.items()]
        kept += [] if repeated else [record | {"task": task, "method": ", ".join([label, *shown])}]
    return kept


def prior_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and source of the prior."""
    return {**record.get("prior_settings", {}), **record.get("prior_source", {})}


def averages(records: Sequence[Record], reference: str) -> list[dict[str, Any]]:
    """The rows of one task, in order of their first records.

    Args:
        reference: a method, or the label of one, which the others are compared with; "" is the best by mean PSNR.

    Returns:
        One per method: ``method``, ``solver``, the mean of each figure (NaN where a photo lacks it), the numbers of
        ``photos`` and ``seeds``, ``reference`` (a method or None) and ``spread``: of each score the ``std`` over
        photos, ``seeds`` (the standard deviation over seeds, averaged over photos), the ``interval`` of the mean, the
        ``difference`` from the reference (both as dictionaries or None; over the photos that both have, of ``photos``
        in all) and the ``mark``, see :func:`marks`.
    """
    table = pd.DataFrame(records).astype(dict.fromkeys(FIGURES, float))
    cells = table.groupby(["method", "photo"], sort=False)[list(FIGURES)]
    photos, seeds = cells.agg(lambda column: column.mean(skipna=False)), cells.std()
    methods = table.groupby("method", sort=False)
    means = photos.groupby("method", sort=False).agg(lambda column: column.mean(skipna=False))
    named = [method for method, own in methods if reference in (method, own["solver"].iloc[0])]
    best = means["psnr"].idxmax() if not reference and means["psnr"].notna().any() else None
    chosen = named[0] if named else best
    rows = []
    for method, own in methods:
        row = {"method": method, "solver": own["solver"].iloc[0], "reference": chosen, "spread": {}}
        row |= {"photos": own["photo"].nunique(), "seeds": own["seed"].nunique()}
        rows.append(means.loc[method].to_dict() | row)
    for key in SCORES:
        values = photos[key].unstack("method")
        marked = marks(values[means.index[means[key].notna()]], METRICS[key])
        for row in rows:
            method, known = row["method"], pd.notna(row[key])
            difference = _paired(values[method], values[chosen]) if chosen else None
            row["spread"][key] = {
                "std": values[method].std(),
                "seeds": seeds.loc[method][key].mean(),
                "interval": asdict(mean_interval(values[method].dropna())) if known else None,
                "difference": difference and asdict(difference),
                "photos": len(values),
                "mark": marked.get(method, ""),
            }
    return rows


def marks(values: pd.DataFrame, metric: Metric) -> dict[str, str]:
    """Which methods to mark in a column: {the best: "best"} where its paired difference from every other method has a
    95 % interval without 0, otherwise "level" for it and all that it cannot be told from. Nothing where nothing can be
    told, as with a single photo.

    Args:
        values: a row per photo and a column per method, NaN where a method lacks the photo.
    """
    if values.shape[1] < 2:
        return {}
    best = metric.best(values, key=values.mean().__getitem__)
    differences = {method: _paired(values[best], values[method]) for method in values if method != best}
    if all(each is None or each.low is None for each in differences.values()):
        return {}
    better = 1 if metric.larger_is_better else -1
    level = [method for method, each in differences.items() if each is None or each.sign != better]
    return dict.fromkeys([best, *level], "level") if level else {best: "best"}


def _paired(new: pd.Series, old: pd.Series) -> Interval | None:
    """The mean difference over the photos that both have."""
    both = new.notna() & old.notna()
    return paired_difference(new[both], old[both]) if both.any() else None


def _setting(record: Mapping[str, Any]) -> dict[str, Any]:
    """All that a figure depends on beside task and photo, by name."""
    kind = {"solver": record.get("solver_kind", record["solver"])}
    prior = {f"prior {name}": value for name, value in prior_facts(record).items()}
    tiles = {key: record[key] for key in ("tile", "overlap") if key in record}
    return {**kind, **record["solver_settings"], **prior, **tiles, "device": record["environment"].get("device")}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
