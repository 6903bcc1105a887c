"""The page: what stands where, and which function each control calls.

Endpoints for ``gradio_client``: /restore, /degrade, /estimate_noise, /before_after and /methods. Parameters are named
as in ``problem.py``, and what is left out is as when the page opens.
"""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import skimage

from workbench.demo.board import pictures_board
from workbench.demo.controls import takes_mask
from workbench.demo.degradation import (
    PRIVATE,
    QUICK,
    Controls,
    degradation_controls,
    help_writing,
    helpers_for,
    helpers_in,
)
from workbench.demo.endpoints import Page, endpoints, methods_in
from workbench.demo.pair import pair_tab
from workbench.demo.photo import FITS, Amount, Range, bring
from workbench.demo.presets import PRESETS, Preset
from workbench.demo.problem import NO_METHOD, Problem, Row
from workbench.demo.record import computed, opening_board
from workbench.demo.session import Sessions
from workbench.demo.view import WIDTHS, board_html, wrong
from workbench.demo.vote import vote_tab
from workbench.images import SAMPLES
from workbench.models.load import available_priors, shipped_kind
from workbench.operators.parse import describe_operators
from workbench.solvers import SOLVERS

CHANGED = "These are results of earlier methods or settings. <b>Restore</b> runs what is chosen now."
# Runs wait for one another; what answers at once does not wait for runs.
RUN: dict[str, Any] = {"concurrency_id": "run", "concurrency_limit": 1}


