"""Several methods on one measurement, one after the other, shown as they come."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from workbench.evaluation.metrics import METRICS
from workbench.evaluation.perceptual import effnet
from workbench.models.prior import Prior
from workbench.own import told
from workbench.recipe import Method, Recipe, fit_prior, run_method
from workbench.restore import Degraded, Result
from workbench.solvers.base import Step

T = TypeVar("T")
Emit = Callable[[T], None]
JUDGE = "effnet2"  # tells priors apart
# One comparison at a time has the processor; one that was cancelled may still be finishing a step.
_processor = threading.Lock()


@dataclass(frozen=True)
class Panel:
    """One method, as far as it is.

    Attributes:
        state: "waiting", "running", "done" or "failed" (``error`` says why).
        index, total: iterations taken, and how many there are at most.
        evaluations: of the network, per image.
        seconds: since the method began.
        images: (samples, 3, h, w) the current estimates, not clipped; None before the first.
        misfits: (evaluations, root mean square of ``A x - y``) of the first sample, iteration by iteration.
        residuals: of the first sample, for solvers that have one.
        records: of each sample, once done; see :class:`workbench.restore.Result`.
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
        photo: (1, 3, h, w) in [0, 1], what of the visitor's photo is degraded, or came degraded.
        degraded: its measurement, once for each sample.
        remark: on how the photo was read.
        panels: one for each method of the recipe.
    """

    recipe: Recipe
    photo: Tensor
    degraded: Degraded
    remark: str = ""
    panels: tuple[Panel, ...] = ()


def compare(board: Board, load: Callable[[Method], Prior], seconds: float, every: float = 0.25) -> Iterator[Board]:
    """Run the methods of ``board.recipe``; yields the board every ``every`` seconds.

    What a method cannot do (an operator it does not take, more than ``seconds`` for all) is said in its panel, and the
    next one goes on. Closing the generator stops the work at the next iteration.

    Args:
        load: gives the prior of a method.
    """

    def work(emit: Emit[Board]) -> None:
        panels = [Panel(method) for method in board.recipe.methods]

        def show(number: int, panel: Panel) -> None:
            panels[number] = panel
            emit(replace(board, panels=tuple(panels)))

        show(0, panels[0])
        with _processor:
            deadline = time.monotonic() + seconds
            priors = len({panel.method.prior for panel in panels})
            for number, panel in enumerate(panels):
                _run(panel, board.degraded, load, deadline, partial(show, number), judge=priors > 1)

    yield from follow(work, every)


def _run(
    panel: Panel,
    degraded: Degraded,
    load: Callable[[Method], Prior],
    deadline: float,
    show: Callable[[Panel], None],
    judge: bool,
) -> None:
    started, method = time.monotonic(), panel.method

    def watch(step: Step) -> None:
        nonlocal panel
        evaluations, residuals = int(step.evaluations[0]), panel.residuals
        if step.residual is not None and bool(step.residual[0].isfinite()):
            residuals = (*residuals, float(step.residual[0]))
        panel = replace(
            panel,
            index=step.index,
            total=step.total,
            evaluations=evaluations,
            seconds=time.monotonic() - started,
            images=step.image.clone(),
            misfits=(*panel.misfits, (evaluations, misfit(step.image, degraded))),
            residuals=residuals,
        )
        show(panel)
        if time.monotonic() > deadline:
            raise TimeoutError

    panel = replace(panel, state="running")
    show(panel)
    try:
        prior = fit_prior(load(method), method.tile, *degraded.op.image_shape(degraded.y.shape)[-2:])
        result = run_method(degraded, method, prior, callback=watch)
    except TimeoutError:
        show(replace(panel, state="failed", error="out of time; take fewer steps or a smaller picture"))
    except Exception as error:
        show(replace(panel, state="failed", error=told(error, ValueError, MemoryError) or "out of memory"))
    else:
        misfits = panel.misfits or ((result.records[0]["evaluations"], misfit(result.image, degraded)),)
        records = _judged(result) if judge else tuple(result.records)
        show(replace(panel, state="done", images=result.image, misfits=misfits, records=records))


def _judged(result: Result) -> tuple[dict[str, Any], ...]:
    """The records with the perceptual score on which no prior was trained, where it can be measured."""
    original = result.degraded.original
    if original is None or METRICS[JUDGE].unavailable(original):
        return tuple(result.records)
    scores = effnet(result.image, original, name=JUDGE, clip=True).tolist()
    return tuple(record | {JUDGE: value} for record, value in zip(result.records, scores, strict=True))


def misfit(image: Tensor, degraded: Degraded) -> float:
    """Root mean square of ``A x - y``, in units of [0, 1] images, of the first sample."""
    return float((degraded.predicted(image) - degraded.y)[0].square().mean().sqrt())


class Stopped(Exception):
    """Raised inside the work, by ``emit``, once nobody waits for it any more."""


def follow(work: Callable[[Emit[T]], None], every: float = 0.25) -> Iterator[T]:
    """Run ``work(emit)`` in a thread and yield what it emits: the newest every ``every`` seconds, and the last.

    Closing the generator makes the next ``emit`` raise :class:`Stopped` in the work, without waiting for it: a server
    closes generators in its event loop. What the work raises is raised here.
    """
    newest: deque[T] = deque(maxlen=1)
    news, over, stop = threading.Event(), threading.Event(), threading.Event()
    failure: list[BaseException] = []

    def emit(value: T) -> None:
        if stop.is_set():
            raise Stopped
        newest.append(value)
        news.set()

    def run() -> None:
        try:
            work(emit)
        except Stopped:
            pass
        except BaseException as error:  # handed over to the generator
            failure.append(error)
        finally:
            over.set()
            news.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        while newest or not over.is_set():
            news.wait()
            news.clear()
            if newest:
                yield newest.pop()
            over.wait(every)
    finally:
        stop.set()
    if failure:
        raise failure[0]
