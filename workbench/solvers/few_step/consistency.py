"""Zero-shot editing with a consistency model (Song et al. 2023, Algorithm 4): jump, put in the data, add noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from workbench.limits import Count, Positive
from workbench.operators.base import column
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.prior_samples import jump_levels
from workbench.solvers.start import drowning


@dataclass(frozen=True)
class ConsistencyEditing(Sampler, name="consistency"):
    """Multistep sampling of a consistency model, every jump at t followed by ``prox(x, y, (sigma_noise / t)^2)``.

    For noise-free data that replaces what the data know, as published. Deviations: any operator instead of an
    orthogonal transform with a mask, and noisy data, which the paper does not treat. Their weight is DiffPIR's. On the
    grid what the prox leaves of their noise, ``sigma_noise / (1 + weight)`` where pixels are seen as they are, counts
    as a part of the next level, which is at least as high, and the image is the model's own. On ten crops of 64x64
    (BSDS500 ``train``) that has 33.3 dB on pure noise of 0.05, else 28.1; with noise 0.2 and half of the pixels missing
    23.7 and 20.1, behind ``blur:2`` with 0.05 23.9 and 23.1.

    Attributes:
        steps: jumps, one evaluation each.
        sigma_start: the highest level of the grid, above a prepared image as in the paper: ``initial``, or the smooth
            estimate. "auto": 0.2, or twice the noise if that is more; for a decoded picture (JPEG, see
            ``start.py``) 0.05 instead of 0.2; as far as the prior knows. None: the prior's highest, above grey, as in
            the published functions, from where four jumps do not arrive: 70 % missing pixels 14.0 dB, with 0.2 23.8;
            ``blur:2``, noise 0.05, 14.3 and 22.9; JPEG of quality 10 22.4, 23.8 and with 0.05 0.6 dB more (10 photos of
            64x64 of BSDS500 ``train``).
        schedule: "karras": their grid from ``sigma_start`` to the lowest level of the prior, without the last one; or
            the levels themselves, ``steps`` numbers above 0 that fall, and the prox ends each step.
        clip: to [0, 1] after each jump, as published.
    """

    summary: ClassVar[str] = "a consistency model's jumps, with what the data know put in after each"
    paper: ClassVar[str] = "Song et al. 2023"
    linear: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = True
    prior_kind: ClassVar[str] = "consistency"

    steps: Count = 4
    sigma_start: Positive | Literal["auto"] | None = "auto"
    schedule: str | Sequence[float] = "karras"
    clip: bool = True

    def levels(self, p: Problem) -> Tensor:
        """The noise levels (steps, B), falling. Raises ValueError where they do not suit the prior."""
        noise = p.sigma_noise.cpu()
        if self.sigma_start == "auto":
            least = drowning(p.op, p.y)
            starts: list[float | None] = [max(least, 2 * own) for own in noise.tolist()]
        else:
            starts = [self.sigma_start] * len(noise)
        return torch.tensor(
            [jump_levels(self.schedule, self.steps, p.prior, top) for top in starts], dtype=noise.dtype
        ).T

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """From the prepared image plus the first level times the first draw; then one draw between jumps."""
        levels, end, noise = self.levels(p), p.prior.sigma_min, p.sigma_noise.cpu()
        start = p.first_image(prepared=self.sigma_start is not None)
        told, counted = levels[0], noise * (self.schedule == "karras")
        x = start + column(told, start) * p.draw(start)
        for step, sigma in enumerate(levels, start=1):
            clean = p.prior(x, told)
            clean = clean.clamp(0, 1) if self.clip else clean
            weight = (noise / told) ** 2
            image = p.op.prox(clean, p.y, weight)
            shown = image if step < self.steps else torch.where(column(counted > 0, image), clean, image)
            yield Iterate(shown, float(sigma.max()), image, self.steps)
            if step < self.steps:
                left = (counted / (1 + weight)).clamp(min=end)
                told = levels[step].maximum(left)
                x = image + column((told**2 - left**2).sqrt(), x) * p.draw(image)
