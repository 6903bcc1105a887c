"""The part of the page that says how the photo is, or was, degraded."""

import math
from typing import Any

import gradio as gr

from workbench.demo.controls import CONTROLS, MOST_NOISE, TITLES, parameter_updates, spec_of, takes_kernel, takes_mask
from workbench.demo.kernel import SUFFIXES, KernelFile
from workbench.demo.photo import Painting, Range, bring
from workbench.demo.presets import Preset
from workbench.demo.problem import SMALLEST
from workbench.operators.controls import spec_with, values_in
from workbench.operators.parse import operator_name

# A second choice counts though the first is not answered yet: on a slow line Gradio would drop it.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
PRIVATE: dict[str, Any] = {"api_visibility": "private"} | QUICK
CAME_SIDE = 128  # of what came degraded: four times larger, it is still within the limit of a server
Controls = dict[str, Any]  # name -> component


def side_for(name: str, side: Any) -> Any:
    """``side`` in pixels, or for the operator that takes powers of two alone the nearest one up to 512."""
    if name != "hadamard" or not isinstance(side, int | float):
        return side
    return 2 ** min(9, round(math.log2(max(SMALLEST, side))))


def degradation_controls(start: Preset) -> Controls:
    """How the photo is, or was, degraded; and controls that only help to write it."""
    name = start.degradation.partition(":")[0]
    with gr.Group():
        came = gr.Checkbox(False, label="The photo is degraded already, by:", elem_id="came")
        kind = gr.Dropdown(list(TITLES), value=CONTROLS[name][0], label="Degradation", elem_id="kind")
        first, second, word = parameter_updates(start.degradation)
        with gr.Row():
            helpers = [Range(**first, elem_id="first"), Range(**second, elem_id="second")]
            choice = gr.Dropdown(**word, elem_id="word")
        degradation = gr.Textbox(
            start.degradation, label="As on the command line", max_lines=1, max_length=60, elem_id="degradation"
        )
        kernel = KernelFile(
            label="Or upload its kernel (.png, .npy, .npz, .mat)",
            file_types=[*SUFFIXES],
            height=80,
            visible=takes_kernel(name),
            elem_id="kernel",
        )
        with gr.Row(equal_height=True):
            noise = gr.Textbox(f"{start.noise:g}", label="Noise", max_lines=1, min_width=90, elem_id="noise")
            sigma: dict[str, Any] = {"minimum": 0, "maximum": MOST_NOISE, "value": start.noise, "step": 0.001}
            level = Range(**sigma, label="as σ", buttons=[], min_width=90, elem_id="level")
            estimate = gr.Button("Estimate", size="sm", min_width=90, scale=0, elem_id="estimate")
    with gr.Group(visible=False, elem_id="masking") as masking:
        painting = Painting(
            label="Paint the gaps",
            type="numpy",
            image_mode="RGBA",
            sources=[],
            transforms=[],
            brush=gr.Brush(default_size=24, colors=["#ff2d55"], default_color="#ff2d55", color_mode="fixed"),
            layers=False,
            height=420,
            elem_id="painting",
        )
        mask = bring(label="Or upload a mask: white is filled, black is kept", height=120, elem_id="mask")
    measured = {"came": came, "degradation": degradation, "noise": noise, "painting": painting, "mask": mask}
    others = {"kind": kind, "helpers": [*helpers, choice], "masking": masking, "estimate": estimate, "level": level}
    return measured | {"kernel": kernel} | others


def helpers_for(spec: str, **kernel: Any) -> list[Any]:
    """How :func:`helpers_in` stand for the degradation ``spec``; ``kernel``: what else becomes of the kernel's file."""
    name = operator_name(spec)
    first, second, word = parameter_updates(spec)
    files = [gr.Group(visible=takes_mask(name)), KernelFile(**kernel, visible=takes_kernel(name))]
    return [CONTROLS[name][0], gr.Slider(**first), gr.Slider(**second), gr.Dropdown(**word), *files]


def helpers_in(controls: Controls) -> list[Any]:
    """What helps to write the degradation: its kind, sliders and words, where a mask is painted, the kernel's file."""
    return [controls["kind"], *controls["helpers"], controls["masking"], controls["kernel"]]


def help_writing(controls: Controls) -> None:
    """The list of degradations and its sliders write the text that counts, and follow what is typed there."""

    def choose(title: str, side: Any) -> list[Any]:
        name = TITLES[title]
        return [spec_with(name, values_in(name)), side_for(name, side), *helpers_for(name)]

    def typed(text: str) -> list[Any]:
        return helpers_for(text) if operator_name(text) in CONTROLS else [gr.skip()] * len(helping)

    kind, helpers, degradation = controls["kind"], controls["helpers"], controls["degradation"]
    side, noise, level = controls["side"], controls["noise"], controls["level"]
    helping = helpers_in(controls)
    kind.select(choose, [kind, side], [degradation, side, *helping], **PRIVATE)
    gr.on([degradation.input, degradation.blur], typed, degradation, helping, **PRIVATE)  # blur: what was pasted
    level.input(None, level, noise, js="(level) => String(level)", **PRIVATE)
    follow = f"(text, level) => text.trim() && text >= 0 && text <= {MOST_NOISE} ? Number(text) : level"
    noise.change(None, [noise, level], level, js=follow, **PRIVATE)
    gr.on([control.input for control in helpers], spec_of, [kind, *helpers, degradation], degradation, **PRIVATE)

    def framing(came: bool, side: Any) -> tuple[str, Any]:
        """One that came degraded must not be resized, which would change what degraded it; its result may be larger."""
        return ("crop", min(side or CAME_SIDE, CAME_SIDE)) if came else ("square", side)

    controls["came"].input(framing, [controls["came"], side], [controls["fit"], side], **PRIVATE)
