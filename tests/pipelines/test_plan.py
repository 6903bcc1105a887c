"""What a dry run says, and that it leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipelines.small_project import project
from workbench.cli import main
from workbench.pipelines.plan import Cost, estimate, what_would_run
from workbench.pipelines.schema import load_pipeline

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


def test_estimates_are_of_the_jobs_most_alike(tmp_path):
    (job,) = load_pipeline(project(tmp_path, "- {notebook: task, parameters: {how: a, size: 8}}")).jobs
    known = [
        ("task", {"how": "a", "size": 8}, Cost(10, None)),
        ("task", {"how": "a", "size": 8}, Cost(30, None)),
        ("task", {"how": "b", "size": 8}, Cost(500, 7)),
        ("other", {"how": "a", "size": 8}, Cost(1000, 9)),
    ]
    assert estimate(job, known) == Cost(20, None)
    assert estimate(job, known[2:]) == Cost(500, 7)
    assert estimate(job, known[3:]) == Cost(None, None)


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    path = project(tmp_path, JOBS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for options in ([], ["--out", "out"]):
        with pytest.raises(SystemExit) as end:
            main(["run", str(path), "--dry-run", *options])
        assert end.value.code == 0
        assert capsys.readouterr().out.splitlines()[-1] == "3 jobs: 0 kept, 3 to do"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_options_of_another_engine_are_refused(tmp_path, capsys):
    path = str(project(tmp_path, JOBS))
    for options in (["--engine", "slurm", "--address", "tcp://a:1"], ["--slurm", "partition=gpu"]):
        with pytest.raises(SystemExit) as end:
            main(["run", path, *options])
        assert end.value.code == 2
        assert "--address goes with --engine dask, --slurm with --engine slurm" in capsys.readouterr().err
