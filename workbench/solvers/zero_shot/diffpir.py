"""DiffPIR in variance-exploding coordinates: denoise, agree with the data, add noise again.

Zhu et al. 2023 in the form of MUPET's supplement, corrected (errata 11). At level ``sigma_i``:

    x0  = D(x, sigma_i)
    x0' = argmin 1/2 ||A x0' - y||^2 + rho_i/2 ||x0' - x0||^2,   rho_i = lambda (sigma_n / sigma_i)^2
    e   = (x - x0') / sigma_i
    x   = x0' + sigma_{i+1} (sqrt(1 - zeta) e + sqrt(zeta) eps)

and the image is ``x0'`` of the last level.

The variance-preserving form of Zhu et al. is the same on other levels (``schedule="vp"``). Their published code differs
in four more things, none of them a mode here: it clamps ``x0``; it puts noise of [0, 1] images over levels of [-1, 1]
images in ``rho``, so that its ``lambda`` is 4 of ours; it has no noise below 0.001; and it throws the last ``x0`` away,
so that its image is the state before, which still carries the noise of the last level.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive, Share, one_of
from workbench.models.prior import Prior
from workbench.operators.base import Operator, column
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.schedules import check_levels, geometric_sigmas, vp_quad_sigmas
from workbench.solvers.start import STARTS
from workbench.text import require

LOWEST = 0.01  # of the levels if no end is given
DataStep = Callable[[Operator, Tensor, Tensor, Tensor], Tensor]


def exact_data_step(op: Operator, z: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The operator's own proximal step; at weight 0, its limit."""
    return op.prox(z, y, weight)


@dataclass(frozen=True)
class DiffPIR(Sampler, name="diffpir"):
    """Takes every operator that has a ``prox``, also non-linear ones.

    Attributes:
        steps: network evaluations.
        zeta: share of fresh noise, in [0, 1]. Published choices are 0.3 and 0.6; 1 measured 0.3-1.3 dB better in PSNR
            than 0.6 (small photo prior, 32x32; x4, blur, 80 % missing, block; noise 0.01).
        sigma_start, sigma_end: levels run geometrically between them, never above what the prior knows. An end that is
            given is raised to the noise of the measurement, as published (errata 11); there ``rho = lambda``, and a
            pixel that is seen as it is keeps half of its noise. None: 0.01, whatever the noise. On pixels with noise
            0.2 that is 25.9 dB instead of 19.4 (three photos of 64x64, 30 steps; the prior once has 27.8).
        lambda_: weight of the prior against the data; 1 is the model's own.
        schedule: "geometric", as ``sigma_start`` and ``sigma_end`` say; "vp", the quadratic time steps of the DDPM
            schedule (Zhu et al. 2023), from the highest level the prior knows down to 0.005 whatever the noise; or the
            levels themselves, ``steps`` numbers above 0 that do not rise, taken as they are.
        start: of the chain, see :func:`first_estimate`; "data" is the published one. With "smooth" and ``sigma_start``
            0.2, 20 steps are as good as 100 from pure noise, also where pixels are missing (docs/guide.md).
        data_step: ``(op, z, y, weight)`` to the image, ``weight`` (B,) on the CPU, 0 for noise-free data; the exact
            proximal step by default.
    """

    summary: ClassVar[str] = "plug-and-play: alternates denoising and an exact data step along falling noise"
    paper: ClassVar[str] = "Zhu et al. 2023; MUPET supplement"
    linear: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = True

    steps: Count = 100
    zeta: Share = 1.0
    sigma_start: Positive = 3.0
    sigma_end: Positive | None = None
    lambda_: NotNegative = 1.0
    schedule: str | Sequence[float] = "geometric"
    start: Annotated[str, one_of(STARTS)] = "data"
    data_step: DataStep = exact_data_step

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.sigma_end or LOWEST) <= self.sigma_start, "sigma_start", "at least sigma_end", self.sigma_start)

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """The chain starts from ``initial`` (by default the first estimate) plus the first level times the first draw;
        then one draw per step but the last."""
        noise = p.sigma_noise.cpu()  # looked at there, at no wait in the loop
        levels = self.levels(noise, p.prior)
        estimate = p.first_estimate(self.start)
        x = estimate + column(levels[0], estimate) * p.draw(estimate)
        for i, sigma in enumerate(levels):
            denoised = p.prior(x, sigma)
            estimate = self.data_step(p.op, denoised, p.y, self.lambda_ * (noise / sigma) ** 2)
            yield Iterate(estimate, float(sigma.max()), estimate, self.steps)
            if i + 1 < self.steps:
                seen = (x - estimate) / column(sigma, x)
                mixed = math.sqrt(1 - self.zeta) * seen + math.sqrt(self.zeta) * p.draw(x)
                x = estimate + column(levels[i + 1], x) * mixed

    def message(self, p: Problem) -> str:
        """A line where the prior knows less noise than the solver or the data ask for; else empty."""
        wanted = max(self.sigma_start, float(p.sigma_noise.max()))
        if wanted <= p.prior.sigma_max or self.schedule != "geometric":
            return ""
        known = f"{p.prior.sigma_max:.3g}"
        return f"{p.prior.name} knows noise up to sigma = {known}: levels were lowered to that from {wanted:g}"

    def levels(self, sigma_noise: Tensor, prior: Prior) -> Tensor:
        """Noise levels (steps, B), at most ``prior.sigma_max``; with a ``sigma_end`` at least ``sigma_noise`` (B,).

        Raises:
            ValueError: unknown schedule, or levels that do not fit ``steps`` or the prior.
        """
        if self.schedule == "geometric":
            start = min(self.sigma_start, prior.sigma_max)
            ladder = geometric_sigmas(self.steps, start, min(self.sigma_end or LOWEST, start))
        elif self.schedule == "vp":
            ladder = vp_quad_sigmas(self.steps, prior.sigma_max)
        else:
            ladder = check_levels(self.schedule, self.steps, prior.sigma_max, "'geometric', 'vp'")
        ladder = ladder.to(sigma_noise)[:, None].expand(-1, len(sigma_noise))
        stops = self.schedule == "geometric" and self.sigma_end is not None
        return torch.maximum(ladder, sigma_noise).clamp(max=prior.sigma_max) if stops else ladder
