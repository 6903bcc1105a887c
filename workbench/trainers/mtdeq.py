"""MTDEQ: train a denoiser at the equilibria of forward-backward splitting (Willingham et al., Algorithm 1).

Each image is degraded ``per_image`` times; for each measurement the fixed point of eq. (3) is found
without a graph, then

    L = mean_i ||f_i(z_i) - x||^2 / d          (Algorithm 1)

with the gradient of one application of ``f_i`` at ``z_i`` (eq. 4; Jacobian-free). The denoiser is told ``step_size``
times the noise of the measurement, 0 where there is none (errata 14), unless the solver has a level of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from workbench.limits import Count, Limited, NotNegative, ShareAboveZero
from workbench.operators.base import column
from workbench.random import Draws
from workbench.solvers.fixed_point.gradient import Exact, JacobianFree, Neumann
from workbench.solvers.plug_and_play.forward_backward import ForwardBackward, forward_backward_step
from workbench.text import require
from workbench.trainers.degradations import Degradation, Degradations
from workbench.trainers.dsm import Values, check_images, unwrapped
from workbench.trainers.equilibrium import Equilibrium, checked

TASKS = Degradations(
    kinds=("super-resolution", "deblurring", "pixels"),
    factors=(1, 2, 3, 4),
    blurs=(0.4, 0.8, 1.2, 1.6, 2.0, 2.4),
    rates=(0.2, 0.4, 0.5, 0.6, 0.8, 0.9),
)
NOISE = tuple(0.005 * s for s in range(50))
SINGLE = {
    "completion": (Degradations(kinds=("pixels",), rates=(0.9,)), 0.0),
    "super-resolution": (Degradations(kinds=("super-resolution",), factors=(2,)), 0.01),
}


@dataclass(frozen=True)
class StepDecay(Limited):
    """The learning rate's factor at a step: ``factor`` to the power of ``step // every``. The paper's: 0.25 every 25 of
    250 epochs."""

    factor: ShareAboveZero
    every: Count

    def __call__(self, step: int) -> float:
        return self.factor ** (step // self.every)


@dataclass(frozen=True)
class MTDEQ(Limited):
    """The objective of Algorithm 1.

    Iterations start from the measurement at the size of the image, its holes filled.

    Attributes:
        degradations: distribution of A; the paper's tasks by default (section III-A).
        noise: standard deviations of the measurements' noise, drawn with equal chances.
        per_image: N, degradations of each image, whose losses are averaged.
        fixed_point: how the equilibria are found. By default with Anderson acceleration and at most 25 steps; the paper
            iterates plainly, up to 350 times (``ForwardBackward()``).
        weight: of the loss at the equilibria. With 0 and ``denoising=1`` the prior stays a Gaussian denoiser: the
            control of a fair comparison, with the same images and levels.
        denoising: weight of ``||D(x + s eps, s) - x||^2 / d`` at the levels ``s`` that the denoiser is told at the
            equilibria. Both terms together are what the paper proposes as next (section IV).
        backward: Jacobian-free as published, Neumann or exact, see ``solvers.fixed_point.gradient``.
    """

    degradations: Degradations = TASKS
    noise: tuple[float, ...] = NOISE
    per_image: Count = 5
    fixed_point: ForwardBackward = field(default_factory=partial(ForwardBackward, memory=1, max_steps=25))
    weight: NotNegative = 1.0
    denoising: NotNegative = 0.0
    backward: JacobianFree | Neumann | Exact = field(default_factory=JacobianFree)

    @classmethod
    def single(cls, task: str) -> MTDEQ:
        """The paper's single-task priors (section III-C): "completion" (ST Comp) or "super-resolution" (ST SR)."""
        require(task in SINGLE, "task", " or ".join(SINGLE), task)
        degradations, noise = SINGLE[task]
        return cls(degradations=degradations, noise=(noise,), per_image=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = bool(self.noise) and all(0 <= level < math.inf for level in self.noise)
        require(fits, "noise", "standard deviations, finite and at least 0", self.noise)
        weights = (self.weight, self.denoising)
        require(sum(weights) > 0, "weights", "from 0, not both 0", weights)

    def __call__(self, prior: nn.Module, images: Tensor, draws: Draws) -> tuple[Tensor, Values]:
        """The loss of ``images`` (B, C, H, W) in [0, 1]; ``equilibrium``, ``denoising``, ``evaluations`` per
        measurement, shares ``converged`` and ``lost`` to log.

        Raises:
            ValueError: images that are not finite or do not suit the prior, levels above the prior's range, or several
                processes with a gradient that is not Jacobian-free.
        """
        check_images(images)
        target = checked(prior, images, self.backward)
        clean = images.repeat_interleave(self.per_image, 0)
        levels = torch.tensor(self.noise, dtype=torch.float32, device=images.device)
        highest = float(self.fixed_point.level(levels).max())
        require(highest <= target.sigma_max, "noise", f"within what {target.name} knows", f"{highest:g}")
        sigma = levels[(draws.uniform(len(clean)) * len(levels)).long()]
        op = self.degradations.sample(len(clean), (images.shape[-2], images.shape[-1]), draws)
        noise, told = draws.normal(*clean.shape), self.fixed_point.level(sigma)
        loss = images.new_zeros(())
        values: Values = {}
        if self.weight:
            seen = op(clean)
            found, values = self.equilibrium(prior, clean, op, seen + column(sigma, seen) * noise, sigma)
            loss, values = self.weight * found, {"equilibrium": found} | values
        if self.denoising:
            denoised = (prior(clean + column(told, clean) * noise, told) - clean).square().mean()
            loss, values = loss + self.denoising * denoised, values | {"denoising": denoised}
        return loss, values

    def equilibrium(
        self, prior: nn.Module, clean: Tensor, op: Degradation, y: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Values]:
        """The mean loss of ``y = op(clean)`` plus noise ``sigma`` (B,), ``clean`` (B, C, H, W)."""
        solver = self.fixed_point
        return Equilibrium(
            map=forward_backward_step(prior, op, y, solver.level(sigma), solver.step_size),
            solve=lambda: solver(y, op, unwrapped(prior), sigma_noise=sigma, initial=op.first_estimate(y)),
            loss=lambda estimates: (estimates - clean).square().flatten(1).mean(1),
            backward=self.backward,
        )()
