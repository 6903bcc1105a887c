"""Small pipelines and their reports: a project of one toy notebook, done jobs written by hand, pages read back.

Jobs of the repository's notebooks run as scripts in this process unless a test is about processes and kernels: each of
those costs ten seconds.
"""

import json
from contextlib import chdir
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
import torch

from workbench.images import save_image
from workbench.pipelines import attempt
from workbench.pipelines.engine import Outcome, run_pipeline, table
from workbench.pipelines.schema import Pipeline, load_pipeline
from workbench.pipelines.script import run_script
from workbench.reports.report import write_report

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks" / "jobs"

PARAMETERS = """
how: str = "well"
noise: float = 0.1
steps: int | None = None
names: list[str] = ["a"]
size = 64
start = "<HERE>"  # no path: the job does not read what is in there
"""

TASK = """
import json, time
from pathlib import Path
from workbench.pipelines import input_path, input_source, needed, progress, write_result
Path("half.txt").write_text("half a result")
assert input_path("a/b") == Path(start[1:-1]) / "a/b"
assert input_source("photo") == "photo"
assert input_source("diffusers:tests") == f"diffusers:{Path(start[1:-1]) / 'tests'}"
progress(1, 2)
if how == "after": assert [json.loads((f / "result.json").read_text())["value"] for f in needed("base")] == [0.5, 2]
if how == "after":
    from workbench.models import load
    load.LOADED[str(needed("base")[0])] = {"sha256": "0"}
if how == "with weights":
    import numpy, safetensors.numpy
    safetensors.numpy.save_file({"w": numpy.ones(3)}, "w.safetensors", {"seconds": str(time.time())})
if how == "badly": raise RuntimeError("the network diverged\\nand more")
if how == "slowly": time.sleep(600)
"""

LAST = 'write_result({"value": 2 * noise, "how": how})'


def notebook(folder: Path, name: str, *sources: str, tag: str = "parameters") -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = [tag]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


def project(folder: Path, text: str = "- notebook: task") -> Path:
    """A folder like the repository's, notebooks/jobs/task.ipynb and pipelines/p.yaml; ``text`` is jobs or all of it."""
    notebook(folder / "notebooks" / "jobs", "task", PARAMETERS.replace("HERE", str(Path.cwd())), TASK, LAST)
    (folder / "pipelines").mkdir(exist_ok=True)
    path = folder / "pipelines" / "p.yaml"
    path.write_text(yaml_of(text) if text.lstrip().startswith("-") and "notebook" in text else text)
    return path


def yaml_of(jobs: str, **extra: str) -> str:
    head = {"name": "p", "title": "A pipeline", **extra}
    return "".join(f"{key}: {value}\n" for key, value in head.items()) + f"jobs:\n{jobs}"


def pipeline_of(folder: Path, jobs: str, **extra: str) -> Pipeline:
    """A pipeline of the repository's notebooks, written to ``folder``."""
    (folder / "p.yaml").write_text(yaml_of(jobs, **extra))
    return load_pipeline(folder / "p.yaml", NOTEBOOKS)


class Page(HTMLParser):
    """A report: every reference to something outside the file, every picture, the text in one line."""

    def __init__(self, html: Path) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.pictures: list[str] = []
        self.html = html.read_text(encoding="utf-8")
        self._said = ""
        self.feed(self.html)
        self.text = " ".join(self._said.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "poster", "data") and value:
                if tag == "img":
                    self.pictures.append(value)
                if not value.startswith(("data:", "#")):
                    self.outside.append(value)
        assert tag not in ("script", "iframe", "object", "embed")

    def handle_data(self, data: str) -> None:
        self._said += data


@dataclass
class Ran:
    """A pipeline that ran to its end: its folder, the jobs' folders and results, its report."""

    out: Path
    folders: list[Path]
    results: list[dict[str, Any]]
    page: Page


def execute_here(folder: Path, *_: object) -> str:
    """What the engine's function of that purpose does, in this process: what went wrong, or an empty string."""
    job = json.loads((folder / "job.json").read_text())
    matplotlib.use("Agg")
    try:
        with chdir(folder):
            run_script(
                Path(job["notebook"]).with_suffix(".py"), [f"{k}={value!r}" for k, value in job["parameters"].items()]
            )
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        matplotlib.pyplot.close("all")
    return ""


def run_here(pipeline: Pipeline, out: Path) -> list[Outcome]:
    """Run the pipeline, its jobs one after the other in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "_execute", execute_here)
        return run_pipeline(pipeline, out)


def run_to_report(pipeline: Pipeline, out: Path) -> Ran:
    outcomes = run_here(pipeline, out)
    assert {outcome.state for outcome in outcomes} == {"done"}, table(outcomes)
    folders = [out / "jobs" / outcome.id for outcome in outcomes]
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    return Ran(out, folders, results, Page(write_report(pipeline, outcomes, out)))


def report_of(pipeline: Pipeline, out: Path, *states: Outcome) -> Page:
    """The report of jobs that are done, unless ``states`` has other outcomes for the last ones."""
    known = pipeline.jobs[: len(pipeline.jobs) - len(states)]
    outcomes = [Outcome(job.id, job.label, "done", 1.0) for job in known]
    return Page(write_report(pipeline, [*outcomes, *states], out))


def restoration(folder: Path, noise: float = 0.1, **extra: Any) -> None:
    """The result of a done job in its folder: two photos and two methods."""
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
    (folder / "result.json").write_text(json.dumps({"job": folder.name, "records": records}))
