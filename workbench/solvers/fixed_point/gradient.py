"""Implicit gradients at a fixed point, as one autograd mechanism for any module.

At ``z = f(z; theta)`` the implicit function theorem gives ``dL/dtheta = u^T df/dtheta`` with ``(I - J)^T u = dL/dz``
and ``J = df/dz`` (MUPET, eq. 4; DeqIR, eq. 13 with the sign of errata 4). The solve keeps no graph. Afterwards ``f`` is
applied once with a graph; the backward pass turns ``dL/dz`` into ``u`` with vector-Jacobian products at the same
point and hands it to that one application. Gradients reach whatever ``f`` uses: parameters of modules, explicit
inputs, the measurement.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.limits import Between, Count, Limited
from workbench.solvers.fixed_point.rules import Anderson
from workbench.solvers.fixed_point.solve import FixedPointResult, Map, solve_fixed_point
from workbench.text import require

Vjp = Callable[[Tensor], Tensor]


class Backward(Protocol):
    """How ``u`` with ``(I - J)^T u = v`` is found, given ``vjp(u) = J^T u``."""

    def solve(self, vjp: Vjp, v: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class JacobianFree:
    """``u = v``: the Jacobian is taken for zero (Fung et al. 2022). A descent direction for contractions."""

    def solve(self, vjp: Vjp, v: Tensor) -> Tensor:
        return v


@dataclass(frozen=True)
class Neumann(Limited):
    """``u = sum_{i < terms} (J^T)^i v``: exact for many terms if ``f`` is a contraction; 1 term is Jacobian-free."""

    terms: Count = 5

    def solve(self, vjp: Vjp, v: Tensor) -> Tensor:
        total, power = v, v
        for _ in range(self.terms - 1):
            power = vjp(power)
            total = total + power
        return total


@dataclass(frozen=True)
class Exact(Limited):
    """The linear system to a tolerance, by Anderson acceleration, which on linear maps is GMRES.

    Attributes:
        tolerance: of the residual, relative to the root mean square of the solution.
        max_steps: vector-Jacobian products at most.
        memory: of the Anderson acceleration.
    """

    tolerance: Between = 1e-6
    max_steps: Count = 100
    memory: Count = 20

    def solve(self, vjp: Vjp, v: Tensor) -> Tensor:
        def update(u: Tensor, rows: Tensor) -> Tensor:
            # The graph spans the whole batch; finished samples ride along as zeros.
            full = torch.zeros_like(v).index_copy(0, rows, u)
            return (v + vjp(full))[rows]

        result = solve_fixed_point(
            update,
            v,
            method=Anderson(self.memory, regularisation=0.0),
            max_steps=self.max_steps,
            tolerance=torch.finfo(v.dtype).tiny,
            relative_tolerance=self.tolerance,
        )
        if result.message:
            warnings.warn(f"inexact implicit gradient: {result.message}", RuntimeWarning, stacklevel=2)
        return result.value


def attach_gradient(f: Map, value: Tensor, backward: Backward | None = None) -> Tensor:
    """``f(value)`` (B, ...) carrying the implicit gradient of the fixed point ``value``.

    Args:
        f: the map, ``f(x, rows)`` as in :func:`solve_fixed_point`; samples must not influence each other.
        value: the fixed point (B, ...), found without a graph.
        backward: ``JacobianFree()`` (default), ``Neumann(terms)`` or ``Exact(tolerance, max_steps)``.
    """
    backward = JacobianFree() if backward is None else backward
    known = hasattr(backward, "solve") and not isinstance(backward, type)
    require(known, "backward", "JacobianFree(), Neumann() or Exact()", repr(backward))
    point, rows = value.detach(), torch.arange(value.shape[0], device=value.device)
    with torch.enable_grad():
        output = f(point, rows)
    if isinstance(backward, JacobianFree) or not output.requires_grad:
        return output
    return cast(Tensor, _Attach.apply(output, point, rows, f, backward))


def implicit_fixed_point(
    f: Map, x0: Tensor, *, backward: Backward | None = None, **options: Any
) -> tuple[Tensor, FixedPointResult]:
    """Solve ``z = f(z)`` without a graph and return it (B, ...) with its implicit gradient, and the solve's result.

    ``options`` are those of :func:`solve_fixed_point`. The returned tensor is ``f`` of the result's value.
    """
    result = solve_fixed_point(f, x0.detach(), **options)
    return attach_gradient(f, result.value, backward), result


class _Attach(torch.autograd.Function):
    """Identity whose backward pass solves the transposed linear system."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, point: Tensor, rows: Tensor, f: Map, backward: Backward) -> Tensor:
        ctx.save_for_backward(point, rows)
        ctx.f, ctx.backward_rule = f, backward
        return output.view_as(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        point, rows = ctx.saved_tensors
        with torch.enable_grad():
            # A graph of its own, from z to f(z): it lives for this backward pass only.
            z = point.detach().requires_grad_()
            image = ctx.f(z, rows)

        def vjp(u: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(image, z, u, retain_graph=True, allow_unused=True)
            return torch.zeros_like(u) if product is None else product

        return ctx.backward_rule.solve(vjp, gradient), None, None, None, None
