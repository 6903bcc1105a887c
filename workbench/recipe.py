"""A comparison as a file: one photo, what degrades it, and the methods that restore it; ``workbench restore run.json``.

    {"photo": "original.png", "degrade": "sr:4", "noise": 0.01, "seed": 0, "samples": 2,
     "methods": [{"solver": "diffpir", "settings": {"steps": 20}, "prior": "photo"},
                 {"solver": "pinv", "prior": "photo"}]}

A recipe fixes its results: on the same machine, with the same versions, they are equal to the last bit. Files that it
names by relative names lie beside it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor

from workbench.images import FINITE, check_range
from workbench.measurement import Degraded, check_numbers, degrade, observe, samples
from workbench.models import Prior, SplitPrior, TiledPrior, load_prior, whole_or_tiles
from workbench.noise import noise_from
from workbench.operators.parse import shrink_factor
from workbench.own import named
from workbench.photo_file import MAX_PIXELS
from workbench.provenance import code_in, located, method_in
from workbench.restore import Result, restore, solver_of
from workbench.solvers.base import Callback
from workbench.text import check_prior_settings, unknown, write_json

MAX_BYTES = 10_000_000
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class Method(BaseModel):
    """A solver and a prior, with their settings.

    Attributes:
        name: a short label; empty: "SOLVER, PRIOR".
        solver, settings: as ``--solver`` and ``--set``.
        prior, prior_settings: as ``--prior`` and ``--prior-set``. A file is found as on the command line.
        tile: pixels; 0: no tiles; None: tiles where the prior does not take the photo whole.
    """

    model_config = _STRICT

    name: str = ""
    solver: str
    settings: dict[str, Any] = {}
    prior: str
    prior_settings: dict[str, Any] = {}
    tile: Annotated[int | None, Field(le=math.isqrt(MAX_PIXELS))] = None

    @property
    def label(self) -> str:
        """``name``, or what it stands for."""
        return self.name or f"{self.solver}, {self.prior}"

    @field_validator("prior_settings")
    @classmethod
    def _of_the_prior(cls, settings: dict[str, Any]) -> dict[str, Any]:
        check_prior_settings(settings, "prior_settings")
        return settings


class Recipe(BaseModel):
    """What a recipe file says. In Python, :func:`make_recipe` builds one with errors of one line.

    Attributes:
        photo: an image file.
        degrade: how to degrade it, or "none": it came degraded, by ``operator``.
        operator: None unless ``degrade`` is "none".
        noise: as ``noise.parse_noise`` takes it; or "auto" for that of a photo that came degraded, estimated.
        seed: fixes degradation and restorations.
        samples: restorations by each method.
        workbench: the version that made the file.
        results, reproduce: records of the restorations and how to run it, for readers.
    """

    model_config = _STRICT

    photo: Annotated[str, Field(min_length=1)]
    degrade: str
    operator: str | None = None
    noise: float | str = 0.0
    seed: int = 0
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=16)]
    workbench: str = ""
    results: list[dict[str, Any]] | None = None
    reproduce: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.operator is None) != (self.degrade != "none"):
            got = f"got degrade {self.degrade}, operator {self.operator or 'not given'}"
            raise ValueError(f"degrade none and an operator go together: the latter is what degraded the photo; {got}")
        if self.noise == "auto" and self.operator is None:
            raise ValueError("noise auto is for photos that came degraded (degrade none): here it is added")
        later = self.noise == "auto" or named(str(self.noise))  # code is not run before it is trusted
        check_numbers(0.0 if later else noise_from(self.noise), self.seed)
        return self


def make_recipe(**values: Any) -> Recipe:
    """``Recipe(**values)``. Raises ValueError in one line."""
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise ValueError(_line(error)) from None


def load_recipe(path: str | Path, trust_code: bool = False) -> Recipe:
    """The recipe in a JSON file. The files it names, of photo, mask and code, are taken from the file's folder.

    ``trust_code``: running it may run the code that it names, ``FILE.py:NAME`` or ``package.module:NAME``.

    Raises:
        ValueError: no such file, more than 10 MB, no JSON, no recipe, or untrusted code; one line, the path first.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: expected a recipe, a JSON file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: {path.stat().st_size:,} bytes, a recipe has at most {MAX_BYTES:,}")
        text = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        recipe = Recipe.model_validate_json(text.removeprefix(b"\xef\xbb\xbf"))  # some editors begin files so
    except ValidationError as error:
        raise ValueError(f"{path}: {_line(error)}") from None
    folder = path.parent
    files = {
        "photo": str(folder / os.path.expanduser(recipe.photo)),
        "degrade": located(recipe.degrade, folder),
        "noise": located(recipe.noise, folder) if isinstance(recipe.noise, str) else recipe.noise,
        "operator": None if recipe.operator is None else located(recipe.operator, folder),
        "methods": tuple(method_in(method, folder) for method in recipe.methods),
    }
    if not trust_code and (code := code_in(recipe)):
        raise ValueError(f"{path}: running it runs the code {', '.join(code)}: if you trust that, say --trust-code")
    return recipe.model_copy(update=files)


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write ``recipe`` as JSON, in one step, names of files as they are.

    Raises:
        ValueError: a setting or result that JSON does not know, or a folder that cannot be written to.
    """
    try:
        write_json(Path(path), recipe.model_dump())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not all of the recipe can be written as JSON ({error})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None


def measure(recipe: Recipe, image: Tensor, prior: Prior | None = None) -> Degraded:
    """What the methods restore: ``image`` (1, 3, H, W) degraded or taken as it is, once for each sample.

    If one sample is wanted, ``image`` may be several photos of one size (B, 3, H, W), each measured as if alone.

    Raises:
        ValueError: samples of several photos, and as :func:`workbench.restore.degrade` and
            :func:`workbench.restore.observe`.
    """
    if len(image) == 1:  # laid out in memory as ``load_image`` does: the last bit of a convolution depends on it
        image = image[0].permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)[None]
    if recipe.operator is None:
        measured = degrade(image, recipe.degrade, recipe.noise, recipe.seed, prior, numbers=(0,) * len(image))
    else:
        measured = observe(image, recipe.operator, recipe.noise, recipe.seed, prior)
    return measured if recipe.samples == 1 else samples(measured, recipe.samples)


def result_size(recipe: Recipe, height: int, width: int) -> tuple[int, int]:
    """Height and width of what restoring a photo of that size gives."""
    factor = 1 if recipe.operator is None else shrink_factor(recipe.operator)
    return factor * height, factor * width


def load_method_prior(method: Method, devices: Sequence[torch.device]) -> Prior:
    """The prior of ``method`` on the first of ``devices``; if there are more, all share what is asked at once."""
    prior = load_prior(method.prior, device=devices[0], **method.prior_settings)
    return SplitPrior(prior, devices) if len(devices) > 1 else prior


def load_priors(recipe: Recipe, image: Tensor, devices: Sequence[torch.device]) -> list[Prior]:
    """The prior of each method, fitted to what restoring ``image`` (1, 3, h, w) gives; equal ones are loaded once."""
    loaded: dict[str, Prior] = {}
    fitted = []
    for method in recipe.methods:
        key = f"{method.prior} {method.prior_settings}"
        if key not in loaded:
            loaded[key] = load_method_prior(method, devices)
        fitted.append(fit_prior(loaded[key], method.tile, *result_size(recipe, *image.shape[-2:])))
    return fitted


def fit_prior(prior: Prior, tile: int | None, height: int, width: int) -> Prior:
    """``prior`` for images of that size: in tiles of ``tile`` pixels, whole for 0, for None whatever suits it."""
    if tile == 0:
        return prior
    return whole_or_tiles(prior, height, width) if tile is None else TiledPrior(prior, tile)


def restore_recipe(
    recipe: Recipe,
    image: Tensor,
    initial: Tensor | None,
    devices: Sequence[torch.device],
    bar: Callable[[str], AbstractContextManager[Callback]],
) -> Iterator[Result]:
    """Restore ``image`` (1, 3, h, w) by every method of ``recipe`` in turn, once all is known to fit together.

    Args:
        initial: see :func:`workbench.restore.restore`.
        devices: see :func:`load_method_prior`.
        bar: shows the progress of the method with that label.

    Raises:
        ValueError: before the first restoration: unknown names or wrong settings, and as :func:`measure` and
            :func:`load_priors`; then as :func:`workbench.restore.restore`.
    """
    for method in recipe.methods:
        solver_of(method.solver, method.settings)
    image = image.to(devices[0])
    initial = None if initial is None else initial.to(devices[0]).expand(recipe.samples, -1, -1, -1)
    priors = load_priors(recipe, image, devices)
    degraded = measure(recipe, image, priors[0])
    for prior in priors[1:]:
        prior.check(degraded.op.adjoint(degraded.y))
    for method, prior in zip(recipe.methods, priors, strict=True):
        with bar(method.label) as callback:
            result = run_method(degraded, method, prior, callback, initial)
        yield result


def run_method(
    degraded: Degraded,
    method: Method,
    prior: Prior,
    callback: Callback | None = None,
    initial: Tensor | None = None,
) -> Result:
    """Restore by ``method``, with its ``prior`` loaded and fitted to the size.

    Raises:
        ValueError: as ``restore``, or what came out is not finite: there is no picture of it.
    """
    solver = solver_of(method.solver, method.settings)
    result = restore(degraded, solver, prior, name=method.solver, callback=callback, initial=initial)
    check_range(result.image, "the restored image", *FINITE)
    return result


def folder_name(index: int, method: Method) -> str:
    """A name for the files of method number ``index`` that every file system takes, at most 60 characters.

    >>> folder_name(1, Method(solver="diffpir", prior="photo-control"))
    '1-diffpir-photo-control'
    """
    return re.sub(r"[^A-Za-z0-9.+_]+", "-", f"{index} {method.label}")[:60].strip("-.")


def _line(error: ValidationError) -> str:
    """One line of ``error``: where, what was expected, what came. A misspelt field comes before what it leaves out."""
    errors = error.errors(include_url=False)
    kinds = [each["type"] for each in errors]
    first = errors[kinds.index("extra_forbidden") if "extra_forbidden" in kinds else 0]
    kind, location, text = first["type"], tuple(part for part in first["loc"] if part != "float"), first["msg"]
    if kind in ("value_error", "extra_forbidden"):
        # These name the field themselves: what of the location matters is the method.
        location = location[:-1]
    if kind == "extra_forbidden":
        text = unknown("field", str(first["loc"][-1]), list((Method if location else Recipe).model_fields))
    elif kind == "value_error":
        text = text.removeprefix("Value error, ")
    elif kind not in ("missing", "json_invalid"):
        came = repr(first["input"])
        text = f"{text[0].lower()}{text[1:]}, got {came if len(came) <= 60 else came[:57] + '...'}"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return f"{place}: {text}" if place else text
