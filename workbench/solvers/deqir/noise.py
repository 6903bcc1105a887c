"""Gradients to the initial noise of DeqIR, and restorations improved or steered by it (Cao et al. 2024, section 4.2).

At the fixed point, eq. (13) with ``J_g = dF/dx - I`` and the errata's signs (4):

    dL/dx_T = dL/dx* (I - dF/dx)^-1 dF/dx_T

``F`` is triangular, so the inverse is one sweep from the clean state to the noisiest: with ``a_s`` and ``b_s`` the
gradients of the step after state s to the network's image and to the state, and ``D_s`` its Jacobian there,

    l_T = dL/du_T (clean),   l_s = b_s + D_s^T a_s,   dL/dn = sigma_0 l_0,   u_0 = 1/2 + sigma_0 n.

``exact`` does that, T products with a Jacobian one after another, each with the graph of one call: the memory of the
network does not grow with T. ``one-step`` takes the chain's linear model for ``D_s`` at all states but the noisiest
(``M = -I`` for the map that the model belongs to: for the published one this is the paper's 1-step gradient).
``neumann`` starts there and corrects with all T products in one batch, ``terms`` times; T times would be exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from workbench.limits import Count, Positive, one_of
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import NoiseSource
from workbench.solvers.base import Callback, Problem, Restoration, Solver, Step
from workbench.solvers.deqir.losses import Loss
from workbench.solvers.deqir.solver import DeqIR
from workbench.solvers.deqir.states import Chain
from workbench.text import require, require_kind

GRADIENTS = ("one-step", "neumann", "exact")


def noise_gradient(
    chain: Chain, image_gradient: Tensor, method: str = "one-step", terms: int = 3
) -> tuple[Tensor, int]:
    """``dL/dn`` (B, C, H, W) of unit initial noise, and the number of products with the network's Jacobian per image.

    Args:
        chain: solved, with ``keep=True``.
        image_gradient: ``dL/dx_0`` (B, C, H, W).
        method, terms: see the module.

    Raises:
        ValueError: unknown method, terms < 1, or a chain that did not keep its states.
    """
    require(method in GRADIENTS, "gradient", f"one of {', '.join(GRADIENTS)}", method)
    require(terms >= 1, "terms", "at least 1", terms)
    require(len(chain.states) == chain.total + 1, "chain", f"with all {chain.total + 1} states", len(chain.states))
    exact = range(chain.total) if method == "exact" else range(1)
    top, pulls = _sweep(chain, image_gradient, None, exact)
    products = len(exact)
    levels = [level for level in chain.levels[:-1] for _ in image_gradient]
    for _ in range(terms if method == "neumann" else 0):
        x, a = chain.states[:-1].flatten(0, 1), pulls.flatten(0, 1)
        sigma = torch.tensor(levels, dtype=x.dtype)
        gaps = (_network_product(chain.prior, x, sigma, a) - _model_product(chain, levels, a)).view_as(pulls)
        top, pulls = _sweep(chain, image_gradient, gaps, range(0))
        products += chain.total
    return chain.levels[0] * top, products


def _sweep(chain: Chain, gradient: Tensor, gaps: Tensor | None, exact: range) -> tuple[Tensor, Tensor]:
    """From the clean state to the noisiest, the network's Jacobian at ``exact`` states, elsewhere model plus gap: l_0
    (B, C, H, W) and all a_s (T, B, C, H, W)."""
    pulls = gradient.new_empty(chain.total, *gradient.shape)
    for s in reversed(range(chain.total)):
        pulls[s], gradient = _step_product(chain, s, gradient)
        if s in exact:
            answer = _network_product(chain.prior, chain.states[s], chain.levels[s], pulls[s])
        else:
            answer = _model_product(chain, chain.levels[s], pulls[s])
            answer = answer if gaps is None else answer + gaps[s]
        gradient = gradient + answer
    return gradient, pulls


def _step_product(chain: Chain, s: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the step after state s, to the clean image and to the state. It is affine: any point will do."""
    clean, state = (torch.zeros_like(gradient, requires_grad=True) for _ in range(2))
    with torch.enable_grad():
        out = chain.transition(clean, (state - clean) / chain.levels[s], chain.noise(s), chain.levels[s + 1])
        to_clean, to_state = torch.autograd.grad(out, (clean, state), gradient, materialize_grads=True)
    return to_clean, to_state


def _network_product(prior: Prior, x: Tensor, sigma: float | Tensor, a: Tensor) -> Tensor:
    point = x.detach().requires_grad_()
    with torch.enable_grad():
        (product,) = torch.autograd.grad(prior(point, sigma), point, a)
    return product


def _model_product(chain: Chain, sigma: float | Sequence[float], a: Tensor) -> Tensor:
    """The models are symmetric: their transpose is themselves, without the constant."""
    return chain.model(a, sigma) - chain.model(torch.zeros_like(a), sigma)


