"""A comparison as HTML: the pictures with their scores, difference maps, samples; and its curves and scores."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from workbench.demo.compare import JUDGE, Board, Panel
from workbench.evaluation.metrics import METRICS, as_text
from workbench.evaluation.statistics import paired_difference
from workbench.images import to_pillow
from workbench.operators import Blur, SuperResolution
from workbench.operators.parse import file_in
from workbench.solvers import SOLVERS, DeqIR

AMPLIFY = 4  # of difference maps
KERNEL_SIDE = 96  # the longer side of a small kernel's picture, at most
LIVE_SIDE = 256  # pictures on their way are shown no larger than this
INK = "#010203"  # in curves, stands for the colour of the page's text
WIDTHS: list[str | int] = ["150px", *["84px"] * 9]  # of the table's columns: names take more than figures


def board_html(board: Board) -> str:
    """The photo, its measurement and the methods side by side; once all are done, difference maps and samples below."""
    given, panels = _given(board), board.panels
    over = all(panel.state in ("done", "failed") for panel in panels)
    in_rounds = any(_asks_in_rounds(panel) for panel in panels)
    parts = [_comparison(given, [_panel(panel, over, in_rounds) for panel in panels])]
    parts.append(_kernel(board))
    done = [panel for panel in panels if panel.state == "done"]
    if over and done:
        parts.append(_differences(board))
        if board.recipe.samples > 1:
            parts += [_samples(panel) for panel in done]
    if board.remark and not panels:
        parts.append(f'<p class="remark">Of this file: {escape(board.remark)}.</p>')
    return "".join(parts)


def _given(board: Board) -> list[str]:
    """The photo and its measurement; of one that came degraded, the measurement where it is not the photo itself."""
    photo, measured, came = board.photo, board.degraded.picture[:1], board.degraded.original is None
    first = captioned("The photo as it came" if came else "Original", picture(photo), _size(photo))
    if came and torch.equal(measured, photo):
        return [first]
    return [first, captioned("What counts of it" if came else "Degraded", picture(measured), _size(measured))]


def _kernel(board: Board) -> str:
    """The kernel that was uploaded, the brightest tap white and taps as squares, its size, and what was done to it."""
    op = board.degraded.op
    if not isinstance(op, Blur | SuperResolution) or file_in(board.recipe.operator or board.recipe.degrade) is None:
        return ""
    height, width = op.kernel.shape[-2:]
    scale = max(1, KERNEL_SIDE // max(height, width))
    taps = (op.kernel / op.kernel.max()).repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    remark = f"<br>{escape(op.remark)}" if op.remark else ""
    shown = f'<img src="{picture(taps)}" alt="Kernel" draggable="false">'
    return f'<p class="remark kernel">{shown}<span><b>Kernel</b> {width}×{height}{remark}</span></p>'


def picture(image: Tensor, live: bool = False) -> str:
    """``image`` (1, 1 or 3, h, w) as a data address: PNG, lossless; ``live``: JPEG and at most 256 pixels a side."""
    drawn = to_pillow(torch.nan_to_num(image, nan=0.5, posinf=1, neginf=0))
    buffer = io.BytesIO()
    kind = "jpeg" if live and max(drawn.size) > LIVE_SIDE else "png"
    if kind == "jpeg":
        drawn.thumbnail((LIVE_SIDE, LIVE_SIDE), Image.Resampling.BILINEAR)
    drawn.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"compress_level": 1}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _asks_in_rounds(panel: Panel) -> bool:
    """Whether the method asks its network for many states at a time, in fewer rounds than evaluations."""
    return SOLVERS[panel.method.solver] is DeqIR


def _panel(panel: Panel, over: bool, in_rounds: bool) -> str:
    label = panel.method.label
    source = None if panel.images is None else picture(panel.images[:1], live=not over)
    if panel.state == "waiting":
        return captioned(label, None, "waits for its turn")
    if panel.state == "failed":
        return captioned(label, source, "", error=panel.error)
    if panel.state == "running":
        cost = f"{panel.index} of {panel.total or '…'}, {panel.evaluations} evaluations, {panel.seconds:.1f} s"
        return captioned(label, source, cost, bar=(panel.index, panel.total))
    record = panel.records[0]
    evaluations = record["evaluations"]
    rounds = record["iterations"] if _asks_in_rounds(panel) else evaluations
    parts = [_decibel(record["psnr"])]
    if record.get(JUDGE) is not None:
        parts.append(f"{METRICS[JUDGE].title} {as_text(record[JUDGE], JUDGE)} {METRICS[JUDGE].arrow}")
    parts.append(f"{evaluations} evaluations" + (f" in {rounds} rounds" if in_rounds else ""))
    return captioned(label, source, ", ".join(filter(None, [*parts, f"{_seconds(panel):.1f} s"])))


def _differences(board: Board) -> str:
    """Absolute differences to the original; without one to method 1."""
    done = [panel for panel in board.panels if panel.state == "done"]
    original = board.degraded.original
    reference = done[0].images if original is None else original
    if reference is None or (original is None and len(done) < 2):
        return ""
    against = "the original" if original is not None else done[0].method.label
    figures = [
        _difference(panel.method.label, panel.images, reference)
        for panel in done
        if panel.images is not None and panel.images is not reference
    ]
    return f"<h4>Difference to {escape(against)}, {AMPLIFY} times</h4>" + in_columns(figures, max(3, len(figures)))


def _difference(name: str, images: Tensor, reference: Tensor, amplify: int | None = AMPLIFY) -> str:
    """Absolute difference of the first ones, (1, 3, h, w), as a viewer sees them; None: ``amplify`` as fits."""
    gap = (images[:1].clamp(0, 1) - reference[:1].clamp(0, 1)).abs()
    largest = float(gap.max())
    times = amplify or max(1, int(1 / max(largest, 0.01)))
    note = f"largest {largest:.4f}, mean {float(gap.mean()):.4f}" + ("" if amplify else f", shown {times} times")
    return captioned(name, picture(times * gap), note)


def difference(name: str, first: Tensor, second: Tensor) -> str:
    """The difference map of any two pictures (1, 3, h, w) of a comparison, as bright as fits."""
    return in_columns([_difference(f"Difference: {name}", first, second, None)], 1)


def _samples(panel: Panel) -> str:
    """All samples of a method, and where they differ."""
    assert panel.images is not None
    figures = [
        captioned(f"seed {record['solver_seed']}", picture(panel.images[k : k + 1]), _decibel(record["psnr"]))
        for k, record in enumerate(panel.records)
    ]
    spread = panel.images.clamp(0, 1).std(dim=0, keepdim=True)
    figures.append(captioned("Spread", picture(AMPLIFY * spread), f"standard deviation, {AMPLIFY} times"))
    return f"<h4>Samples of {escape(panel.method.label)}</h4>" + in_columns(figures, 3)


def _decibel(value: float | None) -> str:
    return "" if value is None else f"PSNR {as_text(value, 'psnr')} dB"


def _seconds(panel: Panel) -> float:
    return float(panel.records[0]["seconds"] * len(panel.records))


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}×{image.shape[-2]} pixels"


def _comparison(given: Sequence[str], methods: Sequence[str]) -> str:
    """The methods large, two in a line, and beside them what they were given; without methods, that alone."""
    if not methods:
        return in_columns(given, 2)
    columns, lines = min(2, len(methods)), -(-len(methods) // 2)
    large = f'<div style="--columns: {columns}; --lines: {lines}">{in_columns(methods, columns)}</div>'
    return f'<div class="comparison">{in_columns(given, 1)}{large}</div>'


def in_columns(figures: Sequence[str], columns: int) -> str:
    return f'<div class="pictures" style="--columns: {columns}">{"".join(figures)}</div>'


def captioned(name: str, source: str | None, note: str, bar: tuple[int, int] | None = None, error: str = "") -> str:
    inside = f'<img src="{source}" alt="{escape(name)}" draggable="false">' if source else '<div class="empty"></div>'
    progress = "" if bar is None else f'<progress value="{bar[0]}" max="{max(1, bar[1])}"></progress>'
    wrong = f'<span class="error" role="alert">{escape(error)}</span>' if error else ""
    return (
        f'<figure><div class="frame">{inside}</div>{progress}'
        f"<figcaption><b>{escape(name)}</b> <span>{escape(note)}</span>{wrong}</figcaption></figure>"
    )


def wrong(sentence: str) -> str:
    """What is wrong, as the line above the pictures."""
    return f'<p class="error" role="alert">{escape(sentence)}</p>'


def score_table(board: Board) -> pd.DataFrame:
    """A row for each method: metrics of the first sample, evaluations per image, seconds for all samples.

    A further row compares the first two, sample by sample.
    """
    measured = [key for key in METRICS if any(r.get(key) is not None for p in board.panels for r in p.records)]
    rows = [_scores(panel, measured) for panel in board.panels]
    done = [number for number, panel in enumerate(board.panels) if panel.records]
    if len(done) > 1 and measured:
        name = f"Method {done[1] + 1} − method {done[0] + 1}"
        rows.append({"Method": name, **_paired(board.panels[done[0]], board.panels[done[1]], measured)})
    table = pd.DataFrame(rows).fillna("–")
    return table if table["Note"].any() else table.drop(columns="Note")


def _scores(panel: Panel, measured: list[str]) -> dict[str, Any]:
    if not panel.records:
        return {"Method": panel.method.label, "Note": panel.error}
    first = panel.records[0]
    return {
        "Method": panel.method.label,
        **{_column(key): as_text(first.get(key), key) for key in measured},
        "RMS Ax−y": f"{panel.misfits[-1][1]:.4f}",
        "Iterations": str(first["iterations"]),
        "Evaluations": str(first["evaluations"]),
        "Seconds": f"{_seconds(panel):.2f}",
        "Note": "; ".join(filter(None, [first["message"], f"in tiles of {first['tile']}" if first["tile"] else ""])),
    }


def _paired(first: Panel, second: Panel, measured: Sequence[str]) -> dict[str, str]:
    """Metric by metric, what the ``second`` has more than the ``first``: the mean over samples, and its interval."""
    row = {"Note": f"means and 95 % intervals of {len(first.records)} samples" if len(first.records) > 1 else ""}
    for key in measured:
        pairs = [(new.get(key), old.get(key)) for new, old in zip(second.records, first.records, strict=True)]
        if any(None in pair for pair in pairs):
            continue
        gain = paired_difference(*zip(*pairs, strict=True))
        row[_column(key)] = as_text(gain.mean, key, signed=True)
        if gain.half is not None:
            row[_column(key)] += f" ± {as_text(gain.half, key)}"
    return row


def _column(key: str) -> str:
    return f"{METRICS[key].title} {METRICS[key].arrow}"


def curves_svg(board: Board) -> str:
    """Distance to the measurement over evaluations, and the residuals of fixed-point methods over iterations: SVG.

    Empty where no method has more than one point to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = [panel for panel in board.panels if len(panel.misfits) > 1]
    if not panels:
        return ""
    iterative = any(len(panel.residuals) > 1 for panel in panels)
    style: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with rc_context(style):
        figure = Figure(figsize=(9 if iterative else 5, 3), layout="constrained")
        axes = figure.subplots(1, 1 + iterative, squeeze=False)[0]
        for number, panel in enumerate(panels):
            line: dict[str, Any] = {"color": f"C{number}", "label": panel.method.label, "marker": "."}
            evaluations, misfits = zip(*panel.misfits, strict=True)
            axes[0].plot(evaluations, [max(value, 1e-7) for value in misfits], markersize=4, **line)
            if len(panel.residuals) > 1:
                axes[1].plot(range(1, len(panel.residuals) + 1), panel.residuals, **line)
        noise = board.degraded.noise
        if isinstance(noise, float) and noise > 0:
            axes[0].axhline(noise, color=INK, linewidth=1, linestyle=":", label="noise of the measurement")
        names = [("network evaluations", "RMS of A x − y"), ("iterations", "fixed-point residual")]
        for axis, (x, y) in zip(axes, names, strict=False):
            axis.set(yscale="log", xlabel=x, ylabel=y)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=9)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", transparent=True)
    text = drawing.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
