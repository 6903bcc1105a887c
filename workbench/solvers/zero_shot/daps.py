"""DAPS: decoupled annealing posterior sampling (Zhang et al. 2024).

At every level ``s``, from state x:

    c   = the end of the probability flow from x at level s      ``inner`` steps of Euler's rule
    x0  ~ N(c, r^2) N(y; A x0, sigma_n^2)                        by Langevin steps in the paper
    x   = x0 + s' eps                                            the next level

so that states of neighbouring levels hang together by x0 alone, and an early error can be undone.

For linear operators the middle line is a Gaussian, drawn here exactly in one proximal step, by perturbation
(Papandreou and Yuille 2010): ``prox(c + r e1, y + sigma_n e2, (sigma_n/r)^2)``; for others (JPEG) the same is an
approximation, randomise-then-optimise (Bardsley et al. 2014). Three more things differ from the paper:

- ``r`` is that of PiGDM, ``r^2 = s^2 c^2/(s^2 + c^2)``, with c for the standard deviation of the images; there it is s.
- What the draw adds is white, as no part of a photo is, and a network takes for texture what is not counted as noise.
  So it is: only ``sqrt(s'^2 - r^2) eps`` is added, and the network is told r where that is more than s'.
- ``inner`` is 1 by default, the posterior mean, where the published code takes 5: the flow's end lies half as far from
  x as the mean where noise is small, so that the prior counts half, and samples of a Gaussian posterior have up to
  twice its variance (``docs/exam.md``).
"""

import math
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
    """Decoupled annealing, noise-aware. No gradient through the network.

    Attributes:
        steps: levels of the annealing; 200 in the published code.
        inner: evaluations of the prior at each level, see above.
        spread: ``c`` above.
        count_noise: whether what the draw adds counts as noise of the next state. Not with the exam's exact priors,
            which take it for what it is. Five photos of 64x64 of BSDS500 ``train``, 50 steps, noise 0.05: ``sr:2``
            24.5 dB, without at best 22.4, with a spread of 0.05; half of the pixels missing 25.9 and 23.5.
        sigma_start: the highest level; beside it an image must be as good as grey.
        schedule: "karras", "geometric", "vp", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, drawing an image given the data at each level and noising it anew"
    paper: ClassVar[str] = "Zhang et al. 2024 (DAPS)"
    linear: ClassVar[bool] = False

    steps: Count = 200
    inner: Count = 1
    spread: Positive = 0.5
    count_noise: bool = True
    sigma_start: Positive = 5.0
    schedule: str | Sequence[float] = "karras"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw for the start; per level one like the image, one like the data, and one for the next state."""
        levels = p.levels(self.schedule, self.steps, highest=self.sigma_start)
        x = p.grey + levels[0] * p.draw(p.grey)
        white = 0.0  # what the last draw added, if it counts as noise
        for sigma, lower in pairwise(levels):
            clean = flow(p.prior, x, max(sigma, white), self.inner)
            r = sigma * self.spread / math.hypot(sigma, self.spread)
            about = clean.add(p.draw(clean), alpha=r)
            data = p.y + column(p.sigma_noise, p.y) * p.draw(p.y)
            x = p.op.prox(about, data, (p.sigma_noise / r) ** 2)
            white = r if self.count_noise else 0.0
            if lower > 0:
                x = x.add(p.draw(x), alpha=math.sqrt(max(lower**2 - white**2, 0.0)))
            yield Iterate(x, sigma, clean, self.steps, evaluations=self.inner)


def flow(prior: Prior, x: Tensor, sigma: float, steps: int) -> Tensor:
    """The probability flow ``dx/ds = (x - D)/s`` from level ``sigma`` to 0 in ``steps`` steps of Euler's rule.

    Levels are those of Karras et al. (2022) down to what the prior knows, or a hundredth of ``sigma`` if that is more.
    """
    low = min(sigma, max(prior.sigma_min, sigma / 100))
    for here, there in pairwise([*karras_sigmas(steps, sigma, low).tolist(), 0.0]):
        x = torch.lerp(prior(x, here), x, there / here)
    return x
