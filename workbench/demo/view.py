"""A comparison as HTML: the pictures with their scores, difference maps, samples, and curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import torch
from PIL import Image
from torch import Tensor

from workbench.demo.compare import Board, Panel
from workbench.evaluation.metrics import as_text
from workbench.images import to_pillow
from workbench.restore import Degraded

AMPLIFY = 4  # of difference maps
LIVE_SIDE = 256  # pictures on their way are shown no larger than this


def board_html(board: Board) -> str:
    """The pictures of ``board`` side by side, and once all is done the difference maps and samples below."""
    over = all(panel.state in ("done", "failed") for panel in board.panels)
    given = _given(board.photo, board.degraded)
    columns = len(given) + len(board.panels)
    parts = [_row([*given, *(_panel(panel, over) for panel in board.panels)], columns)]
    done = [panel for panel in board.panels if panel.images is not None and panel.state == "done"]
    if over and done:
        parts.append(_differences(board, len(given)))
        if board.recipe.samples > 1:
            parts += [_samples(panel) for panel in done]
    return "".join(parts)


def preview_html(photo: Tensor, degraded: Degraded) -> str:
    """The prepared photo (1, 3, h, w) beside what its degradation makes of it."""
    return _row(_given(photo, degraded), columns=4)


def _given(photo: Tensor, degraded: Degraded) -> list[str]:
    """The photo and its measurement; of one that came degraded, the measurement where it is not the photo itself."""
    measured = degraded.picture[:1]
    first = _figure(
        "Original" if degraded.original is not None else "The photo as it came", picture(photo), _size(photo)
    )
    if degraded.original is None and torch.equal(measured, photo):
        return [first]
    name = "Degraded" if degraded.original is not None else "What counts of it"
    return [first, _figure(name, picture(measured), _size(measured))]


def picture(image: Tensor, live: bool = False) -> str:
    """``image`` (1, 1 or 3, h, w) as a data address: PNG, lossless; ``live``: JPEG and at most 256 pixels a side."""
    drawn = to_pillow(torch.nan_to_num(image, nan=0.5, posinf=1, neginf=0))
    buffer = io.BytesIO()
    if live and max(drawn.size) > LIVE_SIDE:
        drawn.thumbnail((LIVE_SIDE, LIVE_SIDE), Image.Resampling.BILINEAR)
        drawn.save(buffer, "JPEG", quality=85)
        kind = "jpeg"
    else:
        drawn.save(buffer, "PNG", compress_level=1)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _panel(panel: Panel, over: bool) -> str:
    source = None if panel.images is None else picture(panel.images[:1], live=not over)
    if panel.state == "waiting":
        return _figure(panel.method.label, None, "waits for its turn")
    if panel.state == "failed":
        return _figure(panel.method.label, source, "", error=panel.error)
    if panel.state == "running":
        cost = f"{panel.index} of {panel.total or '…'}, {panel.evaluations} evaluations, {panel.seconds:.1f} s"
        return _figure(panel.method.label, source, cost, bar=(panel.index, panel.total))
    record = panel.records[0]
    scores = "" if record["psnr"] is None else f"{as_text(record['psnr'], 'psnr')} dB, "
    seconds = record["seconds"] * len(panel.records)
    return _figure(panel.method.label, source, f"{scores}{record['evaluations']} evaluations, {seconds:.1f} s")


def _differences(board: Board, before: int) -> str:
    """Absolute differences to the original, below the methods (``before`` columns are others'); else to method 1."""
    done = [panel for panel in board.panels if panel.state == "done"]
    original = board.degraded.original
    reference = done[0].images if original is None else original
    if reference is None or (original is None and len(done) < 2):
        return ""
    against = "the original" if original is not None else done[0].method.label
    figures = []
    for panel in board.panels:
        if panel.state != "done" or panel.images is None or panel.images is reference:
            figures.append("<div></div>")
            continue
        gap = _gap(panel.images, reference)
        note = f"largest {float(gap.max()):.2f}"
        if original is not None and panel is not done[0] and done[0].images is not None:
            note += f", to the first method {float(_gap(panel.images, done[0].images).max()):.4f}"
        figures.append(_figure(panel.method.label, picture(AMPLIFY * gap), note))
    heading = f'<h4 style="grid-column: span {before}">Difference to {escape(against)}, {AMPLIFY} times</h4>'
    return _row([heading, *figures], before + len(board.panels))


def _gap(images: Tensor, reference: Tensor) -> Tensor:
    """Absolute difference of the first ones, as a viewer sees them, (1, 3, h, w)."""
    return (images[:1].clamp(0, 1) - reference[:1].clamp(0, 1)).abs()


def _samples(panel: Panel) -> str:
    """All samples of a method, and where they differ."""
    assert panel.images is not None
    figures = [
        _figure(f"seed {record['solver_seed']}", picture(panel.images[k : k + 1]), _decibel(record["psnr"]))
        for k, record in enumerate(panel.records)
    ]
    spread = panel.images.clamp(0, 1).std(dim=0, keepdim=True)
    figures.append(_figure("Spread", picture(AMPLIFY * spread), f"standard deviation, {AMPLIFY} times"))
    return f"<h4>Samples of {escape(panel.method.label)}</h4>" + _row(figures, max(4, len(figures)))


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{as_text(value, 'psnr')} dB"


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}×{image.shape[-2]} pixels"


def _row(figures: Sequence[str], columns: int) -> str:
    return f'<div class="pictures" style="--columns: {columns}">{"".join(figures)}</div>'


def _figure(name: str, source: str | None, note: str, bar: tuple[int, int] | None = None, error: str = "") -> str:
    inside = f'<img src="{source}" alt="{escape(name)}" draggable="false">' if source else '<div class="empty"></div>'
    progress = "" if bar is None else f'<progress value="{bar[0]}" max="{max(1, bar[1])}"></progress>'
    wrong = f'<span class="error" role="alert">{escape(error)}</span>' if error else ""
    return (
        f'<figure><div class="frame">{inside}</div>{progress}'
        f"<figcaption><b>{escape(name)}</b> <span>{escape(note)}</span>{wrong}</figcaption></figure>"
    )
