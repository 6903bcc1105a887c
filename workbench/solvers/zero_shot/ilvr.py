"""ILVR: sample the prior, replacing the low frequencies by those of the data at every level (Choi et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Restoration, draws
from workbench.solvers.fixed_point.rules import require
from workbench.solvers.schedules import sampling_sigmas
from workbench.solvers.zero_shot.repaint import sample


@dataclass(frozen=True)
class ILVR:
    """Refinement of an unconditional sampler, for super-resolution: RePaint's step without going back.

    The low-pass filter of the paper is ``A^+ A``, its reference ``A^+ y``. Noise-free by design; what happens to noisy
    data is said in ``repaint.py``.

    Attributes:
        steps: noise levels.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, replacing at each level what super-resolution data know"
    paper: ClassVar[str] = "Choi et al. 2021"

    steps: int = 100
    schedule: str | Sequence[float] = "vp"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)

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

        One draw of noise for the start, then two per level, the prior's and the reference's.

        Raises:
            ValueError: a non-linear operator, a bad ``sigma_noise``, a schedule or image that does not suit the prior.
        """
        moves = [(level, level + 1) for level in range(self.steps)]
        levels = sampling_sigmas(self.schedule, self.steps, prior.sigma_min, prior.sigma_max).tolist()
        return sample(y, op, prior, moves, levels, "ILVR", sigma_noise, draws(generator, noise), callback)
