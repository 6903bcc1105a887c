"""The parameters of the operators, for sliders: what they are called, where they start, how far they go."""

from __future__ import annotations

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


def values_in(spec: str) -> list[float | str]:
    """The values of the parameters in ``spec``, within their sliders and choices; defaults where it has none."""
    parameters = CONTROLS[operator_name(spec)][1:]
    given = spec.strip().replace(",", ":").split(":")[1:]
    return [_value(*each) for each in zip(parameters, [*given, *[""] * len(parameters)], strict=False)]


def _value(parameter: Parameter, text: str) -> float | str:
    if parameter.choices:
        return text if text in parameter.choices else parameter.default
    with suppress(ValueError):
        return min(max(float(text), parameter.low), parameter.high)
    return parameter.default


def spec_with(name: str, values: Sequence[float | str]) -> str:
    """The operator ``name`` as on the command line, with ``values`` of its parameters."""
    return ":".join([name, *(value if isinstance(value, str) else f"{value:g}" for value in values)])
