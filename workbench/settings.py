"""Settings that somebody wrote, on a command line or in a file: their types are checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
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
