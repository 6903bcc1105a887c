"""DDRM: sample down the noise levels singular value by singular value (Kawar et al. 2022)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from workbench.limits import Count, Share
from workbench.operators.base import SpectralOperator
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.null_space import replaced, spectral_step


@dataclass(frozen=True)
class DDRM(Sampler, name="ddrm"):
    """The variational sampler of linear problems, eq. (7) to start and eq. (8) as step, see ``null_space.py``.

    With ``eta_b = 1`` its step for noisy data is that of DDNM+. It differs for noise-free data, where the noise of what
    the data see is all fresh, and in its start, where the data speak already.

    Three slips of the published code are not here: it deblurs with singular values in the wrong order (tiled over the
    channels instead of repeated); noise-free data are lost at the last step (a strict inequality), so that the image
    is the prior's own; and its start is divided by ``sigma_T`` where the diffusion asks for ``sqrt(abar_T)``.

    Operators without a spectral form take the step of their ``prox`` (``replaced``): for noise-free data that is DDRM,
    for noisy data it has its two limits, as in DDNM.

    Attributes:
        steps: noise levels; the paper's 20.
        eta: share of fresh noise where the data say little, in [0, 1].
        eta_b: how far the state follows data that are better than it, in [0, 1]; below 1 it asks for singular values.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior in the singular basis of the operator, 20 steps"
    paper: ClassVar[str] = "Kawar et al. 2022"

    steps: Count = 20
    eta: Share = 0.85
    eta_b: Share = 1.0
    schedule: str | Sequence[float] = "vp"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw of noise for the start, then one per level. With a spectral form its numbers are those of the
        coefficients, in their order; else those of the pixels.

        Raises:
            ValueError: ``eta_b`` below 1 for an operator without a spectral form.
        """
        levels = p.levels(self.schedule, self.steps)
        run = (_Spectral if isinstance(p.op, SpectralOperator) else _General)(p, self)
        x = run.start(p.draw(p.grey), levels[0])
        for sigma, lower in pairwise(levels):
            clean = p.prior(x, sigma)
            x = run.step(clean, x, p.draw(x), sigma, lower)
            yield Iterate(x, sigma, clean, self.steps)


class _Spectral:
    """The chain in coefficients: one transform each way and step. Made for one solve."""

    def __init__(self, p: Problem, settings: DDRM) -> None:
        assert isinstance(p.op, SpectralOperator)
        self.op, self.grey, self.data = p.op, p.grey, p.op.data_analysis(p.y)
        self.first = spectral_step(p.op, p.y, p.sigma_noise, eta=1.0)
        self.rule = spectral_step(p.op, p.y, p.sigma_noise, settings.eta, settings.eta_b)
        self.state = self.data

    def start(self, fresh: Tensor, sigma: float) -> Tensor:
        """Eq. (7): the step from grey without memory; what the data do not reach has mean grey."""
        c, w = self.op.analysis(self.grey), self.first.weights(sigma)
        return self._image(w.clean * c + w.data * self.data + w.fresh * fresh.reshape(c.shape))

    def step(self, clean: Tensor, x: Tensor, fresh: Tensor, sigma: float, lower: float) -> Tensor:
        """Eq. (8), with ``e = (state - c) / sigma``."""
        c, w = self.op.analysis(clean), self.rule.weights(lower)
        memory = w.seen / sigma
        out = (w.clean - memory) * c
        return self._image(
            out.addcmul_(w.data, self.data).addcmul_(memory, self.state).addcmul_(w.fresh, fresh.reshape(c.shape))
        )

    def _image(self, state: Tensor) -> Tensor:
        self.state = state
        return self.op.synthesis(state)


class _General:
    """The chain by the operator's ``prox``."""

    def __init__(self, p: Problem, settings: DDRM) -> None:
        if settings.eta_b != 1:
            name = type(p.op).__name__
            raise ValueError(f"eta_b = {settings.eta_b:g} asks for singular values, {name} has none: use eta_b = 1")
        self.grey = p.grey
        self.first, self.advance = (replaced(p.op, p.y, p.sigma_noise, eta) for eta in (1.0, settings.eta))

    def start(self, fresh: Tensor, sigma: float) -> Tensor:
        return self.first(self.grey, self.grey, fresh, sigma)

    def step(self, clean: Tensor, x: Tensor, fresh: Tensor, sigma: float, lower: float) -> Tensor:
        return self.advance(clean, (x - clean) / sigma, fresh, lower)
