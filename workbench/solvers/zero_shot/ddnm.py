"""DDNM and DDNM+: sample down the noise levels, replacing what the data know at every step (Wang et al. 2023)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from workbench.limits import Count, Positive, ShareBelowOne
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.null_space import transition


@dataclass(frozen=True)
class DDNM(Sampler, name="ddnm"):
    """Null-space sampling on linear operators; its noise-aware form (DDNM+) wherever ``sigma_noise`` is above 0.

    The published code differs from its paper for noisy data: it rotates the noise by an arbitrary basis
    (``svd_operators.py``, ``Lambda_noise``). This is the paper's form, see ``null_space.py``.

    Attributes:
        steps: noise levels.
        eta: share of fresh noise, in [0, 1): 0 is deterministic given the start. Below 0.5 the noise of badly seen
            components adds up over many steps of noisy data (blur, 100 steps, eta 0: 1.7 times the mean square error).
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
        travel_length, travel_repeat: time travel (RePaint): every ``travel_length`` levels go back that far and come
            again, ``travel_repeat`` times in all. 1 and 1 is none.
        sigma_start: begin at the highest level not above this, from another restoration (``initial``) or the smooth
            :func:`first_estimate`, instead of from pure noise (DeqIR, section 5.8 and the remark on its Proposition 1):
            the less of it is trusted, the higher. Priors that know little noise, denoisers, serve too.
    """

    summary: ClassVar[str] = "samples the prior, replacing at each step what the data know; noise-aware (DDNM+)"
    paper: ClassVar[str] = "Wang et al. 2023"
    takes_initial: ClassVar[bool] = True

    steps: Count = 100
    eta: ShareBelowOne = 0.85
    schedule: str | Sequence[float] = "vp"
    travel_length: Count = 1
    travel_repeat: Count = 1
    sigma_start: Positive | None = None

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """The chain starts at :meth:`Problem.first_image` plus the highest level times the first draw; then one draw
        per move. Beside a high level ``initial`` hardly matters: set ``sigma_start``."""
        levels = p.levels(self.schedule, self.steps, self.sigma_start)
        advance = transition(p.op, p.y, p.sigma_noise, self.eta)
        moves = travel(self.steps, self.travel_length, self.travel_repeat)
        total = sum(after > before for before, after in moves)
        clean = p.first_image(self.sigma_start is not None)
        x = clean + levels[0] * p.draw(clean)
        for before, after in moves:
            if after < before:
                x = clean + levels[after] * p.draw(clean)
                continue
            clean = p.prior(x, levels[before])
            seen = (x - clean) / levels[before]
            x = advance(clean, seen, p.draw(x), levels[after])
            yield Iterate(x, levels[before], clean, total)


@dataclass(frozen=True)
class DDNMPlus(DDNM, name="ddnm+"):
    """DDNM with time travel, which the paper has in DDNM+ alone; both are noise-aware here.

    The published code ships without time travel. Going back 10 levels once doubles the evaluations.
    """

    summary: ClassVar[str] = "ddnm with time travel: goes back and comes again, at about twice the cost"
    paper: ClassVar[str] = "Wang et al. 2023 (DDNM+)"

    travel_length: Count = 10
    travel_repeat: Count = 2


def travel(steps: int, length: int, repeat: int) -> list[tuple[int, int]]:
    """Moves (from level, to level) through levels 0 (noisiest) ... ``steps`` (clean), with time travel.

    RePaint's schedule, the several steps of a way back taken at once: they only add noise to the same clean image.
    """
    left = dict.fromkeys(range(steps - 1, length - 1, -length), repeat - 1)
    moves, level = [], 0
    while level < steps:
        moves.append((level, level + 1))
        level += 1
        if left.get(level, 0) > 0:
            left[level] -= 1
            moves.append((level, level - length))
            level -= length
    return moves
