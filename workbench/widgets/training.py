"""A training run that is under way, or over."""

import asyncio
import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.images import load_image
from workbench.pipelines.job import RESUME
from workbench.plots import curves
from workbench.text import fits, json_lines, require
from workbench.widgets.tool import Part, Tool, View, pictures

COUNTED = ("step", "images", "seconds")  # in every line of a log


def training_monitor(folder: str | Path, every: float = 5.0) -> Tool:
    """Losses, newest samples and remaining time of a training run, read again by the button and by itself.

    The notebook stays free: the log is looked at ``every`` so many seconds, between its cells, until the run is over or
    the box is unticked. ``folder`` is that of the run, or of a pipeline's job that trains, perhaps without a log yet.
    ValueError where there is none.
    """
    require(every > 0, "every", "positive", every)
    require(Path(folder).is_dir(), "folder", "that of a training run", folder)
    follow = ipywidgets.Checkbox(True, description=f"every {every:g} s")
    button = ipywidgets.Button(description="Refresh")

    def view() -> View:
        run = Path(folder, RESUME) if Path(folder, RESUME).is_dir() else Path(folder)
        file = run / "log.jsonl"
        written = file.read_bytes().count(b"\n") if file.is_file() else 0
        log = [line for line in json_lines(file) if all(fits(line.get(name), float) for name in COUNTED)]
        damaged = f", {written - len(log)} damaged lines left out" if written > len(log) else ""
        if not log:
            return f"{file}: no line yet{damaged}", []
        names = [name for name in {name: 0 for line in log for name in line} if name.endswith("loss")]
        lines = {name: [line[name] if fits(line.get(name), float) else math.nan for line in log] for name in names}
        at = {name: [line["step"] for line in log] for name in names}
        positive = not any(value <= 0 for line in lines.values() for value in line)
        grids = []
        with suppress(ValueError):  # the newest one is not written to its end yet
            for grid in sorted((run / "samples").glob("[0-9]*.png"))[-1:]:
                grids = [pictures({f"samples at step {int(grid.stem)}": load_image(grid)})]
        note, going = _state(log, run)
        follow.value = follow.value and going
        drawn = Part(2.4, lambda into: curves(lines, at=at, x="step", y="loss", log=positive, into=into))
        return note + damaged, [*([drawn] if lines else []), *grids]

    async def look() -> None:
        while tool.comm is not None:
            await asyncio.sleep(every)
            if follow.value:
                tool.redraw()

    tool = Tool("Training monitor", {"refresh": button, "follow": follow}, view, quiet=["refresh", "follow"])
    button.on_click(tool.redraw)
    with suppress(RuntimeError):  # no event loop: no notebook
        tool.looking = asyncio.get_running_loop().create_task(look())
    return tool


def _state(log: list[dict[str, Any]], run: Path) -> tuple[str, bool]:
    """How far the run is, in a line, and whether it goes on."""
    last, before = log[-1], log[-2] if len(log) > 1 else dict.fromkeys(log[-1], 0)
    taken, images, seconds = (last[name] - before[name] for name in COUNTED)
    speed = f", {images / seconds:.0f} images per second" if seconds > 0 else ""
    age = f", last line {time.time() - (run / 'log.jsonl').stat().st_mtime:.0f} s ago"
    try:
        steps = json.loads((run / "settings.json").read_text())["settings.steps"]
        require(fits(steps, float), "settings.steps", "a number", steps)
    except (OSError, ValueError, KeyError, TypeError):  # TypeError: it holds something else
        return f"step {last['step']:,} (of how many, no settings.json says){speed}{age}", True
    note = f"step {last['step']:,} of {steps:,}{speed}"
    left = f", {(steps - last['step']) * seconds / taken / 60:.0f} minutes left" if taken > 0 else ""
    return (note + left + age, True) if last["step"] < steps else (note, False)
