"""An operator and what it does to a photo."""

import ipywidgets
import torch
from torch import Tensor

from workbench.images import sample_photo
from workbench.noise import Noise, NoiseLike, noise_from
from workbench.operators.base import Operator, SpectralOperator
from workbench.operators.blur import CircularBlur
from workbench.operators.controls import CONTROLS, spec_with, values_in
from workbench.operators.parse import operator_name
from workbench.plots import curves
from workbench.restore import degrade
from workbench.text import require
from workbench.widgets.tool import Part, Tool, View, one_photo, pictures, slider

POINTS = 400  # of a curve


def operator_explorer(
    photo: Tensor | None = None, operator: str = "blur:1.5", noise: NoiseLike = 0.01, seed: int = 0
) -> Tool:
    """What an operator does to ``photo`` (1, 3, H, W) in [0, 1]: ``y = A x + noise``, ``A†y``, spectrum.

    All registered operators are listed, with a control for each parameter. What is written beside counts: all that the
    command line takes, also FILE.py:NAME. The noise is a slider, or written as "poisson:30"; one that is neither,
    such as a level for each channel, stays. Arguments, and ValueError for bad ones, are as of ``restore.degrade``.
    """
    x = one_photo(sample_photo("astronaut", 128) if photo is None else photo)
    require(isinstance(operator, str), "operator", "written as on the command line", operator)
    degrade(x, operator, noise, seed)  # a control would cut what is beyond it, and say nothing
    kind = ipywidgets.Dropdown(
        options=[(title, name) for name, (title, *_) in CONTROLS.items()], description="Operator"
    )
    text = ipywidgets.Text(operator, description="A =", continuous_update=False)
    known = noise_from(noise)
    if isinstance(noise, str):
        level = ipywidgets.Text(noise, description="Noise", continuous_update=False)
    elif isinstance(known, Noise):
        level = ipywidgets.Text(str(known), description="Noise", disabled=True)
    else:
        level = slider("Noise σ, images in [0, 1]", known, 0, max(0.5, known), 0.005)
    number, parameters = ipywidgets.IntText(seed, description="Seed"), ipywidgets.HBox()

    def written() -> str:
        return spec_with(kind.value, [control.value for control in parameters.children], text.value)

    def choose(_: object) -> None:
        if kind.value not in (None, operator_name(text.value)):
            text.value = spec_with(kind.value, values_in(kind.value))

    def offer(_: object = None) -> None:
        """The controls of what is written, unless they say so already."""
        name = operator_name(text.value) if operator_name(text.value) in CONTROLS else None
        values = values_in(text.value) if name else []
        if name is not None and name == kind.value and values == [control.value for control in parameters.children]:
            return
        kind.value, parameters.children = name, []
        for parameter, value in zip(CONTROLS[name][1:], values, strict=True) if name else ():
            if parameter.choices:
                control = ipywidgets.Dropdown(options=parameter.choices, value=value, description=parameter.label)
            else:
                control = slider(parameter.label, value, parameter.low, parameter.high, parameter.step)
            parameters.children += (control,)
            control.observe(lambda _: setattr(text, "value", written()), "value")

    def view() -> View:
        found = degrade(x, text.value, known if level.disabled else level.value, number.value)
        op, y = found.op, found.y
        columns = {"photo x": x, "y = A x + noise" if found.picture is y else "Aᵀy": found.picture}
        columns["A†y" if op.linear else "stand-in for A†y (A is not linear)"] = op.pinv(y)
        sizes = (f"{name}: {'×'.join(map(str, z.shape[1:]))}" for name, z in (("x", x), ("y", y)))
        return ", ".join(sizes), [pictures(columns), *_spectrum(op, x)]

    offer()
    kind.observe(choose, "value")
    text.observe(offer, "value")
    controls = {"operator": kind, "text": text, "parameters": parameters, "noise": level, "seed": number}
    return Tool("Operator explorer", controls, view, quiet=["operator", "parameters"])


def _spectrum(op: Operator, x: Tensor) -> list[Part]:
    """Of a blur its transfer function, else the singular values; nothing where they are not known in closed form."""
    if not isinstance(op, SpectralOperator):
        return []
    values, name, at = op.singular_values(x), "singular value", "share of all singular values, %"
    if isinstance(op, CircularBlur):
        name, at = "transfer function", "frequency, cycles per pixel"
        lines = {"along rows": values[0, 0, 0], "along columns": values[0, 0, :, 0]}
        lines = {along: line[: len(line) // 2 + 1] for along, line in lines.items()}
        places = {along: torch.linspace(0, 0.5, len(line)) for along, line in lines.items()}
    else:
        values = values.expand(op.analysis(x).shape).flatten().sort(descending=True).values
        shares = torch.linspace(0, 1, POINTS)
        lines, places = {name: values[(shares * (len(values) - 1)).long()]}, {name: 100 * shares}
    return [Part(2.2, lambda into: curves(lines, at=places, x=at, y=name, log=False, into=into))]
