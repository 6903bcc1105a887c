"""The parts of a report that compare priors: what its templates show of ``comparison``, ``search`` and ``samples``.

Results of ``notebooks/jobs/compare_priors`` and ``sample_prior`` hold those keys. A comparison names its row in a
published table (``published_task``), whose figures are then shown under the measured ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.evaluation.metrics import METRICS, Metric
from workbench.pipelines.published import Published

PAPER_COLUMNS = {key: metric.paper for key, metric in METRICS.items() if metric.paper}
TUNED = {"zeta": "ζ", "sigma_start": "σ"}  # the settings that the paper tuned, and how a table calls them
LIMITS = {"zeta": (0, 1)}  # nothing lies beyond


def comparison_view(results: Sequence[Mapping[str, Any]], published: Sequence[Published]) -> dict[str, Any] | None:
    """Everything that ``comparison.html.j2`` shows, or None where no result has a ``comparison``.

    Args:
        results: with ``job``, ``folder`` and the job's result.
    """
    own = [result for result in results if "comparison" in result]
    if not own:
        return None
    tasks = [_task(result["comparison"], result["folder"], published) for result in own]
    keys = [key for key in METRICS if any(_has(task, key) for task in tasks)]
    return {
        "tasks": tasks,
        "metrics": [METRICS[key] for key in keys],
        "verdicts": _verdicts(tasks, keys),
        "missing": _missing(result["comparison"] for result in own),
        "messages": distinct(row["message"] for r in own for row in r["comparison"]["rows"] if row["message"]),
        "priors": distinct((k, v["summary"]) for r in own for k, v in r["comparison"]["priors"].items()),
        "environments": distinct(result["comparison"]["environment"] for result in own),
        "paper": any(task["paper"] for task in tasks),
    }


def search_view(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Everything that ``search.html.j2`` shows, or None where no result has a ``search``."""
    own = [result["search"] for result in results if "search" in result]
    if not own:
        return None
    keys = [key for key in METRICS if any(row.get(key) is not None for search in own for row in search["tried"])]
    searches = [{**search, **_chosen(search), "metrics": [METRICS[key] for key in keys]} for search in own]
    return {"searches": searches, "metrics": [METRICS[key] for key in keys], "missing": _missing(own)}


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
    records = []
    for result in results:
        comparison = result.get("comparison")
        if comparison is None:
            continue
        side = comparison["size"]
        shared = {key: comparison[key] for key in ("operator", "noise", "seed")}
        for row in comparison["rows"]:
            records.append({**row, **shared, "size": [side, side], "solver": "diffpir", "job": result["job"]})
    return records


def printed(value: float | None, metric: Metric, signed: bool = False) -> str:
    """A figure as tables print it; a proper minus sign, a dash for None."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{metric.digits}f}".replace("-", "−")


def with_margin(interval: Mapping[str, Any] | None, metric: Metric, signed: bool = False) -> str:
    """``mean ± half of the confidence interval``."""
    if interval is None:
        return "–"
    margin = "" if interval["high"] is None else f" ± {printed(interval['high'] - interval['mean'], metric)}"
    return printed(interval["mean"], metric, signed) + margin


def in_percent(interval: Mapping[str, Any]) -> str:
    """A relative change and half its confidence interval in per cent."""
    margin = "" if interval["high"] is None else f" ± {100 * (interval['high'] - interval['mean']):.1f}"
    return f"{100 * interval['mean']:+.1f}{margin} %".replace("-", "−")


def _task(comparison: Mapping[str, Any], folder: Path, published: Sequence[Published]) -> dict[str, Any]:
    labels = list(comparison["priors"])
    paper = _paper_rows(comparison.get("published_task", ""), published)
    return {
        **{key: comparison[key] for key in ("operator", "noise", "size", "steps", "count", "first", "changes")},
        "photos": ", ".join(comparison["photos"]),
        "rows": [
            {"label": label, "settings": shown_settings(comparison["priors"][label]["settings"]), **_every_key(means)}
            for label, means in comparison["means"].items()
        ],
        "best": {key: _best(METRICS[key], [m.get(key) for m in comparison["means"].values()]) for key in METRICS},
        "changes": [
            {"prior": labels[-1], "against": other, **_by_metric(comparison["changes"], other)} for other in labels[:-1]
        ],
        "paper": paper,
        "paper_change": _paper_change(paper),
        "published_task": comparison.get("published_task", ""),
        "strips": [_strip(strip, comparison, folder) for strip in comparison.get("strips", [])],
    }


def _strip(strip: Mapping[str, Any], comparison: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A row of pictures; that of a prior with its mean PSNR over all images, shown or not."""
    mean = comparison["means"].get(strip["title"], {}).get("psnr")
    text = f"mean {printed(mean['mean'], METRICS['psnr'])} dB" if mean else ""
    return {**strip, "path": Path(folder) / strip["file"], "psnr": text}


