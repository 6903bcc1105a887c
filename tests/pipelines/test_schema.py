"""Pipelines as files: what is refused before anything runs, grids, the ids of jobs, and what a dry run says."""

import json
from pathlib import Path

import pytest

from tests.pipelines.small_project import LAST, PARAMETERS, ROOT, TASK, notebook, project
from workbench.pipelines.plan import what_would_run
from workbench.pipelines.schema import load_pipeline

REFUSED = {
    "- notebook: ../jobs/task": r"unknown notebook '../jobs/task', did you mean 'task'\?",
    "- {notebook: task, name: a, name: b}": "the key 'name' stands twice in the mapping of line 4",
    "- {notebook: task, timeout: 0}": "job 1: timeout: input should be greater than 0, got 0",
    "- {notebook: task, grid: {noise: 0.1}}": "job 1: grid.noise: input should be a valid list, got 0.1",
    "name: My Pipeline\ntitle: x\njobs: [{notebook: task}]": "name: .* _ and -, the first no sign, got 'My Pipeline'",
    "name: p\ntitle: x\njobs: [task]": "job 1: input should be .*, got 'task'",
    "name: p\njobs: [{notebook: task}]": "title: field required$",
    "- {notebook: task, parameters: {nois: 0.2}}": "'nois', did you mean 'noise'",
    "- {notebook: task, parameters: {noise: 1e-3}}": "YAML wants a dot in 1.0e-3",
    "- notebook: task\n- notebook: task": "job 2 .task.: the same notebook and parameters",
    "- {notebook: task, parameters: {noise: 0.1}, grid: {noise: [0.2]}}": "noise stands in both",
    "- {notebook: task, grid: {noise: []}}": "empty list",
    "- {notebook: task, needs: [train]}": "unknown earlier job 'train'",
    "name: p\ntitle: x\njobs: [{notebok: task}]": "unknown key 'notebok', did you mean 'notebook'",
    "jobs: [": "not valid YAML",
    "- a": "expected a mapping",
}


def test_bad_pipelines_are_refused_in_one_line(tmp_path):
    for text, message in REFUSED.items():
        path = project(tmp_path, text)
        with pytest.raises(ValueError, match=message) as caught:
            load_pipeline(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_missing_files_and_notebooks_that_are_none(tmp_path):
    path = project(tmp_path)
    with pytest.raises(ValueError, match=r"none\.yaml: no such file"):
        load_pipeline(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="no such folder of job notebooks"):
        load_pipeline(path, tmp_path / "elsewhere")
    jobs = tmp_path / "notebooks" / "jobs"
    (jobs / "task.ipynb").write_text("not json")
    with pytest.raises(ValueError, match="not a job notebook"):
        load_pipeline(path)
    notebook(jobs, "task", "a = 1", tag="parameter")
    with pytest.raises(ValueError, match="one cell tagged 'parameters', found 0"):
        load_pipeline(path)


def test_a_grid_is_every_combination_and_ids_follow_what_matters(tmp_path):
    path = project(tmp_path, "- {notebook: task, parameters: {size: 8}, grid: {noise: [0, 0.5], how: [x, y]}}")
    jobs = load_pipeline(path).jobs
    assert [(j.parameters["noise"], j.parameters["how"]) for j in jobs] == [(0, "x"), (0, "y"), (0.5, "x"), (0.5, "y")]
    assert jobs[3].label == "task noise=0.5 y"
    assert len({job.id for job in jobs}) == 4

    # Another notebook source or other code is another job; a new comment in the YAML is not.
    path.write_text(path.read_text() + "# comment\n")
    assert [job.id for job in load_pipeline(path).jobs] == [job.id for job in jobs]
    notebook(tmp_path / "notebooks" / "jobs", "task", PARAMETERS, TASK + "\npass", LAST)
    assert not {job.id for job in load_pipeline(path).jobs} & {job.id for job in jobs}


def test_parameters_are_set_in_every_job_that_has_them(tmp_path):
    path = project(tmp_path, "- {notebook: task, parameters: {noise: 0.1}}\n- {notebook: task, parameters: {size: 5}}")
    before, after = load_pipeline(path), load_pipeline(path, changes={"noise": 0.3})
    assert [job.parameters for job in after.jobs] == [{"noise": 0.3}, {"size": 5, "noise": 0.3}]
    assert {job.id for job in before.jobs}.isdisjoint(job.id for job in after.jobs)
    with pytest.raises(ValueError, match="unknown parameter 'nois', did you mean 'noise'"):
        load_pipeline(path, changes={"nois": 0.3})
    with pytest.raises(ValueError, match="'noise' must be float, got 'much'"):
        load_pipeline(path, changes={"noise": "much"})


def test_every_pipeline_of_the_repository_is_valid():
    for path in {*ROOT.glob("pipelines/**/*.yaml")} - {*ROOT.glob("pipelines/published.yaml")}:
        assert load_pipeline(path).jobs


# A dry run.

JOBS = "- {notebook: task, parameters: {how: well, size: 8}, grid: {noise: [0.25, 0.5, 1]}}"


def done(out: Path, job, seconds: int, evaluations: int) -> None:
    folder = out / "jobs" / job.id
    folder.mkdir(parents=True)
    said = {"notebook": str(job.notebook), "parameters": job.parameters, "started": "2026-05-03T10:00:00+00:00"}
    (folder / "job.json").write_text(json.dumps(said))
    result = {"job": job.id, "finished": f"2026-05-03T10:00:{seconds}+00:00"}
    records = [{"evaluations": evaluations // 2}] * 2
    (folder / "result.json").write_text(json.dumps(result | {"records": records}))


def test_the_plan_says_what_is_done_and_what_the_rest_may_cost(tmp_path):
    pipeline, out = load_pipeline(project(tmp_path, JOBS)), tmp_path / "out"
    for job, seconds, evaluations in zip(pipeline.jobs[:2], (20, 40), (600, 1000), strict=True):
        done(out, job, seconds, evaluations)
    head, shared, one, _, two, _, three, own, total = what_would_run(pipeline, out).splitlines()
    assert head.split() == ["job", "state", "evaluations", "time"]
    assert shared == '    all: how="well", size=8'
    assert one.startswith("task noise=0.25  kept from 3 May 2026")
    assert "kept" in two
    assert three.split() == ["task", "noise=1", "to", "do", "800", "30", "s"]
    assert own == "    noise=1"
    assert total == "3 jobs: 2 kept, 1 to do; by earlier results about 30 s, one after the other"


def test_a_dry_run_writes_nothing(tmp_path, run):
    path = project(tmp_path / "project", JOBS)
    code, said, _ = run("run", path, "--dry-run", "--out", "out")
    assert (code, said.splitlines()[-1]) == (0, "3 jobs: 0 kept, 3 to do")
    assert list(tmp_path.iterdir()) == [tmp_path / "project"]
    path.write_text(path.read_text().partition("jobs:")[0] + "jobs: [{notebook: task}]")
    assert run("run", path, "--dry-run", "--out", "out")[1].splitlines()[-1] == "1 job: 0 kept, 1 to do"


def test_options_of_another_engine_are_refused(tmp_path, run):
    errors = run("run", project(tmp_path, JOBS), "--engine", "slurm", "--address", "tcp://a:1")[2]
    assert "--address goes with --engine dask, --slurm with --engine slurm" in errors
