"""The sliders that help to write a degradation, and how they stand for each of them."""

from __future__ import annotations

from typing import Any

from workbench.operators.parse import Parameter, operator_controls

TITLES = {title: name for name, (title, _, _) in operator_controls().items() if name != "none"}
HIDDEN: dict[str, Any] = {"minimum": 0, "maximum": 1, "value": 0, "step": 1, "label": "", "visible": False}


def title_of(name: str) -> str:
    """How the page calls the operator ``name``."""
    return operator_controls()[name][0]


def takes_mask(name: str) -> bool:
    """Whether the operator ``name`` is one of those with a painted mask."""
    return name in operator_controls() and operator_controls()[name][2]


def parameter_updates(name: str, spec: str = "") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """How the two sliders and the list of words stand for the operator ``name``, at the values of ``spec`` if given."""
    _, parameters, _ = operator_controls()[name]
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
    parts = [word if p.choices else f"{next(numbers):g}" for p in operator_controls()[name][1]]
    return ":".join([name, *parts])


def _slider(parameter: Parameter, value: float) -> dict[str, Any]:
    low, high = parameter.low, parameter.high
    numbers = {"minimum": low, "maximum": high, "step": parameter.step, "value": min(max(value, low), high)}
    return numbers | {"label": parameter.label, "visible": True}
