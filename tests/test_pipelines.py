"""Pipelines: what is refused before anything runs, and what becomes of jobs that succeed, fail, die and hang."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from filelock import FileLock
from PIL import Image

from workbench.images import sample_photo, save_image
from workbench.models import load_prior, save_prior
from workbench.pipelines.engine import Outcome, run_pipeline, table
from workbench.pipelines.schema import load_pipeline
from workbench.reports.report import write_report

PARAMETERS = """
how: str = "well"
noise: float = 0.1
steps: int | None = None
names: list[str] = ["a"]
size = 64
start = "HERE"
"""

TASK = """
import json, os, time
from pathlib import Path
from workbench.pipelines import input_path, input_source, needed, progress, write_result
Path("half.txt").write_text("half a result")
assert input_path("a/b") == Path(start) / "a/b"
assert input_source("photo") == "photo"
assert input_source("diffusers:tests") == f"diffusers:{Path(start) / 'tests'}"
progress(1, 2)
if how == "after": assert [json.loads((f / "result.json").read_text())["value"] for f in needed("base")] == [0.5, 2]
if how == "badly": raise RuntimeError("the network diverged\\nand more")
if how == "killed": os.kill(os.getpid(), 9)
if how == "slowly": time.sleep(600)
"""

LAST = 'write_result({"value": 2 * noise, "how": how} if how != "nan" else {"value": float("nan")})'


def _notebook(folder: Path, name: str, *sources: str, tag: str = "parameters") -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = [tag]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


def _project(folder: Path, text: str) -> Path:
    """A folder like the repository's: notebooks/jobs/task.ipynb and pipelines/p.yaml."""
    _notebook(folder / "notebooks" / "jobs", "task", PARAMETERS.replace("HERE", str(Path.cwd())), TASK, LAST)
    (folder / "pipelines").mkdir(exist_ok=True)
    path = folder / "pipelines" / "p.yaml"
    path.write_text(text)
    return path


def _yaml(jobs: str) -> str:
    return f"name: p\ntitle: A pipeline\njobs:\n{jobs}"


