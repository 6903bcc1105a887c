"""A job is run again: to the bit, within a tolerance or not, and what differs from the record."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.pipelines.small_project import project
from workbench.machine import processor
from workbench.pipelines.engine import run_pipeline
from workbench.pipelines.schema import load_pipeline
from workbench.pipelines.verify import judged

JOBS = """
- {notebook: task, name: base, grid: {noise: [0.25, 1]}}
- {notebook: task, parameters: {how: after, noise: 1.0e-5}, needs: [base]}
- {notebook: task, parameters: {how: with weights}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> list[Path]:
    """The folders of four jobs that are done; the third needs the first two."""
    folder = tmp_path_factory.mktemp("verified")
    outcomes = run_pipeline(load_pipeline(project(folder, JOBS)), folder / "out", workers=2)
    assert [each.state for each in outcomes] == ["done"] * 4
    return [folder / "out" / "jobs" / each.id for each in outcomes]


def test_a_result_carries_all_that_decides_it(ran):
    result = json.loads((ran[2] / "result.json").read_text())
    given = {"how": "after", "noise": 1e-5, "steps": None, "names": ["a"], "size": 64}
    assert {key: result["parameters"][key] for key in given} == given
    assert result["code"] == json.loads((ran[2] / "job.json").read_text())["code"]
    assert set(result["files"]) == {"task.ipynb"}
    assert result["priors"] == {str(ran[0]): {"sha256": "0"}}
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["versions"]["python"] == sys.version.split()[0]
    assert result["hardware"]["processor"] == processor() != ""


def test_a_job_that_needs_others_reproduces_to_the_bit(ran, run):
    before = {file: file.stat().st_mtime_ns for file in ran[2].parent.rglob("*")}
    code, said, errors = run("verify", ran[2].parents[1], ran[2].name)
    assert code == 0, errors
    assert said.startswith("reproduces to the bit: 2 figures")
    assert said.endswith("the same: code, files, priors, versions, hardware\n")
    assert {file: file.stat().st_mtime_ns for file in ran[2].parent.rglob("*")} == before


def test_results_that_were_moved_reproduce_as_before(ran, run, tmp_path):
    """What a job's result says of the files of those that it needs is where they were."""
    shutil.copytree(ran[2].parents[1], tmp_path / "moved")
    code, said, errors = run("verify", tmp_path / "moved", ran[2].name)
    assert code == 0, errors
    assert said.endswith("the same: code, files, priors, versions, hardware\n")


def test_weights_are_the_same_whatever_time_their_card_says(ran, run):
    code, said, errors = run("verify", ran[3])
    assert code == 0, errors
    assert said.startswith("reproduces to the bit: 2 figures; 1 files, none differ")
    whole = (ran[3] / "w.safetensors").read_bytes()
    (ran[3] / "w.safetensors").write_bytes(whole[:-1])
    code, said, _ = run("verify", ran[3])
    (ran[3] / "w.safetensors").write_bytes(whole)
    assert code == 1
    assert "w.safetensors differ" in said


def test_what_differs_is_named(ran, run):
    result = json.loads((ran[0] / "result.json").read_text())
    other = result | {"value": result["value"] * (1 + 1e-6), "code": "0" * 12, "finished": "2020-01-01T00:00:00+00:00"}
    other["versions"] = result["versions"] | {"numpy": "1.0"}
    other["hardware"] = result["hardware"] | {"processor": "Fast & Co"}
    del other["files"]
    (ran[0] / "result.json").write_text(json.dumps(other))
    code, said, _ = run("verify", ran[0] / "result.json")
    (ran[0] / "result.json").write_text(json.dumps(result))
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == (
        f"reproduces within 0.0001: value was {other['value']}, is {result['value']} "
        "(relative difference 1.0e-06, the largest of 2 figures)"
    )
    assert lines[1:] == [
        f"code: 000000000000, now {result['code']}",
        f"files: not recorded, now {{'task.ipynb': '{result['files']['task.ipynb'][:12]}'}}",
        f"versions.numpy: 1.0, now {result['versions']['numpy']}",
        f"hardware.processor: Fast & Co, now {processor()}",
        "the same: priors",
    ]


def test_a_picture_that_is_another_is_no_reproduction(ran, run):
    (ran[1] / "picture.png").write_bytes(b"painted by hand")
    code, said, _ = run("verify", ran[1])
    (ran[1] / "picture.png").unlink()
    assert code == 1
    start = "does not reproduce: files are others, though figures reproduce to the bit: 2 figures; 1 files, picture"
    assert said.startswith(start)


@pytest.mark.parametrize(
    ("new", "good", "said"),
    [
        ({}, True, ""),
        ({"rows": [{"psnr": 20.0, "seconds": 9}, 0]}, True, ""),
        ({"rows": [{"psnr": 20.001}, 0]}, True, "rows[0].psnr was 20.0, is 20.001 (relative difference 5.0e-05"),
        ({"rows": [{"psnr": 21.0}, 0]}, False, "rows[0].psnr was 20.0, is 21.0 (relative difference 4.8e-02"),
        ({"rows": [{"psnr": 20.0}, 1e-12]}, False, "rows[1] was 0, is 1e-12 (relative difference 1.0e+00"),
        ({"text": "b"}, False, "text was a, is b (relative difference inf"),
    ],
)
def test_figures_are_compared_relative_to_the_larger_one(new, good, said):
    old = {"rows": [{"psnr": 20.0}, 0], "text": "a", "seconds": 1}
    found, line = judged(old, old | {"seconds": math.pi} | new, 1e-3)
    assert found is good
    start = f"reproduces within 0.001: {said}" if said else "reproduces to the bit: 3 figures"
    assert line.startswith(start if good else f"does not reproduce within 0.001: {said}")


def test_what_cannot_be_verified_is_said_in_a_line(tmp_path, run):
    code, _, said = run("verify", tmp_path)
    assert code == 2
    assert said == f"workbench: {tmp_path}: expected the folder of a job that is done, with result.json and job.json\n"
    (tmp_path / "jobs").mkdir()
    assert run("verify", tmp_path)[2].endswith("; give the id of one of its jobs too\n")
    job = {"id": "task-1", "started_in": "/", "notebook": "/gone/task.ipynb", "needs": {}, "parameters": {}}
    (tmp_path / "task-1").mkdir()
    for name, content in (("job.json", job), ("result.json", {"job": "task-1"})):
        (tmp_path / "task-1" / name).write_text(json.dumps(content))
    code, _, said = run("verify", tmp_path / "task-1")
    assert (code, said.count("\n")) == (2, 1)
    assert said.endswith("cannot be run again, /gone/task.ipynb is gone\n")
    for damage in ('{"id": "task', "[]", "{}"):
        (tmp_path / "task-1" / "job.json").write_text(damage)
        assert run("verify", tmp_path / "task-1")[::2] == (
            2,
            f"workbench: {tmp_path / 'task-1'}: cannot be run again, job.json is damaged\n",
        )