def _every_key(figures: Mapping[str, Any]) -> dict[str, Any]:
    """``figures`` with None for metrics it lacks: templates ask for any."""
    return {key: figures.get(key) for key in METRICS}


def shown_settings(settings: Mapping[str, Any]) -> str:
    """The settings of DiffPIR that the paper tuned, for one cell of a table."""
    return ", ".join(f"{name} {settings[key]:g}" for key, name in TUNED.items() if key in settings)


def _by_metric(changes: Iterable[Mapping[str, Any]], other: str) -> dict[str, Any]:
    return {change["metric"]: change for change in changes if change["against"] == other}


def _best(metric: Metric, intervals: Sequence[Mapping[str, Any] | None]) -> str | None:
    """The best mean as it is printed: equal printed figures are equally good."""
    values = [interval["mean"] for interval in intervals if interval is not None]
    if len(values) < 2:
        return None
    return printed(max(values) if metric.larger_is_better else min(values), metric)


def _paper_rows(task: str, published: Sequence[Published]) -> list[dict[str, Any]]:
    rows = []
    for table in published if task else []:
        for names, figures in table.figures(task):
            values = {key: figures.get(column) for key, column in PAPER_COLUMNS.items()}
            rows.append({"label": " ".join(names), **_every_key(values)})
    return rows


def _paper_change(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Last row of the paper against its first, as differences and, where that is shown, in per cent."""
    if len(rows) < 2:
        return None
    old, new = rows[0], rows[-1]
    change: dict[str, Any] = {"prior": new["label"], "against": old["label"]}
    for key in PAPER_COLUMNS:
        if old[key] is not None and new[key] is not None:
            share = new[key] / old[key] - 1 if key == "lpips" else None
            change[key] = {"difference": new[key] - old[key], "share": share}
    return change


def _verdicts(tasks: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """How often the last prior is better, worse or neither: per other prior, and for each metric that was measured."""
    changes = [change for task in tasks for change in task["changes"]]
    measured = [key for key in keys if any(key in change for change in changes)]
    found = []
    for prior, other in distinct((change["prior"], change["against"]) for change in changes):
        said = {key: [c[key]["verdict"] for c in changes if c["against"] == other and key in c] for key in measured}
        counts = [{verdict: said[key].count(verdict) for verdict in ("better", "worse", "unclear")} for key in measured]
        metrics = [METRICS[key] for key in measured]
        found.append({"prior": prior, "against": other, "metrics": metrics, "counts": counts})
    return found


def _missing(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each metric that could not be measured, once per reason."""
    pairs = distinct(pair for part in parts for pair in part["missing"].items())
    return [f"{METRICS[key].title} was not measured: {reason}." for key, reason in pairs]


def _has(task: Mapping[str, Any], key: str) -> bool:
    return any(row.get(key) is not None for row in (*task["rows"], *task["paper"]))


def _chosen(search: Mapping[str, Any]) -> dict[str, Any]:
    """The best combination of each prior by the perceptual metric at hand, as a line to paste into a pipeline."""
    measured = {row["metric"] for row in search["best"]}
    by = next((key for key in ("lpips", "effnet", "psnr") if key in measured), None)
    chosen = {row["prior"]: row["settings"] for row in search["best"] if row["metric"] == by}
    pairs = (f"{label}: {{{', '.join(f'{k}: {v}' for k, v in own.items())}}}" for label, own in chosen.items())
    best = [{**row, **_every_key(row), "edges": _edges(row["settings"], search["grid"])} for row in search["best"]]
    tried = [{**row, **_every_key(row)} for row in search["tried"]]
    return {
        "tried": tried,
        "chosen_by": METRICS[by] if by else None,
        "line": f"settings: {{{', '.join(pairs)}}}",
        "best": best,
    }


def _edges(settings: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """The settings that are the smallest or largest value tried: beyond it may be better ones."""
    return [
        name
        for name, tried in grid.items()
        if len(tried) > 1 and settings[name] in {min(tried), max(tried)} - set(LIMITS.get(name, ()))
    ]


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each of ``values`` once, in the order of their first appearance; they need not be hashable."""
    result: list[Any] = []
    for value in values:
        if value not in result:
            result.append(value)
    return result
