"""What reports of comparisons print: margins, verdicts, the paper's own change, the best of a grid and its edges."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.evaluation.metrics import METRICS, as_text
from workbench.evaluation.statistics import summarise
from workbench.pipelines.published import Published
from workbench.reports.comparison import comparison_view, in_percent, search_view, with_margin

PAPER = Published(
    id="x",
    paper="P",
    table="II",
    caption="",
    labels=["task", "network"],
    columns=["PSNR", "LPIPS"],
    rows=[["4xSR", "DSM", 24.0, 0.4], ["4xSR", "MUPET", 25.0, 0.3], ["deblur", "DSM", 20.0, 0.5]],
    notes=[],
)


def _result(published_task: str = "4xSR") -> dict:
    """DSM and MUPET on four images: MUPET is clearly worse in PSNR, better in effnet, LPIPS is missing."""
    rows = [
        {"prior": label, "photo": str(k), "psnr": 25 + k + shift, "lpips": None, "effnet": 0.2 + shift * 0.1}
        for label, shifts in (("DSM", (0, 0.01, 0, 0.01)), ("MUPET", (-1, -1, -1.1, -1)))
        for k, shift in enumerate(shifts)
    ]
    priors = {
        label: {"summary": label, "solver": "diffpir", "settings": {"zeta": 0.3, "sigma_start": 10.0}}
        for label in ("DSM", "MUPET")
    }
    facts = {"operator": "sr:4", "noise": 0.01, "size": 32, "steps": 60, "count": 4, "first": 0, "photos": ["mine"]}
    rows = [{**row, "message": ""} for row in rows]
    comparison = {**facts, "published_task": published_task, "priors": priors, "rows": rows, "environment": {}}
    return {"comparison": {**comparison, "missing": {"lpips": "no weights"}, **summarise(rows, ["DSM", "MUPET"])}}


def _view(task: str = "4xSR") -> dict:
    view = comparison_view([{"job": "j", "folder": Path(), **_result(task)}], [PAPER])
    assert view is not None
    return view


def test_verdicts_count_tasks():
    (verdict,) = _view()["verdicts"]
    assert [metric.key for metric in verdict["metrics"]] == ["psnr", "effnet"]
    assert verdict["counts"] == [{"better": 0, "worse": 1, "unclear": 0}, {"better": 1, "worse": 0, "unclear": 0}]


def test_the_papers_figures_stand_beside_with_their_change():
    (task,) = _view()["tasks"]
    assert [(row["label"], row["psnr"], row["ssim"]) for row in task["paper"]] == [
        ("DSM", 24, None),
        ("MUPET", 25, None),
    ]
    assert task["paper_change"]["psnr"]["difference"] == 1
    assert task["paper_change"]["lpips"]["share"] == pytest.approx(-0.25)
    assert "ssim" not in task["paper_change"]
    assert {key: text for key, text in task["best"].items() if text} == {"psnr": "26.51", "effnet": "0.098"}
    assert task["rows"][0]["settings"] == "diffpir, ζ 0.3, σ 10"


def test_a_metric_that_only_the_paper_has_keeps_its_column():
    assert [metric.key for metric in _view()["metrics"]] == ["psnr", "lpips", "effnet"]
    assert _view()["missing"] == ["LPIPS was not measured: no weights."]
    assert [metric.key for metric in _view("")["metrics"]] == ["psnr", "effnet"]
    # One row of the paper is no change.
    (task,) = _view("deblur")["tasks"]
    assert task["paper_change"] is None


def test_nothing_to_compare_is_no_part_of_a_report():
    assert comparison_view([{"records": []}], []) is None
    assert search_view([{"records": []}]) is None


def test_numbers_are_printed_with_a_minus_and_their_margin():
    interval = {"mean": -0.0514, "low": -0.06, "high": -0.0428, "n": 9}
    assert with_margin(interval, METRICS["lpips"], signed=True) == "−0.051 ± 0.009"
    assert with_margin({**interval, "low": None, "high": None}, METRICS["psnr"]) == "−0.05"
    assert with_margin(None, METRICS["psnr"]) == as_text(None, "psnr") == "–"
    assert in_percent(interval) == "−5.1 ± 0.9 %"


def test_a_search_gives_a_line_to_paste_and_marks_edges():
    tried = [
        {"prior": "A", "settings": {"zeta": zeta, "sigma_start": sigma}, "psnr": 20 + sigma, "effnet": zeta}
        for zeta in (0.3, 1.0)
        for sigma in (0.1, 1.0, 10.0)
    ]
    best = [{**tried[5], "metric": "psnr"}, {**tried[1], "metric": "effnet"}]
    grid = {"zeta": [0.3, 1.0], "sigma_start": [0.1, 1.0, 10.0]}
    view = search_view([{"search": {"tried": tried, "best": best, "grid": grid, "missing": {}}}])
    assert view is not None
    (search,) = view["searches"]
    assert search["line"] == "settings: {A: {zeta: 0.3, sigma_start: 1.0}}"
    assert search["chosen_by"].key == "effnet"
    # Nothing lies beyond zeta 1.
    assert [row["edges"] for row in search["best"]] == [["sigma_start"], ["zeta"]]
