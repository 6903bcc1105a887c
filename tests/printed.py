"""How nbval compares what a lesson prints: words to the letter, figures as far as two processors agree.

Matrix products add up in another order on another processor, and a printed figure moves in its last place. Cells whose
figures depend on minutes of training carry the tag `nbval-ignore-output`: their assertions say what must hold.
"""

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
    """Decimals within 2 units of the last place of the finer one; whole numbers and powers of ten within 2 %."""
    decimals = max(len(text.partition(".")[2]) for text in (one, other))
    if not decimals or "e" in one + other:
        return abs(float(one) - float(other)) <= 0.02 * abs(float(one))
    return abs(float(one) - float(other)) <= 2.001 * 10.0**-decimals
