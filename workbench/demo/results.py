"""The right half of the page: pictures, slider, scores, curves, downloads."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import gradio as gr

from workbench.demo.scores import WIDTHS


@dataclass(frozen=True)
class ResultControls:
    """What :func:`result_controls` places."""

    status: gr.HTML
    board: gr.HTML
    details: gr.Column
    left: gr.Dropdown
    right: gr.Dropdown
    slider: gr.ImageSlider
    table: gr.Dataframe
    curves: gr.HTML
    download: gr.DownloadButton
    recipe: gr.Code
    pictures: gr.State


def asset(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files("workbench.demo").joinpath(name).read_text()


def result_controls(opening: str) -> ResultControls:
    """Everything that shows results, empty but for the pictures ``opening``."""
    status = gr.HTML("", label="Status", elem_id="status")
    board = gr.HTML(
        opening,
        label="Pictures",
        html_template=asset("board.html"),
        js_on_load=asset("board.js"),
        apply_default_css=False,
        elem_id="board",
    )
    with gr.Column(visible=False) as details:
        table = gr.Dataframe(label="Scores", interactive=False, wrap=True, column_widths=WIDTHS, elem_id="scores")
        curves = gr.HTML("", label="Curves", elem_id="curves")
        with gr.Row():
            left = gr.Dropdown(["Degraded"], label="Before", elem_id="left")
            right = gr.Dropdown(["Degraded"], label="After", elem_id="right")
        slider = gr.ImageSlider(
            label="Before and after", format="png", interactive=False, max_height=560, elem_id="slider"
        )
        download = gr.DownloadButton("Download", elem_id="download")
        with gr.Accordion("run.json: the same run on your machine", open=False):
            recipe = gr.Code(language="json", interactive=False, label="Recipe", show_label=False, elem_id="recipe")
    return ResultControls(status, board, details, left, right, slider, table, curves, download, recipe, gr.State({}))
