"""The sliders that help to write a degradation, and how they stand for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.operators.parse import OPERATORS, known_operators
from workbench.operators.super_resolution import KERNELS


@dataclass(frozen=True)
class Parameter:
    """An argument of an operator as the page offers it: a slider, or a choice of words.

    Attributes:
        label: what it is, with its unit.
        default: where it starts.
        low, high, step: of the slider; beyond them ``parse_operator`` may know more.
        choices: the words, instead of a slider.
    """

    label: str
    default: float | str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()


# Operator -> title and parameters. An operator that is not here is offered by its name and written by hand.
_TITLES: dict[str, tuple[str, *tuple[Parameter, ...]]] = {
    "sr": ("Super-resolution", Parameter("Factor", 4, 2, 8), Parameter("Kernel", "bicubic", choices=tuple(KERNELS))),
    "blur": (
        "Blur",
        Parameter("σ along rows, pixels", 1.5, 0.1, 8, 0.1),
        Parameter("σ along columns, pixels", 1.5, 0.1, 8, 0.1),
    ),
    "motion": ("Motion blur", Parameter("Length, pixels", 9, 1, 31), Parameter("Angle, degrees", 45, 0, 180)),
    "inpaint": ("Missing pixels", Parameter("Share missing", 0.8, 0.05, 0.98, 0.01)),
    "block": ("Missing square", Parameter("Side, pixels", 24, 1, 128)),
    "text": ("Text over it",),
    "stripes": ("Stripes over it",),
    "mask": ("Painted mask",),
    "gray": ("Black and white",),
    "oldphoto": ("Old photo",),
    "hadamard": ("Compressed sensing", Parameter("Share measured", 0.5, 0.05, 1, 0.05)),
    "mri": ("Magnetic resonance", Parameter("Acceleration", 4, 1, 12)),
    "jpeg": ("JPEG", Parameter("Quality", 10, 1, 100)),
    "denoise": ("Noise alone",),
}
CONTROLS = {name: _TITLES.get(name, (name,)) for name in known_operators() if name != "none"}
TITLES = {title: name for name, (title, *_) in CONTROLS.items()}
MOST_NOISE = 0.5  # of the slider
HIDDEN: dict[str, Any] = {"minimum": 0, "maximum": 1, "value": 0, "step": 1, "label": "", "visible": False}


def takes_mask(name: str) -> bool:
    """Whether the operator ``name`` is one of those with a painted mask."""
    return name in OPERATORS and OPERATORS[name].file


def takes_kernel(name: str) -> bool:
    """Whether the operator ``name`` is one of those with a kernel, which may be a file."""
    return name in OPERATORS and OPERATORS[name].kernel is not None and name != "mri"  # whose file has coil maps


def parameter_updates(name: str, spec: str = "") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How the two sliders and the list of words stand for the operator ``name``, at the values of ``spec`` if given."""
    _, *parameters = CONTROLS[name]
    given = spec.replace(",", ":").split(":")[1:]
    values = {p.label: text for p, text in zip(parameters, given, strict=False)}
    sliders: list[dict[str, Any]] = []
    word: dict[str, Any] = {"choices": [""], "value": "", "label": "", "visible": False}
    for parameter in parameters:
        value = values.get(parameter.label, parameter.default)
        if parameter.choices:
            word = {"choices": list(parameter.choices), "value": value, "label": parameter.label, "visible": True}
        else:
            sliders.append(_slider(parameter, float(value)))
    first, second = [*sliders, HIDDEN, HIDDEN][:2]
    return first, second, word


def spec_of(title: str, first: float, second: float, word: str) -> str:
    """The operator as on the command line, from the controls."""
    name = TITLES[title]
    numbers = iter((first, second))
    parts = [word if p.choices else f"{next(numbers):g}" for p in CONTROLS[name][1:]]
    return ":".join([name, *parts])


def _slider(parameter: Parameter, value: float) -> dict[str, Any]:
    low, high = parameter.low, parameter.high
    numbers = {"minimum": low, "maximum": high, "step": parameter.step, "value": min(max(value, low), high)}
    return numbers | {"label": parameter.label, "visible": True}
