"""The pipeline of the exam: valid to the last name, and its notebook and report with hardly any steps."""

from __future__ import annotations

import pytest

from tests.pipelines.small_project import ROOT, Ran, pipeline_of, run_to_report
from workbench.exam import make_candidate, make_task
from workbench.pipelines.schema import load_pipeline

JOBS = """
- notebook: exam
  parameters: {tasks: [mixture-average, gaussian-blur], repetitions: 20, settings: {steps: 2}, sampler: ddrm}
"""


def test_samplers_settings_and_tasks_exist():
    jobs = load_pipeline(ROOT / "pipelines" / "exam.yaml").jobs
    for job in jobs:
        make_candidate(job.parameters["sampler"], **job.parameters.get("settings", {}))
        for name in job.parameters["tasks"]:
            make_task(name)
    assert {"exact", "point"} <= {job.parameters["sampler"] for job in jobs}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("exam")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_to_report(pipeline_of(folder, JOBS), folder / "out")


def test_the_report_has_a_row_for_every_sampler_and_task(ran):
    rows = [row for result in ran.results for row in result["exam"]["rows"]]
    assert [row["task"] for row in rows] == ["mixture-average", "gaussian-blur"]
    assert len(ran.page.pictures) == 1
    for part in ("The exam", "mixture-averageddrm steps=2", "gaussian-blurddrm steps=2"):
        assert part in ran.page.text
