"""Reports: complete in one file, with every figure, also of what is missing."""

import base64
import csv
import io
import json
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image

from tests.own_code import FAILING
from tests.pipelines.small_project import Page, pipeline_of, project, report_of, restoration, run_here, run_to_report
from workbench.images import SAMPLES, load_image, sample_photo, save_image
from workbench.models import load_prior, save_prior
from workbench.models.files import sha256
from workbench.pipelines.engine import Outcome
from workbench.pipelines.schema import load_pipeline


@pytest.fixture
def reported(tmp_path) -> tuple[Page, Path]:
    """A pipeline of two jobs, one done and one failed, and its report."""
    path = project(tmp_path, "- {notebook: task, grid: {noise: [0.1, 0.2]}}\nnote: Mind the <scale>.")
    pipeline, out = load_pipeline(path), tmp_path / "out"
    done, failed = pipeline.jobs
    restoration(out / "jobs" / done.id)
    return report_of(pipeline, out, Outcome(failed.id, failed.label, "failed", 1.0, "It broke")), out


def test_the_report_needs_nothing_but_itself_and_says_what_was_measured_and_what_is_missing(reported):
    page, out = reported
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["photo"], float(line["psnr"]), float(line["effnet"]), line["lpips"]) for line in lines] == [
        *[("cat", 20, 1.8, ""), ("cat", 30, 1.7, "")],
        *[("<b>dog</b>", 21, 1.79, ""), ("<b>dog</b>", 28, 1.72, "")],
    ]
    assert page.outside == []
    assert "url(" not in page.html
    assert "@import" not in page.html
    # two photos, each original, degraded and two methods
    assert len(page.pictures) == 8
    with Image.open(io.BytesIO(base64.b64decode(page.pictures[0].partition(",")[2]))) as picture:
        assert picture.size == (8, 8)
    for said in (
        *("Mind the <scale>.", "<b>dog</b>"),  # names are text, never markup
        *("20.50", "29.00", "1.795"),  # mean PSNR of pinv and of deqir, mean effnet of pinv
        "not LPIPS; smaller is better; only for comparisons within this report",
        *("1 of 2 jobs did not finish", "It broke"),
    ):
        assert said in page.text, said
    assert page.text.count("place X in Y") == 1
    assert '<td class="n level">1.710</td>' in page.html  # deqir's mean: differences 0.10 and 0.07 may be chance,
    assert '<td class="n level">1.795</td>' in page.html  # with t(1) = 12.7 their mean is 0.085 ± 0.191
    assert '<span class="best">1.700*</span>' in page.html  # the cat by deqir: a fact about one picture


def test_what_has_no_figure_still_makes_a_report(tmp_path):
    """Nothing done; photos without a score, and results of before a score existed."""
    pipeline, out = load_pipeline(project(tmp_path)), tmp_path / "out"
    (job,) = pipeline.jobs
    out.mkdir()
    assert "died" in report_of(pipeline, out, Outcome(job.id, job.label, "failed", 1.0, "died")).html
    restoration(out / "jobs" / job.id, psnr=None, psnr_reason="infinite")
    file = out / "jobs" / job.id / "result.json"
    result = json.loads(file.read_text())
    for record in result["records"]:
        del record["effnet"]
    file.write_text(json.dumps(result))
    text = report_of(pipeline, out).text  # not its pictures, whose base64 may spell anything
    assert "None" not in text
    assert "nan" not in text.lower().replace("unavailable", "")
    assert [row["effnet"] for row in json.loads((out / "table.json").read_text())] == [None] * 4


def test_the_restore_notebook_makes_a_report(tmp_path, run):
    """The whole way from YAML to report with the real notebook, a sample photo and one of the user's own."""
    text = """
- notebook: restore
  parameters:
    photos: ["cat:32", "mine:32", "mine/cut.png:24", "mine/dog.png:16"]
    degradation: sr:4
    methods: [pinv, diffpir]
    settings: {diffpir: {steps: 2}}
    prior: mine/prior.safetensors
"""
    (tmp_path / "mine").mkdir()
    # A file of the user's own, which holds what the command line below takes by default.
    save_prior(load_prior("photo"), tmp_path / "mine" / "prior.safetensors")
    save_image(sample_photo("coffee", 40), tmp_path / "mine" / "dog.png")
    (tmp_path / "mine" / "cut.png").write_bytes((tmp_path / "mine" / "dog.png").read_bytes()[:99])  # left out
    ran = run_to_report(pipeline_of(tmp_path, text), Path("out"))
    page, prior = ran.page, f"{tmp_path}/mine/prior.safetensors"
    assert ran.results[0]["priors"][prior]["sha256"] == sha256(Path(prior))
    assert {"mine/prior.safetensors", "restore.ipynb"} <= set(ran.results[0]["files"])
    assert page.outside == []
    assert len(page.pictures) == 3 * 4
    assert page.text.count(f"Left out: {tmp_path}/mine/cut.png: damaged or truncated image") == 1
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert len(rows) == 3 * 2
    assert all(5 < row["psnr"] < 50 for row in rows)
    names = {(row["photo"], tuple(row["size"])) for row in rows}
    assert names == {("cat", (32, 32)), ("mine/dog.png", (32, 32)), ("mine/dog.png", (16, 16))}
    # The first photo of a batch has the streams of a photo alone: here the command line's figure for the same seed.
    cat = Path(skimage.__file__).parent / "data" / SAMPLES["cat"]
    quick = ("--size", "32", "--noise", "0.01", "--solver", "diffpir", "--set", "steps=2")
    assert run("restore", cat, "--out", "alone", *quick)[0] == 0
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    same = {"photo": "cat", "size": [32, 32], "operator": "sr:4", "solver": "diffpir"}
    (row,) = (row for row in rows if row | same == row)
    assert row["psnr"] == pytest.approx(alone["psnr"], abs=1e-3)  # batch sizes round differently


