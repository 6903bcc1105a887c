"""Comparisons that were computed beforehand and are shipped: what the page opens with, and what one can vote on.

`scripts/demo_record.py` makes them again. Each is a folder with run.json as a visitor takes it home, and its pictures
as lossless WebP; the ones to vote on have no original.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.demo.compare import Board, Panel, misfit
from workbench.images import load_image
from workbench.recipe import Recipe, load_recipe, measure

RECORD = Path(str(resources.files("workbench.demo"))) / "record"
OPENING = RECORD / "opening"


def recorded(folder: Path) -> tuple[Recipe, list[Tensor]]:
    """The recipe in ``folder``, with its results, and the pictures of its methods, each (1, 3, h, w)."""
    recipe = load_recipe(folder / "run.json")
    return recipe, [load_image(folder / f"{number}.webp") for number in range(1, len(recipe.methods) + 1)]


def opening_board() -> Board:
    """The comparison the page opens with, as it was when it was done."""
    recipe, pictures = recorded(OPENING)
    photo = load_image(recipe.photo)
    degraded = measure(recipe, photo)
    panels = []
    for method, image, record in zip(recipe.methods, pictures, recipe.results or (), strict=True):
        misfits = ((record["evaluations"], misfit(image, degraded)),)
        panels.append(Panel(method, state="done", images=image, misfits=misfits, records=(record,)))
    return Board(recipe, photo, degraded, panels=tuple(panels))


def computed() -> str:
    """A sentence on when and how the opening comparison was computed."""
    facts: dict[str, Any] = json.loads((RECORD / "record.json").read_text())
    return (
        f"Computed beforehand, with what is set here ({facts['date']}, commit {facts['commit']}, "
        f"{facts['threads']} threads). Restore computes it anew."
    )
