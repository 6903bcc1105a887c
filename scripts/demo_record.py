"""Computes the comparisons that the demo ships: the one it opens with, and those one can vote on.

    python scripts/demo_record.py        # writes workbench/demo/record, a minute on two cores

Run it again when the first preset, a prior that it names, or a solver changed: `tests/demo/test_record.py` says so.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import skimage
import torch
from PIL import Image

from workbench.demo.files import Visits
from workbench.demo.presets import PRESETS
from workbench.demo.problem import NO_METHOD, Limits, Problem, Row
from workbench.demo.record import RECORD
from workbench.demo.session import Sessions
from workbench.images import SAMPLES
from workbench.models import available_priors

THREADS = 2
VOTE = (Row("ddnm", "photo", "steps=20 eta=0.85"), Row("admm", "photo", "sigma_end=0.01"))  # a sample, and a mean
VOTE_SIDE = 160
VOTE_PHOTOS = ("astronaut", "cat", "coffee", "motorcycle", "retina", "rocket")


def write(sessions: Sessions, name: str, problem: Problem, rows: list[Row], original: bool) -> None:
    """Run a comparison into the folder ``name`` of the record."""
    *_, (_, files) = sessions.restore(problem, rows, 1, "record")
    assert files is not None
    folder = RECORD / name
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {key.partition(".")[0]: path for key, path in files.pictures.items() if key[0].isdigit()}
    if original:
        pictures["original"] = files.pictures["Original"]
    for stem, path in pictures.items():
        Image.open(path).save(folder / f"{stem}.webp", lossless=True, quality=100, method=6)
    (folder / "run.json").write_text(files.recipe.replace("original.png", "original.webp"))


def main() -> None:
    torch.set_num_threads(THREADS)
    photos = {name: str(Path(skimage.__file__).parent / "data" / file) for name, file in SAMPLES.items()}
    with tempfile.TemporaryDirectory() as folder:
        sessions = Sessions(Limits(), {name: name for name in available_priors()}, Visits(Path(folder), keep=3600))
        rows = [*VOTE, *[Row(NO_METHOD, "photo")] * 2]
        first = next(iter(PRESETS.values()))
        opening = Problem(photos["cat"], side=first.side, degradation=first.degradation, noise=first.noise)
        list(sessions.restore(replace(opening, side=32), first.rows, 1, "record"))  # so that no time is for loading
        write(sessions, "opening", opening, first.rows, original=True)
        for name in VOTE_PHOTOS:
            problem = Problem(photos[name], side=VOTE_SIDE, degradation="sr:4", noise=0.01)
            write(sessions, f"vote-{name}", problem, rows, original=False)
    code = [f"workbench/{part}" for part in ("models", "operators", "solvers")]  # what the pictures come from
    git = ["git", "log", "-1", "--format=%h", "--", *code]
    commit = subprocess.run(
        git, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True
    ).stdout.strip()
    facts = {"commit": commit, "date": date.today().isoformat(), "threads": THREADS}
    (RECORD / "record.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
