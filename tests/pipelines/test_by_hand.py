"""Job notebooks opened by hand, in whatever folder: each keeps its files to a folder of its own."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import matplotlib
import pytest
import torch

from tests.pipelines.small_project import NOTEBOOKS
from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior
from workbench.pipelines.script import run_script

SMALL = ["size=16", "batch_size=2", "steps=2", "workers=0"]


def by_hand(folder: Path, name: str, *parameters: str) -> None:
    matplotlib.use("Agg")
    with chdir(folder):
        run_script(NOTEBOOKS / f"{name}.py", parameters)
    matplotlib.pyplot.close("all")


def test_two_training_notebooks_run_one_after_the_other_in_one_folder(tmp_path: Path) -> None:
    by_hand(tmp_path, "train_prior", *SMALL, "widths=[8, 8]", "blocks=[1, 1]")
    made = "runs/train_prior/prior.safetensors"
    by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0")
    by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0")  # goes on: nothing is left to do
    assert [file.name for file in tmp_path.iterdir()] == ["runs"]
    assert load_prior(tmp_path / "runs" / "train_mupet" / "prior.safetensors").card["from"] == made
    with pytest.raises(ValueError, match=r"runs/train_mupet holds a run with other settings.*Give another folder"):
        by_hand(tmp_path, "train_mupet", *SMALL, f"prior={made!r}", "alpha=0.0", "learning_rate=0.1")


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "restore": ["photos=['cat:16']", "methods=['pinv']"],
        "compare_priors": ["count=1", "size=16", "solver=pinv", "samples=2"],
        "sweep_solver": ["photos=['cat']", "size=16", "solver=ddnm", "values={'steps': [2, 3]}"],
    }.items(),
)
def test_pictures_go_into_a_folder_that_git_ignores(tmp_path: Path, name: str, parameters: list[str]) -> None:
    torch.manual_seed(0)
    save_prior(small_prior(), tmp_path / "mine.safetensors")
    source = repr(str(tmp_path / "mine.safetensors"))
    given = f"priors={{'mine': {source}}}" if name == "compare_priors" else f"prior={source}"
    (tmp_path / "here").mkdir()
    by_hand(tmp_path / "here", name, *parameters, given)
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["runs"]
    assert list((tmp_path / "here" / "runs" / name).glob("*.png"))
