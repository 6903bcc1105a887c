"""Shared fixtures."""

import os
from pathlib import Path

import pytest
import torch
from nbval.plugin import IPyNbCell

from tests.printed import Printed

_sanitize = IPyNbCell.sanitize
IPyNbCell.sanitize = lambda cell, text: Printed(_sanitize(cell, text))


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
