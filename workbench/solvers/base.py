"""What solvers share: the problem, one loop for all samplers, what is returned and reported, the registry.

A sampler is its equations: a frozen dataclass of settings whose ``iterate`` is a generator, one :class:`Iterate` per
network evaluation. :class:`Sampler` does the rest: it checks, draws, counts, reports and returns. ``class
Mine(Sampler, name="mine")`` registers it under that name for the command line, pages, notebooks and pipelines.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from workbench.images import PLAUSIBLE, finite_images
from workbench.limits import Limited
from workbench.models.check import check_once
from workbench.models.prior import Prior, per_image
from workbench.operators.base import Operator
from workbench.operators.contract import check_first_use, check_measurement
from workbench.operators.weighted import unweighted
from workbench.random import Generators, NoiseSource, noise_source
from workbench.solvers.schedules import sampling_sigmas
from workbench.solvers.start import first_estimate, mid_grey
from workbench.text import require, require_kind

SOLVERS: dict[str, type[Solver]] = {}


@dataclass(frozen=True)
class Step:
    """One iteration as a callback sees it.

    Attributes:
        index, total: iteration number from 1, and how many there will be at most.
        sigma: noise level of this iteration, or None where there is none.
        image: the current estimate of the clean image (B, C, H, W), not clipped; it stays as it is.
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


@dataclass(frozen=True)
class Solver(Limited, ABC):
    """A frozen dataclass of settings; calling it restores. A subclass gives :meth:`run`.

    Attributes:
        summary, paper: a line on what it does, and where it comes from.
        linear: it needs a linear operator.
        needs_prior: False for one that asks no prior.
        takes_initial: it can start from another restoration.
        prior_kind: the kind of prior that it asks, see :class:`Prior`.
    """

    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    linear: ClassVar[bool] = True
    needs_prior: ClassVar[bool] = True
    takes_initial: ClassVar[bool] = False
    prior_kind: ClassVar[str] = "denoiser"

    def __init_subclass__(cls, name: str | None = None) -> None:
        if name is not None:
            known = SOLVERS.get(name, cls).__module__
            if known.startswith("workbench.") and not cls.__module__.startswith("workbench."):
                raise ValueError(f"class {cls.__name__}: {name!r} is a solver of this package, choose another name")
            SOLVERS[name] = cls

    @abstractmethod
    def run(self, p: Problem, callback: Callback | None = None) -> Restoration:
        """Solve ``p``; ``callback`` is called after every iteration. No graph is kept."""

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
        initial: Tensor | None = None,
    ) -> Restoration:
        """Restore (B, C, H, W) from ``y = op(x) + sigma_noise * eps``.

        Args:
            sigma_noise: standard deviation () or (B,).
            generator, noise: the source of randomness, see ``workbench/random.py``; not both.
            callback: called after every iteration with a :class:`Step`.
            initial: another restoration (B, C, H, W), range [0, 1], to start from, for solvers that take one.

        Raises:
            ValueError: an argument of another kind, an operator that is not linear where one is needed, no prior or one
                of another kind than is needed, or that is none (``check_operator``, ``check_prior``: at first use), a
                bad ``sigma_noise``, a schedule or an image that does not suit the prior, an ``initial`` of another
                shape than the result.
        """
        require(callback is None or callable(callback), "callback", "a function of a Step", repr(callback))
        p = self.problem(y, op, prior, sigma_noise, draws(generator, noise), initial)
        remark = "" if prior is None else check_once(prior, p.grey)
        found = self.run(p, callback)
        require_kind(found, Restoration, f"what {type(self).__name__}.run returns", "see workbench.solvers.base")
        require(found.image.shape == p.grey.shape, "the restored image", f"of {p.grey.shape}", found.image.shape)
        return replace(found, message="; ".join(filter(None, (found.message, remark, _out_of_range(found.image)))))

    def problem(
        self,
        y: Tensor,
        op: Operator,
        prior: Prior | None,
        sigma_noise: float | Tensor,
        draw: NoiseSource,
        initial: Tensor | None = None,
    ) -> Problem:
        """The arguments of a call, checked. Raises ValueError as the call."""
        shape = check_measurement(op, y)
        if prior is not None:
            require_kind(prior, Prior, "prior", "see load_prior")
        name = self.check_suits(unweighted(op, y)[0], prior)
        if self.needs_prior and prior is None:
            raise ValueError(f"{name} needs a prior, got None")
        if initial is not None:
            if not self.takes_initial:
                others = ", ".join(key for key, kind in SOLVERS.items() if kind.takes_initial)
                raise ValueError(f"{name} takes no initial image; these do: {others}")
            require_kind(initial, Tensor, "initial", "a restoration (B, C, H, W)")
            require(initial.shape == shape, "initial", f"of the shape of the result, {shape}", tuple(initial.shape))
            require(bool(initial.isfinite().all()), "initial", "finite", "NaN or infinite values")
            initial = initial.to(y)
        check_first_use(op, shape, y.device)
        return Problem(y, op, cast(Prior, prior), noise_levels(sigma_noise, y), draw, initial)

    def check_suits(self, op: Operator, prior: Prior | None) -> str:
        """The solver's name. Raises ValueError for an operator, or a prior if there is one, of a kind it cannot use."""
        name = next((key for key, kind in SOLVERS.items() if kind is type(self)), type(self).__name__)
        if self.linear and not op.linear:
            others = ", ".join(k for k, s in SOLVERS.items() if not s.linear and s.prior_kind == "denoiser")
            raise ValueError(f"{name} needs a linear operator, {type(op).__name__} is not; these do not: {others}")
        if self.needs_prior and prior is not None:
            prior.check_kind(name, self.prior_kind)
        return name


