"""The command line run in an empty folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from workbench.images import load_image, sample_photo, save_image
from workbench.models import DRUNet, DRUNetConfig

QUICK = ("--solver", "diffpir", "--set", "steps=2")


@pytest.fixture
def restored(run, tmp_path) -> Callable[..., SimpleNamespace]:
    """Runs ``workbench restore``, quickly unless told how, which must succeed: what it said, wrote and recorded."""

    def call(photo: object, *options: object, out: str = "out") -> SimpleNamespace:
        quick = () if "--solver" in options else QUICK
        code, said, errors = run("restore", photo, "--out", out, *options, *quick)
        assert code == 0, errors
        folder = tmp_path / out
        return SimpleNamespace(
            said=said,
            errors=errors,
            files={file.name: file.read_bytes() for file in folder.iterdir() if file.name != "metrics.json"},
            images={file.stem: load_image(file) for file in folder.glob("*.png")},
            metrics=json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail),
        )

    return call


@pytest.fixture
def refused(run) -> Callable[..., str]:
    """Runs the command, which must fail with one line on standard error and code 2: that line."""

    def call(*arguments: object) -> str:
        code, said, errors = run(*arguments)
        assert (code, said) == (2, "")
        assert errors.startswith("workbench: ")
        assert errors.count("\n") == 1
        assert errors.endswith("\n")
        return errors

    return call


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "cat.png"
    save_image(sample_photo("cat", 32), path)
    return path


@pytest.fixture
def grey_prior(tmp_path) -> Path:
    """A checkpoint of a network for grey images."""
    torch.save(DRUNet(DRUNetConfig(channels=1, widths=(8, 8, 8, 8), blocks=1)).state_dict(), tmp_path / "grey.pth")
    return tmp_path / "grey.pth"
