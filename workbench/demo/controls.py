"""The left half of the page: photo, degradation, methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
import skimage
from PIL import Image
from torch import Tensor

from workbench.demo.components import Painting, Photo
from workbench.demo.photo import FITS
from workbench.demo.presets import Preset, Row
from workbench.demo.task import NO_METHOD, Limits
from workbench.images import SAMPLES, to_pillow
from workbench.operators.parse import Parameter, operator_controls
from workbench.solvers import SOLVERS

ROWS = 4  # methods at a time
EDITOR_SIDE = 384  # the picture to paint on has at least so many pixels along its longer side
TITLES = {title: name for name, (title, _, _) in operator_controls().items() if name != "none"}


@dataclass(frozen=True)
class ProblemControls:
    """Controls of :class:`workbench.demo.events.Problem`, in its order, and those that only help to write them."""

    photo: Photo
    fit: gr.Radio
    side: gr.Slider
    across: gr.Slider
    down: gr.Slider
    came: gr.Checkbox
    degradation: gr.Textbox
    noise: gr.Slider
    painting: Painting
    mask: Photo

    kind: gr.Dropdown
    numbers: tuple[gr.Slider, gr.Slider]
    word: gr.Dropdown
    masking: gr.Group

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The controls that say what is measured."""
        return [getattr(self, field.name) for field in fields(self)[:10]]


def problem_controls(start: Preset, limits: Limits) -> ProblemControls:
    """Photo and degradation, standing as ``start`` says."""
    samples = [str(Path(skimage.__file__).parent / "data" / file) for file in SAMPLES.values()]
    photo = Photo(
        samples[list(SAMPLES).index("cat")],
        label=f"Photo, up to {limits.upload_megabytes:g} MB",
        sources=["upload", "clipboard", "webcam"],
        type="filepath",
        image_mode=None,
        height=220,
        elem_id="photo",
    )
    gr.Examples([[file] for file in samples], photo, label="Samples", elem_id="samples", api_visibility="private")
    with gr.Accordion("Crop and size", open=False, elem_id="framing"):
        fit = gr.Radio(
            [(text, name) for name, text in FITS.items()], value="square", label="What is restored", elem_id="fit"
        )
        side = gr.Slider(16, 512, start.side, step=8, label="Side in pixels", elem_id="side")
        with gr.Row():
            across = gr.Slider(0, 1, 0.5, step=0.05, label="Crop: left to right", elem_id="across")
            down = gr.Slider(0, 1, 0.5, step=0.05, label="Crop: top to bottom", elem_id="down")
    name = start.degradation.partition(":")[0]
    with gr.Group():
        came = gr.Checkbox(False, label="The photo is degraded already, by:", elem_id="came")
        kind = gr.Dropdown(list(TITLES), value=title_of(name), label="Degradation", elem_id="kind")
        first, second, word = parameter_updates(name, start.degradation)
        with gr.Row():
            numbers = (gr.Slider(**first, elem_id="first"), gr.Slider(**second, elem_id="second"))
            choice = gr.Dropdown(**word, elem_id="word")
        with gr.Row():
            degradation = gr.Textbox(
                start.degradation, label="As on the command line", max_lines=1, max_length=60, elem_id="degradation"
            )
            noise = gr.Slider(0, 0.5, start.noise, step=0.005, label="Noise σ", elem_id="noise")
    with gr.Group(visible=False, elem_id="masking") as masking:
        painting = Painting(
            label="Paint over what is to be filled",
            type="numpy",
            image_mode="RGBA",
            sources=[],
            transforms=[],
            brush=gr.Brush(default_size=24, colors=["#ff2d55"], default_color="#ff2d55", color_mode="fixed"),
            layers=False,
            height=420,
            elem_id="painting",
        )
        mask = Photo(
            label="Or upload a mask: white is filled, black is kept",
            sources=["upload", "clipboard"],
            type="filepath",
            image_mode=None,
            height=120,
            elem_id="mask",
        )
    return ProblemControls(
        photo, fit, side, across, down, came, degradation, noise, painting, mask, kind, numbers, choice, masking
    )


def method_controls(start: Preset, priors: Mapping[str, str]) -> list[gr.components.Component]:
    """Solver, prior and settings of each method, flat; ``priors``: name -> how it is called."""
    controls: list[gr.components.Component] = []
    for number in range(1, ROWS + 1):
        row = start.methods[number - 1] if number <= len(start.methods) else Row(NO_METHOD, next(iter(priors)))
        with gr.Group():
            with gr.Row():
                solver = gr.Dropdown(
                    [*SOLVERS, NO_METHOD],
                    value=row.solver,
                    label=f"Method {number}",
                    scale=2,
                    min_width=90,
                    elem_id=f"solver{number}",
                )
                prior = gr.Dropdown(
                    [(title, name) for name, title in priors.items()],
                    value=row.prior,
                    label="Prior",
                    scale=3,
                    min_width=130,
                    elem_id=f"prior{number}",
                )
            settings = gr.Textbox(
                row.settings,
                show_label=False,
                placeholder="Settings, such as steps=50",
                max_lines=1,
                max_length=300,
                elem_id=f"settings{number}",
            )
        controls += [solver, prior, settings]
    return controls


def canvas_of(image: Tensor) -> Image.Image:
    """The picture (1, 3, h, w) for the editor to paint on, large enough to paint."""
    shown = to_pillow(image)
    scale = max(1, -(-EDITOR_SIDE // max(shown.size)))
    return shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)


def title_of(name: str) -> str:
    """How the page calls the operator ``name``."""
    return operator_controls()[name][0]


def parameter_updates(name: str, spec: str = "") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How the two sliders and the list of words stand for the operator ``name``, at the values of ``spec`` if given."""
    _, parameters, _ = operator_controls()[name]
    given = spec.replace(",", ":").split(":")[1:]
    values = {p.label: text for p, text in zip(parameters, given, strict=False)}
    sliders: list[dict[str, Any]] = []
    word: dict[str, Any] = {"choices": [""], "value": "", "label": "", "visible": False}
    for parameter in parameters:
        if parameter.choices:
            value = values.get(parameter.label, parameter.default)
            word = {"choices": list(parameter.choices), "value": value, "label": parameter.label, "visible": True}
        else:
            sliders.append(_slider(parameter, values.get(parameter.label)))
    hidden = {"minimum": 0, "maximum": 1, "value": 0, "step": 1, "label": "", "visible": False}
    first, second = [*sliders, hidden, hidden][:2]
    return first, second, word


def spec_of(title: str, first: float, second: float, word: str) -> str:
    """The operator as on the command line, from the controls."""
    name = TITLES[title]
    numbers = iter((first, second))
    parts = [word if p.choices else f"{next(numbers):g}" for p in operator_controls()[name][1]]
    return ":".join([name, *parts])


def _slider(parameter: Parameter, text: str | None) -> dict[str, Any]:
    value = float(parameter.default if text is None else text)
    return {
        "minimum": parameter.low,
        "maximum": parameter.high,
        "step": parameter.step,
        "value": min(max(value, parameter.low), parameter.high),
        "label": parameter.label,
        "visible": True,
    }
