"""How nbval compares what a lesson prints: words to the letter, figures as far as two processors agree.

Matrix products add up in another order on another processor, and a printed figure moves in its last place. Cells whose
figures depend on minutes of training carry the tag `nbval-ignore-output`: their assertions say what must hold.
"""

from __future__ import annotations

import re

FIGURE = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


class Printed(str):
    """Equal to text of the same words whose figures are as close as `close` asks."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        same_words = FIGURE.sub("#", self) == FIGURE.sub("#", other)
        return same_words and all(map(close, FIGURE.findall(self), FIGURE.findall(other)))

    def __ne__(self, other: object) -> bool:
        return not self == other


def close(one: str, other: str) -> bool:
    """Within 2 %; a figure with decimals also within 2 units of its last place."""
    if one == other:
        return True
    decimals = len(one.partition("e")[0].partition(".")[2])
    unit = 10.0**-decimals if decimals and "e" not in one else 0.0
    difference = abs(float(one) - float(other))
    return difference <= max(0.02 * abs(float(one)), 2.001 * unit)
