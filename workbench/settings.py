"""Settings that somebody wrote, on a command line or in a file: their types are checked before they are used."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def check_types(settings: Mapping[str, Any], types: Mapping[str, Any], what: str) -> None:
    """Raise ValueError unless every setting has its type in ``types`` (annotations; names that are missing may be any).

    >>> check_types({"steps": "many"}, {"steps": int}, "ddnm")
    Traceback (most recent call last):
    ValueError: setting steps of ddnm must be int, got 'many'
    """
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:  # a machine that only trains: wrong types then fail where they are used
        return
    for name, value in settings.items():
        try:
            TypeAdapter(types.get(name, Any)).validate_python(value, strict=True)
        except ValidationError:
            expected = getattr(types[name], "__name__", types[name])
            raise ValueError(f"setting {name} of {what} must be {expected}, got {value!r}") from None


def parse_settings(pairs: Sequence[str], what: str = "--set") -> dict[str, Any]:
    """Settings written NAME=VALUE; values are Python literals, true, false, none, or else text.

    Args:
        what: the option, for messages; names after ``--prior-set`` also pass :func:`check_prior_settings`.

    Raises:
        ValueError: no NAME=VALUE, or a name that is given twice.

    >>> parse_settings(["steps=50", "zeta=0.3", "schedule=vp"])
    {'steps': 50, 'zeta': 0.3, 'schedule': 'vp'}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{what} expects NAME=VALUE, got {pair!r}")
        if name in settings:
            raise ValueError(f"{what} {name} is given twice")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # {[]: 1}; brackets without end
            settings[name] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if what == "--prior-set":
        check_prior_settings(settings, what)
    return settings


def check_prior_settings(names: Iterable[str], what: str) -> None:
    """Raise ValueError if a name is not one of the prior's settings but of ``load_prior``; ``what`` holds them."""
    for name in names:
        if name in ("device", "dtype", "channels_last"):
            raise ValueError(f"{what} {name}: not a setting of the prior, but of how it runs")