def build_page(sessions: Sessions) -> gr.Blocks:
    """The page, answered by ``sessions``."""
    start = next(iter(PRESETS.values()))
    with Page(title="Restoration workbench", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# Restoration workbench", elem_id="title")
        with gr.Tabs():
            with gr.Tab("Restore"):
                with gr.Row():
                    with gr.Column(scale=3, min_width=320):
                        preset = gr.Dropdown(
                            list(PRESETS), label="Start from", show_label=False, container=False, elem_id="preset"
                        )
                    with gr.Column(scale=7, min_width=320):
                        about = gr.Markdown(start.text, elem_id="about")
                with gr.Row(elem_id="workspace"):
                    with gr.Column(scale=3, min_width=320, elem_id="controls"):
                        controls = _photo(start, sessions.limits.upload_megabytes) | degradation_controls(start)
                        methods = _methods(start, sessions)
                        with gr.Row():
                            controls["seed"] = Amount(0, label="Seed", step=1, min_width=80, elem_id="seed")
                            label = f"Samples, up to {sessions.limits.samples}"
                            samples = Amount(start.samples, label=label, step=1, min_width=80, elem_id="count")
                    with gr.Column(scale=7, min_width=320, elem_id="results"):
                        with gr.Row(elem_id="bar"):
                            go = gr.Button("Restore", variant="primary", scale=0, min_width=220, elem_id="go")
                            stop = gr.Button("Cancel", scale=0, min_width=110, elem_id="stop")
                            status = gr.HTML(computed(), label="Status", scale=1, min_width=240, elem_id="status")
                        with gr.Column(visible=False, elem_id="changed") as changed:
                            gr.HTML(CHANGED)
                        shown = _results(board_html(opening_board()), status)
            with gr.Tab("Blind vote") as voting:
                vote = vote_tab(sessions)
            with gr.Tab("Two files"):
                pair_tab(sessions)
        with gr.Accordion("Methods, priors and degradations", open=False, elem_id="reference"):
            gr.Markdown(_reference(sessions))
        problem = [controls[field.name] for field in fields(Problem)]
        answers = endpoints(sessions)
        help_writing(controls)
        _choose_preset(preset, controls, {"about": about, "methods": methods, "samples": samples})
        files = [
            gr.Image(visible=False, format="png", type="filepath", label=name) for name in ("Prepared", "Degraded")
        ]
        gr.Button(visible=False).click(answers["degrade"], problem, files, api_name="degrade", **QUICK)
        estimated = [controls["noise"], shown["status"]]
        controls["estimate"].click(answers["estimate_noise"], problem, estimated, api_name="estimate_noise", **QUICK)
        everything = [*problem, *methods, samples], [changed, *shown.values()]
        gr.Button(visible=False).click(answers["restore"], *everything, api_name="restore", **RUN)
        run = go.click(
            answers["watched"],
            *everything,
            api_visibility="private",
            trigger_mode="once",
            show_progress_on=shown["status"],
            **RUN,
        )
        _follow(sessions, controls, problem, [*methods, samples], shown | {"changed": changed}, run)
        restored = [vote["ballot"], shown["pictures"]]
        run.success(vote["collect"], restored, vote["outputs"], **PRIVATE)
        voting.select(vote["collect"], restored, vote["outputs"], **PRIVATE)
        stop.click(None, None, None, cancels=[run], api_visibility="private")
        stop.click(lambda: "Cancelled.", None, shown["status"], **PRIVATE)
        gr.on(
            [shown["left"].input, shown["right"].input],
            answers["before_after"],
            [shown["left"], shown["right"], shown["pictures"]],
            [shown["slider"], shown["gap"]],
            api_name="before_after",
            **QUICK,
        )
        gr.api(answers["methods"], api_name="methods")
        page.load(answers["opened"], [*problem, *methods, samples], **PRIVATE)
        page.unload(answers["leave"])
    return page


def _photo(start: Preset, megabytes: float) -> Controls:
    """The photo, and what of it is restored."""
    samples = [str(Path(skimage.__file__).parent / "data" / file) for file in SAMPLES.values()]
    first, label = samples[list(SAMPLES).index("cat")], f"Photo, up to {megabytes:g} MB"
    photo = bring(first, camera=True, label=label, height=220, elem_id="photo")
    gr.Examples([[file] for file in samples], photo, label="Samples", elem_id="samples", api_visibility="private")
    with gr.Accordion("Crop and size", open=False, elem_id="framing"):
        choices = [(text, name) for name, text in FITS.items()]
        fit = gr.Radio(choices, value="square", label="What is restored", elem_id="fit")
        side = Amount(start.side, label="Side in pixels", step=8, elem_id="side")
        with gr.Row():
            across = Range(0, 1, 0.5, step=0.05, label="Crop: left to right", elem_id="across")
            down = Range(0, 1, 0.5, step=0.05, label="Crop: top to bottom", elem_id="down")
    return {"photo": photo, "fit": fit, "side": side, "across": across, "down": down}


def _methods(start: Preset, sessions: Sessions) -> list[Any]:
    """Solver, prior and settings of each method, flat."""
    controls: list[Any] = []
    for number, row in enumerate(start.rows, 1):
        with gr.Group():
            with gr.Row():
                names = [*(name for name, _, _ in sessions.solvers()), NO_METHOD]
                controls.append(gr.Dropdown(names, value=row.solver, label=f"Method {number}", scale=2, min_width=90))
                titles = [(title, name) for name, title in sessions.prior_titles().items()]
                controls.append(gr.Dropdown(titles, value=row.prior, label="Prior", scale=3, min_width=130))
            hint = "Settings, such as steps=50"
            controls.append(gr.Textbox(row.settings, show_label=False, placeholder=hint, max_lines=1, max_length=300))
        for name, control in zip(Row._fields, controls[-3:], strict=True):
            control.elem_id = f"{name}{number}"
        solver, prior, _ = controls[-3:]
        solver.select(partial(fitting, sessions.usual_priors()), [solver, prior], prior, **PRIVATE)
    return controls


def fitting(usual: dict[str, str], solver: str, prior: str) -> str:
    """``prior``, or the ``usual`` one (kind -> name) where ``solver`` is known to need another kind."""
    kinds = {name: kind for kind, name in usual.items()} | {name: shipped_kind(name) for name in available_priors()}
    if solver not in SOLVERS or kinds.get(prior) in (None, SOLVERS[solver].prior_kind):
        return prior
    return usual.get(SOLVERS[solver].prior_kind, prior)


def _results(opening: str, status: gr.HTML) -> Controls:
    """What :func:`workbench.demo.endpoints.endpoints`' restore gives, in its order; empty but for the pictures."""
    board = pictures_board("board", opening)
    with gr.Column(visible=False, elem_id="details") as details:
        table = gr.Dataframe(label="Scores", interactive=False, wrap=True, column_widths=WIDTHS, elem_id="scores")
        curves = gr.HTML("", label="Curves", elem_id="curves")
        with gr.Row():
            left = gr.Dropdown(["Degraded"], label="Before", elem_id="left")
            right = gr.Dropdown(["Degraded"], label="After", elem_id="right")
        slider = gr.ImageSlider(
            label="Before and after", format="png", interactive=False, max_height=560, elem_id="slider"
        )
        gap = gr.HTML("", label="Difference", elem_id="gap", elem_classes=["board"])
        download = gr.DownloadButton("Download", elem_id="download")
        with gr.Accordion("run.json: the same run on your machine", open=False):
            recipe = gr.Code(language="json", interactive=False, label="Recipe", show_label=False, elem_id="recipe")
    shown = {"board": board, "status": status, "details": details, "table": table, "curves": curves}
    shown |= {"download": download, "recipe": recipe, "left": left, "right": right, "slider": slider}
    return shown | {"gap": gap, "pictures": gr.State({})}


def _choose_preset(preset: gr.Dropdown, controls: Controls, others: Controls) -> None:
    def choose(name: str) -> list[Any]:
        chosen = PRESETS[name]
        return [
            chosen.text,
            *(value for row in chosen.rows for value in row),
            chosen.samples,
            *(False, "square", chosen.side, chosen.degradation, chosen.noise),
            *helpers_for(chosen.degradation, value=None),
        ]

    names = ("came", "fit", "side", "degradation", "noise")
    written = [others["about"], *others["methods"], others["samples"], *(controls[name] for name in names)]
    preset.select(choose, preset, [*written, *helpers_in(controls)], **PRIVATE)


def _follow(
    sessions: Sessions, controls: Controls, problem: list[Any], methods: list[Any], shown: Controls, run: Any
) -> None:
    """Another problem is previewed and hides the results, other methods grey them: at each change, and after a ``run``
    for what was changed meanwhile. The picture to paint on follows the photo."""

    def preview(request: gr.Request, *values: Any) -> Any:
        session = request.session_hash or ""
        try:
            asked = Problem(*values)
            if sessions.shows_results_of(asked, session):
                return [gr.skip()] * 4
            board, line = sessions.preview(asked, session), sessions.estimated(asked, session)
        except ValueError as error:  # said on the page: a pop-up at each key would be in the way
            sessions.shows_none(session)
            board, line = "", wrong(str(error))
        return board, line, gr.Column(visible=False), gr.Column(visible=False)

    def compare(request: gr.Request, *values: Any) -> gr.Column:
        others = sessions.shows_results_of_others(*methods_in(iter(values)), request.session_hash or "")
        return gr.Column(visible=others)

    def canvas(request: gr.Request, *values: Any) -> Any:
        try:
            asked = Problem(*values)
        except ValueError:  # said by the preview
            return gr.skip()
        return sessions.canvas(asked, request.session_hash or "") if takes_mask(asked.operator) else gr.skip()

    # The editor tells its first stroke as input only.
    changes = [*(control.change for control in problem), controls["painting"].input]
    previewed = [shown[name] for name in ("board", "status", "details", "changed")]
    gr.on(changes, preview, problem, previewed, **PRIVATE)
    gr.on([control.change for control in methods], compare, methods, shown["changed"], **PRIVATE)
    run.success(preview, problem, previewed, **PRIVATE)
    gr.on([control.change for control in methods], None, None, shown["status"], js="() => ''", **PRIVATE)
    run.success(compare, methods, shown["changed"], **PRIVATE)
    framing = [controls[name].change for name in ("photo", "fit", "side", "across", "down", "degradation")]
    gr.on(framing, canvas, problem, controls["painting"], **PRIVATE)


def _reference(sessions: Sessions) -> str:
    solvers = "\n".join(f"| `{name}` | {summary} | {paper} |" for name, summary, paper in sessions.solvers())
    operators = "\n".join(f"| `{syntax}` | {about} |" for syntax, about in describe_operators())
    priors = "\n".join(f"| `{name}` | {about} |" for name, about in sessions.prior_summaries().items())
    return (
        f"| solver | what it does | from |\n| --- | --- | --- |\n{solvers}\n\n"
        f"| prior | what it is |\n| --- | --- |\n{priors}\n\n"
        f"| degradation | what it does |\n| --- | --- |\n{operators}\n\n"
        "*Settings* are written as for `workbench restore --set`, separated by spaces: `steps=50 zeta=0.3`.\n\n"
        "PSNR, SSIM and EfficientNet-Lite0 distance compare with the original, the last one as a network for "
        "photos sees them; it is not LPIPS. "
        "RMS of A x − y is the distance to the measurement; of a good restoration it is the noise, not 0."
    )
