"""What happened iteration by iteration, as one drawing that takes the colours of the page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from workbench.demo.compare import Board, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"  # stands for the colour of the page's text


def curves_svg(board: Board) -> str:
    """Distance to the measurement over evaluations, and the residuals of fixed-point methods over iterations: SVG.

    Empty where no method has more than one point to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = [panel for panel in board.panels if len(panel.misfits) > 1]
    if not panels:
        return ""
    iterative = [panel for panel in panels if len(panel.residuals) > 1]
    style: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with rc_context(style):
        figure = Figure(figsize=(9 if iterative else 5, 3), layout="constrained")
        axes = figure.subplots(1, 2 if iterative else 1, squeeze=False)[0]
        _misfits(axes[0], panels, board.recipe.noise)
        if iterative:
            _residuals(axes[1], iterative, panels)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", transparent=True)
    text = drawing.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _misfits(axis: Axes, panels: list[Panel], noise: float) -> None:
    for number, panel in enumerate(panels):
        evaluations, values = zip(*panel.misfits, strict=True)
        axis.plot(
            evaluations,
            [max(value, 1e-7) for value in values],
            f"C{number}",
            label=panel.method.label,
            marker=".",
            markersize=4,
        )
    if noise > 0:
        axis.axhline(noise, color=INK, linewidth=1, linestyle=":", label="noise of the measurement")
    _finish(axis, "network evaluations", "RMS of A x − y")


def _residuals(axis: Axes, iterative: list[Panel], panels: list[Panel]) -> None:
    for panel in iterative:
        axis.plot(
            range(1, len(panel.residuals) + 1),
            panel.residuals,
            f"C{panels.index(panel)}",
            label=panel.method.label,
            marker=".",
        )
    _finish(axis, "iterations", "fixed-point residual")


def _finish(axis: Axes, x: str, y: str) -> None:
    axis.set_yscale("log")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
