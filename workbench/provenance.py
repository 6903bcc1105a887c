"""Where what a recipe runs comes from: its files, its code and whether that is trusted, and what changed since."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.models.load import runs_code
from workbench.operators.parse import file_in, is_own
from workbench.own import named
from workbench.solvers.base import SOLVERS

if TYPE_CHECKING:
    from workbench.recipe import Method, Recipe


def located(spec: str, folder: Path) -> str:
    """The operator ``spec``, or FILE.py:NAME, with the file it names, if it does, in ``folder``."""
    spec, file = spec.strip(), file_in(spec)
    if file is None and spec.rpartition(":")[0].endswith(".py"):
        return str(folder / os.path.expanduser(spec))
    return f"{spec.removesuffix(file)[:-1]}:{folder / os.path.expanduser(file)}" if file else spec


def method_in(method: Method, folder: Path) -> Method:
    """``method`` with the FILE.py of solver and prior in ``folder``; prior files are found as on the command line."""
    return method.model_copy(update={key: located(getattr(method, key), folder) for key in ("solver", "prior")})


def code_in(recipe: Recipe) -> list[str]:
    """What running ``recipe`` runs beside this package, FILE.py:NAME and so on."""
    code = [text for text in (recipe.degrade, recipe.operator or "none") if is_own(text)]
    code += [recipe.noise] if isinstance(recipe.noise, str) and named(recipe.noise) else []
    code += [method.solver for method in recipe.methods if method.solver not in SOLVERS and named(method.solver)]
    return code + [method.prior for method in recipe.methods if runs_code(method.prior, method.prior_settings)]


def changes(recipe: Recipe, index: int, record: Mapping[str, Any]) -> str:
    """A line if method number ``index``, from 0, ran with other code or weights than the recipe's results; or empty."""
    before: dict[str, Any] = dict(*(recipe.results or [])[index * recipe.samples :][:1])
    kinds = ("solver", "operator", "noise", "prior")
    news = [kind for kind in kinds if before.get(key := f"{kind}_source", record[key]) != record[key]]
    return f"not what the recipe's results came from: the code or weights of {', '.join(news)}" if news else ""
