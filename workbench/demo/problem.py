"""What a visitor asks for, as it stands on the page, and its checks: all of them before anything runs."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from workbench.demo.controls import takes_kernel, takes_mask
from workbench.measurement import check_numbers
from workbench.noise import FORMS, parse_noise
from workbench.operators.parse import OPERATORS, file_in, operator_name, shrink_factor
from workbench.own import named
from workbench.recipe import Method, Recipe
from workbench.restore import solver_of
from workbench.solvers import SOLVERS, DeqIR
from workbench.text import fits, parse_settings, require, unknown

NO_METHOD = "none"
SMALLEST = 8  # pixels a side; below, no degradation and no metric means anything
MOST_SEED = 2**31
NOISE = "a standard deviation, poisson:PEAK or poisson-gauss:GAIN,SIGMA"


@dataclass(frozen=True)
class Limits:
    """What a server gives to one visitor.

    Attributes:
        upload_megabytes, photo_pixels: of a photo that is uploaded.
        pixels: of the picture that is restored.
        seconds: for one comparison.
        samples: of each method.
        number: the largest number in the settings of a solver (steps, iterations).
        memory_gigabytes: for the states of a solver that holds all noise levels at once.
        waiting: visitors in the queue.
        keep_minutes: how long files stay after they were used.
    """

    upload_megabytes: float = 20
    photo_pixels: int = 40_000_000
    pixels: int = 512 * 512
    seconds: float = 120
    samples: int = 8
    number: int = 1000
    memory_gigabytes: float = 4
    waiting: int = 40
    keep_minutes: float = 15


class Row(NamedTuple):
    """A method as it is chosen on the page; ``settings`` as after ``--set``, with spaces between."""

    solver: str
    prior: str
    settings: str = ""


@dataclass(frozen=True)
class Problem:
    """A photo and how it is, or was, degraded. Names and order are those of the endpoints' parameters.

    Attributes:
        photo, mask, kernel: uploaded files.
        fit: one of :data:`workbench.demo.photo.FITS`; ``side`` in pixels; ``across``, ``down``: where the crop lies,
            from 0 (left, top) to 1 (right, bottom).
        came: whether the photo is degraded already.
        degradation: the operator as on the command line.
        noise: a standard deviation on the [0, 1] scale, or a model as in :data:`NOISE`.
        painting: value of the editor: "layers" (RGBA uint8) and "files" that came with it.

    Raises:
        ValueError: a number that is none or out of its range, or ``came`` is neither true nor false. Nothing is rounded
            or cut to fit.
    """

    photo: str | None
    fit: str = "square"
    side: float = 96
    across: float = 0.5
    down: float = 0.5
    came: bool = False
    degradation: str | None = "sr:4"
    noise: float | str = 0.01
    painting: dict[str, Any] | None = None
    mask: str | None = None
    seed: float = 0
    kernel: str | None = None

    def __post_init__(self) -> None:
        check_number("the side in pixels", self.side, SMALLEST, whole=True)
        check_number("the crop from left to right", self.across, 0, 1)
        check_number("the crop from top to bottom", self.down, 0, 1)
        check_number("the seed", self.seed, 0, MOST_SEED, whole=True)
        require(isinstance(self.came, bool), "whether the photo came degraded", "true or false", repr(self.came)[:40])
        read_noise(self.noise)

    @property
    def layers(self) -> list[np.ndarray]:
        """What was painted."""
        return [layer for layer in (self.painting or {}).get("layers") or [] if layer is not None]

    @property
    def files(self) -> list[str]:
        """Files that came with the painting, to be removed with it."""
        return [file for file in (self.painting or {}).get("files") or [] if file]

    @property
    def operator(self) -> str:
        """Name of the operator."""
        return operator_name(self.degradation or "")

    def spec(self, mask: Path | None, kernel: Path | None = None) -> str:
        """The operator as on the command line, with the file of the ``mask`` or ``kernel`` for those that take one.

        Raises:
            ValueError: it names a file (visitors paint masks, they do not name files of the server), or takes a mask
                and there is none.
        """
        name, text = self.operator, (self.degradation or "").strip()
        if len(text) > 100:
            raise ValueError(f"a degradation is written in up to 100 characters, got {len(text)}")
        if operator_name(text) not in OPERATORS:
            raise ValueError(unknown("operator", name, OPERATORS))  # FILE.py:NAME would run a file of the server
        if name == "none":
            raise ValueError("'none' leaves nothing to restore; write denoise for noise alone")
        if takes_mask(name) and text != name:
            raise ValueError(f"{name!r} takes the mask that you paint or upload here, no file name; write {name}")
        if not takes_mask(name) and file_in(text) is not None:
            instead = ": upload the kernel" if takes_kernel(name) else ""
            raise ValueError(f"name no file of the server here{instead}")
        if name == "mask" and mask is None:
            raise ValueError("paint over what is to be filled, or upload a mask: white is filled, black is kept")
        place = OPERATORS[name].kernel if takes_kernel(name) else None
        if place is not None and kernel is not None:
            return ":".join([*re.split("[:,]", text)[: 1 + place], str(kernel)])
        return f"{name}:{mask}" if takes_mask(name) and mask is not None else text

    def fingerprint(self) -> str:
        """Equal for problems with the same measurement."""
        painted = b"".join(layer.tobytes() for layer in self.layers)
        return hashlib.sha256(repr(replace(self, painting=None)).encode() + painted).hexdigest()


def check_number(name: str, value: Any, low: float, high: float = math.inf, whole: bool = False) -> None:
    """Raise ValueError unless ``value``, which may be anything that was sent, is a number from ``low`` to ``high``."""
    if not (fits(value, float) and low <= value <= high and (not whole or value % 1 == 0)):
        bounds = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        got = "nothing" if value in (None, "") else str(value)[:40]
        raise ValueError(f"{name} must be a {'whole ' if whole else ''}number {bounds}, got {got}")


def read_noise(given: Any) -> float | str:
    """Noise as recipes take it. Raises ValueError for what is none of :data:`NOISE`: visitors name no code here."""
    text = "" if given is None else str(given).strip()[:100]
    try:
        if named(text):
            raise ValueError(f"noise is {FORMS}, got {text!r}")
        noise = parse_noise(text)
        check_numbers(noise, 0)
    except ValueError as error:
        raise ValueError(str(error).replace(FORMS, NOISE)) from None
    return noise if isinstance(noise, float) else text


def write_mask(painted: Sequence[np.ndarray], size: tuple[int, int], path: Path) -> Path | None:
    """Write what was painted as a mask file for operators, white where the photo is lost; None if nothing was.

    Args:
        painted: layers of the editor, RGBA uint8 (h, w, 4), at any size.
        size: (width, height) of the picture they belong to.

    Raises:
        ValueError: everything was painted over.
    """
    opacity = np.zeros((size[1], size[0]), dtype=np.uint8)
    for layer in painted:
        alpha = Image.fromarray(layer[..., 3]).resize(size, Image.Resampling.BOX)
        opacity = np.maximum(opacity, np.asarray(alpha))
    lost = opacity >= 128
    if not lost.any():
        return None
    if lost.all():
        raise ValueError("everything is painted over: leave something to go by")
    Image.fromarray(lost.astype(np.uint8) * 255).save(path)
    return path


def methods_of(rows: Sequence[Row], priors: Mapping[str, str], limits: Limits) -> tuple[Method, ...]:
    """The methods that were chosen, those with a solver.

    Args:
        priors: name -> title on the page.

    Raises:
        ValueError: none at all, an unknown solver or prior, settings that a solver does not take or beyond the limits.
    """
    methods = []
    for number, row in enumerate(rows, 1):
        if row.solver == NO_METHOD:
            continue
        try:
            methods.append(_method(row, priors, limits))
        except ValueError as error:
            raise ValueError(f"method {number}: {error}") from None
    if not methods:
        raise ValueError("choose at least one method")
    names = [method.name for method in methods]
    return tuple(_distinct(method) if names.count(method.name) > 1 else method for method in methods)


def _distinct(method: Method) -> Method:
    """``method`` with its settings in its name, for comparisons of settings."""
    settings = " ".join(f"{name}={value}" for name, value in method.settings.items())
    return method.model_copy(update={"name": f"{method.name}, {settings or 'as it is'}"})


def _method(row: Row, priors: Mapping[str, str], limits: Limits) -> Method:
    if row.solver not in SOLVERS:
        raise ValueError(unknown("solver", row.solver, SOLVERS))
    if row.prior not in priors:
        raise ValueError(unknown("prior", row.prior, priors))
    if len(row.settings) > 300:
        raise ValueError("settings of more than 300 characters")
    words = re.split(r"\s+(?=[^\W\d]\w*=)", row.settings.strip())  # spaces within a value, as in a list, do not end it
    settings = parse_settings([word for word in words if word], "settings")
    for name, value in settings.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if len(values) > limits.number or any(isinstance(v, (int, float)) and abs(v) > limits.number for v in values):
            raise ValueError(f"{name}={value}: numbers up to {limits.number} here")
    solver_of(row.solver, settings)
    return Method(name=f"{row.solver}, {priors[row.prior]}", solver=row.solver, settings=settings, prior=row.prior)


def check_size(recipe: Recipe, photo: Tensor, limits: Limits) -> None:
    """Raise ValueError where the result would have too many pixels, or a solver too many states of it.

    Args:
        photo: (1, 3, h, w); what ``recipe.operator`` made, if given, so that the result is larger for ``sr``.
    """
    factor = 1 if recipe.operator is None else shrink_factor(recipe.operator)
    height, width = (factor * side for side in photo.shape[-2:])
    if height * width > limits.pixels:
        raise ValueError(
            f"the result would have {width}x{height} pixels, the limit is {limits.pixels:,}: a smaller crop or factor"
        )
    for method in recipe.methods:
        solver = solver_of(method.solver, dict(method.settings))
        if isinstance(solver, DeqIR):
            states = min(solver.steps, solver.window or solver.steps)
            # The states, and what Anderson remembers of them: iterates and residuals.
            gigabytes = states * (2 * solver.memory + 4) * recipe.samples * height * width * 3 * 4 / 1e9
            if gigabytes > limits.memory_gigabytes:
                raise ValueError(
                    f"{method.solver} would hold {gigabytes:.1f} GB of states, the limit is "
                    f"{limits.memory_gigabytes:g}: fewer steps or samples, a smaller picture, or window=10"
                )
