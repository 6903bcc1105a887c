"""DeqIR: the whole sampling chain as one fixed point, solved for all noise levels in parallel (Cao et al. 2024).

In variance-exploding coordinates (errata 1-2) the chain of DDNM is, from the noisiest state ``u_T`` down,

    u_{s-1} = transition(u_s - sigma_s e_s, e_s, eps_s, sigma_{s-1}),   e_s = (u_s - D(u_s, sigma_s)) / sigma_s.

The transition is affine in its arguments, so once all ``e_s`` are known the chain is a linear recurrence without a
network: eq. (9), O(T). For noise-free data it sums to

    u_j = N u_T + P z_{j+1} + sum_{s > j} N z_s
    z_s = A^+ y + sigma_{s-1} sqrt(1 - eta^2) e_s - sigma_s N e_s + sigma_{s-1} eta eps_s

Written step by step it also holds where the data are noisy (DDNM+) and the projection changes with the level.

One iteration asks the prior at all states in one batch and runs that recurrence; its fixed point is the sequential
result. An iteration has to guess how ``D`` answers to the new ``u_s``. Eq. (9) keeps ``e_s``, that is, ``D`` follows
``u_s`` one to one, which is far off at high noise and makes the first iterates huge. Here the guess is the Wiener
filter of photos (``photo_model.py``) plus what ``D`` differed from it at the last ``u_s``, and the start is that
filter's own chain. Same fixed point, fewer iterations: see ``benchmarks/deqir.py``. ``prediction="published"`` is
eq. (9) started from ``x_T`` in every state (Algorithm 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, NotNegative, Positive, ShareAboveZero, ShareBelowOne, Whole, one_of
from workbench.solvers.base import Callback, Problem, Restoration, Solver, Step
from workbench.solvers.deqir.states import Chain
from workbench.solvers.deqir.wiener import PhotoModel, unchanged
from workbench.solvers.fixed_point.rules import Anderson, Picard
from workbench.solvers.fixed_point.solve import explain
from workbench.solvers.null_space import transition

PREDICTIONS = ("photos", "published")


@dataclass(frozen=True)
class DeqIR(Solver, name="deqir"):
    """DDNM's chain (same levels, same noise, same result at convergence) by fixed-point iteration over all states.

    Attributes:
        steps: T, noise levels.
        iterations: K, at most; ``steps`` of them are exact whatever the prior.
        eta: share of fresh noise, in [0, 1). Published is 0.15; 0.85, DDNM's, measured 0.7 to 2.2 dB better in PSNR (24
            photos 32x32, T = 20).
        memory, damping, regularisation: of the Anderson acceleration, see :class:`Anderson`; memory 0 is plain (Picard)
            iteration.
        prediction: how the prior is thought to answer at a state not asked yet: "photos" or "published", see above.
        tolerance: a state is settled when all before it are and it moves by no more than this, as root mean square in
            units of ``sqrt(1 + sigma^2)``; an image stops when all its states are. 1e-3 is a quarter of a grey level
            of 255 in the result.
        window: states that are stored and asked about at a time, from the first unsettled one on; None: all. Bounds
            the memory where T is large, takes more iterations.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
        sigma_start: begin at the highest level not above this, from another restoration (``initial``) or the smooth
            estimate, as :class:`DDNM` does (section 5.8, real-world super-resolution).
    """

    summary: ClassVar[str] = "DDNM's sampling chain as one fixed point, all noise levels in parallel"
    paper: ClassVar[str] = "Cao et al. 2024 (DeqIR)"
    takes_initial: ClassVar[bool] = True

    steps: Count = 20
    iterations: Count = 15
    eta: ShareBelowOne = 0.85
    memory: Whole = 5
    damping: ShareAboveZero = 1.0
    regularisation: NotNegative = 1e-10
    prediction: Annotated[str, one_of(PREDICTIONS)] = "photos"
    tolerance: NotNegative = 1e-3
    window: Count | None = None
    schedule: str | Sequence[float] = "vp"
    sigma_start: Positive | None = None

    def mixing(self) -> Picard | Anderson:
        """The update rule."""
        if self.memory == 0:
            return Picard(self.damping)
        return Anderson(self.memory, self.damping, self.regularisation)

    def run(self, p: Problem, callback: Callback | None = None) -> Restoration:
        """Noise is drawn as DDNM draws it: the start, then once per level. ``evaluations`` counts every state asked
        about. ``initial`` is as for :class:`DDNM`."""
        return self.solve(self.chain(p), callback)

    def solve(self, chain: Chain, callback: Callback | None = None) -> Restoration:
        """Iterate ``chain`` until it stands still. It holds the states afterwards."""
        count = torch.zeros_like(chain.front)
        running = torch.ones_like(count, dtype=torch.bool)
        lost = ~running
        trace = torch.full((len(count), self.iterations), math.nan, dtype=chain.states.dtype)
        while bool(running.any()):
            going = running & ~chain.waiting()
            moves = chain.iterate(going, self.tolerance)
            count += going
            rows = going.nonzero().squeeze(1)
            trace[rows, count[rows] - 1] = moves[rows]
            lost = lost | (going & moves.isinf())
            running = running & ~lost & (chain.front < self.steps) & (count < self.iterations)
            chain.slide(running)
            if callback is not None:
                spent = chain.evaluations.clone()
                callback(Step(int(count.max()), self.iterations, None, chain.image.clone(), spent, moves))
        converged = chain.front == self.steps
        last = trace.gather(1, count[:, None] - 1).squeeze(1)
        return Restoration(
            image=chain.image.clone(),
            evaluations=chain.evaluations,
            iterations=count,
            residuals=trace[:, : int(count.max())],
            converged=converged,
            message=explain(converged, lost, last, last.new_full(last.shape, self.tolerance), int(count.max())),
        )

    def chain(self, p: Problem, **options: Any) -> Chain:
        """The states as they start; ``options`` of :class:`Chain`. Raises ValueError as the call."""
        levels = p.levels(self.schedule, self.steps, self.sigma_start)
        base = p.first_image(self.sigma_start is not None)
        p.prior.check(base)
        unit = p.draw(base)

        def everywhere(state: int) -> Tensor:
            # x_T of a variance-preserving network on [-1, 1]: sqrt(abar_s) 2 (u_s - 1/2) = x_T.
            return base + math.sqrt(levels[state] ** 2 + 0.25) * unit

        published = self.prediction == "published"
        return Chain(
            base + levels[0] * unit,
            p.draw,
            levels,
            transition(p.op, p.y, p.sigma_noise, self.eta),
            p.prior,
            unchanged if published else PhotoModel(),
            window=self.window or self.steps,
            mixing=self.mixing(),
            start=everywhere if published else None,
            **options,
        )