@dataclass(frozen=True)
class Problem:
    """What there is to solve: measurements ``y = op(x) + sigma_noise * eps``, ``sigma_noise`` (B,), a prior, and
    ``draw(like)``, a source of standard normal noise. ``initial`` is another restoration (B, C, H, W), or None."""

    y: Tensor
    op: Operator
    prior: Prior
    sigma_noise: Tensor
    draw: NoiseSource
    initial: Tensor | None = None

    @property
    def grey(self) -> Tensor:
        """The image (B, C, H, W) of value 1/2: beside the highest noise level any image is as good."""
        return mid_grey(self.op, self.y)

    def levels(
        self, schedule: str | Sequence[float], steps: int, start: float | None = None, highest: float = math.inf
    ) -> list[float]:
        """``steps + 1`` noise levels, the last one 0, see ``sampling_sigmas``; those of a named schedule are at most
        ``highest``, which is to be pure noise."""
        top = min(self.prior.sigma_max, highest) if isinstance(schedule, str) else self.prior.sigma_max
        return sampling_sigmas(schedule, steps, self.prior.sigma_min, top, start).tolist()

    def first_image(self, prepared: bool) -> Tensor:
        """What a chain adds its first noise to, (B, C, H, W): ``initial`` if given; else grey, or if it is to be
        ``prepared`` the smooth :meth:`first_estimate`."""
        return self.grey if self.initial is None and not prepared else self.first_estimate()

    def first_estimate(self, start: str = "smooth") -> Tensor:
        """``initial`` if given; else an image (B, C, H, W) from the data, see :func:`first_estimate`."""
        return first_estimate(self.op, self.y, self.sigma_noise, start) if self.initial is None else self.initial


class Iterate(NamedTuple):
    """What a sampler yields after an iteration: its state, the noise level, the clean image that the network saw, how
    many iterations there will be, a residual (B,) if it has one, and the network evaluations that it took."""

    image: Tensor
    sigma: float | None
    clean: Tensor
    total: int
    residual: Tensor | None = None
    evaluations: int = 1


@dataclass(frozen=True)
class Sampler(Solver):
    """A solver that goes through iterations, the same number for all images. A subclass gives :meth:`iterate`."""

    @abstractmethod
    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """The iterations; the last image is the restoration. Draws come in a fixed order."""

    def message(self, p: Problem) -> str:
        """One line on what should be known of the result, or empty."""
        return ""

    def run(self, p: Problem, callback: Callback | None = None) -> Restoration:
        """Go through the iterations of :meth:`iterate`."""
        return collect(self.iterate(p), len(p.y), callback, self.message(p))


def collect(
    iterations: Iterator[Iterate], images: int, callback: Callback | None = None, message: str = ""
) -> Restoration:
    """Go through ``iterations`` of a batch of ``images``: count, report, and make a result of the last one."""
    spent, residuals, index = torch.zeros(images, dtype=torch.int64), [], 0
    for index, it in enumerate(iterations, start=1):
        require_kind(it, Iterate, "what iterate yields", "Iterate(image, sigma, clean, total)")
        spent = spent + it.evaluations
        if it.residual is not None:
            residuals.append(it.residual)
        if callback is not None:
            shown = it.clean if index < it.total else it.image
            callback(Step(index, it.total, it.sigma, shown, spent, it.residual))
    require(index > 0, "iterate", "a generator that yields an Iterate after every step", "one that yields nothing")
    return Restoration(
        image=it.image,
        evaluations=spent,
        iterations=torch.full_like(spent, index),
        residuals=torch.stack(residuals, 1) if residuals else None,
        message=message,
    )


def _out_of_range(image: Tensor) -> str:
    """A line on images (B, C, H, W) that no photo can look like, or empty."""
    low, high = (float(value) for value in image.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = finite_images(image)
        others = _out_of_range(image[finite]) if bool(finite.any()) else ""
        broken = f"{int((~finite).sum())} of {len(image)} images have NaN or infinite values"
        return "; ".join(filter(None, (broken, others)))
    if low >= PLAUSIBLE[0] and high <= PLAUSIBLE[1]:
        return ""
    return (
        f"the result has values from {low:.2f} to {high:.2f} where photos have 0 to 1: operator, kernel, border or "
        "noise level do not describe the measurement, or the solver did not converge"
    )


def noise_levels(sigma_noise: float | Tensor, y: Tensor) -> Tensor:
    """The noise level of each measurement, (B,). Raises ValueError if negative, not finite or of a wrong shape."""
    return per_image(sigma_noise, y, "sigma_noise")


def draws(generator: Generators, noise: NoiseSource | None) -> NoiseSource:
    """``noise`` if given, else standard normal draws from ``generator``. Raises ValueError if both are given."""
    if noise is not None and generator is not None:
        raise ValueError("give generator or noise, not both")
    require(noise is None or callable(noise), "noise", "a function (like) -> tensor", repr(noise))
    return noise if noise is not None else noise_source(generator)
