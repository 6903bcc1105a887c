"""The parameters of the operators, for sliders: what they are called, where they start, how far they go."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from workbench.operators.parse import known_operators, operator_name
from workbench.operators.super_resolution import KERNELS


@dataclass(frozen=True)
class Parameter:
    """An argument of an operator as pages and notebooks offer it: a slider, or a choice of words.

    Attributes:
        label: what it is, with its unit.
        default: where it starts.
        low, high, step: of the slider; beyond them ``parse_operator`` may know more.
        choices: the words, instead of a slider.
        like_first: left out, it is as the parameter before.
    """

    label: str
    default: float | str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()
    like_first: bool = False


# Operator -> title and parameters. An operator that is not here is offered by its name and written by hand.
_TITLES: dict[str, tuple[str, *tuple[Parameter, ...]]] = {
    "sr": ("Super-resolution", Parameter("Factor", 4, 2, 8), Parameter("Kernel", "bicubic", choices=tuple(KERNELS))),
    "blur": (
        "Blur",
        Parameter("σ along rows, pixels", 1.5, 0.1, 8, 0.1),
        Parameter("σ along columns, pixels", 1.5, 0.1, 8, 0.1, like_first=True),
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


def values_in(spec: str) -> list[float | str]:
    """The values of the parameters in ``spec``, within their sliders and choices; defaults where it has none."""
    parameters = CONTROLS[operator_name(spec)][1:]
    values: list[float | str] = []
    for parameter, text in zip(parameters, [*_arguments(spec), *[""] * len(parameters)], strict=False):
        values.append(_value(parameter, text, values[0] if parameter.like_first else parameter.default))
    return values


def _value(parameter: Parameter, text: str, default: float | str) -> float | str:
    if parameter.choices:
        return text if text in parameter.choices else default
    with suppress(ValueError):
        if not math.isnan(number := float(text)):
            return min(max(number, parameter.low), parameter.high)
    return default


def _arguments(spec: str) -> list[str]:
    return known_operators()[operator_name(spec)].arguments(spec)


def spec_with(name: str, values: Sequence[float | str], spec: str = "") -> str:
    """The operator ``name`` as on the command line, with ``values`` of its parameters.

    What ``spec`` says of the same operator stays where its values are these, also beyond the sliders, and so does what
    has no control here, unless another word was chosen before it.
    """
    texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
    if operator_name(spec) == name:
        given, same = _arguments(spec), [one == other for one, other in zip(values, values_in(spec), strict=True)]
        further = [] if any(isinstance(value, str) and not same[n] for n, value in enumerate(values)) else given
        texts = [given[n] if same[n] and n < len(given) else text for n, text in enumerate(texts)]
        texts += further[len(values) :]
    return ":".join([name, *texts])
