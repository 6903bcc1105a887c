"""What makes a job another one: what its files hold and what its code does, not when they were written."""

import json
import os
import time
from pathlib import Path

import nbformat
import pytest

from tests.pipelines.small_project import LAST, notebook, project, yaml_of
from workbench import own
from workbench.pipelines import identity, input_source
from workbench.pipelines.cells import input_operator
from workbench.pipelines.identity import Contents, code_of, code_version
from workbench.pipelines.schema import SHIPPED, load_pipeline

PARAMETERS = 'names: list[str] = ["a"]\nnoise: float = 1 / 255'

# How a parameter may name the file that the test changes.
NAMED = {
    "folder of photos": ("cats:128", "cats/deep/b.png"),
    "prior in a folder": ("diffusers:model", "model/unet/config.json"),
    "spandrel": ("spandrel:prior.safetensors", "prior.safetensors"),
    "mask": ("mask:m,1.png", "m,1.png"),
    "kernel in a file of several": ("blur:k.mat:first", "k.mat"),
    "shards": ("shards-{00..01}.tar", "shards-01.tar"),
    "shards in a folder with brackets": ("set [2]/a-{00..01}.tar", "set [2]/a-01.tar"),
    "own solver": ("own.py:Mine", "own.py"),
    "what an own solver imports": ("own.py:Mine", "helper.py"),
    "what it imports from a folder without __init__": ("sub/own.py:Mine", "sub/loose/part.py"),
    "weights that its code names": ("sub/own.py:Mine", "sub/mask.pt"),
    "weights in a folder that it names": ("sub/own.py:Mine", "sub/weights/net.pt"),
    "own package": ("mine_pkg.solvers:Mine", "mine_pkg/part.py"),
}


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A working directory with the files above; in Python files, a value and a comment."""
    for _, name in NAMED.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('"""Said."""\nvalue = 1  # so\n')
    (tmp_path / "own.py").write_text('"""Said."""\nimport json, torch\nfrom helper import value\nmine = 1\n')
    (tmp_path / "sub/own.py").write_text(
        "from loose.part import value\nHERE / 'mask.pt', HERE / 'weights' / 'net.pt'\n"
    )
    for name in ("mine_pkg/__init__.py", "cats/a.png"):
        (tmp_path / name).touch()
    (tmp_path / "shards-00.tar").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", NAMED)
def test_a_job_is_another_once_a_file_that_it_names_holds_something_else(files, case):
    said, name = NAMED[case]
    path = project(files, f"- {{notebook: task, parameters: {{names: ['{said}']}}}}")
    notebook(files / "notebooks" / "jobs", "task", PARAMETERS, LAST)
    ids = [load_pipeline(path).jobs[0].id]
    os.utime(files / name, (1, 1))
    ids.append(load_pipeline(path).jobs[0].id)
    (files / name).write_text((files / name).read_text().replace("1", "2"))
    ids.append(load_pipeline(path).jobs[0].id)
    assert ids[0] == ids[1] != ids[2]
    if name.endswith(".py"):  # a comment and a docstring more
        (files / name).write_text("# why\n" + (files / name).read_text().replace("Said", "Says"))
        assert load_pipeline(path).jobs[0].id == ids[2]


def test_a_new_photo_and_another_name_count_and_hidden_files_do_not(files):
    def found() -> dict[str, str]:
        return Contents(files).named({"cats": [1, None]})

    before = found()
    (files / "cats" / ".DS_Store").touch()
    assert found() == before
    (files / "cats" / "a.png").rename(files / "cats" / "c.png")
    renamed = found()
    (files / "cats" / "d.png").touch()
    assert len({str(each) for each in (before, renamed, found())}) == 3


def test_a_file_is_read_once_and_again_when_it_was_written(files, monkeypatch):
    kept, read = files / "out" / ".hashes.json", []
    monkeypatch.setattr(
        identity.hashlib,
        "file_digest",
        lambda file, kind, real=identity.hashlib.file_digest: read.append(1) or real(file, kind),
    )

    def found() -> dict[str, str]:
        contents = Contents(files, kept)
        for _ in range(2):
            result = contents.named(["cats:64", "prior.safetensors"])
        contents.save()
        return result

    first = found()
    assert (len(read), found(), len(read)) == (3, first, 3)
    times = (files / "prior.safetensors").stat()
    time.sleep(0.02)  # longer than a tick of the clock of files
    (files / "prior.safetensors").write_text('"""Said."""\nvalue = 2  # so\n')
    os.utime(files / "prior.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time
    assert found() != first


def test_the_defaults_of_a_notebook_name_files_too(files):
    path = project(files)
    notebook(files / "notebooks" / "jobs", "task", PARAMETERS.replace('"a"', '"cats:64"'), LAST)
    before = load_pipeline(path).jobs[0].id
    (files / "cats" / "a.png").write_text("2")
    assert load_pipeline(path).jobs[0].id != before


def test_comments_in_a_notebook_change_nothing_and_its_code_does(files):
    path, folder = project(files), files / "notebooks" / "jobs"
    notebook(folder, "task", PARAMETERS, "from helper import value", LAST)
    before = load_pipeline(path).jobs[0].id
    notebook(folder, "task", PARAMETERS, "# why\n\nfrom helper import value", "# nothing", LAST)
    read = nbformat.read(folder / "task.ipynb", as_version=4)
    read.cells.append(nbformat.v4.new_markdown_cell("words"))
    nbformat.write(read, folder / "task.ipynb")
    assert load_pipeline(path).jobs[0].id == before
    (files / "helper.py").write_text("value = 3")
    assert load_pipeline(path).jobs[0].id != before


def test_the_code_version_is_that_of_what_computes(tmp_path, monkeypatch):
    package = tmp_path / "workbench"
    for name in ("solvers/mine.py", "reports/page.py"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text('class A:\n    """Mine."""\n\n    def f(self):\n        return 1\n')
    monkeypatch.setattr(identity, "PACKAGE", package)

    def version(name: str, old: str, new: str) -> str:
        (package / name).write_text((package / name).read_text().replace(old, new))
        return code_version.__wrapped__()

    before = code_version.__wrapped__()
    assert code_of("%matplotlib inline") == "%matplotlib inline"  # what is no Python counts as it is written
    assert version("solvers/mine.py", "Mine", "Yours") == before
    assert version("solvers/mine.py", "return 1", "return (1)  # one") == before
    assert version("reports/page.py", "return 1", "return 2") == before
    assert version("solvers/mine.py", "return (1)", "return 2") != before


def test_files_of_a_run_are_found_from_the_jobs_folder(files, monkeypatch):
    (files / "job").mkdir()
    (files / "job" / "job.json").write_text(json.dumps({"started_in": str(files)}))
    monkeypatch.chdir(files / "job")
    assert input_operator("sr:4") == "sr:4"
    assert input_operator("mask:m,1.png") == f"mask:{files}/m,1.png"
    assert input_operator("blur:k.mat:first") == f"blur:{files}/k.mat:first"
    assert input_operator("own.py:Mine") == input_source("own.py:Mine") == "own.py:Mine"  # also in records
    assert own.place_of(Path("own.py")) == files / "own.py"
    (files / "deepinv").mkdir()
    assert input_source("deepinv:drunet") == "deepinv:drunet"


def test_the_shipped_notebooks_are_found_from_anywhere(tmp_path):
    (tmp_path / "p.yaml").write_text(yaml_of("- notebook: restore"))
    assert load_pipeline(tmp_path / "p.yaml").jobs[0].notebook == SHIPPED / "restore.ipynb"
