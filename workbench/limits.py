"""What settings may be, said by their types: ``steps: Count = 50`` must be at least 1.

The limits are checked when a dataclass derived from :class:`Limited` is made; None passes where the type allows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_type_hints

from workbench.text import require


@dataclass(frozen=True)
class Limit:
    """What holds of a value, and how to say it. NaN fulfils no comparison, so no limit admits it."""

    text: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Limit("at least 1", lambda v: v >= 1)]
Whole = Annotated[int, Limit("at least 0", lambda v: v >= 0)]
Share = Annotated[float, Limit("in [0, 1]", lambda v: 0 <= v <= 1)]
ShareBelowOne = Annotated[float, Limit("in [0, 1)", lambda v: 0 <= v < 1)]
ShareAboveZero = Annotated[float, Limit("in (0, 1]", lambda v: 0 < v <= 1)]
Between = Annotated[float, Limit("in (0, 1)", lambda v: 0 < v < 1)]
Positive = Annotated[float, Limit("positive and finite", lambda v: 0 < v < math.inf)]
NotNegative = Annotated[float, Limit("finite and >= 0", lambda v: 0 <= v < math.inf)]


class Limited:
    """Base of dataclasses whose fields have limits."""

    def __post_init__(self) -> None:
        for name, kind, limit in _limits(type(self)):  # type: ignore[arg-type]  # classes can be hashed
            value = getattr(self, name)
            number, noun = (Integral, "a whole number") if int in (kind, *get_args(kind)) else (Real, "a number")
            require(isinstance(value, (kind, number)), name, noun, repr(value))
            require(value is None or limit.holds(value), name, limit.text, value)


@cache
def _limits(kind: type) -> list[tuple[str, Any, Limit]]:
    plain, hints = get_type_hints(kind), get_type_hints(kind, include_extras=True).items()
    return [(name, plain[name], limit) for name, hint in hints for limit in _of(hint)]


def _of(hint: Any) -> list[Limit]:
    """The limits of a type; those of ``T`` in ``T | None``."""
    own = [entry for entry in getattr(hint, "__metadata__", ()) if isinstance(entry, Limit)]
    return own or [limit for part in get_args(hint) for limit in _of(part)]
