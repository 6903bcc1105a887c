"""Noise levels: descending standard deviations in the unit of [0, 1] images, float64.

Solvers need nothing else of a diffusion: in variance-exploding coordinates a schedule is a list of numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.text import require

# Below this level a noisy image still shows the picture, whose values spread by about 0.25.
PURE_NOISE = 1.0
LOWEST = 0.002  # half a grey level of 8 bits


def geometric_sigmas(steps: int, start: float, end: float) -> Tensor:
    """``steps`` levels from ``start`` down to ``end`` in constant ratio (VE SDE; MUPET supplement): (steps,)."""
    _check(steps, start, end)
    if steps == 1:
        return torch.tensor([start], dtype=torch.float64)
    return start * (end / start) ** torch.linspace(0, 1, steps, dtype=torch.float64)


def karras_sigmas(steps: int, start: float, end: float, rho: float = 7.0) -> Tensor:
    """``steps`` levels from ``start`` to ``end``, linear in ``sigma^(1/rho)`` (Karras et al. 2022, eq. 5): (steps,)."""
    _check(steps, start, end)
    if steps == 1:
        return torch.tensor([start], dtype=torch.float64)
    ramp = torch.linspace(start ** (1 / rho), end ** (1 / rho), steps, dtype=torch.float64)
    return ramp**rho


def vp_sigmas(steps: int, start: float = math.inf) -> Tensor:
    """The levels of the DDPM schedule at the evenly spaced time steps of DDNM and DDRM: (steps,).

    ``abar`` is the cumulative product of ``1 - beta`` with 1000 betas from 1e-4 to 0.02, and the level of time t is
    ``sqrt((1 - abar_t) / abar_t)`` for images in [-1, 1], so half of it here: 78.7 at t = 999, 0.005 at t = 0. Time
    steps are ``(steps - 1) s, ..., s, 0`` with ``s = n // steps``, ``n`` the number of times whose level is at most
    ``start`` (1000 if no ``start`` is given, which is the published choice).
    """
    levels = _vp_levels(steps, start)
    return levels[torch.arange(steps - 1, -1, -1) * (len(levels) // steps)]


def vp_quad_sigmas(steps: int, start: float = math.inf) -> Tensor:
    """The levels of the DDPM schedule at the "quad" time steps of DiffPIR, most of them at little noise: (steps,).

    ``t_i = n - 1 - floor(n sqrt(i / (steps - 1)))``, the last one 0 (Zhu et al. 2023); ``n`` and ``start`` as in
    :func:`vp_sigmas`. With many steps some of the last times repeat.
    """
    levels = _vp_levels(steps, start)
    count = len(levels)
    back = (torch.linspace(0, 1, steps, dtype=torch.float64).sqrt() * count + 1e-9).floor().long()
    return levels[(count - 1 - back).clamp(min=0)]


def _vp_levels(steps: int, start: float) -> Tensor:
    """Levels of all times, from t = 0, up to ``start``."""
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    levels = ((1 - alpha_bar) / alpha_bar).sqrt() / 2
    usable = int((levels <= start).sum())
    require(1 <= steps <= usable, "steps", f"between 1 and {usable} for levels up to {start:g}", steps)
    return levels[:usable]


def sampling_sigmas(
    schedule: str | Sequence[float], steps: int, sigma_min: float, sigma_max: float, start: float | None = None
) -> Tensor:
    """The ``steps + 1`` levels of a sampler, ending with 0, never above ``sigma_max``.

    Args:
        schedule: "vp", "geometric", "karras", or the levels themselves (steps + 1 numbers, strictly descending, the
            last one 0), which are taken as they are.
        steps: number of network evaluations.
        sigma_min, sigma_max: the range the prior knows. "geometric" and "karras" span it, down to 0.002 if it has no
            lower end; "vp" starts at the highest published level that fits.
        start: begin at the highest level not above this instead (a chain that starts from another restoration); the
            ``steps`` levels are spread between it and 0. Not with levels that are given themselves.

    Raises:
        ValueError: unknown schedule, levels that do not fit ``steps`` or the prior, a named schedule for a prior that
            does not know enough noise to start from nothing but noise, or a ``start`` outside what the prior knows.
    """
    if start is not None:
        require(isinstance(schedule, str), "schedule", "a name where sigma_start is given", schedule)
        fits = max(sigma_min, 0.0) <= start <= sigma_max and start > 0
        require(fits, "sigma_start", f"positive and what the prior knows, {sigma_min:.3g} to {sigma_max:.3g}", start)
        sigma_max = start
    if isinstance(schedule, str):
        if start is None and sigma_max < PURE_NOISE:
            raise ValueError(
                f"sampling starts from pure noise, at least sigma = {PURE_NOISE:g}, and this prior (a denoiser, not a "
                f"diffusion model) knows noise up to {sigma_max:.3g}: use diffpir, or start from another image "
                f"(sigma_start up to {sigma_max:.3g})"
            )
        if schedule == "vp":
            levels = vp_sigmas(steps, sigma_max)
        elif schedule == "geometric":
            levels = geometric_sigmas(steps, sigma_max, sigma_min or min(LOWEST, sigma_max))
        elif schedule == "karras":
            levels = karras_sigmas(steps, sigma_max, sigma_min or min(LOWEST, sigma_max))
        else:
            raise ValueError(f"schedule must be 'vp', 'geometric', 'karras' or a list of levels, got {schedule!r}")
        return torch.cat([levels, levels.new_zeros(1)])
    levels = torch.as_tensor(schedule, dtype=torch.float64)
    if levels.shape != (steps + 1,) or levels[-1] != 0 or not bool((levels.diff() < 0).all()):
        raise ValueError(f"expected {steps + 1} descending levels that end with 0, got {list(schedule)}")
    _check_start(levels, sigma_max)
    return levels


def check_levels(schedule: str | Sequence[float], steps: int, sigma_max: float, names: str = "'karras'") -> Tensor:
    """``schedule`` as the levels (steps,), float64; ``names`` are those that would have been taken.

    Raises:
        ValueError: a name; or not ``steps`` positive finite numbers that do not rise, the first at most ``sigma_max``.
    """
    if isinstance(schedule, str):
        raise ValueError(f"schedule must be {names} or a list of levels, got {schedule!r}")
    levels = torch.as_tensor(schedule, dtype=torch.float64)
    fine = levels.shape == (steps,) and bool((levels > 0).all()) and math.isfinite(float(levels[0]))
    if not fine or not bool((levels.diff() <= 0).all()):
        raise ValueError(f"expected {steps} positive levels that do not rise, got {list(schedule)}")
    _check_start(levels, sigma_max)
    return levels


def _check_start(levels: Tensor, sigma_max: float) -> None:
    if float(levels[0]) > sigma_max * (1 + 1e-5):
        raise ValueError(f"the prior knows noise up to sigma = {sigma_max:g}, the schedule starts at {levels[0]:g}")


def _check(steps: int, start: float, end: float) -> None:
    require(steps >= 1, "steps", "at least 1", steps)
    require(0 < end <= start < math.inf, "levels", "positive, finite and descending", f"{start:g} to {end:g}")
