"""Figures: pictures side by side with their scores, curves of what a solver did, sheets of thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from workbench.images import to_uint8
from workbench.text import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

MAX_PIXELS_SHARP = 160  # smaller pictures are drawn with visible pixels, larger ones smoothly
LETTERS = 13  # of a title, on an inch
MOST_DOTS = 50  # lines of more points are drawn without dots


def show(
    columns: Mapping[str, Tensor],
    rows: Sequence[str] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    height: float = 1.9,
    *,
    window: tuple[float, float, float, float] = (0, 1, 0, 1),
    into: FigureBase | None = None,
) -> FigureBase:
    """Pictures side by side: one column per entry, one row per image of the batch.

    Args:
        columns: title -> images (B, 1 or 3, H, W), nominal [0, 1]; sizes may differ between columns, B may not.
        rows: a name for each row.
        notes: title -> a line under each picture of that column, such as its PSNR.
        height: of a row, in inches.
        window: what of every picture is seen, as shares of its sides: left, right, top, bottom.
        into: the figure, or part of one, to draw into, whose size counts then; by default a new one.

    Raises:
        ValueError: the columns hold different numbers of images, or pictures that are neither grey nor RGB.
    """
    import matplotlib.pyplot as plt

    for title, images in columns.items():
        require(images.shape[1] in (1, 3), title, "pictures of 1 or 3 channels", f"{images.shape[1]} channels")
    counts = {title: len(images) for title, images in columns.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"every column needs the same number of images, got {counts}")
    number = next(iter(counts.values()))
    figure: Any = into or plt.figure(figsize=(height * len(columns), height * 1.12 * number), layout="constrained")
    axes = figure.subplots(number, len(columns), squeeze=False)
    letters = max(8, int(figure.bbox.width / figure.dpi / len(columns) * LETTERS))
    left, right, top, bottom = window
    for column, (title, images) in enumerate(columns.items()):
        pixels = to_uint8(images)
        for row in range(number):
            axis = axes[row, column]
            smooth = max(pixels.shape[1:3]) > MAX_PIXELS_SHARP
            picture = pixels[row, ..., 0] if pixels.shape[-1] == 1 else pixels[row]
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="antialiased" if smooth else "nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlim(left * pixels.shape[2] - 0.5, right * pixels.shape[2] - 0.5)
            axis.set_ylim(bottom * pixels.shape[1] - 0.5, top * pixels.shape[1] - 0.5)
            axis.spines[:].set_visible(False)
            if row == 0:
                # Formulas stay whole.
                lines = [line if "$" in line else fill(line, letters) for line in title.split("\n")]
                axis.set_title("\n".join(lines), fontsize=10)
            if column == 0 and rows is not None:
                axis.set_ylabel(rows[row], fontsize=10)
            if notes is not None and title in notes:
                axis.set_xlabel(notes[title][row], fontsize=9)
    return figure


def curves(
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    x: str,
    y: str,
    log: bool = True,
    height: float = 2.6,
    at: Mapping[str, Sequence[float] | Tensor] | None = None,
    into: FigureBase | None = None,
) -> FigureBase:
    """Values over iterations, one labelled line per entry.

    Args:
        lines: label -> values; NaN ends a line.
        x, y: names of the axes, with their units.
        log: logarithmic vertical axis.
        at: label -> where its values lie; 1, 2, ... if not given.
        into: as for :func:`show`.
    """
    import matplotlib.pyplot as plt

    figure = into or plt.figure(figsize=(height * 2, height), layout="constrained")
    axis = figure.subplots()
    for label, values in lines.items():
        points = [float(value) for value in values]
        places = range(1, len(points) + 1) if at is None else [float(value) for value in at[label]]
        axis.plot(places, points, marker="." if len(points) <= MOST_DOTS else "", label=label)
    if log:
        axis.set_yscale("log")
    axis.locator_params("x", integer=at is None)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if list(lines) != [y]:  # a lone line is named by its axis
        axis.legend(frameon=False)
    return figure


def png(figure: Figure) -> bytes:
    """``figure`` as the content of a PNG file, a fifth faster than by its ``savefig``, which lays it out twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas, content = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(content, "png", compress_level=1)
    return content.getvalue()


def contact_sheet(names: Sequence[str], pairs: Iterable[Sequence[Image.Image]], columns: int = 4) -> Image.Image:
    """Thumbnails of two pictures side by side, the name below; ``columns`` pairs in a row.

    Small pictures are enlarged, with visible pixels.
    """
    import matplotlib

    # Pillow's own font knows few letters beyond English.
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 11)
    side, columns = MAX_PIXELS_SHARP, min(columns, len(names))
    wide, high = 2 * side + 16, side + 32
    sheet = Image.new("RGB", (columns * wide, -(-len(names) // columns) * high), "white")
    for index, (name, pair) in enumerate(zip(names, pairs, strict=True)):
        left, top = index % columns * wide, index // columns * high
        for place, picture in enumerate(pair):
            way = Image.Resampling.LANCZOS if max(picture.size) > side else Image.Resampling.NEAREST
            square = ImageOps.pad(picture.convert("RGB"), (side, side), way, "white")
            sheet.paste(square, (left + 7 + place * (side + 2), top + 8))
        text = name if len(name) <= 44 else f"{name[:21]}…{name[-22:]}"
        ImageDraw.Draw(sheet).text((left + wide // 2, top + side + 18), text, "black", font, "mm")
    return sheet


def strip(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """``images`` (B, C, H, W) beside one another, in rows of ``columns`` (by default one row), with white gaps between.

    Returns:
        One picture (1, 3, h, w) in [0, 1]; grey images become colour, places without an image stay white.
    """
    count, _, height, width = images.shape
    columns = columns or count
    rows = -(-count // columns)
    sheet = torch.ones(1, 3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[0, :, top : top + height, left : left + width] = image.clamp(0, 1)
    return sheet
