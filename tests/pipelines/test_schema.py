"""Pipelines as files: what is refused before anything runs, grids, and the ids of jobs."""

from __future__ import annotations

import pytest

from tests.pipelines.small_project import LAST, PARAMETERS, ROOT, TASK, notebook, project
from workbench.pipelines import schema
from workbench.pipelines.schema import load_pipeline

REFUSED = {
    "- notebook: ../jobs/task": r"unknown notebook '../jobs/task', did you mean 'task'\?",
    "- {notebook: task, name: a, name: b}": "the key 'name' stands twice in the mapping of line 4",
    "- {notebook: task, timeout: .inf}": "timeout: Input should be a finite number",
    "- {notebook: task, timeout: 0}": "timeout: Input should be greater than 0",
    "- {notebook: task, parameters: {nois: 0.2}}": "'nois', did you mean 'noise'",
    "- {notebook: task, parameters: {how: 3}}": "'how' must be str, got 3",
    "- {notebook: task, parameters: {size: true}}": "'size' must be int, got True",
    "- {notebook: task, parameters: {names: [1]}}": r"'names' must be list\[str\], got \[1\]",
    "- {notebook: task, parameters: {noise: 1e-3}}": "YAML wants a dot in 1.0e-3",
    "- {notebook: task, parameters: {noise: .nan}}": "'noise' must be float, got nan",
    "- notebook: task\n- notebook: task": "job 2 .task.: the same notebook and parameters",
    "- {notebook: task, parameters: {noise: 0.1}, grid: {noise: [0.2]}}": "noise stands in both",
    "- {notebook: task, grid: {noise: []}}": "empty list",
    "- {notebook: task, needs: [train]}": "unknown earlier job 'train'",
    "- {notebook: task, paramters: {}}": "unknown key 'paramters', did you mean 'parameters'",
    "name: p\ntitle: x\njobs: []": "jobs: List should have at least 1 item",
    "name: a/b\ntitle: x\njobs: [{notebook: task}]": "name: String should match",
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
    for text in ("not json", "{}", "[]"):
        (jobs / "task.ipynb").write_text(text)
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
    assert [job.id for job in load_pipeline(path).jobs] == [job.id for job in jobs]

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


def test_the_code_version_changes_with_the_code(tmp_path, monkeypatch):
    path = project(tmp_path)
    before = load_pipeline(path).jobs[0].id
    monkeypatch.setattr(schema, "code_version", lambda: "other")
    assert load_pipeline(path).jobs[0].id != before


def test_a_relative_folder_of_notebooks_works(tmp_path, monkeypatch):
    """Jobs run in folders of their own, so every path that they get must be absolute."""
    path = project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (job,) = load_pipeline(path, "notebooks/jobs").jobs
    assert job.notebook.is_absolute()


def test_every_pipeline_of_the_repository_is_valid():
    for path in {*ROOT.glob("pipelines/**/*.yaml")} - {*ROOT.glob("pipelines/published.yaml")}:
        assert load_pipeline(path).jobs
