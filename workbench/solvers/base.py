"""What every solver returns and reports, so that pages, notebooks and pipelines treat all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource


@dataclass(frozen=True)
class Step:
    """One iteration as a callback sees it.

    Attributes:
        index, total: iteration number from 1, and how many there will be at most.
        sigma: noise level of this iteration, or None where there is none.
        image: the current estimate of the clean image (B, C, H, W), not clipped.
        evaluations: network evaluations so far, per image (B,).
        residual: per image (B,), or None.
    """

    index: int
    total: int
    sigma: float | None
    image: Tensor
    evaluations: Tensor
    residual: Tensor | None = None


Callback = Callable[[Step], None]


@dataclass(frozen=True)
class Restoration:
    """What a solver returns.

    Attributes:
        image: (B, C, H, W), nominal range [0, 1], not clipped.
        evaluations: network evaluations spent on each image, int64 (B,). A batch of T states of one image counts T.
        iterations: steps truly taken per image, int64 (B,).
        residuals: per image and iteration (B, max iterations), NaN after an image stopped; None where a solver has no
            residual.
        converged: bool (B,); None where convergence is not a notion of the solver.
        message: one line that says what went wrong and what to do, empty if nothing did.
    """

    image: Tensor
    evaluations: Tensor
    iterations: Tensor
    residuals: Tensor | None = None
    converged: Tensor | None = None
    message: str = ""
    extras: dict[str, Any] = field(default_factory=dict)


class Solver(Protocol):
    """A frozen dataclass of settings; calling it restores."""

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
        """Restore ``x`` (B, C, H, W) from ``y = op(x) + sigma_noise * eps``."""
        ...
