"""The states of a sampling chain, solved for together: what DeqIR iterates.

States ``u_0`` (noisiest, given) ... ``u_T`` (clean) follow from each other through the network,

    u_{s+1} = transition(D(u_s, sigma_s), (u_s - D) / sigma_s, eps_s, sigma_{s+1}).

The transition is affine, so with a linear ``model`` of the network and fixed gaps between the two,
``D(u, sigma_s) ~ model(u, sigma_s) + gap_s``, the whole chain is a recurrence without a network, O(T). One iteration
asks the network at all states in one batch, which gives the gaps, and runs that recurrence. At a fixed point the gaps
belong to the states, so the chain is the sequential one, whatever the model.

States are numbered as above, the other way round than in the paper. Every image of the batch has a ``front``: its
states up to there are settled, because one more becomes exact with every iteration (the map is triangular, errata 3),
or because they no longer move. Only the ``window`` states from the front on are asked about and stored. Fronts and what
is decided by them are kept on the CPU: the one thing an iteration waits for is how far the states moved.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.models.prior import Prior
from workbench.random import NoiseSource
from workbench.solvers.fixed_point.rules import Anderson, Picard
from workbench.solvers.null_space import Transition

Model = Callable[[Tensor, float | Sequence[float]], Tensor]


@dataclass(frozen=True)
class Proposal:
    """What one iteration proposed for the states ``first``, ``first + 1``, ...: (S, B, C, H, W) what came out and how
    far they moved, and (S, B) whether the image's window held them."""

    first: int
    outputs: Tensor
    moves: Tensor
    entered: Tensor

    def since(self, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, moves and ``entered`` from the state ``first`` on."""
        cut = first - self.first
        return self.outputs[cut:], self.moves[cut:], self.entered[cut:]


class Chain:
    """All states of one solve, made for that solve. Stacks of states have their number as first dimension.

    Args:
        top: the noisiest state (B, C, H, W).
        draw: source of the fresh noise, asked once per level, from the noisiest on.
        levels: T + 1 noise levels, the last one 0.
        transition: see ``null_space.py``.
        model: linear stand-in for the network, ``(x, sigma)`` to the clean image; ``sigma`` one for all or one each.
        window: states asked about at a time.
        mixing: Picard, or Anderson with the same weights for all states of an image.
        start: first guess of state ``s`` (B, C, H, W); by default the chain of ``model`` and ``gaps``.
        gaps: first guess of the gaps (T, B, C, H, W): those of an earlier solve of a problem nearby. By default 0.
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
        gaps: Tensor | None = None,
        keep: bool = False,
    ) -> None:
        self.levels, self.transition, self.prior, self.model = levels, transition, prior, model
        self.draw, self.window, self.mixing, self.start = draw, window, mixing, start
        self.total = len(levels) - 1
        # States low ... high are iterated, all but the last one asked about; those from ``base`` on are stored.
        self.base, self.low, self.high, self.keep = 0, 0, 0, keep
        self.states = top[None]
        self.gaps = top.new_empty(0, *top.shape)
        self.guess = gaps
        self.fresh: list[Tensor] = []
        self.front = torch.zeros(top.shape[0], dtype=torch.int64)
        self.evaluations = torch.zeros_like(self.front)
        self.history: deque[Proposal] = deque(maxlen=1 + (mixing.memory if isinstance(mixing, Anderson) else 0))
        self._extend(min(window, self.total))

    @property
    def image(self) -> Tensor:
        """The last state, or what the network is thought to see behind it while the window has not come to the end."""
        if self.high == self.total:
            return self.states[-1]
        return self._clean(self.high - 1, self.states[-2])

    def waiting(self) -> Tensor:
        """bool (B,): images so far ahead of the slowest that more room than two windows would be needed."""
        return self.front > self.low + self.window

    def iterate(self, running: Tensor, tolerance: float) -> Tensor:
        """One iteration of the images ``running`` (B,): the largest move of each (B,), inf where it went wrong.

        A move is the root mean square of the change of a state, in units of ``sqrt(1 + sigma^2)``.
        """
        state = torch.arange(self.low, self.high)[:, None]
        entered = (self.front <= state) & (state < self.front + self.window)  # (S, B): the image's window holds it
        mine = entered & running
        self._ask(mine, state)
        outputs = self._recur(state)
        moves = outputs - self._stored(self.states, 1)
        scale = torch.tensor([math.sqrt(1 + level**2) for level in self.levels[self.low + 1 : self.high + 1]])
        sizes = moves.flatten(2).square().mean(2).sqrt().cpu() / scale.to(moves.dtype)[:, None]
        largest = torch.where(mine, sizes.nan_to_num(math.inf, math.inf), 0.0).amax(0)
        unbroken = (~mine | (self.front == state) | (sizes <= tolerance)).cumprod(0).bool()
        settled = self.front + (mine & unbroken).sum(0)
        update = running & largest.isfinite()
        self.history.append(Proposal(self.low, outputs, moves, entered))
        done = state + 1 <= settled
        new = torch.where(_wide(done, outputs), outputs, self._mixed(~done))
        # Where images ended or wait, nothing changes, and NaN of a lost one stays away.
        change = update & (state + 1 > self.front)
        self._stored(self.states, 1).copy_(torch.where(_wide(change, new), new, self._stored(self.states, 1)))
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
            behind, self.base = self.low - self.base, self.low
            self.states, self.gaps, self.fresh = self.states[behind:], self.gaps[behind:], self.fresh[behind:]

    def noise(self, state: int) -> Tensor:
        """Fresh noise of the step from ``state``."""
        while self.base + len(self.fresh) <= state:
            self.fresh.append(self.draw(self.states[0]))
        return self.fresh[state - self.base]

    def _stored(self, stack: Tensor, ahead: int = 0) -> Tensor:
        """The states ``low + ahead`` to ``high - 1 + ahead`` of ``stack``, a view."""
        return stack[self.low + ahead - self.base : self.high + ahead - self.base]

    def _clean(self, s: int, u: Tensor) -> Tensor:
        return self.model(u, self.levels[s]) + self.gaps[s - self.base]

    def _step(self, s: int, u: Tensor) -> Tensor:
        clean = self._clean(s, u)
        return self.transition(clean, (u - clean) / self.levels[s], self.noise(s), self.levels[s + 1])

    def _extend(self, high: int) -> None:
        for s in range(self.high, high):
            # The network is thought to differ from the model at the next level as at this one.
            gap = self.guess[s] if self.guess is not None else self.gaps[-1] if s else torch.zeros_like(self.states[0])
            self.gaps = torch.cat([self.gaps, gap[None]])
            state = self._step(s, self.states[-1]) if self.start is None else self.start(s + 1)
            self.states = torch.cat([self.states, state[None]])
        self.high = max(self.high, high)

    def _ask(self, mine: Tensor, state: Tensor) -> None:
        """The network's answers at the states ``mine`` (S, B), in one batch; states ahead take the last gap."""
        levels = [self.levels[s] for s in state.expand_as(mine)[mine].tolist()]
        where, gaps = _sent(mine.nonzero().unbind(1), self.states), self._stored(self.gaps)
        x = self._stored(self.states)[where]
        gaps[where] = self.prior(x, torch.tensor(levels, dtype=x.dtype)) - self.model(x, levels)
        self.evaluations += mine.sum(0)
        last = torch.minimum(state, self.front + self.window - 1) - self.low
        gaps.copy_(gaps[_sent((last, torch.arange(len(self.front))), gaps)])

    def _recur(self, state: Tensor) -> Tensor:
        states, outputs = self._stored(self.states), []
        u, given = states[0], _wide(self.front == state, states)
        for s, stored, here in zip(range(self.low, self.high), states, given, strict=True):
            u = self._step(s, torch.where(here, stored, u))
            outputs.append(u)
        return torch.stack(outputs)

    def _mixed(self, mixing: Tensor) -> Tensor:
        """Anderson's mix of the last outputs, its weights from the states ``mixing`` (S, B) alone. States that an
        earlier iterate did not hold take their newest output."""
        newest = self.history[-1]
        past, moves = [], []
        for iterate in self.history:
            outputs, move, entered = iterate.since(self.low)
            held = len(outputs)
            output, moved = newest.outputs.clone(), torch.zeros_like(newest.moves)
            output[:held] = torch.where(_wide(entered, output), outputs, output[:held])
            moved[:held] = torch.where(_wide(entered, moved), move, 0.0)
            past.append(output)
            moves.append(moved * _wide(mixing, moved))
        weights = newest.outputs.new_ones(mixing.shape[1], 1)
        if isinstance(self.mixing, Anderson):
            together = torch.stack([move.transpose(0, 1).flatten(1) for move in moves], 1)
            weights = self.mixing.mix(together, len(self.history) - 1)
        mixed = torch.einsum("bm,msb...->sb...", weights, torch.stack(past))
        if self.mixing.damping < 1:
            mixed = mixed - (1 - self.mixing.damping) * torch.einsum("bm,msb...->sb...", weights, torch.stack(moves))
        return mixed


def _sent(indices: Sequence[Tensor], like: Tensor) -> tuple[Tensor, ...]:
    """``indices`` from the CPU where ``like`` is; nothing has to wait for them."""
    return tuple(index.to(like.device, non_blocking=True) for index in indices)


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    """``flags`` (..., B), where ``like`` is and with dimensions for C, H and W."""
    return _sent((flags,), like)[0][..., None, None, None]
