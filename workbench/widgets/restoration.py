"""A restoration, iteration by iteration."""

import math
from collections.abc import Iterable
from functools import partial

import ipywidgets
import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from workbench.plots import curves
from workbench.restore import Result
from workbench.solvers.base import Restoration, Step
from workbench.text import require_kind
from workbench.widgets.tool import Part, Tool, View, comparable, decibels, pictures, slider


def restoration_player(
    found: Restoration | Result,
    steps: Iterable[Step] = (),
    *,
    before: Tensor | None = None,
    original: Tensor | None = None,
) -> Tool:
    """Scrub through the iterations of a restoration, between what was before and after, over its traces.

    Args:
        steps: what a callback saw, of any solver: of ``restore(..., callback=steps.append)`` with a list. Without them
            the result is shown, with its residuals.
        before: the measurement as pictures (B, C, h, w). A :class:`Result` knows it, and the original.
        original: (B, C, H, W), if known: adds PSNR.

    Raises:
        ValueError: another number of images in one of them, or steps or ``original`` of another size.
    """
    if isinstance(found, Result):
        before = found.degraded.picture if before is None else before
        original = found.degraded.original if original is None else original
        found = found.restoration
    require_kind(found, Restoration, "found", "what a solver or restore returns")
    steps = list(steps)
    for step in steps:
        require_kind(step, Step, "steps", "what a callback saw, restore(..., callback=steps.append)")
    images, last = [step.image for step in steps] or [found.image], found.image
    seen = [("steps", image) for image in images]
    for name, given in (*seen, ("before", before), ("original", original)):
        if given is None:
            continue
        require_kind(given, Tensor, name, "pictures (B, C, H, W)")
        if len(given) != len(last):
            raise ValueError(f"{name}: expected {len(last)} images, as in the restoration, got {len(given)}")
    for name, given in (*seen, ("original", original)):
        if given is not None and not comparable(last, given):
            raise ValueError(f"{name}: expected pictures of {_size(last)}, as in the restoration, got {_size(given)}")
    known: dict[str, Tensor] = {}  # name of a trace -> its values (B, iterations)
    if original is not None:
        known["PSNR, dB"] = torch.stack([decibels(image, original) for image in images], 1)
    if found.residuals is not None:
        known["residual"] = found.residuals
    elif steps and all(step.sigma for step in steps):
        known["noise level σ, images in [0, 1]"] = torch.tensor([[step.sigma for step in steps]] * len(last))
    draws = [partial(_draw, {name: trace[row] for name, trace in known.items()}) for row in range(len(last))]
    at, photo = slider("Iteration", len(images), 1, len(images)), slider("Photo", 1, 1, len(last))
    play = ipywidgets.Play(value=at.value, min=1, max=at.max, interval=250, show_repeat=False)
    ipywidgets.jslink((play, "value"), (at, "value"))

    def view() -> View:
        row, number = photo.value - 1, at.value
        given = {"before": before, f"iteration {number}": images[number - 1], "after": last, "original": original}
        columns = {title: batch[row, None] for title, batch in given.items() if batch is not None}
        spent = (steps[number - 1] if steps else found).evaluations[row]
        values = [f"{name}: {float(trace[row, number - 1]):.4g}" for name, trace in known.items() if steps]
        note = "; ".join(filter(None, (f"{spent} evaluations of the prior", *values, found.message)))
        return note, [pictures(columns), *([Part(2.2, draws[row], number if steps else math.nan)] if known else [])]

    return Tool("Restoration player", {"play": play, "iteration": at, "photo": photo}, view, quiet=["play"])


def _size(images: Tensor) -> str:
    return "x".join(map(str, images.shape[1:]))


def _draw(traces: dict[str, Tensor], into: FigureBase) -> None:
    for part, (name, trace) in zip(into.subfigures(1, len(traces), squeeze=False)[0], traces.items(), strict=True):
        positive = "dB" not in name and bool((trace > 0).any())
        curves({name: trace}, x="iteration", y=name, log=positive, into=part)
