"""DDNM and DDNM+: sample down the noise levels, replacing what the data know at every step (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Restoration, Step, draws, mid_grey, noise_levels, require_linear
from workbench.solvers.consistency import transition
from workbench.solvers.methods import require
from workbench.solvers.schedules import sampling_sigmas


@dataclass(frozen=True)
class DDNM:
    """Null-space sampling on linear operators; its noise-aware form (DDNM+) wherever ``sigma_noise`` is above 0.

    The published code differs from its paper for noisy data: it rotates the noise by an arbitrary basis
    (``svd_operators.py``, ``Lambda_noise``). This is the paper's form, see ``consistency.py``.

    Attributes:
        steps: noise levels.
        eta: share of fresh noise, in [0, 1): 0 is deterministic given the start. Below 0.5 the noise of badly seen
            components adds up over many steps of noisy data (blur, 100 steps, eta 0: 1.7 times the mean square error).
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
        travel_length, travel_repeat: time travel (RePaint): every ``travel_length`` levels go back that far and come
            again, ``travel_repeat`` times in all. 1 and 1 is none.
    """

    summary: ClassVar[str] = "samples the prior, replacing at each step what the data know; noise-aware (DDNM+)"
    paper: ClassVar[str] = "Wang et al. 2023"

    steps: int = 100
    eta: float = 0.85
    schedule: str | Sequence[float] = "vp"
    travel_length: int = 1
    travel_repeat: int = 1

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(0 <= self.eta < 1, "eta", "in [0, 1)", self.eta)
        require(self.travel_length >= 1, "travel_length", "at least 1", self.travel_length)
        require(self.travel_repeat >= 1, "travel_repeat", "at least 1", self.travel_repeat)

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        op: Operator,
        prior: Prior,
        *,
        sigma_noise: float | Tensor = 0.0,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
    ) -> Restoration:
        """Restore (B, C, H, W) from ``y = op(x) + sigma_noise * eps``; ``sigma_noise`` () or (B,).

        The chain starts at mid-grey plus the highest level times the first draw; then one draw per move.

        Raises:
            ValueError: a non-linear operator, a bad ``sigma_noise``, a schedule or image that does not suit the prior.
        """
        require_linear(op, "DDNM")
        draw, sigma_n = draws(generator, noise), noise_levels(sigma_noise, y)
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        advance = transition(op, y, sigma_n, self.eta)
        moves = travel(self.steps, self.travel_length, self.travel_repeat)
        total = sum(after > before for before, after in moves)
        grey = mid_grey(op, y)
        x, clean, count = grey + levels[0] * draw(grey), grey, 0
        for before, after in moves:
            if after < before:
                x = clean + levels[after] * draw(clean)
                continue
            clean = prior(x, levels[before])
            seen = (x - clean) / levels[before]
            x = advance(clean, seen, draw(x), levels[after])
            count += 1
            if callback is not None:
                evaluations = torch.full((y.shape[0],), count, dtype=torch.int64)
                callback(Step(count, total, levels[before], clean if after < self.steps else x, evaluations))
        evaluations = torch.full((y.shape[0],), count, dtype=torch.int64)
        return Restoration(image=x, evaluations=evaluations, iterations=evaluations.clone())


@dataclass(frozen=True)
class DDNMPlus(DDNM):
    """DDNM with time travel, which the paper has in DDNM+ alone; both are noise-aware here.

    The published code ships without time travel. Going back 10 levels once doubles the evaluations.
    """

    summary: ClassVar[str] = "ddnm with time travel: goes back and comes again, at about twice the cost"
    paper: ClassVar[str] = "Wang et al. 2023 (DDNM+)"

    travel_length: int = 10
    travel_repeat: int = 2


def travel(steps: int, length: int, repeat: int) -> list[tuple[int, int]]:
    """Moves (from level, to level) through levels 0 (noisiest) ... ``steps`` (clean), with time travel.

    RePaint's schedule, the several steps of a way back taken at once: they only add noise to the same clean image.
    """
    left = dict.fromkeys(range(steps - 1, length - 1, -length), repeat - 1)
    moves, level = [], 0
    while level < steps:
        moves.append((level, level + 1))
        level += 1
        if left.get(level, 0) > 0:
            left[level] -= 1
            moves.append((level, level - length))
            level -= length
    return moves
