"""The notebooks that compare and sample priors, run as pipelines run them, and what reports make of their results."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from tests.own_code import FAILING
from tests.pipelines.small_project import NOTEBOOKS, ROOT, Ran, pipeline_of, run_here, run_to_report
from workbench.evaluation.statistics import mean_interval
from workbench.images import sample_photo, save_image
from workbench.pipelines.schema import load_pipeline
from workbench.reports.report import write_report

SMALL = "size: 16, steps: 2, batch: 2, priors: {One: photo, Two: photo}"
JOBS = f"""
- notebook: compare_priors
  parameters: {{{SMALL}, count: 6, pictures: 3, degradation: "inpaint:0.8", published_task: 80% pix,
    settings: {{One: {{zeta: 0.3}}, Two: {{sigma_start: 1.0}}}}}}
- {{notebook: compare_priors, parameters: {{{SMALL}, count: 2, grid: {{zeta: [0.3, 1.0]}}}}}}
- {{notebook: sample_prior, parameters: {{{SMALL}, count: 3, pictures: 2, reference_count: 6}}}}
"""


PUBLISHED = {"title": "A title", "note": "Mind it.", "published": "[mupet-2]"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("compare")
    return run_to_report(pipeline_of(folder, JOBS, **PUBLISHED), folder / "out")


def test_a_comparison_holds_every_image_and_every_change(ran):
    comparison = ran.results[0]["comparison"]
    assert [row["prior"] for row in comparison["rows"]] == ["One"] * 6 + ["Two"] * 6
    assert {row["evaluations"] for row in comparison["rows"]} == {2}
    assert comparison["priors"]["One"]["settings"]["zeta"] == 0.3
    (change,) = (change for change in comparison["changes"] if change["metric"] == "psnr")
    values = {label: [r["psnr"] for r in comparison["rows"] if r["prior"] == label] for label in ("One", "Two")}
    means = {label: sum(own) / 6 for label, own in values.items()}
    assert change["difference"]["mean"] == pytest.approx(means["Two"] - means["One"], abs=1e-6)
    assert comparison["means"]["Two"]["psnr"]["mean"] == pytest.approx(means["Two"])
    assert values["One"] != values["Two"]  # by the settings
    photos = [row["photo"].split()[0] for row in comparison["rows"] if row["prior"] == "Two"]
    assert len(set(photos)) == 5  # of which there are six tiles
    clustered = mean_interval(values["Two"], photos)
    assert comparison["means"]["Two"]["psnr"]["high"] == pytest.approx(clustered.high)


def test_samples_need_no_pictures_of_the_first_images(tmp_path):
    jobs = "- {notebook: compare_priors, parameters: {size: 16, count: 2, solver: pinv, samples: 2, pictures: 0}}"
    ran = run_to_report(pipeline_of(tmp_path, jobs), tmp_path / "out")
    assert [strip["file"] for strip in ran.results[0]["comparison"]["strips"]] == ["samples-0.png"]
    assert len(ran.page.pictures) == 1


def test_a_search_names_the_best_of_what_it_tried(ran):
    search = ran.results[1]["search"]
    assert [(row["prior"], row["settings"]["zeta"]) for row in search["tried"]] == [
        (label, zeta) for label in ("One", "Two") for zeta in (0.3, 1.0)
    ]
    best = {(row["prior"], row["metric"]): row for row in search["best"]}
    highest = max(row["psnr"] for row in search["tried"] if row["prior"] == "One")
    assert best["One", "psnr"]["psnr"] == highest
    # The same network twice: the same noise gives the same figures.
    assert best["One", "psnr"]["settings"] == best["Two", "psnr"]["settings"]


def test_samples_are_the_same_for_the_same_network(ran):
    samples = ran.results[2]["samples"]
    rows = {row["prior"]: row for row in samples["rows"]}
    assert set(rows) == {"One", "Two", None}
    assert rows["One"]["spectrum_db"] == rows["Two"]["spectrum_db"]
    pictures = [(ran.folders[2] / p["file"]).read_bytes() for p in samples["pictures"]]
    assert pictures[0] == pictures[1] != pictures[2]
    distance = "frechet_effnet" if samples["fid_reason"] else "fid"
    assert rows["One"][distance] == rows["Two"][distance] > 0


def test_the_report_shows_the_comparison_beside_the_paper(ran):
    text, page = ran.page.text, ran.page
    assert page.outside == []
    for picture in ran.results[0]["comparison"]["strips"]:
        with Image.open(ran.folders[0] / picture["file"]) as image:
            assert image.size == (3 * 16 + 2 * 2, 16)  # three pictures from two batches
    # strips: original, degraded, two priors; samples: two priors, photos, spectrum
    assert len(page.pictures) == 4 + 4
    paper = ("paper, table II, MUPET", "80% pix", "27.54", "another scale")
    for said in ("Mind it.", "Two − One", "ζ 0.3", *paper, "Every combination"):
        assert said in text, said
    assert "three RGB channels of the whole picture, not rounded to 8 bits" in " ".join(text.split())
    assert "−0.19" in text  # the paper's change of PSNR, 27.54 - 27.73
    rows = json.loads((ran.out / "table.json").read_text())
    assert [(row["prior"], row["operator"], row["size"]) for row in rows] == [
        (label, "inpaint:0.8", [16, 16]) for label in ("One", "Two") for _ in range(6)
    ]
    assert len((ran.out / "table.csv").read_text().splitlines()) == 13


def test_what_cannot_be_read_or_restored_is_named_and_left_out_of_all(tmp_path, monkeypatch):
    """A damaged file, and a solver that gives NaN for coffee and rocket; noise as the other notebooks take it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FAILING)
    (tmp_path / "photos").mkdir()
    for name in ("cat", "coffee", "rocket", "astronaut"):
        save_image(sample_photo(name, 16), tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    shared = "photos: [photos], count: 4, size: 16, solver: pinv, batch: 3, noise: 'poisson:50'"
    jobs = f"""
- notebook: compare_priors
  parameters: {{{shared}, short_side: 16, priors: {{One: photo, Two: photo}}, solvers: {{Two: "mine.py:Failing"}}}}
- notebook: compare_priors
  parameters: {{{shared}, short_side: 16, priors: {{Two: photo}}, solvers: {{Two: "mine.py:Failing"}},
    grid: {{darkest: [0.0, 0.4]}}}}
- name: shard
  notebook: evaluate
  parameters: {{{shared.replace("count: 4", "count: 5")}, pictures: 9, priors: {{One: photo, Two: photo}},
    solvers: {{Two: "mine.py:Failing"}}}}
- {{notebook: merge, needs: [shard], parameters: {{entry: shard}}}}
"""
    ran = run_to_report(pipeline_of(tmp_path, jobs), tmp_path / "out")
    comparison, search, merged = ran.results[0]["comparison"], ran.results[1]["search"], ran.results[3]["comparison"]
    kept = {(row["prior"], row["photo"].split(".")[0]) for row in comparison["rows"]}
    assert kept == {(label, photo) for label in ("One", "Two") for photo in ("cat", "astronaut")}
    assert comparison["noise"] == merged["noise"] == "poisson:50"
    assert comparison["count"] == merged["count"] == comparison["changes"][0]["difference"]["n"] == 2
    assert comparison["changes"][0]["difference"]["mean"] == 0
    assert ["psnr" in row for row in search["tried"]] == [True, False]
    assert {row["settings"]["darkest"] for row in search["best"]} == {0.0}
    text = ran.page.text
    assert "broken.png: not an image that Pillow can read" in text
    assert "Two gave NaN or infinite values" in text
    assert "Two (darkest 0.4) gave NaN or infinite values" in text
    assert sum(" gave NaN" in each for each in ran.results[2]["skipped"]) == 2


def test_what_cannot_be_run_says_so_in_one_line(tmp_path):
    wrong = {"priors": {"DSM": "missing.pth", "MUPET": "missing.pth"}, "settings": {"MUPT": {}}}
    jobs = "".join(
        f"\n- {{notebook: compare_priors, parameters: {json.dumps(given)}}}"
        for given in (wrong, {"count": 100, "first": 50})
    )
    outcomes = run_here(pipeline_of(tmp_path, jobs), tmp_path / "out")
    notes = [outcome.note for outcome in outcomes]
    # Labels are checked before anything is loaded.
    assert "settings: unknown prior 'MUPT', did you mean 'MUPET'?" in notes[0]
    assert "asked for 100 images after the first 50, but the photos give only" in notes[1]
    assert not any("\n" in note for note in notes)


def test_the_published_scale_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"mupet_table2": "bedroom_ncsnpp_continuous.pth", "deqir_table3": "256x256_diffusion_uncond.pt"}
    pipelines = [load_pipeline(ROOT / "pipelines" / "published_scale" / f"{name}.yaml") for name in files]
    both = replace(pipelines[0], jobs=[pipeline.jobs[0] for pipeline in pipelines])
    outcomes = run_here(both, tmp_path / "out")
    report = write_report(both, outcomes, tmp_path / "out").read_text()
    for outcome, missing in zip(outcomes, files.values(), strict=True):
        assert outcome.state == "failed"
        assert f"published/{missing}" in outcome.note
        assert f"published/{missing}" in report


def test_unknown_published_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"p\.yaml: published: unknown table 'mupet-3', did you mean 'mupet-\d'\?"):
        pipeline_of(tmp_path, "\n- notebook: compare_priors", published="[mupet-3]")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "compare_priors.ipynb").write_text((NOTEBOOKS / "compare_priors.ipynb").read_text())
    with pytest.raises(ValueError, match=r"there is no published\.yaml beside or above"):
        load_pipeline(tmp_path / "p.yaml", tmp_path / "jobs")


def test_settings_are_chosen_on_other_photos_than_those_tested_on():
    """Not on other tiles of the same photos: whole ones of another source, or of other numbers."""
    jobs = [job.parameters for path in ROOT.glob("pipelines/mupet_*.yaml") for job in load_pipeline(path).jobs]
    searched = [given for given in jobs if "grid" in given]
    tested = [given for given in jobs if "degradation" in given and "grid" not in given]
    assert searched
    assert tested
    for given in searched:
        assert given["photos"]  # the sample photos are tested on
        assert given["cut"] == "fit"
        for other in tested:
            assert other["photos"] != given["photos"] or other["first"] >= given["first"] + given["count"]
