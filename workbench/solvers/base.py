"""What every solver returns and reports, so that pages, notebooks and pipelines treat all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from workbench.models.prior import Prior, per_image
from workbench.operators.base import Operator
from workbench.random import Generators, NoiseSource, noise_source


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


def noise_levels(sigma_noise: float | Tensor, y: Tensor) -> Tensor:
    """The noise level of each measurement, (B,). Raises ValueError if negative, not finite or of a wrong shape."""
    try:
        return per_image(sigma_noise, y)
    except ValueError as error:
        raise ValueError(str(error).replace("sigma", "sigma_noise", 1)) from None


def draws(generator: Generators, noise: NoiseSource | None) -> NoiseSource:
    """``noise`` if given, else standard normal draws from ``generator``. Raises ValueError if both are given."""
    if noise is not None and generator is not None:
        raise ValueError("give generator or noise, not both")
    return noise if noise is not None else noise_source(generator)


def require_linear(op: Operator, name: str) -> None:
    """Raise ValueError unless ``op`` is linear, naming a solver that does without."""
    if not op.linear:
        raise ValueError(
            f"{name} projects onto A x = y and needs a linear operator, {type(op).__name__} is not: use diffpir or dps"
        )


def initial_image(op: Operator, y: Tensor, sigma_noise: Tensor) -> Tensor:
    """A first estimate (B, C, H, W) for any operator: mid-grey corrected by the data as far as their noise allows.

    ``prox(1/2, y, (sigma_noise / 0.25)^2)``, weight at least 1e-4: the posterior mean of a white Gaussian image prior
    with mean 1/2 and standard deviation 1/4. On a mask it is y, and 1/2 in the holes (the start of MUPET's DiffPIR); on
    a blur it is a Wiener filter, which unlike ``A^+ y`` does not amplify noise.
    """
    return op.prox(mid_grey(op, y), y, ((sigma_noise / 0.25) ** 2).clamp(min=1e-4))


def mid_grey(op: Operator, y: Tensor) -> Tensor:
    """The grey image (B, C, H, W) of value 1/2 behind measurements like ``y``."""
    return y.new_full(op.image_shape(y.shape), 0.5)