def test_a_method_that_fails_on_a_photo_costs_that_photo_alone_and_is_named(tmp_path, monkeypatch):
    """NaN for two photos of four (coffee and rocket): the others keep their scores, and differences say how many."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FAILING)
    text = """
- notebook: restore
  parameters: {photos: ["cat:16", "coffee:16", "rocket:16", "astronaut:16"], methods: [pinv, mine], with_fid: true,
    solvers: {mine: "mine.py:Failing"}}
- notebook: sweep_solver
  parameters: {photos: [cat, coffee], size: 16, degradation: "sr:4", solver: "mine.py:Failing",
    values: {darkest: [0.0, 0.4]}}
"""
    ran = run_to_report(pipeline_of(tmp_path, text), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert len(rows) == 4 * 2
    lacking = {(row["photo"], row["solver"]) for row in rows if row["psnr"] is None}
    assert lacking == {("coffee", "mine"), ("rocket", "mine")}
    assert all(row["consistency"] is None for row in rows if row["psnr"] is None)
    for photo in ("coffee", "rocket"):
        assert f"Left out: {photo} by mine: the restored image has NaN or infinite values." in ran.page.text
    assert [row["psnr"] is None for row in ran.results[1]["sweep"]["rows"]] == [False, True]
    assert "2 of 4 images have NaN or infinite values" in ran.page.text  # the note of the solver's run
    assert "+0.00 ± 0.00 (2 of 4 photos)" in ran.page.text.replace("\u00a0", " ")
    assert len(ran.page.pictures) == 4 * 3 + 2 + 1  # original, degraded, pinv, and mine of two; the sweep
    assert "nan" not in ran.page.text.lower().replace("nan or infinite", "").replace("unavailable", "")


def test_photos_of_one_name_have_pictures_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    save_image(sample_photo("cat", 16), tmp_path / "a" / "b.png")
    save_image(sample_photo("coffee", 16), tmp_path / "a-b.png")
    text = "- {notebook: restore, parameters: {photos: [a/b.png:16, a-b.png:16], methods: [pinv]}}"
    ran = run_to_report(pipeline_of(tmp_path, text), tmp_path / "out")
    for record in ran.results[0]["records"]:
        kept = load_image(ran.folders[0] / record["original"])
        assert torch.equal(kept, load_image(tmp_path / record["photo"])), record["photo"]
    assert len(set(ran.page.pictures)) == 2 * 3


def test_a_noise_level_is_one_however_it_is_written(tmp_path):
    jobs = "- {{notebook: restore, parameters: {{photos: [{}:16], methods: [pinv], noise: {}}}}}\n"
    text = jobs.format("cat", "0") + jobs.format("coffee", "0.0") + jobs.format("cat", "0.01")
    ran = run_to_report(pipeline_of(tmp_path, text), tmp_path / "out")
    noises = [row["noise"] for row in json.loads((tmp_path / "out" / "table.json").read_text())]
    assert list(map(str, noises)) == ["0.0", "0.0", "0.01"]
    assert "2 photos" in ran.page.text


@pytest.mark.parametrize("label", ["original", "degraded"])
def test_a_label_is_not_that_of_the_photos(tmp_path, label):
    """Their pictures, and the sets that distances compare, would be mixed."""
    jobs = f"""
- {{notebook: restore, parameters: {{methods: [{label}], solvers: {{{label}: pinv}}}}}}
- {{notebook: compare_priors, parameters: {{priors: {{{label}: photo}}}}}}
- {{notebook: evaluate, parameters: {{priors: {{{label}: photo}}}}}}
"""
    for outcome in run_here(pipeline_of(tmp_path, jobs), tmp_path / "out"):
        assert f"{label!r} stands for the photos themselves" in outcome.note
