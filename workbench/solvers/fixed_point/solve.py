"""One driver for fixed points: step limit, per-sample stopping, counting, non-finite check, best iterate, trace.

``solve_fixed_point(f, x0)`` finds ``x = f(x)`` for a batch of independent samples (B, ...). The update rule is a method
of ``rules.py``. Nothing here keeps an autograd graph; ``gradient.py`` attaches gradients to the result.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.solvers.fixed_point.rules import Anderson, Rule, take
from workbench.text import fits, require, require_kind

Map = Callable[[Tensor, Tensor], Tensor]
Measure = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FixedPointResult:
    """What a solve returns. B samples.

    Attributes:
        value: (B, ...); see ``keep`` of :func:`solve_fixed_point`. Finite unless the start was not.
        residual: (B,) the measure at the best iterate (keep="best") or the last one taken (keep="last"); inf if no
            evaluation was finite.
        converged: bool (B,).
        diverged: bool (B,): stopped because something was not finite or the residual exploded.
        evaluations: int64 (B,): calls of ``f`` spent on each sample; every step takes one.
        trace: (B, steps of the longest sample): the measure at each step, inf where it was not finite, NaN after the
            sample had stopped.
        message: what went wrong and what to do, or empty.
    """

    value: Tensor
    residual: Tensor
    converged: Tensor
    diverged: Tensor
    evaluations: Tensor
    trace: Tensor
    message: str


def rms(x: Tensor) -> Tensor:
    """Root mean square of each sample: (b, ...) to (b,)."""
    return x.reshape(x.shape[0], -1).square().mean(1).sqrt()


def residual_rms(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
    """The default measure: root mean square of the residual, in the unit of ``x``."""
    return rms(residual)


@torch.no_grad()
def solve_fixed_point(
    f: Map,
    x0: Tensor,
    *,
    method: Rule | None = None,
    max_steps: int = 50,
    tolerance: float | Tensor = 1e-5,
    relative_tolerance: float = 0.0,
    measure: Measure = residual_rms,
    keep: Literal["best", "last"] = "best",
    divergence: float = 1e4,
    callback: Callable[[FixedPointResult], None] | None = None,
) -> FixedPointResult:
    """Solve ``x = f(x)`` (or ``f(x) = 0`` with a descent method) for every sample of a batch by itself.

    A sample stops when its measure is at most ``tolerance + relative_tolerance * rms(x)``; samples that have stopped
    are no longer passed to ``f``.

    Args:
        f: ``f(x, rows)`` with ``x`` (b, ...) the samples still running and ``rows`` (b,) int64 their places in the
            batch, so that ``f`` can pick what belongs to them (``y[rows]``). Returns the shape of ``x``.
        x0: start (B, ...), left unchanged.
        method: update rule, ``Anderson()`` by default.
        max_steps: limit of steps; each is one call of ``f``.
        tolerance, relative_tolerance: see above; the first one for all samples or (B,), one each. It is absolute,
            because a relative one never stops at x = 0.
        measure: ``measure(x, residual, proposal)`` to (b,), what is compared with the tolerances: by default the root
            mean square of the residual. MUPET's published rule is the mean square of ``proposal - x``.
        keep: which iterate is the value. "best": the evaluated one with the smallest measure. "last": the newest,
            which the last step proposed and nobody evaluated, as published algorithms return; the best one for a sample
            that diverged.
        divergence: a sample is given up when its measure exceeds this many times the larger of its first one and
            the root mean square of its start.
        callback: called after every step with the result so far.

    Raises:
        ValueError: a setting out of range, or ``f`` changed the shape.
    """
    batch = isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim > 0 and x0.numel() > 0
    got = f"{x0.dtype} {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
    require(batch, "x0", "floating-point numbers (B, ...), not none", got)
    require(fits(max_steps, int) and max_steps >= 1, "max_steps", "a whole number, at least 1", repr(max_steps))
    tolerances = torch.as_tensor(tolerance, dtype=x0.dtype, device=x0.device)
    require(tolerances.shape in ((), x0.shape[:1]), "tolerance", f"a number or ({len(x0)},)", tuple(tolerances.shape))
    tolerances = tolerances.expand(x0.shape[0])
    require(bool(((tolerances >= 0) & tolerances.isfinite()).all()), "tolerance", "finite and >= 0", tolerance)
    require(0 <= relative_tolerance < math.inf, "relative_tolerance", "finite and >= 0", relative_tolerance)
    require(divergence > 1, "divergence", "above 1", divergence)
    require(keep in ("best", "last"), "keep", "'best' or 'last'", repr(keep))
    method = Anderson() if method is None else method
    run = _Run(x0, keep)
    x, rows = x0.clone(), torch.arange(x0.shape[0], device=x0.device)
    state = method.init(x)
    limit = divergence * rms(x0)
    for step in range(max_steps):
        if rows.numel() == 0:
            break
        fx = f(x.clone(), rows)  # which may write into what it is given
        require_kind(fx, Tensor, "what f returns", "of the shape of x")
        if fx.shape != x.shape:
            raise ValueError(f"f must keep the shape {tuple(x.shape)}, it returned {tuple(fx.shape)}")
        # Whatever precision f chooses for itself (training in bfloat16), the mixing of iterates keeps that of x0.
        fx = fx.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            proposal, state = method.step(state, x, fx)
        size = measure(x, method.residual(x, fx), proposal)
        size = torch.where(_finite(fx) & size.isfinite(), size, math.inf)
        if step == 0:
            limit = torch.maximum(limit, divergence * size)
        lost = size.isinf() | (size > limit[rows]) | ~_finite(proposal)
        done = size <= tolerances[rows] + relative_tolerance * rms(x)
        run.record(rows, x, proposal, size, done, lost & ~done)
        if callback is not None:
            callback(run.result(tolerances, finished=False))
        running = ~(done | lost)
        x = proposal
        if not bool(running.all()):
            x, rows, state = x[running], rows[running], take(state, running)
    return run.result(tolerances, finished=True)


def _finite(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1).isfinite().all(1)


class _Run:
    """The books of one solve, for the whole batch."""

    def __init__(self, x0: Tensor, keep: str) -> None:
        self.keep = keep
        self.best, self.last = x0.clone(), x0.clone()
        levels = torch.full((x0.shape[0],), math.inf, dtype=x0.dtype, device=x0.device)
        self.best_size, self.last_size = levels, levels.clone()
        self.converged = torch.zeros_like(levels, dtype=torch.bool)
        self.diverged = torch.zeros_like(self.converged)
        self.evaluations = torch.zeros_like(levels, dtype=torch.int64)
        self.trace: list[Tensor] = []

    def record(self, rows: Tensor, x: Tensor, proposal: Tensor, size: Tensor, done: Tensor, lost: Tensor) -> None:
        better = size < self.best_size[rows]
        # Chosen by index, never by arithmetic: 0 * NaN would destroy what is kept.
        self.best[rows[better]] = x[better]
        self.best_size[rows[better]] = size[better]
        if self.keep == "last":
            self.last[rows] = torch.where(_finite(proposal).view(-1, *[1] * (x.ndim - 1)), proposal, x)
            self.last_size[rows] = size
        self.converged[rows] = done
        self.diverged[rows] = lost
        self.evaluations[rows] += 1
        column = torch.full_like(self.best_size, math.nan)
        column[rows] = size
        self.trace.append(column)

    def result(self, tolerance: Tensor, *, finished: bool) -> FixedPointResult:
        value, size = self.best, self.best_size
        if self.keep == "last":
            fallback = self.diverged.view(-1, *[1] * (value.ndim - 1))
            value = torch.where(fallback, value, self.last)
            size = torch.where(self.diverged, size, self.last_size)
        trace = torch.stack(self.trace, 1) if self.trace else size.new_empty(len(size), 0)
        return FixedPointResult(
            value=value.clone(),
            residual=size.clone(),
            converged=self.converged.clone(),
            diverged=self.diverged.clone(),
            evaluations=self.evaluations.clone(),
            trace=trace,
            message=explain(self.converged, self.diverged, size, tolerance, int(self.evaluations.max()))
            if finished
            else "",
        )


def explain(converged: Tensor, diverged: Tensor, residual: Tensor, tolerance: Tensor, steps: int) -> str:
    """What went wrong for which share of the samples (all arguments (B,)) and what to do, or nothing."""
    total, parts = len(residual), []
    if bool(diverged.any()):
        parts.append(
            f"{int(diverged.sum())} of {total} samples diverged or were not finite (best iterate kept): "
            "use smaller steps (step_size or damping) or another start"
        )
    unfinished = ~(converged | diverged)
    if bool(unfinished.any()):
        low, high = (f"{float(end):g}" for end in tolerance[unfinished].aminmax())
        wanted = low if low == high else f"of {low} to {high}"
        parts.append(
            f"{int(unfinished.sum())} of {total} samples did not reach the tolerance {wanted} in {steps} steps "
            f"(residual up to {float(residual[unfinished].max()):.2g}): allow more steps or a larger tolerance"
        )
    return "; ".join(parts)
