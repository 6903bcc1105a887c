"""DAPS: decoupled annealing posterior sampling (Zhang et al. 2024).

At every level ``s``, from state x:

    c   = the end of the probability flow from x at level s      ``inner`` steps of Euler's rule (Karras et al. 2022)
    x0  ~ N(c, r^2) N(y; A x0, sigma_n^2), r = ``spread`` s      the paper's eq. (7), by Langevin steps there
    x   = x0 + s' eps                                            the next level

so that states of neighbouring levels hang together by x0 alone, and an early error can be undone. For linear operators
the middle line is a Gaussian, drawn here exactly in one proximal step, by perturbation (Papandreou and Yuille 2010):
``prox(c + r e1, y + sigma_n e2, (sigma_n/r)^2)``. The paper takes 100 Langevin steps. For other operators (JPEG) the
same is an approximation, randomise-then-optimise (Bardsley et al. 2014).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, Positive
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.schedules import karras_sigmas


@dataclass(frozen=True)
class DAPS(Sampler, name="daps"):
    """Decoupled annealing, noise-aware.

    Attributes:
        steps: levels of the annealing; 50 to 200 in the paper.
        inner: evaluations of the prior at each level; 5 in the paper.
        spread: r over the level; 1 in the paper.
        schedule: "vp", "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, drawing a clean image given the data at each level and noising it anew"
    paper: ClassVar[str] = "Zhang et al. 2024 (DAPS)"
    linear: ClassVar[bool] = False

    steps: Count = 50
    inner: Count = 5
    spread: Positive = 1.0
    schedule: str | Sequence[float] = "karras"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw for the start; per level one like the image, one like the data, and one for the next state."""
        levels = p.levels(self.schedule, self.steps)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, lower in pairwise(levels):
            clean = flow(p.prior, x, sigma, self.inner)
            r = self.spread * sigma
            about = clean + r * p.draw(clean)
            data = p.y + column(p.sigma_noise, p.y) * p.draw(p.y)
            estimate = p.op.prox(about, data, (p.sigma_noise / r) ** 2)
            x = estimate + lower * p.draw(estimate) if lower > 0 else estimate
            yield Iterate(x, sigma, clean, self.steps, evaluations=self.inner)


def flow(prior: Prior, x: Tensor, sigma: float, steps: int) -> Tensor:
    """The probability flow ``dx/ds = (x - D)/s`` from level ``sigma`` to 0 in ``steps`` steps of Euler's rule.

    Levels are those of Karras et al. down to what the prior knows, or a hundredth of ``sigma`` if that is more.
    """
    low = min(sigma, max(prior.sigma_min, sigma / 100))
    levels = [*karras_sigmas(steps, sigma, low).tolist(), 0.0]
    for here, there in pairwise(levels):
        x = torch.lerp(prior(x, here), x, there / here)
    return x
