"""Consistency models: networks that jump along the probability-flow ODE of a diffusion (Song et al. 2023).

A denoiser says where images are on average; following it, ``dx/dsigma = (x - D(x, sigma)) / sigma``, ends at a sample.
A consistency model goes there at once: ``f(x, sigma)`` is the end of the trajectory through x, and
``f(x, sigma_min) = x``. A trajectory model (Kim et al. 2024) jumps to any level: ``G(x, t, s)``.

Their answers are samples, not ``E[x0 | x]``: no score follows from them, so solvers that need one refuse them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.adapters import EDMPrecond, Network
from workbench.models.prior import Prior, Wrapped
from workbench.operators.least_squares import column
from workbench.text import require


class ConsistencyModel(EDMPrecond):
    """``f(u, s) = c_skip u + c_out F(c_in u, s)`` with ``u = 2 x - 1`` and ``s = 2 sigma``, the identity at sigma_min.

    ``c_skip = d^2 / ((s - e)^2 + d^2)``, ``c_out = (s - e) d / sqrt(s^2 + d^2)``, ``c_in = 1 / sqrt(s^2 + d^2)`` with
    ``e = 2 sigma_min`` (Song et al. 2023, appendix C). Settings are those of :class:`EDMPrecond`, whose networks a
    consistency model starts from.

    Raises:
        ValueError: sigma_min is 0; a network with an output that no scaling takes back at sigma_min
            (``UNetConfig.direct``).
    """

    kind = "consistency"

    def __init__(self, net: Network, **options: Any) -> None:
        super().__init__(net, **options)
        require(self.sigma_min > 0, "sigma_min", "above 0, where trajectories end", self.sigma_min)
        require(not getattr(getattr(net, "config", None), "direct", False), "network", "without direct output", "one")

    @classmethod
    def start_from(cls, prior: Prior, sigma_max: float | None = None) -> ConsistencyModel:
        """The consistency model with the network of ``prior`` (not a copy), as a student starts.

        Args:
            sigma_max: the highest level it shall know; None: that of ``prior``.

        Raises:
            ValueError: a prior without the preconditioning of Karras et al., a level it does not know.
        """
        if not isinstance(prior, EDMPrecond):
            raise ValueError(f"expected a prior with the preconditioning of EDM, such as photo, got {prior.name}")
        highest = prior.sigma_max if sigma_max is None else sigma_max
        require(prior.sigma_min < highest <= prior.sigma_max, "sigma_max", f"what {prior.name} knows", highest)
        names = ("sigma_min", "sigma_data", "channels", "multiple", "image_size", "name")
        model = cls(prior.net, sigma_max=highest, **{name: getattr(prior, name) for name in names})
        model.trained_size = prior.trained_size
        return model

    def scalings(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``c_skip``, ``c_out`` and ``c_in``, see the class."""
        d, away = self.sigma_data, s - 2 * self.sigma_min
        scale = (s**2 + d**2).rsqrt()
        return d**2 / (away**2 + d**2), away * d * scale, scale

    def at(self, x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        """``f`` with the scalings of ``sigma`` (B,) and a network that is ``told`` (B,) another level (CM4IR)."""
        u, (skip, out, scale) = 2 * x - 1, self.scalings(column(2 * sigma, x))
        return (u * skip + self.ask(u * scale, 2 * told) * out + 1) / 2


class TrajectoryModel(nn.Module):
    """``G(u, t, s) = (1 - s/t) g(u, t, s) + (s/t) u``, from level t to level s (Kim et al. 2024, eq. 7).

    ``g`` is the network ``net(c_in u, t, s)`` with the scalings of Karras et al., or with those of a
    :class:`ConsistencyModel`; at ``s = t`` it is the denoiser. Levels are those of images in [0, 1].

    Args:
        net: takes images (B, C, H, W), unit variance, and two levels (B,) of images in [-1, 1].
        inner: "edm" or "consistency", the scalings of ``g``.
        outer: "euler", ``k = s/t`` as above; "variance", ``k^2 = ((s-e)^2 + d^2) / ((t-e)^2 + d^2)``; or "mixed",
            ``(s + that root) / (t + 1)``, levels in [-1, 1] units: the three of the published code.
        settings: of :class:`EDMPrecond`.

    Raises:
        ValueError: an unknown ``inner`` or ``outer``.
    """

    def __init__(
        self, net: Callable[..., Tensor], *, inner: str = "edm", outer: str = "euler", **settings: Any
    ) -> None:
        super().__init__()
        require(inner in ("edm", "consistency"), "inner", "edm or consistency", inner)
        require(outer in ("euler", "variance", "mixed"), "outer", "euler, variance or mixed", outer)
        self.net, self.outer = net, outer
        make: Callable[..., EDMPrecond] = EDMPrecond if inner == "edm" else ConsistencyModel
        self.precond = make(_untold, **settings)  # its scalings are what is wanted

    @property
    def sigma_min(self) -> float:
        return self.precond.sigma_min

    def clean(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """``g`` (B, C, H, W) for ``x`` at level t (B,); with ``s = t`` the denoiser."""
        u, (skip, out, scale) = 2 * x - 1, self.precond.scalings(column(2 * t, x))
        return (u * skip + self.net(u * scale, 2 * t, 2 * s) * out + 1) / 2

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The point at level s (B,) of the trajectory through ``x`` (B, C, H, W) at level t (B,)."""
        share = column(s / t, x)
        kept = share if self.outer == "euler" else column(self._kept(2 * t, 2 * s), x)
        return (1 - share) * (2 * self.clean(x, t, s) - 1) / 2 + kept * (2 * x - 1) / 2 + 0.5

    def _kept(self, t: Tensor, s: Tensor) -> Tensor:
        d, end = self.precond.sigma_data, 2 * self.sigma_min
        root = (((s - end) ** 2 + d**2) / ((t - end) ** 2 + d**2)).sqrt()
        return root if self.outer == "variance" else (s + root) / (t + 1)


def _untold(x: Tensor, told: Tensor) -> Tensor:
    raise NotImplementedError("a trajectory model asks its network about two levels")


def heun_step(prior: Prior, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One step of Heun's method along the probability-flow ODE of ``prior`` from levels t to s (B,), s > 0."""
    before, after = column(t, x), column(s, x)
    slope = (x - prior(x, t)) / before
    euler = x + (after - before) * slope
    return x + (after - before) * (slope + (euler - prior(euler, s)) / after) / 2


def euler_step(prior: Prior, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One step of Euler's method, as :func:`heun_step`: the deterministic step of DDIM."""
    return x + (column(s, x) - column(t, x)) * (x - prior(x, t)) / column(t, x)


class Flow(Wrapped):
    """The consistency function of a denoiser itself, without distillation: Heun's method on its ODE.

    Args:
        prior: a denoiser.
        steps: of Heun's method on the grid of Karras et al. from the image's level down to sigma_min, two evaluations
            each (:attr:`evaluations` in all).

    Raises:
        ValueError: a prior that is no denoiser, or whose sigma_min is 0.
    """

    def __init__(self, prior: Prior, steps: int = 17) -> None:
        prior.check_kind("the flow")
        require(prior.sigma_min > 0, "sigma_min", "above 0, where trajectories end", prior.sigma_min)
        require(steps >= 1, "steps", "at least 1", steps)
        super().__init__(prior, f"flow of {prior.name}")
        self.kind, self.prior, self.steps, self.evaluations = "consistency", prior, steps, 2 * steps

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The end of the trajectory through ``x`` at ``sigma`` (B,)."""
        rho = 7.0
        top, low = sigma ** (1 / rho), torch.full_like(sigma, self.sigma_min) ** (1 / rho)
        levels = [(top + (low - top) * k / self.steps) ** rho for k in range(self.steps + 1)]
        for t, s in pairwise(levels):
            x = heun_step(self.prior, x, t, s)
        return x
