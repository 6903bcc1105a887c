"""Shared fixtures."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nbval.plugin import IPyNbCell

from tests.printed import Printed
from workbench.cli import main

_sanitize = IPyNbCell.sanitize
IPyNbCell.sanitize = lambda cell, text: Printed(_sanitize(cell, text))


def program(folder: str, name: str) -> ModuleType:
    """A script of the repository as a module: ``name`` of ``benchmarks`` or ``scripts``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / folder)
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference vectors and photos: $WORKBENCH_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("WORKBENCH_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is missing (set WORKBENCH_SHARED to its place)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests are many small problems, run side by side: one thread each is faster than sharing."""
    torch.set_num_threads(1)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Runs the command, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call
