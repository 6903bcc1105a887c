"""The parts of a report that compare priors: what its templates show of ``comparison``, ``search`` and ``samples``.

Results of ``notebooks/jobs/compare_priors`` and ``sample_prior`` hold those keys. A comparison names its row in a
published table (``published_task``), whose figures are then shown under the measured ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.evaluation.metrics import FIGURES, METRICS, Metric, as_text
from workbench.pipelines.published import Published

# The settings that the papers tuned, and how a table calls them.
TUNED = {
    "zeta": "ζ",
    "sigma": "σ",
    "sigma_start": "σ",
    "sigma_end": "to σ",
    "penalty": "ρ",
    "lambda_": "λ",
    "max_steps": "steps",
}
SHOWN = (*METRICS, "fid", "frechet_effnet")
LIMITS = {"zeta": (0, 1)}  # nothing lies beyond


def comparison_view(results: Sequence[Mapping[str, Any]], published: Sequence[Published]) -> dict[str, Any] | None:
    """Everything that ``comparison.html.j2`` shows, or None where no result has a ``comparison``.

    Args:
        results: with ``job``, ``folder`` and the job's result.
    """
    own = [result["comparison"] for result in results if "comparison" in result]
    if not own:
        return None
    tasks = [_task(result["comparison"], result["folder"], published) for result in results if "comparison" in result]
    solvers = distinct(prior["solver"] for one in own for prior in one["priors"].values())
    changes = [change for task in tasks for change in (*task["changes"], task["paper_change"] or {})]
    return {
        "tasks": tasks,
        "kind": "prior" if len(solvers) == 1 else "method",
        "changed": _measured(changes),
        "metrics": _measured(row for task in tasks for row in (*task["rows"], *task["paper"])),
        "verdicts": _verdicts([change for comparison in own for change in comparison["changes"]]),
        "missing": _missing(own),
        "messages": distinct(row["message"] for comparison in own for row in comparison["rows"] if row["message"]),
        "solvers": solvers,
        "priors": distinct((label, prior["summary"]) for one in own for label, prior in one["priors"].items()),
        "environments": distinct(comparison["environment"] for comparison in own),
        "paper": any(task["paper"] for task in tasks),
    }


def search_view(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Everything that ``search.html.j2`` shows, or None where no result has a ``search``."""
    own = [result["search"] for result in results if "search" in result]
    if not own:
        return None
    metrics = _measured(row for search in own for row in search["tried"])
    return {"searches": [search | _chosen(search) for search in own], "metrics": metrics, "missing": _missing(own)}


