"""Two pictures from disk side by side, without restoring anything."""

import math

import gradio as gr

from workbench.demo.board import pictures_board
from workbench.demo.degradation import PRIVATE
from workbench.demo.photo import bring, read_photo
from workbench.demo.session import Sessions
from workbench.demo.view import AMPLIFY, captioned, in_columns, picture, wrong
from workbench.evaluation.metrics import psnr
from workbench.images import from_pillow

LARGEST = 4_000_000  # pixels of each, which the page holds without loss


def pair_html(files: tuple[str, str]) -> tuple[str, str]:
    """The two pictures with their difference, and a sentence on how far apart they are.

    Raises:
        ValueError: one is no picture or too large, or their sizes differ.
    """
    one, two = (from_pillow(read_photo(file, LARGEST)[0]) for file in files)
    sizes = [f"{image.shape[-1]}×{image.shape[-2]}" for image in (one, two)]
    if one.shape != two.shape:
        raise ValueError(f"expected two pictures of one size, got {sizes[0]} and {sizes[1]} pixels")
    figures = [captioned(*each, f"{sizes[0]} pixels") for each in (("First", picture(one)), ("Second", picture(two)))]
    gap = (one - two).abs()
    figures.append(captioned(f"Difference, {AMPLIFY} times", picture(AMPLIFY * gap), f"largest {float(gap.max()):.2f}"))
    decibel = float(psnr(one, two))
    said = f"PSNR between the two: {decibel:.2f} dB, which says how far apart they are, not which is better."
    return in_columns(figures, 3), "The pictures are equal in every pixel." if math.isinf(decibel) else said


def pair_tab(sessions: Sessions) -> None:
    """The tab."""
    gr.Markdown("Two pictures of one size, from your disk: nothing is restored.")
    with gr.Row():
        files = [bring(label=f"{name} picture", height=160, elem_id=name.lower()) for name in ("First", "Second")]
    said = gr.HTML("", elem_id="apart", elem_classes=["verdict"])
    board = pictures_board("pair")
    slider = gr.ImageSlider(label="First and second", format="png", interactive=False, visible=False, elem_id="slider2")

    def compare(request: gr.Request, first: str | None, second: str | None) -> tuple[object, ...]:
        hidden = gr.ImageSlider(visible=False)
        if not first or not second:
            return "", "", hidden
        for file in (first, second):
            sessions.visits.uses(request.session_hash or "", file)
        try:
            shown, sentence = pair_html((first, second))
        except ValueError as error:
            return wrong(str(error)), "", hidden
        return sentence, shown, gr.ImageSlider((first, second), visible=True)

    gr.on([file.change for file in files], compare, files, [said, board, slider], **PRIVATE)
