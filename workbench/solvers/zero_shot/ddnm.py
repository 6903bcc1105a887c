"""DDNM and DDNM+: sample down the noise levels, replacing what the data know at every step (Wang et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import (
    Callback,
    Restoration,
    Step,
    draws,
    initial_image,
    mid_grey,
    noise_levels,
    require_linear,
)
from workbench.solvers.fixed_point.rules import require
from workbench.solvers.null_space import transition
from workbench.solvers.schedules import sampling_sigmas


@dataclass(frozen=True)
class DDNM:
    """Null-space sampling on linear operators; its noise-aware form (DDNM+) wherever ``sigma_noise`` is above 0.

    The published code differs from its paper for noisy data: it rotates the noise by an arbitrary basis
    (``svd_operators.py``, ``Lambda_noise``). This is the paper's form, see ``null_space.py``.

    Attributes:
        steps: noise levels.
        eta: share of fresh noise, in [0, 1): 0 is deterministic given the start. Below 0.5 the noise of badly seen
            components adds up over many steps of noisy data (blur, 100 steps, eta 0: 1.7 times the mean square error).
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
        travel_length, travel_repeat: time travel (RePaint): every ``travel_length`` levels go back that far and come
            again, ``travel_repeat`` times in all. 1 and 1 is none.
        sigma_start: begin at the highest level not above this, from another restoration (``initial``), instead of from
            pure noise (DeqIR, section 5.8 and the remark on its Proposition 1): the less of it is trusted, the higher.
            Priors that know little noise, denoisers, serve too.
    """

    summary: ClassVar[str] = "samples the prior, replacing at each step what the data know; noise-aware (DDNM+)"
    paper: ClassVar[str] = "Wang et al. 2023"

    steps: int = 100
    eta: float = 0.85
    schedule: str | Sequence[float] = "vp"
    travel_length: int = 1
    travel_repeat: int = 1
    sigma_start: float | None = None

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(0 <= self.eta < 1, "eta", "in [0, 1)", self.eta)
        require(self.travel_length >= 1, "travel_length", "at least 1", self.travel_length)
        require(self.travel_repeat >= 1, "travel_repeat", "at least 1", self.travel_repeat)
        start = self.sigma_start
        require(start is None or 0 < start < math.inf, "sigma_start", "positive", start)

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
        initial: Tensor | None = None,
    ) -> Restoration:
        """Restore (B, C, H, W) from ``y = op(x) + sigma_noise * eps``; ``sigma_noise`` () or (B,).

        The chain starts at an image plus the highest level times the first draw; then one draw per move. The image is
        ``initial`` (B, C, H, W), range [0, 1], if given (beside a high level it hardly matters: set ``sigma_start``);
        else mid-grey, or with ``sigma_start`` the ``initial_image`` of the data.

        Raises:
            ValueError: a non-linear operator, a bad ``sigma_noise``, a schedule or image that does not suit the prior,
                an ``initial`` of another shape than the result, a ``sigma_start`` that the prior does not know.
        """
        require_linear(op, "DDNM")
        draw, sigma_n = draws(generator, noise), noise_levels(sigma_noise, y)
        ends = (prior.sigma_min, prior.sigma_max, self.sigma_start)
        levels = sampling_sigmas(self.schedule, self.steps, *ends).tolist()
        advance = transition(op, y, sigma_n, self.eta)
        moves = travel(self.steps, self.travel_length, self.travel_repeat)
        total = sum(after > before for before, after in moves)
        clean, count = first_image(op, y, sigma_n, initial, self.sigma_start), 0
        x = clean + levels[0] * draw(clean)
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


def first_image(
    op: Operator, y: Tensor, sigma_noise: Tensor, initial: Tensor | None, sigma_start: float | None
) -> Tensor:
    """What a chain adds its first noise to, (B, C, H, W): ``initial`` if given; else mid-grey, which any image vanishes
    beside at the top, or with ``sigma_start`` the ``initial_image`` of the data: ``A^+ y`` as far as noise allows, and
    grey instead of black where they say nothing.

    Raises:
        ValueError: ``initial`` has not the shape of the result.
    """
    if initial is None:
        return mid_grey(op, y) if sigma_start is None else initial_image(op, y, sigma_noise)
    expected = op.image_shape(y.shape)
    if tuple(initial.shape) != tuple(expected):
        raise ValueError(f"initial must have the shape of the result, {tuple(expected)}, got {tuple(initial.shape)}")
    return initial.to(y)


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
