"""What reports print: of comparisons margins, verdicts and grids; of many methods the paper's figures beside ours."""

import json
from pathlib import Path

import pytest

from tests.pipelines.small_project import ROOT, pipeline_of, report_of, restoration
from workbench.evaluation.metrics import METRICS
from workbench.evaluation.statistics import summarise
from workbench.pipelines.published import Published, read_published
from workbench.reports.comparison import comparison_view, search_view
from workbench.reports.report import beside_paper

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
    assert comparison_view([{"records": []}], []) is search_view([{"records": []}]) is None


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


# Many methods beside the figures of a paper.

TABLES = read_published(ROOT / "pipelines" / "published.yaml")
FIGURES = [*METRICS, "consistency", "fid", "frechet_effnet", "evaluations", "iterations", "seconds"]


def _average(solver: str, **figures: float) -> dict:
    return {**dict.fromkeys(FIGURES), "method": solver, "solver": solver, **figures}


def _row(paper: dict, method: str) -> dict:
    (row,) = (row for row in paper["rows"] if row["method"] == method)
    return row


def test_the_papers_columns_of_a_task_stand_beside_the_measured_figures():
    averages = [_average("ddrm", psnr=20.0, ssim=0.5), _average("ddnm+", psnr=21.0)]
    paper = beside_paper(averages, "SR x4", list(TABLES.values()))
    assert paper["table"].id == "deqir-1"
    assert (paper["metrics"], paper["sets"]) == (["PSNR", "SSIM", "LPIPS"], ["ImageNet", "CelebA-HQ"])
    row = _row(paper, "ddrm")
    assert row["measured"] == ["20.00", "0.500", "–"]
    assert row["paper"] == ["26.21", "0.745", "0.288", "31.91", "0.880", "0.149"]
    # What the paper has not is empty there, what is not here is marked.
    assert _row(paper, "ddnm+")["paper"] == [""] * 6
    assert _row(paper, "DGP")["only_paper"]
    assert _row(paper, "DGP")["measured"] == [""] * 3
    assert len(paper["rows"]) == 8 + 1
    # Settings of one method each have its figures.
    settings = [_average("ddrm", psnr=20.0) | {"method": f"ddrm, steps {steps}"} for steps in (3, 60)]
    both = beside_paper(settings, "SR x4", list(TABLES.values()))["rows"][:2]
    assert [(one["method"], one["paper"]) for one in both] == [(one["method"], row["paper"]) for one in settings]
    # Not every method was run on every task.
    assert _row(beside_paper([], "deblur Gaussian", [TABLES["deqir-1"]]), "ILVR")["paper"] == ["–"] * 6


def test_the_pseudo_inverse_is_the_papers_baseline_but_for_super_resolution():
    (row,) = beside_paper([_average("pinv", psnr=9.0)], "stripe mask", [TABLES["deqir-2"]])["rows"][:1]
    assert (row["method"], row["paper"]) == ("pinv", ["9.02", "0.131", "0.730"])
    paper = beside_paper([_average("pinv", psnr=9.0)], "SR x2", [TABLES["deqir-1"]])
    assert _row(paper, "pinv")["paper"] == [""] * 6
    assert _row(paper, "Baseline")["only_paper"]


def test_priors_are_not_averaged_and_photos_need_no_pictures(tmp_path):
    """Two jobs of the same task with different priors, one without pictures, with the paper beside."""
    jobs = "- {notebook: restore, parameters: {seed: 1}}\n- {notebook: restore, parameters: {seed: 2}}"
    pipeline, out = pipeline_of(tmp_path, jobs, published="[deqir-1]"), tmp_path / "out"
    for number, job in enumerate(pipeline.jobs):
        extra = {"published_task": "SR x4", "consistency": 1.25, "iterations": 7, "fid": None, "fid_reason": "no file"}
        restoration(out / "jobs" / job.id, **extra, prior=f"prior {number}", solver_kind="ddnm")
    bare = out / "jobs" / pipeline.jobs[1].id / "result.json"
    result = json.loads(bare.read_text())
    for record in result["records"]:
        del record["image"], record["original"], record["degraded"]
    bare.write_text(json.dumps(result))
    page, rows = report_of(pipeline, out), json.loads((out / "table.json").read_text())
    for said in ("prior 0", "prior 1", "FID is no file.", "1.25", "ddnm, steps = 5"):  # a label is not a solver
        assert said in page.text, said
    assert len(page.pictures) == 2 * 4  # of the first job alone
    assert page.text.count("DGP (published only)") == 2
    assert [row["consistency"] for row in rows] == [1.25] * 8
