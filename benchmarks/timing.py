"""Two computations beside each other in one process: the only fair timing on a machine that is shared."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any


def times(
    pair: tuple[Callable[[], Any], Callable[[], Any]], rounds: int, budget: float, clock: Callable[[], float]
) -> tuple[float, float]:
    """Median seconds of both. Chance says who goes first in a round; once over ``budget`` they stop."""
    seconds: tuple[list[float], list[float]] = ([], [])
    order, begun = random.Random(0), time.perf_counter()
    # Round 0 warms up and does not count.
    for index in range(rounds + 1):
        for side in order.sample((0, 1), 2):
            start = clock()
            pair[side]()
            taken = clock() - start
            if index:
                seconds[side].append(taken)
        if index >= 3 and time.perf_counter() - begun > budget:
            break
    return statistics.median(seconds[0]), statistics.median(seconds[1])
