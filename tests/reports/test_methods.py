"""What reports of many methods print: the overview, the paper's figures beside the measured ones, photos in groups."""

from __future__ import annotations

import json

from tests.pipelines.small_project import ROOT, pipeline_of, report_of, restoration
from workbench.evaluation.statistics import METRICS
from workbench.pipelines.published import read_published
from workbench.reports.report import beside_paper

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
    # Not every method was run on every task.
    assert _row(beside_paper([], "deblur Gaussian", [TABLES["deqir-1"]]), "ILVR")["paper"] == ["–"] * 6


def test_the_pseudo_inverse_is_the_papers_baseline_but_for_super_resolution():
    (row,) = beside_paper([_average("pinv", psnr=9.0)], "stripe mask", [TABLES["deqir-2"]])["rows"][:1]
    assert (row["method"], row["paper"]) == ("pinv", ["9.02", "0.131", "0.730"])
    paper = beside_paper([_average("pinv", psnr=9.0)], "SR x2", [TABLES["deqir-1"]])
    assert _row(paper, "pinv")["paper"] == [""] * 6
    assert _row(paper, "Baseline")["only_paper"]


def test_a_whole_table_can_be_a_task():
    paper = beside_paper([_average("ddnm", consistency=0.25)], "deqir-3", [TABLES["deqir-1"], TABLES["deqir-3"]])
    assert (paper["metrics"], paper["sets"]) == (["Cons", "LPIPS", "FID"], ["ImageNet", "CelebA-HQ"])
    assert _row(paper, "ddnm")["measured"] == ["0.25", "–", "–"]
    assert _row(paper, "ddnm")["paper"] == ["45.07", "0.186", "77.21", "51.43", "0.139", "45.73"]
    times = beside_paper([_average("deqir-10", seconds=1.5, psnr=30.0)], "deqir-4", [TABLES["deqir-4"]])
    assert _row(times, "deqir-10")["measured"] == ["1.50", "30.00"]
    assert _row(times, "deqir-10")["paper"] == ["12.11", "38.58"]


def test_settings_of_one_label_each_stand_beside_the_papers_figures():
    averages = [_average("ddrm", psnr=20.0) | {"method": f"ddrm, steps {steps}"} for steps in (3, 60)]
    rows = beside_paper(averages, "SR x4", list(TABLES.values()))["rows"]
    assert [row["method"] for row in rows[:2]] == ["ddrm, steps 3", "ddrm, steps 60"]
    assert rows[0]["paper"] == rows[1]["paper"] != [""] * 6
    assert not any(row["method"].casefold() == "ddrm" for row in rows)


def test_no_task_and_unknown_tasks_have_no_paper():
    for task in ("", "SR x8", "deqir-9"):
        assert beside_paper([_average("ddnm")], task, list(TABLES.values())) is None


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
