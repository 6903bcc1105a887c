"""LATINO: Langevin sampling in few steps with a consistency model (Spagnoletti et al. 2025; UD2M, eq. 5).

The Langevin process of the posterior is split: an implicit step on the likelihood, and a step of the prior that adds
noise and lets a consistency model take it away again. In variance-exploding coordinates, at level ``t_k``:

    x~ = prox_{delta_k g}(x),   g(x) = ||A x - y||^2 / (2 sigma_noise^2)
    x  = f(x~ + t_k eps, t_k)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, Positive
from workbench.operators.base import column
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.schedules import check_levels, karras_sigmas
from workbench.solvers.start import drowning
from workbench.text import require

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LATINO(Sampler, name="latino"):
    """Takes every operator that has a ``prox``, also non-linear ones.

    Attributes:
        steps: evaluations of the consistency model.
        sigma_start, sigma_end: levels fall between them on the grid of Karras et al. What the first estimate lacks must
            drown in the first level, and all else with it: a large hole needs a higher one. A start of None is 0.2
            (0.05 for a decoded picture, see ``start.py``), or 4 times the noise of the measurement if that is more, as
            far as the prior knows.
        schedule: "karras", or the levels themselves, ``steps`` numbers above 0 that do not rise.
        delta: step size of the likelihood, in units of ``t^2 / (1 + 4 t^2)``: the variance that is left of an image
            with standard deviation 1/2 when noise of level t is on it (1/2 is
            Langevin's for small t). Or a number per step. The prox has the weight
            ``sigma_noise^2 / (delta t^2 / (1 + 4 t^2))``. The published code makes ``delta`` grow with the residual of
            the whole batch, from tables for its own problems.
        prior_first: end each step with the prox, as LATINO was published, instead of starting with it (UD2M, note 1).
        clip: to [0, 1] before and after the prox, as published.
        encode, decode: for a consistency model of latents: (B, C, H, W) images to latents and back.
    """

    summary: ClassVar[str] = "Langevin in few steps: data step, noise, and a consistency model that takes it away"
    paper: ClassVar[str] = "Spagnoletti et al. 2025; UD2M, eq. 5"
    linear: ClassVar[bool] = False
    takes_initial: ClassVar[bool] = True
    prior_kind: ClassVar[str] = "consistency"

    steps: Count = 8
    sigma_start: Positive | None = None
    sigma_end: Positive = 0.03
    schedule: str | Sequence[float] = "karras"
    delta: float | Sequence[float] = 0.5
    prior_first: bool = False
    clip: bool = True
    encode: Transform | None = None
    decode: Transform | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.delta, int | float):
            require(len(self.delta) == self.steps, "delta", f"a number or {self.steps} of them", len(self.delta))
        require(bool((torch.as_tensor(self.delta) > 0).all()), "delta", "positive", self.delta)
        require((self.encode is None) == (self.decode is None), "encode and decode", "both or none", "one")

    def levels(self, sigma_noise: Tensor, sigma_max: float, least: float = 0.2) -> Tensor:
        """The noise levels (steps, B), falling, for data with noise ``sigma_noise`` (B,); from ``least`` at least, if
        no start is set.

        Raises ValueError for ones that a prior up to ``sigma_max`` does not know.
        """
        if self.schedule != "karras":
            ladder = check_levels(self.schedule, self.steps, sigma_max)
            return ladder.to(sigma_noise)[:, None].expand(-1, len(sigma_noise))
        own = [min(max(least, 4 * noise), sigma_max) for noise in sigma_noise.tolist()]
        starts = own if self.sigma_start is None else [self.sigma_start] * len(own)
        top, lowest = max(starts), min(starts)
        require(top <= sigma_max, "sigma_start", f"at most {sigma_max:g}, the most noise that the prior knows", top)
        require(self.sigma_end <= lowest, "sigma_end", f"at most sigma_start, here {lowest:g}", self.sigma_end)
        return torch.stack([karras_sigmas(self.steps, start, self.sigma_end) for start in starts], 1).to(sigma_noise)

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """From ``initial``, by default the :func:`first_estimate` of plug-and-play solvers; one draw per step."""
        encode, decode = self.encode or _same, self.decode or _same
        image = p.first_estimate()
        noise = p.sigma_noise.cpu()
        deltas = torch.as_tensor(self.delta, dtype=torch.float64).expand(self.steps).tolist()
        levels = self.levels(noise, p.prior.sigma_max, drowning(p.op, p.y))
        for level, delta in zip(levels, deltas, strict=True):
            weight = noise**2 * (1 + 4 * level**2) / (delta * level**2)
            if not self.prior_first:
                image = self._data_step(p, image, weight)
            latent = encode(image)
            clean = decode(p.prior(latent + column(level, latent) * p.draw(latent), level))
            image = self._data_step(p, clean, weight) if self.prior_first else clean
            # What a chain of latents ends with has been through the autoencoder.
            yield Iterate(decode(encode(image)) if self.prior_first else image, float(level.max()), image, self.steps)

    def _data_step(self, p: Problem, x: Tensor, weight: Tensor) -> Tensor:
        return self._clipped(p.op.prox(self._clipped(x), p.y, weight))

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if self.clip else x


def _same(x: Tensor) -> Tensor:
    return x
