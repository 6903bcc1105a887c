"""The states of a sampling chain, solved for together: what DeqIR iterates.

States ``u_0`` (noisiest, given) ... ``u_T`` (clean) follow from each other through the network,

    u_{s+1} = transition(D(u_s, sigma_s), (u_s - D) / sigma_s, eps_s, sigma_{s+1}).

The transition is affine, so with a linear ``model`` of the network and fixed gaps between the two,
``D(u, sigma_s) ~ model(u, sigma_s) + gap_s``, the whole chain is a recurrence without a network, O(T). One iteration
asks the network at all states in one batch, which gives the gaps, and runs that recurrence. At a fixed point the gaps
belong to the states, so the chain is the sequential one, whatever the model.

States are numbered as above, the other way round than in the paper. Every image of the batch has a ``front``: its
states up to there are settled, because one more becomes exact with every iteration (the map is triangular, errata 3),
or because they no longer move. Only the ``window`` states from the front on are asked about and stored.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import NoiseSource
from workbench.solvers.fixed_point.rules import Anderson, Picard, flatten
from workbench.solvers.null_space import Transition

Model = Callable[[Tensor, float], Tensor]
Levels = dict[int, Tensor]  # (B, C, H, W) by number of the state


@dataclass(frozen=True)
class Proposal:
    """What one iteration proposed, for the mixing: the states asked at, what followed, and for which images."""

    outputs: Levels
    moves: Levels
    entered: Levels

    def output(self, s: int, newest: Tensor) -> Tensor:
        """State ``s`` of this iterate, or ``newest`` (B, C, H, W) for images that did not hold it yet."""
        if s not in self.outputs:
            return newest
        return torch.where(column(self.entered[s], newest), self.outputs[s], newest)

    def move(self, s: int, like: Tensor) -> Tensor:
        """The move of state ``s``, 0 for images that did not hold it yet."""
        if s not in self.moves:
            return torch.zeros_like(like)
        return torch.where(column(self.entered[s], like), self.moves[s], 0.0)


class Chain:
    """All states of one solve, made for that solve.

    Args:
        top: the noisiest state (B, C, H, W).
        draw: source of the fresh noise, asked once per level, from the noisiest on.
        levels: T + 1 noise levels, the last one 0.
        transition: see ``null_space.py``.
        model: linear stand-in for the network, ``(x, sigma)`` to the clean image.
        window: states asked about at a time.
        mixing: Picard, or Anderson with the same weights for all states of an image.
        start: first guess of state ``s`` (B, C, H, W); by default the chain of ``model`` and ``gaps``.
        gaps: first guess of the gaps, by state: those of an earlier solve of a problem nearby. By default 0.
        keep: states behind the window stay stored, for a gradient.
    """

    def __init__(
        self,
        top: Tensor,
        draw: NoiseSource,
        levels: list[float],
        transition: Transition,
        prior: Prior,
        model: Model,
        *,
        window: int,
        mixing: Picard | Anderson,
        start: Callable[[int], Tensor] | None = None,
        gaps: Levels | None = None,
        keep: bool = False,
    ) -> None:
        self.levels, self.transition, self.prior, self.model = levels, transition, prior, model
        self.draw, self.window, self.mixing, self.start = draw, window, mixing, start
        self.total = len(levels) - 1
        self.low, self.high = 0, 0  # States low ... high are stored, all but the last one to be asked about.
        self.states: Levels = {0: top}
        self.gaps: Levels = {s: gap.clone() for s, gap in (gaps or {}).items()}
        self.keep = keep
        self.fresh: Levels = {}
        self.drawn = 0
        self.front = torch.zeros(top.shape[0], dtype=torch.int64, device=top.device)
        self.evaluations = torch.zeros_like(self.front)
        self.history: deque[Proposal] = deque(maxlen=1 + (mixing.memory if isinstance(mixing, Anderson) else 0))
        self._extend(min(window, self.total))

    @property
    def image(self) -> Tensor:
        """The last state, or what the network is thought to see behind it while the window has not come to the end."""
        last = self.states[self.high]
        if self.high == self.total:
            return last
        return self._clean(self.high - 1, self.states[self.high - 1])

    def waiting(self) -> Tensor:
        """bool (B,): images so far ahead of the slowest that more room than two windows would be needed."""
        return self.front > self.low + self.window

    def mine(self, state: int) -> Tensor:
        """bool (B,): images whose window holds ``state``."""
        return (self.front <= state) & (state < self.front + self.window)

    def iterate(self, running: Tensor, tolerance: float) -> Tensor:
        """One iteration of the images ``running`` (B,): the largest move of each (B,), inf where it went wrong.

        A move is the root mean square of the change of a state, in units of ``sqrt(1 + sigma^2)``.
        """
        self._ask(running)
        outputs = self._recur()
        moves = {s: outputs[s] - self.states[s] for s in outputs}
        sizes = {s: self._size(moves[s], s) for s in outputs}
        largest = torch.zeros_like(sizes[self.high])
        settled, unbroken = self.front.clone(), running.clone()
        for s in range(self.low, self.high):
            mine, size = self.mine(s) & running, sizes[s + 1]
            largest = torch.where(mine, torch.maximum(largest, size.nan_to_num(math.inf, math.inf)), largest)
            unbroken = unbroken & (~mine | (self.front == s) | (size <= tolerance))
            settled = torch.where(mine & unbroken, s + 1, settled)
        update = running & largest.isfinite()
        self._mix(outputs, moves, settled, update)
        self.front = torch.where(update, settled, self.front)
        return largest

    def slide(self, running: Tensor) -> None:
        """Move the window on to where the fronts of the images ``running`` are."""
        if not bool(running.any()):
            return
        fronts = self.front[running]
        self.low = int(fronts.min())
        self._extend(min(int(fronts.max()) + self.window, self.low + 2 * self.window, self.total))
        if not self.keep:
            for levels in (self.states, self.gaps, self.fresh):
                for s in [s for s in levels if s < self.low]:
                    del levels[s]

    def noise(self, state: int) -> Tensor:
        """Fresh noise of the step from ``state``."""
        while self.drawn <= state:
            self.fresh[self.drawn] = self.draw(self.states[self.low])
            self.drawn += 1
        return self.fresh[state]

    def _clean(self, s: int, u: Tensor) -> Tensor:
        return self.model(u, self.levels[s]) + self.gaps[s]

    def _step(self, s: int, u: Tensor) -> Tensor:
        clean = self._clean(s, u)
        return self.transition(clean, (u - clean) / self.levels[s], self.noise(s), self.levels[s + 1])

    def _extend(self, high: int) -> None:
        for s in range(self.high, high):
            # The network is thought to differ from the model at the next level as at this one.
            if s not in self.gaps:
                self.gaps[s] = self.gaps[s - 1].clone() if s else torch.zeros_like(self.states[s])
            self.states[s + 1] = self._step(s, self.states[s]) if self.start is None else self.start(s + 1)
        self.high = max(self.high, high)

    def _ask(self, running: Tensor) -> None:
        """The network's answers at all states of the windows of the images ``running``, in one batch."""
        asked = {s: (self.mine(s) & running).nonzero().squeeze(1) for s in range(self.low, self.high)}
        x = torch.cat([self.states[s][rows] for s, rows in asked.items()])
        counts = torch.tensor([len(rows) for rows in asked.values()])
        sigma = torch.tensor([self.levels[s] for s in asked], dtype=torch.float64).repeat_interleave(counts).to(x)
        answers = self.prior(x, sigma).split(counts.tolist())
        for (s, rows), answer in zip(asked.items(), answers, strict=True):
            self.gaps[s][rows] = answer - self.model(self.states[s][rows], self.levels[s])
            self.evaluations[rows] += 1
            if s - 1 in self.gaps:
                ahead = column(s >= self.front + self.window, self.gaps[s])
                self.gaps[s] = torch.where(ahead, self.gaps[s - 1], self.gaps[s])

    def _recur(self) -> Levels:
        u, outputs = self.states[self.low], {}
        for s in range(self.low, self.high):
            u = torch.where(column(self.front == s, u), self.states[s], u)
            u = outputs[s + 1] = self._step(s, u)
        return outputs

    def _size(self, move: Tensor, s: int) -> Tensor:
        return move.flatten(1).square().mean(1).sqrt() / math.sqrt(1 + self.levels[s] ** 2)

    def _mix(self, outputs: Levels, moves: Levels, settled: Tensor, update: Tensor) -> None:
        """New states: settled ones as they came out, the others Anderson's mix of the last outputs."""
        self.history.append(Proposal(outputs, moves, {s: self.mine(s - 1) for s in outputs}))
        mixed = self._mixed(outputs, settled)
        for s, output in outputs.items():
            new = torch.where(column(s <= settled, output), output, mixed[s])
            # Where images ended or wait, nothing changes, and NaN of a lost one stays away.
            change = update & (s > self.front)
            self.states[s] = torch.where(column(change, output), new, self.states[s])

    def _mixed(self, outputs: Levels, settled: Tensor) -> Levels:
        """What is settled leaves the mixing; states that an earlier iterate did not hold take their newest output."""
        past = {s: [iterate.output(s, output) for iterate in self.history] for s, output in outputs.items()}
        moves = {
            s: [iterate.move(s, output) * column(s > settled, output) for iterate in self.history]
            for s, output in outputs.items()
        }
        weights = next(iter(outputs.values())).new_ones(len(settled), 1)
        if isinstance(self.mixing, Anderson):
            together = torch.cat([torch.stack([flatten(move) for move in moves[s]], 1) for s in outputs], 2)
            weights = self.mixing.mix(together, len(self.history) - 1)
        mixed = {}
        for s in outputs:
            mixed[s] = torch.einsum("bm,bm...->b...", weights, torch.stack(past[s], 1))
            if self.mixing.damping < 1:
                step = torch.einsum("bm,bm...->b...", weights, torch.stack(moves[s], 1))
                mixed[s] = mixed[s] - (1 - self.mixing.damping) * step
        return mixed