@dataclass(frozen=True)
class OptimiseNoise(Solver):
    """Algorithm 2: DeqIR, its initial noise moved downhill on ``loss``.

    Two deviations: the step is Adam's in place of a fixed one, and the noise keeps its length, that of white noise:
    without that, losses that can fall for ever leave what the prior knows (``apart`` ends in black and white).

    Attributes:
        loss: ``loss(image (B, C, H, W))`` to (B,), differentiable; some are in ``losses.py``.
        solver: settings of each restoration. ``window`` must be None.
        steps: S, updates. Every one costs a restoration, which starts from what the network said in the last one.
        rate: of Adam, in units of the unit noise.
        gradient, terms: see :func:`noise_gradient`.
    """

    takes_initial: ClassVar[bool] = True

    loss: Loss
    solver: DeqIR = field(default_factory=DeqIR)
    steps: Count = 10
    rate: Positive = 0.05
    gradient: Annotated[str, one_of(GRADIENTS)] = "one-step"
    terms: Count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.solver.window is None, "window", "None: the gradient needs all states", self.solver.window)

    def run(self, p: Problem, callback: Callback | None = None) -> Restoration:
        """Restore as ``solver`` does; the image of the smallest loss of each. The fresh noise stays the same.

        ``residuals`` are the losses (B, steps + 1); ``evaluations`` count network calls and Jacobian products;
        ``extras["noise"]`` is the unit initial noise (B, C, H, W) that leads to the image.

        Raises:
            ValueError: as ``solver``; a loss that is not (B,), not finite or not differentiable.
        """
        unit = p.draw(p.grey).clone().requires_grad_()
        fresh: list[Tensor] = []
        optimiser = torch.optim.Adam([unit], lr=self.rate)
        length = unit.detach().flatten(1).norm(dim=1)
        best = Best(unit.detach())
        spent = torch.zeros(len(unit), dtype=torch.int64)
        losses, gaps = [], None
        for step in range(self.steps + 1):
            replay = _replay(unit.detach(), fresh, p.draw)
            chain = self.solver.chain(replace(p, draw=replay), gaps=gaps, keep=True)
            result = self.solver.solve(chain)
            gaps = chain.gaps
            loss, gradient = _loss_gradient(self.loss, result.image)
            losses.append(loss)
            best.update(loss, result, unit.detach())
            spent += result.evaluations
            if callback is not None:
                callback(Step(step + 1, self.steps + 1, None, best.image.clone(), spent.clone(), loss))
            if step < self.steps:
                unit.grad, products = noise_gradient(chain, gradient, self.gradient, self.terms)
                spent += products
                optimiser.step()
                unit *= column(length / unit.flatten(1).norm(dim=1), unit)
        return Restoration(
            image=best.image,
            evaluations=spent,
            iterations=torch.full_like(spent, self.steps + 1),
            residuals=torch.stack(losses, 1),
            converged=best.converged,
            message=result.message,
            extras={"noise": best.noise},
        )


class Best:
    """Of each image of the batch, what had the smallest loss."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise.clone()
        self.image = torch.full_like(noise, math.nan)
        self.converged = torch.zeros(len(noise), dtype=torch.bool)
        self.loss = torch.full((len(noise),), math.inf, dtype=noise.dtype, device=noise.device)

    def update(self, loss: Tensor, result: Restoration, noise: Tensor) -> None:
        """Take over the images whose ``loss`` (B,) is smaller than before."""
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.image[better], self.noise[better] = result.image[better], noise[better]
        if result.converged is not None:
            self.converged = torch.where(better.cpu(), result.converged, self.converged)


def _replay(unit: Tensor, fresh: list[Tensor], draw: NoiseSource) -> NoiseSource:
    """``unit``, then ``fresh``, which is filled from ``draw`` where it is not long enough yet."""
    position = -1

    def source(like: Tensor) -> Tensor:
        nonlocal position
        position += 1
        if position == 0:
            return unit
        if position > len(fresh):
            fresh.append(draw(like))
        return fresh[position - 1]

    return source


def _loss_gradient(loss: Loss, image: Tensor) -> tuple[Tensor, Tensor]:
    point = image.detach().requires_grad_()
    with torch.enable_grad():
        values = loss(point)
        require_kind(values, Tensor, "what the loss returns", "one number per image, (B,)")
        if values.shape != point.shape[:1]:
            raise ValueError(f"the loss must be one number per image ({len(point)},), got shape {tuple(values.shape)}")
        require(values.requires_grad, "the loss", "differentiable: a function of its images, in torch", "no graph")
        if not bool(values.isfinite().all()):
            raise ValueError(f"the loss is not finite: {values.tolist()}")
        (gradient,) = torch.autograd.grad(values.sum(), point)
    return values.detach(), gradient
