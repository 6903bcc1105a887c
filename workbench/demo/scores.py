"""The scores and the cost of a comparison as a table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.demo.compare import Board, Panel
from workbench.evaluation.metrics import METRICS, as_text

WIDTHS: list[str | int] = ["150px", *["110px"] * 8]  # of the columns on the page: names take more than figures


def score_table(board: Board) -> pd.DataFrame:
    """A row for each method: metrics of the first sample, evaluations per image, seconds for all samples."""
    measured = [key for key in METRICS if any(r.get(key) is not None for p in board.panels for r in p.records)]
    table = pd.DataFrame([_row(panel, measured) for panel in board.panels]).fillna("–")
    return table if table["Note"].any() else table.drop(columns="Note")


def _row(panel: Panel, measured: list[str]) -> dict[str, Any]:
    if not panel.records:
        return {"Method": panel.method.label, "Note": panel.error}
    first = panel.records[0]
    scores = {f"{METRICS[key].title} {METRICS[key].arrow}": as_text(first[key], key) for key in measured}
    return {
        "Method": panel.method.label,
        **scores,
        "RMS Ax−y": f"{panel.misfits[-1][1]:.4f}",
        "Iterations": str(first["iterations"]),
        "Evaluations": str(first["evaluations"]),
        "Seconds": f"{first['seconds'] * len(panel.records):.2f}",
        "Note": "; ".join(filter(None, [first["message"], f"in tiles of {first['tile']}" if first["tile"] else ""])),
    }