def samples_view(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What ``samples.html.j2`` shows: each result with ``samples``, its pictures as paths."""
    views = []
    for result in results:
        if "samples" in result:
            samples, folder = result["samples"], Path(result["folder"])
            pictures = [{**picture, "path": folder / picture["file"]} for picture in samples["pictures"]]
            views.append({**samples, "pictures": pictures, "spectrum": folder / samples["spectrum"]})
    return views


def comparison_records(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all comparisons as the report's tables hold them: one per image and prior."""
    return [
        {**row, **{key: comparison[key] for key in ("operator", "noise", "seed", "environment")}}
        | {
            "size": [comparison["size"]] * 2,
            "solver": comparison["priors"][row["prior"]]["solver"],
            "solver_settings": comparison["priors"][row["prior"]]["settings"],
            "job": result["job"],
            "commit": result.get("commit"),
        }
        for result in results
        for comparison in [result.get("comparison", {})]
        for row in comparison.get("rows", [])
    ]


def with_margin(interval: Mapping[str, Any] | None, metric: Metric, signed: bool = False) -> str:
    """``mean ± half of the confidence interval``."""
    if interval is None:
        return "–"
    margin = "" if interval["high"] is None else f" ± {as_text(interval['high'] - interval['mean'], metric.key)}"
    return as_text(interval["mean"], metric.key, signed) + margin


def in_percent(interval: Mapping[str, Any]) -> str:
    """A relative change and half its confidence interval in per cent."""
    margin = "" if interval["high"] is None else f" ± {100 * (interval['high'] - interval['mean']):.1f}"
    return f"{100 * interval['mean']:+.1f}{margin} %".replace("-", "−")


def best_texts(rows: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, str | None]:
    """The best value of each figure of ``keys``, as it is printed: equal printed figures are equally good. None where
    fewer than two rows have one."""
    table, best = pd.DataFrame(rows), {}
    for key in keys:
        values = table[key].dropna() if key in table else []
        best[key] = as_text(FIGURES[key].best(values), key) if len(values) > 1 else None
    return best


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each of ``values`` once, in the order of their first appearance; they need not be hashable."""
    result: list[Any] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result


def _task(comparison: Mapping[str, Any], folder: Path, published: Sequence[Published]) -> dict[str, Any]:
    *others, judged = comparison["priors"]
    means, task = comparison["means"], comparison.get("published_task", "")
    paper = [row for table in (published if task else []) for row in _paper_rows(table, task)]
    return {
        **{key: comparison[key] for key in ("operator", "noise", "size", "steps", "count", "first")},
        "photos": ", ".join(comparison["photos"]),
        "rows": [
            {"label": label, "settings": shown_settings(comparison["priors"][label]), **own}
            for label, own in means.items()
        ],
        "best": best_texts(({key: own[key]["mean"] for key in own} for own in means.values()), SHOWN),
        "changes": [
            {"prior": judged, "against": other}
            | {change["metric"]: change for change in comparison["changes"] if change["against"] == other}
            for other in others
        ],
        "paper": paper,
        # Where rows are methods, the paper says nothing of the change of a prior.
        "paper_change": _paper_change(paper) if any(table.figures(task) for table in published) else None,
        "published_task": task,
        "strips": [_strip(strip, means, folder) for strip in comparison.get("strips", [])],
    }


def _paper_rows(table: Published, task: str) -> list[dict[str, Any]]:
    """What a table says of a task: its rows that begin with it, or else its columns, such as "SR x4 PSNR"."""
    own = table.figures(task)
    found, prefix = (own, "") if own else (table.figures(), f"{task} ")
    rows = [
        {"label": " ".join(names), "table": table.table}
        | {key: figures.get(f"{prefix}{FIGURES[key].paper}") for key in SHOWN}
        for names, figures in found
    ]
    return [row for row in rows if any(row[key] is not None for key in METRICS)]


def _strip(strip: Mapping[str, Any], means: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A row of pictures; that of a prior with its mean PSNR over all images, shown or not."""
    mean = means.get(strip["title"], {}).get("psnr")
    text = f"mean {as_text(mean['mean'], 'psnr')} dB" if mean else ""
    return {**strip, "path": Path(folder) / strip["file"], "psnr": text}


def shown_settings(prior: Mapping[str, Any]) -> str:
    """The solver of a prior and those of its settings that the papers tuned, for one cell of a table."""
    own = prior["settings"]
    tuned = (f"{name} {own[key]:.3g}" for key, name in TUNED.items() if own.get(key) is not None)
    return ", ".join([prior["solver"], *tuned])


def _paper_change(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Last row of the paper against its first, as differences and, where that is shown, in per cent."""
    if len(rows) < 2:
        return None
    old, new = rows[0], rows[-1]
    return {
        key: {"difference": new[key] - old[key], "share": new[key] / old[key] - 1 if key == "lpips" else None}
        for key in METRICS
        if old[key] is not None and new[key] is not None
    }


def _verdicts(changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How often the last prior is better, worse or neither: per other prior, and for each metric that was measured."""
    if not changes:
        return []
    table = pd.DataFrame(changes)
    keys = [key for key in METRICS if key in set(table["metric"])]
    index = pd.MultiIndex.from_product([keys, ("better", "worse", "unclear")])
    found = []
    for (prior, other), own in table.groupby(["prior", "against"], sort=False):
        counts = own[["metric", "verdict"]].value_counts().reindex(index, fill_value=0)
        rows = [counts[key].to_dict() for key in keys]
        found.append({"prior": prior, "against": other, "metrics": [METRICS[key] for key in keys], "counts": rows})
    return found


def _measured(rows: Iterable[Mapping[str, Any]]) -> list[Metric]:
    """The metrics that some row has a figure for, distances of sets too."""
    found = {key for row in rows for key in SHOWN if row.get(key) is not None}
    return [FIGURES[key] for key in SHOWN if key in found]


def _missing(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each metric that could not be measured, once per reason."""
    pairs = distinct(pair for part in parts for pair in part["missing"].items())
    return [f"{METRICS[key].title} was not measured: {reason}." for key, reason in pairs]


def _chosen(search: Mapping[str, Any]) -> dict[str, Any]:
    """The best combination of each prior by the perceptual metric at hand, as a line to paste into a pipeline."""
    measured = {row["metric"] for row in search["best"]}
    by = next((key for key in ("lpips", "effnet", "psnr") if key in measured), None)
    chosen = {row["prior"]: row["settings"] for row in search["best"] if row["metric"] == by}
    pairs = (f"{label}: {{{', '.join(f'{k}: {v}' for k, v in own.items())}}}" for label, own in chosen.items())
    return {
        "chosen_by": METRICS[by] if by else None,
        "line": f"settings: {{{', '.join(pairs)}}}",
        "best": [{**row, "edges": _edges(row["settings"], search["grid"])} for row in search["best"]],
    }


def _edges(settings: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """The settings that are the smallest or largest value tried: beyond it may be better ones."""
    return [
        name
        for name, tried in grid.items()
        if len(tried) > 1 and settings[name] in {min(tried), max(tried)} - set(LIMITS.get(name, ()))
    ]
