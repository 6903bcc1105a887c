"""What settings may be, said by their types: ``steps: Count = 50`` must be at least 1.

Types and limits are checked when a dataclass derived from :class:`Limited` is made; None passes where the type allows
it, and so does a field's default.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from workbench.text import fits, require, type_name


@dataclass(frozen=True)
class Limit:
    """What holds of a value, and how to say it. NaN fulfils no comparison, so no limit admits it."""

    text: str
    holds: Callable[[Any], bool]


def one_of(known: Sequence[str]) -> Limit:
    """For a setting that is one of the names ``known``."""
    text = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
    return Limit(text, lambda v: v in known)


Count = Annotated[int, Limit("at least 1", lambda v: v >= 1)]
Whole = Annotated[int, Limit("at least 0", lambda v: v >= 0)]
Share = Annotated[float, Limit("in [0, 1]", lambda v: 0 <= v <= 1)]
ShareBelowOne = Annotated[float, Limit("in [0, 1)", lambda v: 0 <= v < 1)]
ShareAboveZero = Annotated[float, Limit("in (0, 1]", lambda v: 0 < v <= 1)]
Between = Annotated[float, Limit("in (0, 1)", lambda v: 0 < v < 1)]
Positive = Annotated[float, Limit("positive and finite", lambda v: 0 < v < math.inf)]
NotNegative = Annotated[float, Limit("finite and >= 0", lambda v: 0 <= v < math.inf)]
NOUNS = {int: "a whole number", float: "a number", int | None: "a whole number", float | None: "a number"}


class Limited:
    """Base of dataclasses whose fields have limits."""

    def __post_init__(self) -> None:
        for field, kind, limits in _checks(type(self)):  # type: ignore[arg-type]  # classes can be hashed
            name, value = field.name, getattr(self, field.name)
            noun = NOUNS.get(kind) or type_name(kind)
            require(value is field.default or fits(value, kind), name, noun, repr(value))
            for part, limit in limits:
                told = repr(value) if isinstance(value, str) else value
                require(not fits(value, part) or limit.holds(value), name, limit.text, told)


@cache
def _checks(kind: type) -> list[tuple[Field[Any], Any, list[tuple[Any, Limit]]]]:
    plain, hints = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    return [(field, plain[field.name], _of(hints[field.name])) for field in fields(kind)]


def _of(hint: Any) -> list[tuple[Any, Limit]]:
    """The limits of a type, each with the part of it that they hold for: those of ``T`` in ``T | None``."""
    own = [(hint, entry) for entry in getattr(hint, "__metadata__", ()) if isinstance(entry, Limit)]
    return own or [pair for part in get_args(hint) for pair in _of(part)]
