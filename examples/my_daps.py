"""A sampler in the manner of DAPS (Zhang et al. 2024)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from workbench.limits import Count, Positive
from workbench.operators.base import column
from workbench.solvers import Iterate, Problem, Sampler


@dataclass(frozen=True)
class MyDAPS(Sampler):
    """At each noise level: denoise, draw an image given the data, add the noise of the next level.

    Attributes:
        steps: noise levels, one evaluation of the prior each.
        sigma_start: the first level, at which any image looks like noise.
        spread: how far a photo is from its denoised version, a standard deviation.
    """

    summary: ClassVar[str] = "draws an image given the data at each noise level and noises it anew"

    steps: Count = 30
    sigma_start: Positive = 5.0
    spread: Positive = 0.05

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        levels = p.levels("karras", self.steps, highest=self.sigma_start)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, lower in pairwise(levels):  # the last one is 0
            clean = p.prior(x, sigma)
            r = sigma * self.spread / math.hypot(sigma, self.spread)
            data = p.y + column(p.sigma_noise, p.y) * p.draw(p.y)
            x = p.op.prox(clean + r * p.draw(clean), data, (p.sigma_noise / r) ** 2)
            x = x + lower * p.draw(x) if lower > 0 else x
            yield Iterate(x, sigma, clean, self.steps)
