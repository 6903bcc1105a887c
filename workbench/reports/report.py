"""The report of a pipeline: one HTML file that needs nothing else, and the same figures as CSV and JSON.

It shows jobs whose result has ``records``: a list of rows as :func:`workbench.restore.restore` makes them, each with
``photo`` and the file names ``original``, ``degraded`` and ``image`` in the job's folder. ``published_task`` names the
columns of a published table to show beside them: all that begin with it ("SR x4" is "SR x4 PSNR", ...), or the table by
its id ("deqir-3"). Results with a ``sweep`` or an ``exam`` have a part of their own, and so
have those of ``comparison.py``.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from workbench.evaluation import metrics
from workbench.evaluation.metrics import as_text
from workbench.models import describe_priors
from workbench.pipelines.engine import Outcome
from workbench.pipelines.job import RESULT, is_done
from workbench.pipelines.published import Published
from workbench.pipelines.schema import Pipeline
from workbench.records import write_table
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
from workbench.reports.rows import FIGURES, SCORES, averages, with_methods
from workbench.reports.tables import COLUMNS, MARKS, as_html, as_latex, count, long_rows
from workbench.text import replacing, write_json

# Figures that have a column only where some record has them, or this reason why not.
OPTIONAL = {"fid": "fid_reason", "frechet_effnet": "", "consistency": "", "iterations": ""}
PAPER_NAMES = {metric.paper: key for key, metric in metrics.FIGURES.items() if metric.paper}
BASELINE = {"pinv": "Baseline"}  # the paper's name; of super-resolution its baseline is bicubic upscaling, not A^+ y


def write_report(pipeline: Pipeline, outcomes: list[Outcome], out: str | Path) -> Path:
    """Write ``report.html``, ``table.csv``, ``table.json``, ``table.tex`` into ``out``, return the first's path.

    What is not done yet is missing from the tables and named as such.
    """
    out = Path(out).resolve()
    folders = [folder for job in pipeline.jobs if is_done(folder := out / "jobs" / job.id)]
    results = [json.loads((folder / RESULT).read_text(encoding="utf-8")) | {"folder": folder} for folder in folders]
    records = with_methods([_of_result(record, result) for result in results for record in result.get("records", [])])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": as_text, "inline": _inline, "margin": with_margin, "percent": in_percent}
    groups = _groups(records, out, pipeline)
    html = environment.get_template("report.html.j2").render(
        pipeline=pipeline,
        outcomes=outcomes,
        groups=groups,
        overview=as_html(groups),
        marks=MARKS,
        headings={key: metrics.FIGURES[key].column for key in FIGURES if _shown(key, records)},
        scores=SCORES,
        comparison=comparison_view(results, pipeline.published),
        search=search_view(results),
        samples=samples_view(results),
        sweeps=_sweeps(results),
        exam=_exam(results),
        methods=_settings(groups),
        environments=distinct(record["environment"] for record in records),
        priors=distinct(record["prior"] for record in records),
        cards={r["prior"]: r.get("prior_source") for r in records} | {card["name"]: card for card in describe_priors()},
        unavailable=_unavailable(records) + distinct(f"Left out: {s}." for r in results for s in r.get("skipped", ())),
        out=out,
        dates=distinct(f"{each:%-d %B %Y, %H:%M %Z}" for each in _computed(records, results)),
    )
    with replacing(out / "report.html") as file:
        file.write_text(html, encoding="utf-8")
    rows = long_rows(records + comparison_records(results), pipeline.code)
    write_table(rows, distinct(column for row in rows for column in row) or COLUMNS, out / "table.csv")
    write_json(out / "table.json", rows)
    with replacing(out / "table.tex") as file:
        file.write_text(as_latex(groups, pipeline.name), encoding="utf-8")
    return out / "report.html"


def beside_paper(
    averages: Sequence[Mapping[str, Any]], task: str, published: Sequence[Published]
) -> dict[str, Any] | None:
    """Measured and published figures of one task, a row per method; methods of the paper alone are marked.

    Args:
        averages: a row per method, with ``method``, its label ``solver`` and the means.
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
    own_rows = [(_paper_name(row["solver"], task, figures), row) for row in averages]
    others = [(name, None) for name in figures if name not in dict(own_rows)]
    rows = []
    for method, own in [*own_rows, *others]:
        theirs = figures.get(method)
        rows.append(
            {
                "method": own["method"] if own else method,
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


def _of_result(record: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The record with what its job says; a result of before a score existed lacks it."""
    prior = result.get("parameters", {}).get("prior_settings", {})
    facts = {"job": result["job"], "commit": result.get("commit"), "prior_settings": prior}
    return dict.fromkeys(FIGURES) | facts | dict(record)


def _shown(key: str, records: list[dict[str, Any]]) -> bool:
    """Whether the figure has a column: FID where it was asked for, what results of before it existed lack not."""
    return key not in OPTIONAL or any(r[key] is not None or r.get(OPTIONAL[key]) for r in records)


def _unavailable(records: list[dict[str, Any]]) -> list[str]:
    """A sentence for each metric that could not be computed, once per reason; what was left out says so itself."""
    said = distinct((key, record.get(f"{key}_reason")) for key in ("lpips", "effnet", "fid") for record in records)
    return [
        f"{metrics.FIGURES[key].title} is {reason}." for key, reason in said if reason and reason != metrics.NOT_FINITE
    ]


def _computed(records: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[datetime]:
    """When the first and the last figure were computed, not when they were gathered."""
    times = sorted(each["finished"] for each in (*records, *results) if each.get("finished"))
    return [datetime.fromisoformat(time).astimezone() for time in (times[:1] + times[-1:])]


def _groups(records: list[dict[str, Any]], out: Path, pipeline: Pipeline) -> list[dict[str, Any]]:
    """One group per operator, size, noise and prior: its averages per method, and its photos with their pictures."""
    operators, priors = (distinct(record[key] for record in records) for key in ("operator", "prior"))
    files = {name: re.sub(r".*/(?=[^/]+\.py:)", "", name) for name in operators}  # without folders, if that is clear
    shown = files if len(set(files.values())) == len(operators) else {}
    # Operators as the jobs have them, small pictures first, then noise that is no number and much noise first.
    loudness = {r["noise"]: r["noise"] if isinstance(r["noise"], int | float) else 1.0 for r in records}
    records = sorted(records, key=lambda r: (operators.index(r["operator"]), r["size"], -loudness[r["noise"]]))
    groups: list[dict[str, Any]] = []
    for task in distinct(record["task"] for record in records):
        own = [record for record in records if record["task"] == task]
        photos = {name: [r for r in own if r["photo"] == name] for name in distinct(r["photo"] for r in own)}
        own = [record for shots in photos.values() for record in shots]
        numbers = {"photos": len(photos), "seeds": len({record["seed"] for record in own})}
        rows, first = averages(own, pipeline.reference), own[0]
        for row in rows:
            row["lacks"] = ", ".join(f"{row[k]} of {count([n], k)}" for k, n in numbers.items() if row[k] < n)
        levels = {
            "operator": shown.get(first["operator"], first["operator"]),
            "noise": f"noise {first['noise']}" if first["noise"] else "no noise",
            "size": "{1}×{0}".format(*first["size"]),
            "prior": first["prior"] if len(priors) > 1 else "",
        }
        said = [count([n], key) for key, n in numbers.items() if key == "photos" or n > 1]
        groups.append(
            {
                "anchor": f"group{len(groups) + 1}",
                "levels": levels,
                "facts": list(filter(None, [levels["noise"], *said, levels["size"], levels["prior"]])),
                "averages": rows,
                "paper": beside_paper(rows, first.get("published_task", ""), pipeline.published),
                "photos": photos,
                "seeds": numbers["seeds"],
                "strips": [strip for shots in photos.values() for strip in _strips(shots, out)],
            }
        )
    return groups


def _strips(shots: Sequence[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """The pictures of a photo's first seed, original, degraded and restored: one strip, or several where jobs degraded
    the photo differently. Of many photos, the first ones alone have pictures."""
    strips: dict[str, dict[str, Any]] = {}
    shots = [shot for shot in shots if "image" in shot and shot["seed"] == shots[0]["seed"]]
    for job in distinct(shot["job"] for shot in shots):
        folder, own = out / "jobs" / job, [shot for shot in shots if shot["job"] == job]
        original, degraded = (_inline(folder / own[0][kind]) for kind in ("original", "degraded"))
        strip = {"photo": own[0]["photo"], "original": original, "degraded": degraded, "shots": []}
        shown = strips.setdefault(degraded, strip)["shots"]
        shown += [shot | {"picture": _inline(folder / shot["image"])} for shot in own]
    return [strip | {"best": best_texts(strip["shots"], SCORES)} for strip in strips.values()]


def _settings(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each method with its settings, once per distinct setting; a label of the pipeline's with the solver's name, and
    where one method has several settings, with the tasks of each."""
    said: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for record in (record for shots in group["photos"].values() for record in shots):
            kind, settings = record.get("solver_kind", record["solver"]), dict(record["solver_settings"])
            settings |= {f"prior {name}": value for name, value in record["prior_settings"].items()}
            text = ", ".join([kind] * (kind != record["method"]) + [f"{k} = {v}" for k, v in settings.items()])
            said.setdefault((record["method"], text), []).append(", ".join(list(group["levels"].values())[:2]))
    methods = [method for method, _ in said]
    return [
        (method, f"{text} ({'; '.join(distinct(tasks))})" if methods.count(method) > 1 else text)
        for (method, text), tasks in said.items()
    ]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
