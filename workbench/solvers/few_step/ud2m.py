"""UD2M: posterior samples in few steps of an unfolded and distilled network (Algorithm 1)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from workbench.limits import Count, Share
from workbench.models.adapters import linear_alphas_cumprod
from workbench.models.unfolded import smoothed, unfolded_in
from workbench.solvers.base import Iterate, Problem, Sampler


@dataclass(frozen=True)
class UD2M(Sampler, name="ud2m"):
    """Draws ``x_0`` from ``p(x_0 | y, x_t)`` by the network, and the next ``x_t`` from the diffusion given both.

    Takes every operator that has a ``prox``, also non-linear ones; operator and noise may differ from those of
    training.

    Attributes:
        steps: N; each takes K evaluations.
        eta: share of fresh noise in the reverse step (DDIM); 1 is the exact conditional of the diffusion given a draw
            of x_0.
        depth: K, if given: it must be the K that the network was trained with.
    """

    summary: ClassVar[str] = "posterior samples in few steps of an unfolded, distilled network"
    paper: ClassVar[str] = "UD2M, Algorithm 1"
    linear: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = True
    prior_kind: ClassVar[str] = "unfolded"

    steps: Count = 3
    eta: Share = 1.0
    depth: Count | None = None

    def levels(self, sigma_max: float) -> list[float]:
        """``steps`` levels at evenly spaced times of the DDPM schedule, the first the highest a prior up to
        ``sigma_max`` knows, and 0. Raises ValueError for more steps than times."""
        alphas = linear_alphas_cumprod()
        table = ((1 - alphas) / alphas).sqrt() / 2
        table = table[table <= sigma_max]
        if self.steps > len(table):
            raise ValueError(f"steps must be at most {len(table)}, the times of the schedule, got {self.steps}")
        times = [round(len(table) * n / self.steps) - 1 for n in range(self.steps, 0, -1)]
        return [*table[times].tolist(), 0.0]

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """From grey plus the highest level times the first draw. Per step one draw for each module, then one.

        Raises:
            ValueError: a ``depth`` that is not that of the network.
        """
        network = unfolded_in(p.prior)
        depth = network.unfolding.depth
        if self.depth not in (None, depth):
            raise ValueError(
                f"depth (K) is fixed by training: {network.name} has {depth} modules whose network learned to make up "
                f"for one another, and another number gives artefacts (UD2M, 4.3.2); got {self.depth}. Change steps"
            )
        levels, first = self.levels(network.sigma_max), p.first_estimate()
        if p.initial is None and not p.op.linear:
            first = smoothed(first)
        x = p.grey + levels[0] * p.draw(p.grey)
        for level, lower in pairwise(levels):
            t = torch.full_like(p.sigma_noise, level)
            clean = network.posterior(p.y, p.op, p.sigma_noise, x, t, first, p.draw, p.prior)
            yield Iterate(clean, level, clean, self.steps, evaluations=depth)
            if lower > 0:
                fresh = (self.eta * lower) ** 2 * (1 - (lower / level) ** 2)
                x = clean + math.sqrt(lower**2 - fresh) * (x - clean) / level + math.sqrt(fresh) * p.draw(x)
