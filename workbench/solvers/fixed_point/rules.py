"""Update rules of fixed points, over a typed state, run by the one driver in ``solve.py``.

A rule is a frozen dataclass of settings. ``init(x)`` makes its state, ``step(state, x, fx)`` proposes the next
iterate, ``residual(x, fx)`` says what has to become zero. Iterates have shape (b, ...), every sample of the batch is
treated by itself, and every tensor of a state has the batch first, so that the driver can drop samples that are done.

Picard, Anderson and Broyden solve ``x = f(x)``; Adam descends: its ``f`` is a gradient field and it solves
``f(x) = 0``.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.limits import Count, Limited, NotNegative, Positive, ShareAboveZero, Whole
from workbench.text import require


class Rule(Protocol):
    """An update rule. The state is any dataclass (or None) whose tensors have the batch as first dimension."""

    def init(self, x: Tensor) -> Any: ...

    def residual(self, x: Tensor, fx: Tensor) -> Tensor: ...

    def step(self, state: Any, x: Tensor, fx: Tensor) -> tuple[Tensor, Any]: ...


def take(state: Any, keep: Tensor) -> Any:
    """``state`` of the samples ``keep`` (indices or mask) alone."""
    if state is None:
        return None
    tensors = {f.name: getattr(state, f.name) for f in fields(state)}
    return replace(state, **{name: value[keep] for name, value in tensors.items() if isinstance(value, Tensor)})


def flatten(x: Tensor) -> Tensor:
    """``x`` (b, ...) as (b, n)."""
    return x.reshape(x.shape[0], -1)


@dataclass(frozen=True)
class Picard(Limited):
    """``x + damping (f(x) - x)``. Converges where ``f`` is a contraction; damping in (0, 1] tames oscillation."""

    damping: ShareAboveZero = 1.0

    def init(self, x: Tensor) -> None:
        return None

    def residual(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx - x

    def step(self, state: None, x: Tensor, fx: Tensor) -> tuple[Tensor, None]:
        return torch.lerp(x, fx, self.damping), None


@dataclass(frozen=True)
class AndersonState:
    """Rings of the last outputs and residuals (b, memory + 1, n), and the number of steps taken."""

    outputs: Tensor
    residuals: Tensor
    count: int = 0


@dataclass(frozen=True)
class Anderson(Limited):
    """Anderson acceleration, type II: the mix of the last ``memory + 1`` outputs whose residual is smallest.

    ``x' = sum_i a_i (x_i + damping r_i)`` with ``sum a = 1`` minimising ``||sum_i a_i r_i||`` (Walker & Ni 2011, eq.
    2.1; DeqIR, Algorithm 1). On a linear map with full memory it is GMRES: exact after n + 1 evaluations in n
    dimensions. Each step costs the products of ``memory`` vectors and one small solve.

    Attributes:
        memory: earlier iterates mixed with the current one.
        damping: share of the residual that is added, in (0, 1].
        regularisation: Tikhonov weight on the mixing coefficients, relative to the squared length of each residual
            difference. It never falls below the rounding of the products. Larger values move towards Picard.
    """

    memory: Count = 5
    damping: ShareAboveZero = 1.0
    regularisation: NotNegative = 1e-10

    def init(self, x: Tensor) -> AndersonState:
        flat = flatten(x)
        ring = flat.new_zeros(flat.shape[0], self.memory + 1, flat.shape[1])
        return AndersonState(ring, ring.clone())

    def residual(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx - x

    def step(self, state: AndersonState, x: Tensor, fx: Tensor) -> tuple[Tensor, AndersonState]:
        slot = state.count % (self.memory + 1)
        filled = min(state.count + 1, self.memory + 1)
        # The rings belong to this solve alone, so they are written in place.
        state.outputs[:, slot] = flatten(fx)
        state.residuals[:, slot] = flatten(fx - x)
        weights = self.mix(state.residuals[:, :filled], slot).unsqueeze(1)
        mixed = torch.bmm(weights, state.outputs[:, :filled])
        if self.damping < 1:
            mixed = mixed - (1 - self.damping) * torch.bmm(weights, state.residuals[:, :filled])
        return mixed.view_as(x), replace(state, count=state.count + 1)

    def mix(self, residuals: Tensor, newest: int) -> Tensor:
        """Weights (b, m) of residuals (b, m, n), summing to 1, that make the mixed residual small."""
        batch, size, _ = residuals.shape
        weights = residuals.new_zeros(batch, size)
        if size > 1:
            current = residuals[:, newest : newest + 1]
            differences = current - torch.cat([residuals[:, :newest], residuals[:, newest + 1 :]], 1)
            # Unit columns: residuals shrink over many orders of magnitude, and the old ones must not drown the new.
            lengths = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
            differences = differences / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
            # Only m x m from here on: float64 costs nothing and loses nothing further.
            gram = torch.bmm(differences, differences.mT).double()
            right = torch.bmm(differences, current.mT).double()
            ridge = max(self.regularisation, 4 * torch.finfo(residuals.dtype).eps)
            gram.diagonal(dim1=1, dim2=2).add_(ridge)
            solution = torch.linalg.solve_ex(gram, right)[0].to(residuals.dtype)
            others = (solution / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)).squeeze(2)
            weights[:, :newest], weights[:, newest + 1 :] = others[:, :newest], others[:, newest:]
        weights[:, newest] = 1 - weights.sum(1)
        return weights


@dataclass(frozen=True)
class BroydenState:
    """Previous iterate and residual (b, n), and the factors (b, memory, n) of ``B = -I + sum_i left_i right_i^T``."""

    x: Tensor
    residual: Tensor
    left: Tensor
    right: Tensor
    count: int = 0


@dataclass(frozen=True)
class Broyden(Limited):
    """Broyden's "good" method on ``g(x) = f(x) - x``; ``B``, the inverse Jacobian, is ``-I`` plus few rank-1 terms.

    ``x' = x - B g``, then ``B += (s - B d) (s^T B) / (s^T B d)`` with ``s`` and ``d`` the last changes of x and g
    (Broyden 1965; limited memory as in Bai et al. 2019). On a linear map in n dimensions it is exact after at most 2n
    steps (Gay 1979). The oldest term makes room when the memory is full.

    Attributes:
        memory: number of rank-1 terms.
    """

    memory: Count = 20

    def init(self, x: Tensor) -> BroydenState:
        flat = flatten(x)
        terms = flat.new_zeros(flat.shape[0], self.memory, flat.shape[1])
        return BroydenState(torch.zeros_like(flat), torch.zeros_like(flat), terms, terms.clone())

    def residual(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx - x

    def step(self, state: BroydenState, x: Tensor, fx: Tensor) -> tuple[Tensor, BroydenState]:
        flat, residual = flatten(x), flatten(fx - x)
        if state.count > 0:
            change = flat - state.x
            left, right = state.left, state.right
            slot = (state.count - 1) % self.memory
            left[:, slot], right[:, slot] = 0, 0  # The oldest term leaves before the secant equation is set up.
            moved = product(left, right, residual - state.residual)
            row = product(right, left, change)
            scale = (row * (residual - state.residual)).sum(1, keepdim=True)
            # A vanishing denominator means no new information (or an exact hit): skip the term.
            usable = scale.abs() > torch.finfo(x.dtype).tiny
            term = torch.where(usable, (change - moved) / torch.where(usable, scale, 1.0), 0.0)
            left[:, slot], right[:, slot] = term, row
        direction = product(state.left, state.right, residual)
        following = replace(state, x=flat, residual=residual, count=state.count + 1)
        return (flat - direction).view_as(x), following


def product(left: Tensor, right: Tensor, vector: Tensor) -> Tensor:
    """``(-I + sum_i left_i right_i^T) vector`` for factors (b, m, n) and vector (b, n)."""
    inner = torch.bmm(right, vector.unsqueeze(2))
    return torch.bmm(left.mT, inner).squeeze(2) - vector


@dataclass(frozen=True)
class AdamState:
    """First and second moments, shaped like the iterate."""

    mean: Tensor
    square: Tensor
    count: int = 0


@dataclass(frozen=True)
class Adam(Limited):
    """Adam (Kingma & Ba 2015) on a gradient field: ``f(x)`` is a gradient, the residual is the gradient itself.

    Attributes:
        step_size, betas, epsilon: as usual.
        bias_correction_offset: step k = 1, 2, ... divides the moments by ``1 - beta^(k + offset)``. 0 is Adam; 1 is
            what the published MUPET runs do (errata 12).
    """

    step_size: Positive = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: Positive = 1e-8
    bias_correction_offset: Whole = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(0 <= beta < 1 for beta in self.betas), "betas", "in [0, 1)", self.betas)

    def init(self, x: Tensor) -> AdamState:
        return AdamState(torch.zeros_like(x), torch.zeros_like(x))

    def residual(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx

    def step(self, state: AdamState, x: Tensor, fx: Tensor) -> tuple[Tensor, AdamState]:
        first, second = self.betas
        mean = first * state.mean + (1 - first) * fx
        square = second * state.square + (1 - second) * fx**2
        count = state.count + 1
        age = count + self.bias_correction_offset
        update = (mean / (1 - first**age)) / ((square / (1 - second**age)).sqrt() + self.epsilon)
        return x - self.step_size * update, AdamState(mean, square, count)
