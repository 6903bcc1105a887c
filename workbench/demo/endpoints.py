"""What the controls call, and ``gradio_client`` by name: parameters and returned values are those of the page."""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import gradio as gr
from pydantic import ValidationError

from workbench.demo.compare import Board
from workbench.demo.presets import PRESETS, ROWS
from workbench.demo.problem import NO_METHOD, Problem, Row
from workbench.demo.session import Sessions
from workbench.demo.view import board_html, curves_svg, difference, score_table, wrong
from workbench.images import load_image
from workbench.operators.parse import describe_operators

log = logging.getLogger(__name__)
FAULT = "Error of the server"
PROBLEM = list(inspect.signature(Problem).parameters.values())


@contextmanager
def said() -> Iterator[None]:
    """What is wrong with a visitor's input is said on the page; what is wrong with the server goes to its log."""
    try:
        yield
    except ValueError as error:
        # Gradio strips quotation marks from the ends of messages.
        raise gr.Error(f"Please check: {error}.", print_exception=False) from None
    except gr.Error:
        raise
    except Exception:
        log.exception("while answering a visitor")
        message = "something went wrong on the server; its log says what"
        raise gr.Error(message, title=FAULT, print_exception=False) from None


class Page(gr.Blocks):
    """Says what Gradio refuses before a function of ours sees it, and writes no traceback of it to the log."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """As Gradio's. Raises ``gr.Error`` for whatever is wrong with what was sent."""
        try:
            if any(isinstance(value, list) for value in inputs):  # which Gradio lets pass as a choice
                raise ValueError("a list was sent where one value is expected")
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except ValidationError:
            message = "photo, mask, kernel and painting are files, in Python handle_file(PATH) of gradio_client"
        except Exception as error:
            message = error.message if isinstance(error, gr.Error) else str(error)
        raise gr.Error(message, print_exception=False)


