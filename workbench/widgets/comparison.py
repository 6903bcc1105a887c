"""Several results of one photo, at the same place."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.images import FINITE, check_range
from workbench.restore import Result
from workbench.solvers.base import Restoration
from workbench.text import require, require_kind
from workbench.widgets.tool import Tool, View, comparable, decibels, pictures, slider


def comparison(results: Mapping[str, Tensor | Restoration | Result], original: Tensor | None = None) -> Tool:
    """Two or more results (B, C, H, W) of the same photos side by side, by name, zoomed and moved together.

    They may differ in size, as a measurement beside its restorations does. With the ``original``, those of its size
    have a PSNR. ValueError for fewer than two pictures, values that are no finite floating-point numbers, or another
    number of images in one of them.
    """
    require_kind(results, Mapping, "results", "name -> result")
    images: dict[str, Any] = {str(name): getattr(found, "image", found) for name, found in results.items()}
    for name, batch in images.items():
        check_range(batch, name, *FINITE)
    alike = [name for name, batch in images.items() if original is not None and comparable(batch, original)]
    require(
        original is None or "original" not in images, "a result beside the original", "named otherwise", "'original'"
    )
    if original is not None:
        check_range(original, "original", *FINITE)
        images["original"] = original
    counts = {name: len(batch) for name, batch in images.items()}
    if len(images) < 2 or len({*counts.values()}) != 1 or 0 in counts.values():
        raise ValueError(f"expected two or more pictures, with as many images in each, got {counts}")
    zoom, photo = slider("Zoom", 1, 1, 16, 0.1), slider("Photo", 1, 1, max(counts.values()))
    across, down = slider("Across, %", 50, 0, 100), slider("Down, %", 50, 0, 100)

    def view() -> View:
        share = 1 / zoom.value
        left, top = ((1 - share) * place.value / 100 for place in (across, down))
        columns = {name: batch[photo.value - 1, None] for name, batch in images.items()}
        notes = {name: f"{float(decibels(columns[name], columns['original'])):.2f} dB" for name in alike}
        return "", [pictures(columns, notes, window=(left, left + share, top, top + share))]

    return Tool("Comparison", {"zoom": zoom, "across": across, "down": down, "photo": photo}, view)
