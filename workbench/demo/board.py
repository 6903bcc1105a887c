"""The component that shows pictures: zoomed, moved and magnified together."""

from importlib import resources

import gradio as gr


def asset(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files("workbench.demo").joinpath(name).read_text()


def pictures_board(name: str, value: str = "") -> gr.HTML:
    """A board with the id ``name`` that shows rows of figures, such as :func:`workbench.demo.view.board_html` makes."""
    return gr.HTML(
        value,
        label="Pictures",
        html_template=asset("board.html"),
        js_on_load=asset("board.js"),
        apply_default_css=False,
        elem_id=name,
        elem_classes=["board"],
    )
