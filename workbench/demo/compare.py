"""Several methods on one measurement, one after the other, told step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from workbench.demo.thread import Emit, Stopped, follow
from workbench.models.prior import Prior
from workbench.recipe import Method, Recipe, fit_prior, run_method
from workbench.restore import Degraded
from workbench.solvers.base import Step

# One comparison at a time has the processor; one that was cancelled may still be finishing a step.
_processor = threading.Lock()


@dataclass(frozen=True)
class Panel:
    """One method, as far as it is.

    Attributes:
        method: what runs.
        state: "waiting", "running", "done" or "failed".
        index, total: iterations taken, and how many there are at most.
        evaluations: of the network, per image.
        seconds: since the method began.
        images: (samples, 3, h, w) the current estimates, not clipped; None before the first.
        misfits: (evaluations, root mean square of ``A x - y``) of the first sample, iteration by iteration.
        residuals: of the first sample, for solvers that have one.
        records: of each sample, once done; see :class:`workbench.restore.Result`.
        error: why it failed.
    """

    method: Method
    state: str = "waiting"
    index: int = 0
    total: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    images: Tensor | None = None
    misfits: tuple[tuple[int, float], ...] = ()
    residuals: tuple[float, ...] = ()
    records: tuple[dict[str, Any], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Board:
    """A comparison, as far as it is.

    Attributes:
        recipe: what is run.
        photo: (1, 3, h, w) in [0, 1], the photo that is degraded, or that came degraded.
        degraded: its measurement, once for each sample.
        panels: one for each method.
    """

    recipe: Recipe
    photo: Tensor
    degraded: Degraded
    panels: tuple[Panel, ...]

    @classmethod
    def of(cls, recipe: Recipe, photo: Tensor, degraded: Degraded) -> Board:
        """The board before anything has run."""
        return cls(recipe, photo, degraded, tuple(Panel(method) for method in recipe.methods))


def compare(board: Board, load: Callable[[Method], Prior], seconds: float, every: float = 0.25) -> Iterator[Board]:
    """Run the methods of ``board``, which has none yet; yields the board every ``every`` seconds.

    What a method cannot do (an operator it does not take, more than ``seconds`` for all) is said in its panel, and the
    next one goes on. Closing the generator stops the work at the next iteration.

    Args:
        load: gives the prior of a method.
    """

    def work(emit: Emit[Board]) -> None:
        now = board
        emit(now)
        with _processor:
            deadline = time.monotonic() + seconds
            for number, panel in enumerate(board.panels):
                now = _run(now, number, panel, load, deadline, emit)

    yield from follow(work, every)


def _run(
    board: Board,
    number: int,
    panel: Panel,
    load: Callable[[Method], Prior],
    deadline: float,
    emit: Emit[Board],
) -> Board:
    def show(news: Panel) -> Board:
        now = replace(board, panels=(*board.panels[:number], news, *board.panels[number + 1 :]))
        emit(now)
        return now

    degraded, method = board.degraded, panel.method
    height, width = degraded.op.image_shape(degraded.y.shape)[-2:]
    panel = replace(panel, state="running")
    show(panel)
    started = time.monotonic()

    def watch(step: Step) -> None:
        nonlocal panel
        panel = _advance(panel, step, degraded, time.monotonic() - started)
        show(panel)
        if time.monotonic() > deadline:
            raise TimeoutError

    try:
        prior = fit_prior(load(method), method.tile, height, width)
        result = run_method(degraded, method, prior, callback=watch)
    except Stopped:
        raise
    except TimeoutError:
        return show(replace(panel, state="failed", error="stopped: out of time; take fewer steps or a smaller picture"))
    except (ValueError, MemoryError) as error:
        return show(replace(panel, state="failed", error=str(error) or "out of memory"))
    first = result.records[0]
    return show(
        replace(
            panel,
            state="done",
            index=first["iterations"],
            total=first["iterations"],
            evaluations=first["evaluations"],
            seconds=time.monotonic() - started,
            images=result.image,
            misfits=panel.misfits or ((first["evaluations"], _misfit(result.image, degraded)),),
            records=tuple(result.records),
        )
    )


def _advance(panel: Panel, step: Step, degraded: Degraded, seconds: float) -> Panel:
    """``panel`` after ``step``."""
    evaluations = int(step.evaluations[0])
    residuals = panel.residuals
    if step.residual is not None and bool(step.residual[0].isfinite()):
        residuals = (*residuals, float(step.residual[0]))
    return replace(
        panel,
        index=step.index,
        total=step.total,
        evaluations=evaluations,
        seconds=seconds,
        images=step.image.clone(),
        misfits=(*panel.misfits, (evaluations, _misfit(step.image, degraded))),
        residuals=residuals,
    )


def _misfit(image: Tensor, degraded: Degraded) -> float:
    """Root mean square of ``A x - y``, in units of [0, 1] images, of the first sample."""
    return float((degraded.op(image) - degraded.y)[0].square().mean().sqrt())
