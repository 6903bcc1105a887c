"""What a visitor takes home: the pictures, and a recipe that makes them again."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from workbench.demo.compare import Board
from workbench.images import save_image, to_pillow
from workbench.recipe import folder_name, save_recipe

COMMAND = "workbench restore run.json --out again"
MASK = "mask.png"


@dataclass(frozen=True)
class Export:
    """Files of one comparison.

    Attributes:
        archive: the zip file with everything.
        pictures: name on the page -> PNG, all of one size, for the slider.
        recipe: the text of run.json.
    """

    archive: Path
    pictures: dict[str, Path]
    recipe: str


def export(board: Board, folder: Path) -> Export:
    """Write the pictures of ``board`` and run.json into ``folder``, and a zip file of them.

    What failed is left out. A painted mask lies in ``folder`` as mask.png already; in run.json file names are relative,
    so that it works wherever the zip file is unpacked.
    """
    degraded, recipe = board.degraded, board.recipe
    came = degraded.original is None
    done = [panel for panel in board.panels if panel.state == "done"]
    photo = folder / ("photo.png" if came else "original.png")
    save_image(board.photo, photo)
    pictures = {} if came else {"Original": photo}
    for number, panel in enumerate(done, 1):
        stem = folder_name(number, panel.method)
        assert panel.images is not None
        for k in range(len(panel.images)):
            save_image(panel.images[k : k + 1], folder / (f"{stem}.png" if k == 0 else f"{stem}-{k + 1}.png"))
        pictures[f"{number}. {panel.method.label}"] = folder / f"{stem}.png"
    save_image(degraded.picture[:1], folder / "degraded.png")
    pictures = {"Degraded": _enlarged(board, folder), **pictures}

    news = {
        "photo": photo.name,
        "degrade": _relative(recipe.degrade, folder),
        "operator": recipe.operator and _relative(recipe.operator, folder),
        "results": [
            {key: _public(value, folder) for key, value in record.items()} for panel in done for record in panel.records
        ],
        "methods": tuple(panel.method for panel in done),  # one that cannot would stop the command too
        "reproduce": COMMAND,
        "workbench": version("restoration-workbench"),
    }
    save_recipe(recipe.model_copy(update=news), folder / "run.json")

    archive = folder / "comparison.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:  # PNG is compressed already
        for file in sorted(folder.iterdir()):
            if file != archive and not file.name.startswith("view-"):
                package.write(file, file.name)
    return Export(archive, pictures, (folder / "run.json").read_text())


def _enlarged(board: Board, folder: Path) -> Path:
    """The degraded picture at the size of the result, its pixels as they are."""
    shown = to_pillow(board.degraded.picture[:1]).convert("RGB")
    height, width = board.degraded.op.image_shape(board.degraded.y.shape)[-2:]
    path = folder / "view-degraded.png"
    shown.resize((width, height), Image.Resampling.NEAREST).save(path)
    return path


def _public(value: Any, folder: Path) -> Any:
    """``value`` without the server's folders."""
    return _relative(value, folder).replace(str(Path.home()), "~") if isinstance(value, str) else value


def _relative(spec: str, folder: Path) -> str:
    return spec.replace(f"{folder}/", "")
