"""The pseudo-inverse baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource
from workbench.solvers.base import Callback, Restoration, Step, noise_levels


@dataclass(frozen=True)
class PseudoInverse:
    """``A^+ y``: what the data say and nothing else. Asks no prior, draws no noise, amplifies that of ``y``."""

    summary: ClassVar[str] = "baseline: pseudo-inverse, no prior"
    paper: ClassVar[str] = "Moore-Penrose"

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        op: Operator,
        prior: Prior | None = None,
        *,
        sigma_noise: float | Tensor = 0.0,
        generator: Generators = None,
        noise: NoiseSource | None = None,
        callback: Callback | None = None,
    ) -> Restoration:
        """``A^+ y`` (B, C, H, W). Raises ValueError if ``sigma_noise`` is negative or not finite."""
        noise_levels(sigma_noise, y)
        image = op.pinv(y)
        none = torch.zeros(image.shape[0], dtype=torch.int64)
        if callback is not None:
            callback(Step(1, 1, None, image, none))
        return Restoration(image=image, evaluations=none, iterations=none + 1)
