"""The page: what stands where, and which function each control calls.

Endpoints for ``gradio_client``: /restore, /degrade, /before_after and /methods. Parameters are named as in
``endpoints.py``, and what is left out is as when the page opens.
"""

from __future__ import annotations

from html import escape
from secrets import token_hex
from typing import Any

import gradio as gr

from workbench.demo.controls import (
    ROWS,
    TITLES,
    ProblemControls,
    canvas_of,
    method_controls,
    parameter_updates,
    problem_controls,
    spec_of,
    title_of,
)
from workbench.demo.endpoints import Endpoints, problem_of
from workbench.demo.events import Events, Problem
from workbench.demo.presets import PRESETS, Preset, Row
from workbench.demo.results import ResultControls, result_controls
from workbench.demo.task import NO_METHOD, takes_mask
from workbench.operators.parse import describe_operators, operator_controls
from workbench.solvers import describe_solvers

# Runs wait for one another; what answers at once does not wait for runs.
RUN: dict[str, Any] = {"concurrency_id": "run", "concurrency_limit": 1}
# A second choice counts though the first is not answered yet: on a slow line Gradio would drop it.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
PRIVATE: dict[str, Any] = {"api_visibility": "private"} | QUICK


def build_page(events: Events) -> gr.Blocks:
    """The page for ``events``."""
    start = next(iter(PRESETS.values()))
    with gr.Blocks(title="Restoration workbench", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(
            "# Restoration workbench\nDegrade a photo, or bring one that is degraded already, and restore it by "
            "several methods."
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                preset = gr.Dropdown(list(PRESETS), label="Start from", elem_id="preset")
                about = gr.Markdown(start.about, elem_id="about")
                controls = problem_controls(start, events.limits)
                methods = method_controls(start, events.prior_titles())
                with gr.Row():
                    seed = gr.Number(
                        0, label="Seed", precision=0, minimum=0, maximum=2**31, min_width=80, elem_id="seed"
                    )
                    samples = gr.Slider(
                        1, events.limits.samples, start.samples, step=1, label="Samples", elem_id="count"
                    )
            with gr.Column(scale=7, min_width=320):
                with gr.Row():
                    go = gr.Button("Restore", variant="primary", elem_id="go")
                    stop = gr.Button("Cancel", elem_id="stop")
                shown = result_controls(_opening(events, controls, start))
        with gr.Accordion("Methods, priors and degradations", open=False, elem_id="reference"):
            gr.Markdown(_reference(events))
        endpoints = Endpoints(events)
        problem = [*controls.inputs, seed]
        _help_writing(controls)
        _choose_preset(preset, about, controls, methods, samples)
        _preview(events, endpoints, controls, problem, shown)
        _run(endpoints, problem, methods, samples, go, stop, shown)
        gr.api(endpoints.methods, api_name="methods")
        page.unload(endpoints.leave)
    return page


def _help_writing(controls: ProblemControls) -> None:
    """The list of degradations and its sliders write the text that counts."""

    def choose(title: str) -> list[Any]:
        name = TITLES[title]
        first, second, word = parameter_updates(name)
        text = spec_of(title, first["value"], second["value"], word["value"])
        masked = operator_controls()[name][2]
        return [gr.Slider(**first), gr.Slider(**second), gr.Dropdown(**word), text, gr.Group(visible=masked)]

    helpers: list[Any] = [*controls.numbers, controls.word]
    controls.kind.select(choose, controls.kind, [*helpers, controls.degradation, controls.masking], **PRIVATE)
    gr.on(
        [control.input for control in helpers],
        spec_of,
        [controls.kind, *helpers],
        controls.degradation,
        **PRIVATE,
    )
    # A photo that came degraded must not be resized: that would change what degraded it.
    controls.came.input(lambda came: "crop" if came else "square", controls.came, controls.fit, **PRIVATE)


def _choose_preset(
    preset: gr.Dropdown, about: gr.Markdown, controls: ProblemControls, methods: list[Any], samples: gr.Slider
) -> None:
    def choose(name: str) -> list[Any]:
        chosen = PRESETS[name]
        kind = chosen.degradation.partition(":")[0]
        first, second, word = parameter_updates(kind, chosen.degradation)
        rows = [*chosen.methods, *[Row(NO_METHOD, chosen.methods[0].prior)] * ROWS][:ROWS]
        return [
            chosen.about,
            *(value for row in rows for value in (row.solver, row.prior, row.settings)),
            *(False, "square", chosen.side, title_of(kind)),
            *(gr.Slider(**first), gr.Slider(**second), gr.Dropdown(**word)),
            *(chosen.degradation, chosen.noise, gr.Group(visible=operator_controls()[kind][2]), chosen.samples),
        ]

    written: list[Any] = [controls.came, controls.fit, controls.side, controls.kind, *controls.numbers, controls.word]
    written += [controls.degradation, controls.noise, controls.masking, samples]
    preset.select(choose, preset, [about, *methods, *written], **PRIVATE)


def _opening(events: Events, controls: ProblemControls, start: Preset) -> str:
    """The pictures the page opens with, made once for all visitors."""
    events.visits.settle()
    sample = controls.photo.value["path"]
    problem = Problem(sample, "square", start.side, 0.5, 0.5, False, start.degradation, start.noise, 0, [], None)
    shown = events.preview(problem, "")
    events.visits.leave("")
    return shown


def _preview(
    events: Events,
    endpoints: Endpoints,
    controls: ProblemControls,
    problem: list[Any],
    shown: ResultControls,
) -> None:
    """The degraded picture follows its controls, and the picture to paint on follows the photo."""

    def preview(request: gr.Request, *values: Any) -> Any:
        problem, session = problem_of(*values), request.session_hash or ""
        if events.shows_results_of(problem, session):
            return gr.skip(), gr.skip()
        try:
            return events.preview(problem, session), ""
        except ValueError as error:  # said on the page: a pop-up at each key would be in the way
            return "", f'<p class="error" role="alert">{escape(str(error))}</p>'

    def canvas(request: gr.Request, *values: Any) -> Any:
        problem, session = problem_of(*values), request.session_hash or ""
        if not takes_mask(problem.degradation):
            return gr.skip()
        try:
            shown = canvas_of(events.framed(problem, session))
        except ValueError:  # said by the preview
            return None
        # A file of this visit: those that Gradio writes are shared by all who see the same picture.
        file = events.visits.folder(session, f"canvas {token_hex()}") / "canvas.png"
        shown.save(file)
        return {"background": str(file), "layers": [], "composite": None}

    gr.on(
        # The editor tells its first stroke as input only.
        [*(control.change for control in problem), controls.painting.input],
        preview,
        problem,
        [shown.board, shown.status],
        **PRIVATE,
    )
    framing: list[Any] = [controls.photo, controls.fit, controls.side, controls.across, controls.down]
    framing += [controls.degradation]
    gr.on(
        [control.change for control in framing],
        canvas,
        problem,
        controls.painting,
        **PRIVATE,
    )
    files = [gr.Image(visible=False, format="png", type="filepath", label=name) for name in ("Prepared", "Degraded")]
    gr.Button(visible=False).click(endpoints.degrade, problem, files, api_name="degrade", **QUICK)


def _run(
    endpoints: Endpoints,
    problem: list[Any],
    methods: list[Any],
    samples: gr.Slider,
    go: gr.Button,
    stop: gr.Button,
    shown: ResultControls,
) -> None:
    outputs = [shown.board, shown.status, shown.details, shown.table, shown.curves, shown.download, shown.recipe]
    pictures = [shown.left, shown.right, shown.slider, shown.pictures]
    run = go.click(
        endpoints.restore,
        [*problem, *methods, samples],
        [*outputs, *pictures],
        api_name="restore",
        trigger_mode="once",
        show_progress_on=shown.status,
        **RUN,
    )
    stop.click(None, None, None, cancels=[run], api_visibility="private")
    stop.click(lambda: "Cancelled.", None, shown.status, queue=False, show_progress="hidden", api_visibility="private")
    gr.on(
        [shown.left.input, shown.right.input],
        endpoints.before_after,
        [shown.left, shown.right, shown.pictures],
        shown.slider,
        api_name="before_after",
        **QUICK,
    )


def _reference(events: Events) -> str:
    solvers = "\n".join(f"| `{name}` | {summary} | {paper} |" for name, summary, paper in describe_solvers())
    operators = "\n".join(f"| `{syntax}` | {about} |" for syntax, about in describe_operators())
    priors = "\n".join(f"| `{name}` | {about} |" for name, about in events.prior_summaries().items())
    return (
        f"| solver | what it does | from |\n| --- | --- | --- |\n{solvers}\n\n"
        f"| prior | what it is |\n| --- | --- |\n{priors}\n\n"
        f"| degradation | what it does |\n| --- | --- |\n{operators}\n\n"
        "*Settings* are written as for `workbench restore --set`, separated by spaces: `steps=50 zeta=0.3`.\n\n"
        "PSNR, SSIM and EfficientNet-Lite0 distance compare with the original, the last one as a network for "
        "photos sees them; it is not LPIPS. "
        "RMS of A x − y is the distance to the measurement; of a good restoration it is the noise, not 0."
    )
