"""What the controls call, and ``gradio_client`` by name: parameters and returned values are those of the page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from workbench.demo.compare import Board
from workbench.demo.curves import curves_svg
from workbench.demo.events import Events, Problem
from workbench.demo.presets import PRESETS, Row
from workbench.demo.scores import score_table
from workbench.demo.task import NO_METHOD
from workbench.demo.view import board_html
from workbench.operators.parse import describe_operators
from workbench.solvers import describe_solvers

log = logging.getLogger(__name__)


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
        raise gr.Error("something went wrong on the server; its log says what", print_exception=False) from None


def problem_of(
    photo: str | None,
    fit: str,
    side: float,
    across: float,
    down: float,
    came: bool,
    degradation: str,
    noise: float,
    painting: dict[str, Any] | None,
    mask: str | None,
    seed: float | None,
) -> Problem:
    """The values of the left half of the page, in its order."""
    layers = [layer for layer in (painting or {}).get("layers") or [] if layer is not None]
    files = tuple(file for file in (painting or {}).get("files") or [] if file)
    return Problem(photo, fit, side, across, down, came, degradation or "", noise, seed or 0, layers, mask, files)


class Endpoints:
    """The endpoints of ``events``."""

    def __init__(self, events: Events) -> None:
        self.events = events

    def degrade(
        self,
        request: gr.Request,
        photo: str | None,
        fit: str,
        side: float,
        across: float,
        down: float,
        came: bool,
        degradation: str,
        noise: float,
        painting: dict[str, Any] | None = None,
        mask: str | None = None,
        seed: float = 0,
    ) -> tuple[str, str]:
        """Prepare a photo and degrade it: the prepared and the degraded picture."""
        with said():
            problem = problem_of(photo, fit, side, across, down, came, degradation, noise, painting, mask, seed)
            prepared, degraded = self.events.degraded_files(problem, request.session_hash or "")
            return str(prepared), str(degraded)

    def restore(
        self,
        request: gr.Request,
        photo: str | None,
        fit: str,
        side: float,
        across: float,
        down: float,
        came: bool,
        degradation: str,
        noise: float,
        painting: dict[str, Any] | None = None,
        mask: str | None = None,
        seed: float = 0,
        solver_1: str = NO_METHOD,
        prior_1: str = "",
        settings_1: str = "",
        solver_2: str = NO_METHOD,
        prior_2: str = "",
        settings_2: str = "",
        solver_3: str = NO_METHOD,
        prior_3: str = "",
        settings_3: str = "",
        solver_4: str = NO_METHOD,
        prior_4: str = "",
        settings_4: str = "",
        samples: float = 1,
    ) -> Iterator[tuple[Any, ...]]:
        """Degrade a photo and restore it by up to four methods, told as they go.

        Returns:
            Pictures (HTML), how far it is, scores, curves (HTML), a zip file with pictures and run.json, the text of
            run.json, and what the slider before and after shows.
        """
        rows = [
            Row(solver_1, prior_1, settings_1 or ""),
            Row(solver_2, prior_2, settings_2 or ""),
            Row(solver_3, prior_3, settings_3 or ""),
            Row(solver_4, prior_4, settings_4 or ""),
        ]
        keep = gr.skip()
        with said():
            problem = problem_of(photo, fit, side, across, down, came, degradation, noise, painting, mask, seed)
            for board, files in self.events.restore(problem, rows, samples, request.session_hash or ""):
                if files is None:
                    yield (board_html(board), _status(board), gr.Column(visible=False), *[keep] * 8)
                    continue
                names = list(files.pictures)
                before, after = names[0], names[-1] if len(names) > 1 else names[0]
                pictures = {name: str(path) for name, path in files.pictures.items()}
                yield (
                    board_html(board),
                    "Done.",
                    gr.Column(visible=True),
                    score_table(board),
                    curves_svg(board),
                    str(files.archive),
                    files.recipe,
                    gr.Dropdown(names, value=before),
                    gr.Dropdown(names, value=after),
                    (pictures[before], pictures[after]),
                    pictures,
                )

    def before_after(self, before: str, after: str, pictures: dict[str, str]) -> tuple[str, str] | None:
        """Two pictures of the last comparison of this session, by their names on the page, for the slider."""
        with said():
            for name in (before, after):
                if name not in pictures:
                    raise ValueError(
                        f"no picture {name!r}, there are {', '.join(pictures) or 'none yet: restore first'}"
                    )
            return pictures[before], pictures[after]

    def methods(self) -> dict[str, Any]:
        """What there is to choose from: solvers, priors, degradations, and presets."""
        return {
            "solvers": {name: summary for name, summary, _ in describe_solvers()},
            "priors": self.events.prior_summaries(),
            "degradations": dict(describe_operators()),
            "presets": {
                name: {
                    "degradation": preset.degradation,
                    "noise": preset.noise,
                    "side": preset.side,
                    "samples": preset.samples,
                    "methods": [[row.solver, row.prior, row.settings] for row in preset.methods],
                }
                for name, preset in PRESETS.items()
            },
        }

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.events.leave(request.session_hash or "")


def _status(board: Board) -> str:
    """One line on how far the comparison is."""
    done = sum(panel.state in ("done", "failed") for panel in board.panels)
    if done == len(board.panels):
        failed = all(panel.state == "failed" for panel in board.panels)
        return "No method could do this; the reasons stand below the pictures." if failed else "Scoring"
    return f"Method {done + 1} of {len(board.panels)}: {board.panels[done].method.label}"
