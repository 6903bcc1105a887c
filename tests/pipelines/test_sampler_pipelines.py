"""The pipelines of the DeqIR paper and of the exam: valid to the last name, and run with hardly any steps."""

import pytest

from tests.pipelines.small_project import ROOT, Ran, pipeline_of, run_to_report
from workbench.evaluation.fid import fid_unavailable
from workbench.exam import make_candidate, make_task
from workbench.images import sample_photo, save_image
from workbench.operators.parse import parse_operator
from workbench.pipelines.schema import Job, load_pipeline
from workbench.random import generator
from workbench.reports.report import beside_paper
from workbench.restore import solver_of

FILES = sorted(ROOT.glob("pipelines/**/deqir_*.yaml"))
MASKS = ("text", "stripes")


def _methods(job: Job) -> dict[str, object]:
    """Label -> solver, as the notebook makes them."""
    given = job.parameters
    kinds = {label: given.get("solvers", {}).get(label, label) for label in given["methods"]}
    return {label: solver_of(kind, given["settings"].get(label, {})) for label, kind in kinds.items()}


def test_solvers_operators_and_published_tasks_exist():
    jobs = [(pipeline.published, job) for pipeline in map(load_pipeline, FILES) for job in pipeline.jobs]
    for published, job in jobs:
        given = job.parameters
        spec = given["degradation"]
        if job.notebook.stem == "sweep_solver":
            for name, values in given["values"].items():
                for value in values:
                    assert solver_of("deqir", {**given["settings"], name: value})
            size = given["size"]
        else:
            solvers = _methods(job)
            size = int(given["photos"][0].rpartition(":")[2])
            # Those that are for one kind of degradation are asked for no other.
            assert "ilvr" not in solvers or spec.startswith("sr:")
            assert "repaint" not in solvers or spec in MASKS
            # The chain beside DeqIR is the one it solves.
            for label, solver in solvers.items():
                if label.startswith("chain"):
                    own = "deqir" if label in ("chain of deqir", "chain 0.15") else label.replace("chain", "deqir")
                    same = ("steps", "eta", "schedule")
                    assert [getattr(solver, key) for key in same] == [getattr(solvers[own], key) for key in same]
            task = given.get("published_task", "")
            if task:
                assert beside_paper([], task, published), task
        assert parse_operator(spec, (3, size, size), generator(0))


JOBS = """
- notebook: restore
  parameters:
    photos: ["mine:16"]
    degradation: gray
    noise: 0.0
    methods: [pinv, chain, deqir/3]
    solvers: {chain: ddnm, deqir/3: deqir}
    settings: {chain: {steps: 3}, deqir/3: {steps: 3, iterations: 3, tolerance: 0.0}}
    published_task: deqir-3
    with_fid: true
    pictures: 2
    batch: 2
- notebook: exam
  parameters: {tasks: [mixture-average, gaussian-blur], repetitions: 20, settings: {steps: 2}, sampler: ddrm}
- notebook: sweep_solver
  parameters:
    photos: [cat, mine/b.png]
    size: 16
    degradation: "blur:2"
    settings: {steps: 3, iterations: 3, eta: 0.15}
    values: {steps: [1, 3], eta: [0.15, 0.5]}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("samplers")
    (folder / "mine").mkdir()
    for name, photo in (("a", "cat"), ("b", "coffee"), ("c", "astronaut")):
        save_image(sample_photo(photo, 20), folder / "mine" / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_to_report(pipeline_of(folder, JOBS, published="[deqir-3]"), folder / "out")


def test_a_folder_is_restored_in_batches_with_pictures_of_the_first(ran):
    records = ran.results[0]["records"]
    assert [record["photo"] for record in records] == [f"mine/{name}.png" for name in "abababccc"]
    assert ["image" in record for record in records] == [True] * 6 + [False] * 3
    # Original, degraded and three methods of two photos; the plots of sweep and exam.
    assert len(ran.page.pictures) == 2 * 5 + 2


def test_deqir_run_to_its_end_is_its_chain_and_consistency_and_fid_are_recorded(ran):
    records = ran.results[0]["records"]
    figures = {(r["photo"], r["solver"]): r["psnr"] for r in records}
    for name in "abc":
        photo = f"mine/{name}.png"
        assert figures[photo, "deqir/3"] == pytest.approx(figures[photo, "chain"], abs=1e-3)  # float32
        assert figures[photo, "pinv"] != figures[photo, "chain"]
    for record in records:
        # Grey values of the data are met but for clipping; the pseudo-inverse is grey itself.
        assert 0 <= record["consistency"] < (1e-3 if record["solver"] == "pinv" else 25.6)
        assert (record["fid"] is None) == (fid_unavailable() is not None)
        assert record.get("fid_reason") == fid_unavailable()
        assert fid_unavailable() is None or record["frechet_effnet"] > 0


def test_the_sweep_changes_one_setting_at_a_time(ran):
    rows = ran.results[2]["sweep"]["rows"]
    assert [(row["setting"], row["value"]) for row in rows] == [("steps", 1), ("steps", 3), ("eta", 0.15), ("eta", 0.5)]
    base = [row for row in rows if (row["setting"], row["value"]) in (("steps", 3), ("eta", 0.15))]
    assert base[0]["psnr"] == base[1]["psnr"]  # the same restoration, made once
    assert rows[0]["psnr"] != rows[1]["psnr"]
    assert rows[0]["evaluations"] < rows[1]["evaluations"]


def test_the_report_shows_methods_beside_the_paper_and_the_exam(ran):
    for said in ("DGP (published only)", "265.08", "not comparable", "deqir, steps = 3", "Consistency"):
        assert said in ran.page.text, said
    for job in load_pipeline(ROOT / "pipelines" / "exam.yaml").jobs:
        make_candidate(job.parameters["sampler"], **job.parameters.get("settings", {}))
        for name in job.parameters["tasks"]:
            make_task(name)
    assert [row["task"] for row in ran.results[1]["exam"]["rows"]] == ["mixture-average", "gaussian-blur"]
    for part in ("The exam", "mixture-averageddrm steps=2", "gaussian-blurddrm steps=2"):
        assert part in ran.page.text
