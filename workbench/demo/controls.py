"""The sliders that help to write a degradation, and how they stand for each of them."""

from typing import Any

from workbench.operators.controls import CONTROLS, spec_with, values_in
from workbench.operators.parse import OPERATORS, operator_name

TITLES = {title: name for name, (title, *_) in CONTROLS.items()}
MOST_NOISE = 0.5  # of the slider
HIDDEN: dict[str, Any] = {"minimum": 0, "maximum": 1, "value": 0, "step": 1, "label": "", "visible": False}


def takes_mask(name: str) -> bool:
    """Whether the operator ``name`` is one of those with a painted mask."""
    return name in OPERATORS and OPERATORS[name].file


def takes_kernel(name: str) -> bool:
    """Whether the operator ``name`` is one of those with a kernel, which may be a file."""
    return name in OPERATORS and OPERATORS[name].kernel is not None and name != "mri"  # whose file has coil maps


def parameter_updates(spec: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How the two sliders and the list of words stand for the degradation ``spec``."""
    sliders: list[dict[str, Any]] = []
    word: dict[str, Any] = {"choices": [""], "value": "", "label": "", "visible": False}
    for parameter, value in zip(CONTROLS[operator_name(spec)][1:], values_in(spec), strict=True):
        if parameter.choices:
            word = {"choices": list(parameter.choices), "value": value, "label": parameter.label, "visible": True}
        else:
            numbers = {"minimum": parameter.low, "maximum": parameter.high, "step": parameter.step}
            sliders.append(numbers | {"value": value, "label": parameter.label, "visible": True})
    first, second = [*sliders, HIDDEN, HIDDEN][:2]
    return first, second, word


def spec_of(title: str, first: float | None, second: float | None, word: str, spec: str = "") -> str:
    """The operator as on the command line, from the controls, of which a slider may be empty (None), and from ``spec``,
    what is written there now."""
    numbers = iter("" if number is None else number for number in (first, second))
    values = [word if p.choices else next(numbers) for p in CONTROLS[TITLES[title]][1:]]
    return spec_with(TITLES[title], values, spec)