REFUSED = {
    "unknown notebook": (_yaml("- notebook: tusk"), r"unknown notebook 'tusk', did you mean 'task'\?"),
    "unknown parameter": (_yaml("- {notebook: task, parameters: {nois: 0.2}}"), "'nois', did you mean 'noise'"),
    "unknown grid parameter": (_yaml("- {notebook: task, grid: {stepps: [1]}}"), "'stepps', did you mean 'steps'"),
    "text for a number": (_yaml("- {notebook: task, parameters: {noise: much}}"), "'noise' must be float, got 'much'"),
    "number for text": (_yaml("- {notebook: task, parameters: {how: 3}}"), "'how' must be str, got 3"),
    "fraction for a count": (_yaml("- {notebook: task, parameters: {steps: 1.5}}"), r"'steps' must be int \| None"),
    "truth for a count": (_yaml("- {notebook: task, parameters: {size: true}}"), "'size' must be int, got True"),
    "bad list": (_yaml("- {notebook: task, parameters: {names: [1]}}"), r"'names' must be list\[str\], got \[1\]"),
    "bad value in a grid": (_yaml("- {notebook: task, grid: {noise: [0.1, x]}}"), "'noise' must be float, got 'x'"),
    "exponent without dot": (_yaml("- {notebook: task, parameters: {noise: 1e-3}}"), "YAML wants a dot in 1.0e-3"),
    "not a number": (_yaml("- {notebook: task, parameters: {noise: .nan}}"), "'noise' must be float, got nan"),
    "same job twice": (_yaml("- notebook: task\n- notebook: task"), "job 2 .task.: the same notebook and parameters"),
    "same value twice": (_yaml("- {notebook: task, grid: {noise: [0.1, 0.1]}}"), "the same notebook and parameters"),
    "in both": (_yaml("- {notebook: task, parameters: {noise: 0.1}, grid: {noise: [0.2]}}"), "noise stands in both"),
    "empty grid": (_yaml("- {notebook: task, grid: {noise: []}}"), "empty list"),
    "unknown need": (_yaml("- {notebook: task, needs: [train]}"), "unknown earlier job 'train'"),
    "unknown key": (_yaml("- {notebook: task, paramters: {}}"), "unknown key 'paramters', did you mean 'parameters'"),
    "unknown top key": ("nam: x", "'nam', did you mean 'name'|name: Field required"),
    "no jobs": ("name: p\ntitle: x\njobs: []", "jobs: List should have at least 1 item"),
    "a bad name": ("name: a/b\ntitle: x\njobs: [{notebook: task}]", "name: String should match"),
    "no timeout": (_yaml("- {notebook: task, timeout: 0}"), "timeout: Input should be greater than 0"),
    "broken YAML": ("jobs: [", "not valid YAML"),
    "a list": ("- a", "expected a mapping"),
    "nothing": ("", "expected a mapping"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_pipelines_are_refused_in_one_line(tmp_path, case):
    text, message = REFUSED[case]
    path = _project(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        load_pipeline(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_notebooks_that_are_none(tmp_path):
    path = _project(tmp_path, _yaml("- notebook: task"))
    with pytest.raises(ValueError, match=r"none\.yaml: no such file"):
        load_pipeline(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="no such folder of job notebooks"):
        load_pipeline(path, tmp_path / "elsewhere")
    jobs = tmp_path / "notebooks" / "jobs"
    for text in ("not json", "{}", "[]"):
        (jobs / "task.ipynb").write_text(text)
        with pytest.raises(ValueError, match="not a job notebook"):
            load_pipeline(path)
    _notebook(jobs, "task", "a = 1", tag="parameter")
    with pytest.raises(ValueError, match="one cell tagged 'parameters', found 0"):
        load_pipeline(path)


def test_a_grid_is_every_combination_and_ids_follow_what_matters(tmp_path):
    path = _project(tmp_path, _yaml("- {notebook: task, parameters: {size: 8}, grid: {noise: [0, 0.5], how: [x, y]}}"))
    jobs = load_pipeline(path).jobs
    assert [(j.parameters["noise"], j.parameters["how"]) for j in jobs] == [(0, "x"), (0, "y"), (0.5, "x"), (0.5, "y")]
    assert jobs[3].label == "task noise=0.5 y"
    assert len({job.id for job in jobs}) == 4
    assert [job.id for job in load_pipeline(path).jobs] == [job.id for job in jobs]

    # Another notebook source or other code is another job; a new comment in the YAML is not.
    path.write_text(path.read_text() + "# comment\n")
    assert [job.id for job in load_pipeline(path).jobs] == [job.id for job in jobs]
    _notebook(tmp_path / "notebooks" / "jobs", "task", PARAMETERS, TASK + "\npass", LAST)
    assert not {job.id for job in load_pipeline(path).jobs} & {job.id for job in jobs}


def test_the_code_version_changes_with_the_code(tmp_path, monkeypatch):
    from workbench.pipelines import schema

    path = _project(tmp_path, _yaml("- notebook: task"))
    before = load_pipeline(path).jobs[0].id
    monkeypatch.setattr(schema, "code_version", lambda: "other")
    assert load_pipeline(path).jobs[0].id != before


JOBS = """
- {notebook: task, name: base, grid: {noise: [0.25, 1]}}
- {notebook: task, parameters: {how: badly}, name: bad}
- {notebook: task, parameters: {how: killed}}
- {notebook: task, parameters: {how: slowly}, timeout: 10}
- {notebook: task, parameters: {how: nan}}
- {notebook: task, parameters: {how: after}, needs: [base]}
- {notebook: task, parameters: {how: never}, needs: [bad]}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, Path, list[Outcome]]:
    folder = tmp_path_factory.mktemp("project")
    path = _project(folder, _yaml(JOBS))
    out = folder / "results"
    return path, out, run_pipeline(load_pipeline(path), out, workers=2)


def test_outcomes_are_told_apart(ran):
    _, _, outcomes = ran
    assert [o.state for o in outcomes] == ["done", "done", "failed", "failed", "failed", "failed", "done", "skipped"]
    notes = [o.note for o in outcomes]
    assert "RuntimeError: the network diverged" in notes[2]
    assert "DeadKernelError" in notes[3]
    assert "took more than 10 s" in notes[4]
    assert "ValueError: Out of range float" in notes[5]
    assert "a job it needs failed" in notes[7]
    text = table(outcomes)
    assert len(text.splitlines()) == 9
    assert "task noise=1" not in text  # the entry's name is used where there is one
    assert "base noise=1 " in text


def test_done_jobs_hold_their_result_and_failed_ones_no_part_of_it(ran):
    path, out, outcomes = ran
    jobs = {job.id: job for job in load_pipeline(path).jobs}
    for outcome in outcomes:
        folder = out / "jobs" / outcome.id
        files = {p.name for p in folder.iterdir()} if folder.exists() else set()
        if outcome.state == "done":
            assert files == {"job.json", "notebook.ipynb", "log.txt", "half.txt", "result.json"}
            result = json.loads((folder / "result.json").read_text())
            assert result["job"] == outcome.id
            assert result["value"] == 2 * jobs[outcome.id].parameters.get("noise", 0.1)
        elif outcome.state == "failed":
            assert files == {"job.json", "notebook.ipynb", "log.txt"}
        else:
            assert not files
    summary = json.loads((out / "summary.json").read_text())
    assert [job["state"] for job in summary["jobs"]] == [o.state for o in outcomes]


def test_no_kernel_outlives_its_job(ran):
    _, out, _ = ran
    left = [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(out))]
    assert not left


def test_running_again_keeps_what_is_done_and_tries_the_rest(ran):
    path, out, outcomes = ran
    done = [out / "jobs" / o.id / "result.json" for o in outcomes if o.state == "done"]
    before = [file.stat().st_mtime_ns for file in done]
    # One result is damaged, one belongs to another job: neither counts.
    done[1].write_text('{"job": "task-0123", "value": 7}')
    done[2].write_text('{"job": ')
    text = "\n".join(line for line in JOBS.splitlines() if "slowly" not in line and "killed" not in line)
    path.write_text(_yaml(text))
    again = run_pipeline(load_pipeline(path), out)
    assert [o.state for o in again] == ["kept", "done", "failed", "failed", "done", "skipped"]
    assert done[0].stat().st_mtime_ns == before[0]
    assert json.loads(done[1].read_text())["value"] == 2


def test_a_job_that_died_goes_on_from_what_it_kept(tmp_path):
    counting = """
import os
from pathlib import Path
from workbench.pipelines import write_result
Path("resume").mkdir(exist_ok=True)
count = Path("resume/count.txt")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
if count.read_text() == "1": os.kill(os.getpid(), 9)
"""
    path = _project(tmp_path, _yaml("- notebook: task"))
    _notebook(tmp_path / "notebooks" / "jobs", "task", "size = 64", counting, 'write_result({"n": count.read_text()})')
    pipeline = load_pipeline(path)
    assert [run_pipeline(pipeline, tmp_path / "out")[0].state for _ in range(2)] == ["failed", "done"]
    result = tmp_path / "out" / "jobs" / pipeline.jobs[0].id / "result.json"
    assert json.loads(result.read_text())["n"] == "2"


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    path = _project(tmp_path, _yaml("- notebook: task"))
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another run is writing there"):
        run_pipeline(load_pipeline(path), tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    path = _project(tmp_path, _yaml("- notebook: task"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        run_pipeline(load_pipeline(path), tmp_path / "file" / "out")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_its_jobs(tmp_path, how):
    path = _project(tmp_path, _yaml("- {notebook: task, parameters: {how: slowly}}"))
    out = tmp_path / "out"
    code = "import sys; from workbench.cli import main; main(sys.argv[1:])"
    runner = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(path), "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("jobs/*/half.txt")):
        assert time.monotonic() < deadline, "the job did not start"
        time.sleep(0.1)
    os.kill(runner.pid, how)
    _, errors = runner.communicate(timeout=30)
    assert runner.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(out))]:
        assert time.monotonic() < deadline, "a job outlived its runner"
        time.sleep(0.1)
    assert not list(out.glob("jobs/*/result.json"))


def test_by_hand_a_notebook_writes_no_result(tmp_path, monkeypatch, capsys):
    from workbench.pipelines import progress, write_result

    monkeypatch.chdir(tmp_path)
    write_result({"value": 1})
    progress(1, 2)
    assert not list(tmp_path.iterdir())
    assert "Not run by a pipeline" in capsys.readouterr().out


class _Page(HTMLParser):
    """Every reference to something outside the file, and every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "poster", "data") and value:
                if tag == "img":
                    self.pictures.append(value)
                if not value.startswith(("data:", "#")):
                    self.outside.append(value)
        assert tag not in ("script", "iframe", "object", "embed")

    def handle_data(self, data: str) -> None:
        self.text += data


def _restoration(folder: Path, job: str, noise: float, extra: dict) -> None:
    """A done job of two photos and two methods."""
    folder.mkdir(parents=True)
    records = []
    for photo, (one, two) in {"cat": (20.0, 30.0), "<b>dog</b>": (21.0, 28.0)}.items():
        for method, value in (("pinv", one), ("deqir", two)):
            files = {kind: f"{len(records)}-{kind}.png" for kind in ("original", "degraded", "image")}
            for name in files.values():
                save_image(torch.rand(1, 3, 8, 8), folder / name)
            scores = {"psnr": value, "ssim": value / 100, "lpips": None, "lpips_reason": "unavailable: place X in Y"}
            scores["effnet"] = 2 - value / 100
            cost = {"evaluations": 5, "seconds": 0.25, "message": "", "solver_settings": {"steps": 5}}
            names = {"photo": photo, "solver": method, "operator": "sr:4", "noise": noise, "size": [8, 8], "seed": 0}
            records.append({**files, **scores, **cost, **names, "prior": "p", "environment": {"torch": "2"}, **extra})
    (folder / "result.json").write_text(json.dumps({"job": job, "records": records}))


@pytest.fixture
def reported(tmp_path) -> tuple[Path, Path]:
    """A pipeline of two jobs, one done and one failed, and its report."""
    path = _project(tmp_path, _yaml("- {notebook: task, grid: {noise: [0.1, 0.2]}}\nnote: Mind the <scale>."))
    pipeline, out = load_pipeline(path), tmp_path / "out"
    done, failed = pipeline.jobs
    _restoration(out / "jobs" / done.id, done.id, 0.1, {})
    outcomes = [Outcome(done.id, done.label, "done", 3.0), Outcome(failed.id, failed.label, "failed", 1.0, "It broke")]
    return write_report(pipeline, outcomes, out), out


def test_the_report_needs_nothing_but_itself(reported):
    html = reported[0].read_text(encoding="utf-8")
    page = _Page()
    page.feed(html)
    assert page.outside == []
    assert "url(" not in html
    assert "@import" not in html
    # two photos, each original, degraded and two methods
    assert len(page.pictures) == 8
    with Image.open(io.BytesIO(base64.b64decode(page.pictures[0].partition(",")[2]))) as picture:
        assert picture.size == (8, 8)


def test_the_report_says_what_was_measured_and_what_is_missing(reported):
    page = _Page()
    page.feed(reported[0].read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert "Mind the <scale>." in text
    assert "<b>dog</b>" in text  # names are text, never markup
    assert "20.50" in text  # the mean of pinv
    assert "29.00" in text  # the mean of deqir
    assert "1.795" in text  # the mean effnet of pinv
    assert "not LPIPS; smaller is better; only for comparisons within this report" in text
    assert text.count("place X in Y") == 1
    assert "1 of 2 jobs did not finish" in text
    assert "It broke" in text


def test_the_tables_beside_the_report_hold_every_figure(reported):
    rows = json.loads((reported[1] / "table.json").read_text())
    assert [(r["photo"], r["solver"], r["psnr"]) for r in rows] == [
        *[("cat", "pinv", 20.0), ("cat", "deqir", 30.0)],
        *[("<b>dog</b>", "pinv", 21.0), ("<b>dog</b>", "deqir", 28.0)],
    ]
    with (reported[1] / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["psnr"]) for line in lines] == [20, 30, 21, 28]
    assert lines[0]["lpips"] == ""
    assert [float(line["effnet"]) for line in lines] == [1.8, 1.7, 1.79, 1.72]
    assert lines[0]["size"] == "8x8"


def test_a_mean_over_photos_without_a_score_is_no_number(tmp_path):
    path = _project(tmp_path, _yaml("- notebook: task"))
    pipeline = load_pipeline(path)
    job = pipeline.jobs[0]
    _restoration(tmp_path / "out" / "jobs" / job.id, job.id, 0.1, {"psnr": None, "psnr_reason": "infinite"})
    html = write_report(pipeline, [Outcome(job.id, job.label, "done", 1.0)], tmp_path / "out").read_text()
    assert "None" not in html
    assert "nan" not in re.sub('base64,[^"]*', "", html).lower()


def test_the_smallest_perceptual_distance_is_bold(reported):
    html = reported[0].read_text(encoding="utf-8")
    assert '<td class="n best">1.710</td>' in html  # deqir's mean
    assert '<td class="n">1.795</td>' in html
    assert '<span class="best">1.700*</span>' in html  # the cat by deqir


def test_results_of_before_a_score_existed_still_make_a_report(tmp_path):
    pipeline = load_pipeline(_project(tmp_path, _yaml("- notebook: task")))
    job = pipeline.jobs[0]
    folder = tmp_path / "out" / "jobs" / job.id
    _restoration(folder, job.id, 0.1, {})
    result = json.loads((folder / "result.json").read_text())
    for record in result["records"]:
        del record["effnet"]
    (folder / "result.json").write_text(json.dumps(result))
    write_report(pipeline, [Outcome(job.id, job.label, "done", 1.0)], tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["effnet"] for row in rows] == [None] * 4


def test_a_report_of_nothing_is_still_a_report(tmp_path):
    pipeline = load_pipeline(_project(tmp_path, _yaml("- notebook: task")))
    (tmp_path / "out").mkdir()
    job = pipeline.jobs[0]
    html = write_report(pipeline, [Outcome(job.id, job.label, "failed", 1.0, "died")], tmp_path / "out").read_text()
    assert "died" in html


def test_a_relative_folder_of_notebooks_works(tmp_path, monkeypatch):
    """Jobs run in folders of their own, so every path that they get must be absolute."""
    path = _project(tmp_path, _yaml("- notebook: task"))
    monkeypatch.chdir(tmp_path)
    (job,) = load_pipeline(path, "notebooks/jobs").jobs
    assert job.notebook.is_absolute()


ROOT = Path(__file__).parents[1]
QUICK = ("--solver", "diffpir", "--set", "steps=2")


@pytest.mark.parametrize("path", [p for p in ROOT.glob("pipelines/**/*.yaml") if p.name != "published.yaml"])
def test_every_pipeline_of_the_repository_is_valid(path):
    assert load_pipeline(path).jobs


def test_the_restore_notebook_makes_a_report(tmp_path, monkeypatch):
    """The whole way from YAML to report with the real notebook, a sample photo and one of the user's own."""
    text = """
- notebook: restore
  parameters:
    photos: ["cat:32", "mine/dog.png:32", "mine/dog.png:16"]
    methods: [pinv, diffpir]
    settings: {diffpir: {steps: 2}}
    prior: mine/prior.safetensors
  grid: {degradation: ["sr:4", "inpaint:0.8"]}
"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(_yaml(text))
    (tmp_path / "mine").mkdir()
    # A file of the user's own, which holds what the command line below takes by default.
    save_prior(load_prior("photo"), tmp_path / "mine" / "prior.safetensors")
    save_image(sample_photo("coffee", 40), tmp_path / "mine" / "dog.png")
    pipeline = load_pipeline("p.yaml", ROOT / "notebooks" / "jobs")
    outcomes = run_pipeline(pipeline, "out", workers=2)
    assert [o.state for o in outcomes] == ["done", "done"], table(outcomes)
    page = _Page()
    page.feed(write_report(pipeline, outcomes, "out").read_text(encoding="utf-8"))
    assert page.outside == []
    assert len(page.pictures) == 2 * 3 * 4
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert len(rows) == 2 * 3 * 2
    assert all(5 < row["psnr"] < 50 for row in rows)
    names = {(row["photo"], tuple(row["size"])) for row in rows}
    assert names == {("cat", (32, 32)), ("mine/dog.png", (32, 32)), ("mine/dog.png", (16, 16))}
    # The first photo of a batch has the streams of a photo alone: here the command line's figure for the same seed.
    import skimage

    from workbench.cli import main
    from workbench.images import SAMPLES

    cat = str(Path(skimage.__file__).parent / "data" / SAMPLES["cat"])

    with pytest.raises(SystemExit) as stop:
        main(["restore", cat, "--size", "32", "--noise", "0.01", "--out", "alone", *QUICK])
    assert stop.value.code == 0
    alone = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    (row,) = [
        r for r in rows if (r["photo"], r["size"], r["operator"], r["solver"]) == ("cat", [32, 32], "sr:4", "diffpir")
    ]
    assert row["psnr"] == pytest.approx(alone["psnr"], abs=1e-3)  # batch sizes round differently