def taking(parameters: list[inspect.Parameter]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Lets ``function(request, *values)`` be called, in the client, with ``parameters`` by their names."""

    def named(function: Callable[..., Any]) -> Callable[..., Any]:
        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        # inspect looks there; the type of a callable does not say so.
        function.__signature__ = inspect.Signature([request, *parameters])  # type: ignore[attr-defined]
        return function

    return named


def methods_in(values: Iterator[Any]) -> tuple[list[Row], float]:
    """The rows of the page, and how many samples of each, from the ``values`` of these controls."""
    return [Row(next(values), next(values), next(values) or "") for _ in range(ROWS)], next(values, 1)


def _method_parameters() -> list[inspect.Parameter]:
    defaults = {"solver": NO_METHOD, "prior": "", "settings": ""}
    named: dict[str, Any] = {f"{name}_{row}": value for row in range(1, ROWS + 1) for name, value in defaults.items()}
    named["samples"] = 1
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=value) for name, value in named.items()]


def endpoints(sessions: Sessions) -> dict[str, Callable[..., Any]]:
    """Name -> function, answered by ``sessions``."""

    @taking(PROBLEM)
    def degrade(request: gr.Request, *values: Any) -> tuple[str, str]:
        """Prepare a photo and degrade it: the prepared and the degraded picture."""
        with said():
            prepared, degraded = sessions.degraded_files(Problem(*values), request.session_hash or "")
            return str(prepared), str(degraded)

    @taking(PROBLEM)
    def estimate_noise(request: gr.Request, *values: Any) -> tuple[float, str]:
        """Estimate the noise of a photo as it is framed: its standard deviation, and a line that says it."""
        with said():
            # The noise that is written now counts for nothing, not even where it is none.
            names = (parameter.name for parameter in PROBLEM)
            problem = Problem(**(dict(zip(names, values, strict=True)) | {"noise": 0}))
            return sessions.estimate(problem, request.session_hash or "")

    @taking(PROBLEM + _method_parameters())
    def restore(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Degrade a photo and restore it by up to four methods; pictures come as they are computed.

        Returns:
            Pictures (HTML), progress, scores, curves (HTML), a zip file with pictures and run.json, the text of
            run.json, what the slider before and after shows, and how these two differ (HTML).
        """
        keep = gr.skip()
        try:
            with said():
                rest = iter(values)
                problem = Problem(*islice(rest, len(PROBLEM)))
                for board, files in sessions.restore(problem, *methods_in(rest), request.session_hash or ""):
                    if files is None:
                        hidden = gr.Column(visible=False)
                        yield (hidden, board_html(board), _status(board), hidden, *[keep] * 9)
                        continue
                    names = list(files.pictures)
                    done = sum(panel.state == "done" for panel in board.panels)  # whose pictures come last
                    before, after = names[-done:][:2] if done > 1 else (names[0], names[-1])
                    pictures = {name: str(path) for name, path in files.pictures.items()}
                    yield (
                        keep,
                        board_html(board),
                        _status(board, "Done."),
                        gr.Column(visible=True),
                        score_table(board),
                        curves_svg(board),
                        str(files.archive),
                        files.recipe,
                        gr.Dropdown(names, value=before),
                        gr.Dropdown(names, value=after),
                        *_pair(before, after, pictures),
                        pictures,
                    )
        except gr.Error as error:
            yield (keep, keep, wrong(error.message), *[keep] * 10)  # the pop-up goes after a while
            raise

    def before_after(before: str, after: str, pictures: dict[str, str]) -> tuple[tuple[str, str], str]:
        """Two pictures of the last comparison of this session, by their names on the page: for the slider, and how
        they differ (HTML)."""
        with said():
            if not {before, after} <= {*pictures}:
                names = ", ".join(pictures) or "none yet: restore first"
                raise ValueError(f"no pictures {before!r} and {after!r}, there are {names}")
            return _pair(before, after, pictures)

    @taking(PROBLEM + _method_parameters())
    def watched(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """As ``restore``, for the page: a line on progress comes once, so that pictures still on their way to a slow
        browser do not take "Cancelled." away again."""
        told = ""
        for changed, pictures, status, *others in restore(request, *values):
            yield (changed, pictures, gr.skip() if status == told else status, *others)
            told = status

    def methods() -> dict[str, Any]:
        """What there is to choose from: solvers, priors, degradations, and presets."""
        return {
            "solvers": {name: summary for name, summary, _ in sessions.solvers()},
            "priors": sessions.prior_summaries(),
            "degradations": dict(describe_operators()),
            "presets": {name: asdict(preset) for name, preset in PRESETS.items()},
        }

    def opened(request: gr.Request, *values: Any) -> None:
        """The page was opened, and shows the results of these values, computed beforehand."""
        rest = iter(values)
        sessions.shows(Problem(*islice(rest, len(PROBLEM))), *methods_in(rest), request.session_hash or "")

    def leave(request: gr.Request) -> None:
        """The page was closed."""
        sessions.leave(request.session_hash or "")

    answers = {"degrade": degrade, "estimate_noise": estimate_noise, "restore": restore, "before_after": before_after}
    return answers | {"watched": watched, "methods": methods, "opened": opened, "leave": leave}


def _pair(before: str, after: str, pictures: dict[str, str]) -> tuple[tuple[str, str], str]:
    """What the slider shows of ``pictures`` (name -> file), and how these two differ."""
    first, second = pictures[before], pictures[after]
    return (first, second), difference(f"{after} − {before}", load_image(second), load_image(first))


def _status(board: Board, over: str = "Scoring") -> str:
    """One line on how far the comparison is; ``over``: when all methods are done."""
    done = sum(panel.state in ("done", "failed") for panel in board.panels)
    if done < len(board.panels):
        return f"Method {done + 1} of {len(board.panels)}: {board.panels[done].method.label}"
    failed = [f"{panel.method.label}: {panel.error}" for panel in board.panels if panel.state == "failed"]
    return wrong("; ".join(failed)) if failed else over
