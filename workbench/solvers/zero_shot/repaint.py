"""RePaint: sample the prior, putting the data back at every level, and go back and forth (Lugmayr et al. 2022).

In variance-exploding coordinates one way down from level ``s`` to ``s'`` is the ancestral step of the prior

    x' = D + (s'/s)^2 (x - D) + s' sqrt(1 - (s'/s)^2) n

after which what the data see is that of a noised reference: ``x'' = A^+ (y + s' noise) + (I - A^+ A) x'``. For a mask
this is the paper's eq. (8); for super-resolution it is ILVR (Choi et al. 2021, eq. 7-8), whose low-pass filter is ``A^+
A``; any other linear operator will do. The way back up adds noise: ``x + sqrt(s^2 - s'^2) n``.

Neither paper has noisy data. Here the replacement then turns into the proximal step of weight ``(sigma_n / s')^2``,
which replaces where the data are better than the state and lets the prior's image stand where the state is better; the
last image, at ``s' = 0``, is the prior's own.
"""

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
from workbench.solvers.base import Callback, Restoration, Step, draws, mid_grey, noise_levels, require_linear
from workbench.solvers.fixed_point.rules import require
from workbench.solvers.null_space import replaced
from workbench.solvers.schedules import sampling_sigmas
from workbench.solvers.zero_shot.ddnm import travel


@dataclass(frozen=True)
class RePaint:
    """Replacement of what the data see, with resampling.

    Attributes:
        steps: noise levels; 250 in the paper.
        travel_length, travel_repeat: every ``travel_length`` levels go back that far and come again,
            ``travel_repeat`` times in all, which lets the unseen part fit the seen one; 10 and 10 in the paper. About
            ``steps * travel_repeat`` evaluations.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, putting the data back at each level, with resampling; for masks"
    paper: ClassVar[str] = "Lugmayr et al. 2022"

    steps: int = 50
    travel_length: int = 5
    travel_repeat: int = 4
    schedule: str | Sequence[float] = "vp"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
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

        One draw of noise for the start; two on every way down, the prior's and the reference's; one on every way up.

        Raises:
            ValueError: a non-linear operator, a bad ``sigma_noise``, a schedule or image that does not suit the prior.
        """
        moves = travel(self.steps, self.travel_length, self.travel_repeat)
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        return sample(y, op, prior, moves, levels, "RePaint", sigma_noise, draws(generator, noise), callback)


def sample(
    y: Tensor,
    op: Operator,
    prior: Prior,
    moves: Sequence[tuple[int, int]],
    levels: Sequence[float],
    name: str,
    sigma_noise: float | Tensor,
    draw: NoiseSource,
    callback: Callback | None,
) -> Restoration:
    """The sampler above along ``moves`` between ``levels``, see ``travel``; ``name`` is for messages."""
    require_linear(op, name)
    put_back = replaced(op, y, noise_levels(sigma_noise, y), eta=1.0)
    total = sum(after > before for before, after in moves)
    grey = mid_grey(op, y)
    x, count = grey + levels[0] * draw(grey), 0
    for before, after in moves:
        sigma, lower = levels[before], levels[after]
        if after < before:
            x = x + math.sqrt(lower**2 - sigma**2) * draw(x)
            continue
        clean = prior(x, sigma)
        ratio = (lower / sigma) ** 2
        x = torch.lerp(clean, x, ratio) + lower * math.sqrt(1 - ratio) * draw(x)
        reference = draw(x)
        x = put_back(x - lower * reference, x, reference, lower)
        count += 1
        if callback is not None:
            evaluations = torch.full((y.shape[0],), count, dtype=torch.int64)
            callback(Step(count, total, sigma, clean if count < total else x, evaluations))
    evaluations = torch.full((y.shape[0],), count, dtype=torch.int64)
    return Restoration(image=x, evaluations=evaluations, iterations=evaluations.clone())
