"""Zero-shot editing with a consistency model (Song et al. 2023, Algorithm 4): jump, put in the data, add noise."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from workbench.limits import Count
from workbench.operators.base import column
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.prior_samples import jump_levels


@dataclass(frozen=True)
class ConsistencyEditing(Sampler, name="consistency"):
    """Multistep sampling of a consistency model, every jump at t followed by ``prox(x, y, (sigma_noise / t)^2)``.

    For noise-free data that replaces what the data know, as published. Deviations: any operator instead of an
    orthogonal transform with a mask, and noisy data, which the paper does not treat: their weight is DiffPIR's. The
    published functions start from nothing but noise, as this does without ``initial``; the paper starts from the
    prepared image.

    Attributes:
        steps: jumps, one evaluation each.
        schedule: "karras": their grid from the highest to the lowest level of the prior, without the last one; or the
            levels themselves, ``steps`` numbers above 0 that fall.
        clip: to [0, 1] after each jump, as published.
    """

    summary: ClassVar[str] = "a consistency model's jumps, with what the data know put in after each"
    paper: ClassVar[str] = "Song et al. 2023"
    linear: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = True
    prior_kind: ClassVar[str] = "consistency"

    steps: Count = 4
    schedule: str | Sequence[float] = "karras"
    clip: bool = True

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """From ``initial``, or grey, plus the first level times the first draw; then one draw between jumps."""
        levels, end = jump_levels(self.schedule, self.steps, p.prior), p.prior.sigma_min
        start = p.first_image(None)
        x = start + levels[0] * p.draw(start)
        for sigma, lower in pairwise([*levels, end]):
            clean = p.prior(x, sigma)
            clean = clean.clamp(0, 1) if self.clip else clean
            clean = p.op.prox(clean, p.y, (p.sigma_noise / sigma) ** 2)
            yield Iterate(clean, sigma, clean, self.steps)
            if lower > end:
                x = clean + column(math.sqrt(lower**2 - end**2) * p.sigma_noise.new_ones(len(x)), x) * p.draw(clean)
