"""Implicit gradients: closed form, finite differences, unrolling; three routes, so that no error is shared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workbench.solvers import Exact, JacobianFree, Neumann, Picard, attach_gradient, implicit_fixed_point

EXACT = Exact(tolerance=1e-13)
SOLVE = {"max_steps": 200, "tolerance": 1e-14}


def linear(n: int = 5, batch: int = 3, radius: float = 0.6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    m = torch.randn(n, n, generator=g, dtype=torch.float64)
    return radius * m / torch.linalg.matrix_norm(m, 2), torch.randn(batch, n, generator=g, dtype=torch.float64)


class Equilibrium(nn.Module):
    """z = tanh(W z + U x): a layer as a user would write it."""

    def __init__(self, n: int = 4, backward=EXACT) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(2)
        self.w = nn.Parameter(0.3 * torch.randn(n, n, generator=g, dtype=torch.float64))
        self.u = nn.Parameter(torch.randn(n, n, generator=g, dtype=torch.float64))
        self.backward = backward

    def update(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.w.T + x @ self.u.T)

    def forward(self, x: Tensor) -> Tensor:
        z, _ = implicit_fixed_point(
            lambda z, rows: self.update(z, x[rows]), torch.zeros_like(x), backward=self.backward, **SOLVE
        )
        return z


def test_exact_gradient_of_a_linear_map_is_the_closed_form():
    """z = (I - M)^{-1} b: dL/db = (I - M)^{-T} v and dL/dM = (that) z^T, summed over the batch."""
    m, b = linear()
    m.requires_grad_()
    b.requires_grad_()
    v = torch.randn_like(b)
    z, result = implicit_fixed_point(lambda z, rows: z @ m.T + b[rows], torch.zeros_like(b), backward=EXACT, **SOLVE)
    assert not result.value.requires_grad
    dm, db = torch.autograd.grad(z, (m, b), v)
    expected = torch.linalg.solve((torch.eye(5, dtype=torch.float64) - m.detach()).T, v.T).T
    torch.testing.assert_close(db, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(dm, expected.T @ z.detach(), atol=1e-12, rtol=0)


def test_neumann_terms_are_the_partial_sums_and_one_is_jacobian_free():
    m, b = linear()
    b.requires_grad_()
    v = torch.randn_like(b)
    point = torch.linalg.solve(torch.eye(5, dtype=torch.float64) - m, b.detach().T).T

    def gradient(backward) -> Tensor:
        z = attach_gradient(lambda z, rows: z @ m.T + b[rows], point, backward)
        return torch.autograd.grad(z, b, v)[0]

    for terms in (1, 2, 5):
        expected = sum(v @ torch.linalg.matrix_power(m, i) for i in range(terms))
        torch.testing.assert_close(gradient(Neumann(terms)), expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(gradient(JacobianFree()), v, atol=0, rtol=0)
    torch.testing.assert_close(gradient(None), v, atol=0, rtol=0)
    torch.testing.assert_close(gradient(Neumann(80)), gradient(EXACT), atol=1e-12, rtol=0)


def test_exact_gradient_equals_unrolling():
    layer, x = Equilibrium(), torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x.requires_grad_()
    inputs = (x, layer.w, layer.u)
    implicit = torch.autograd.grad(layer(x).square().sum(), inputs)
    z = torch.zeros_like(x)
    for _ in range(400):
        z = layer.update(z, x)
    unrolled = torch.autograd.grad(z.square().sum(), inputs)
    for a, b in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_exact_gradient_passes_gradcheck():
    layer, x = Equilibrium(), torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x.requires_grad_()

    def f(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
        return implicit_fixed_point(
            lambda z, rows: torch.tanh(z @ w.T + x[rows] @ u.T), torch.zeros_like(x), backward=EXACT, **SOLVE
        )[0]

    w, u = (p.detach().clone().requires_grad_() for p in (layer.w, layer.u))
    assert torch.autograd.gradcheck(f, (x, w, u), atol=1e-7, rtol=1e-6)


def test_exact_gradient_where_the_series_diverges():
    """Spectral norm 2: Neumann blows up, the linear solve does not care."""
    m, b = linear(radius=2.0)
    b.requires_grad_()
    eye = torch.eye(5, dtype=torch.float64)
    point = torch.linalg.solve(eye - m, b.detach().T).T
    z = attach_gradient(lambda z, rows: z @ m.T + b[rows], point, EXACT)
    (db,) = torch.autograd.grad(z.sum(), b)
    expected = torch.linalg.solve((eye - m).T, torch.ones(5, 3, dtype=torch.float64)).T
    torch.testing.assert_close(db, expected, atol=1e-9, rtol=0)


def test_samples_that_converge_at_different_steps_of_the_backward_solve():
    rates = torch.tensor([0.0, 0.3, 0.95], dtype=torch.float64)
    b = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    z, _ = implicit_fixed_point(
        lambda z, rows: rates[rows, None] * z + b[rows], torch.zeros(3, 2, dtype=torch.float64), backward=EXACT, **SOLVE
    )
    (db,) = torch.autograd.grad(z.sum(), b)
    torch.testing.assert_close(db, (1 / (1 - rates))[:, None].expand(3, 2), atol=1e-9, rtol=0)


@pytest.mark.parametrize("backward", [JacobianFree(), Neumann(3), EXACT])
def test_the_graph_holds_one_application_whatever_the_steps(backward):
    weight = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def f(z: Tensor, rows: Tensor) -> Tensor:
        return torch.tanh(weight * z).exp() * 0.3 + 1

    def saved(run: Callable[[], Tensor]) -> tuple[int, Tensor]:
        packed: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
            output = run()
        return len(packed), output

    start = torch.zeros(2, 3, dtype=torch.float64)
    options = {"backward": backward, "method": Picard(), "max_steps": 300, "tolerance": 1e-12}
    once, _ = saved(lambda: f(start, torch.arange(2)))
    count, z = saved(lambda: implicit_fixed_point(f, start, **options)[0])
    # The point and the rows of the attached backward rule come on top.
    assert count <= once + 2
    z.sum().backward()
    assert weight.grad.isfinite()


def test_second_derivatives_are_refused_not_wrong():
    m, b = linear()
    b.requires_grad_()
    z, _ = implicit_fixed_point(lambda z, rows: z @ m.T + b[rows] ** 2, torch.zeros_like(b), backward=EXACT, **SOLVE)
    (first,) = torch.autograd.grad(z.square().sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_works_inside_a_module_under_no_grad_and_without_parameters():
    layer, x = Equilibrium(backward=Neumann(2)), torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        plain = layer(x)
    torch.testing.assert_close(plain, layer.update(plain, x), atol=1e-12, rtol=0)
    z, _ = implicit_fixed_point(lambda z, rows: 0.5 * z + 1, torch.zeros(2, 3), backward=EXACT)
    assert not z.requires_grad


def test_an_unconverged_backward_solve_warns():
    m, b = linear(radius=0.99)
    b.requires_grad_()
    z = attach_gradient(lambda z, rows: z @ m.T + b[rows], b.detach(), Exact(1e-12, max_steps=2))
    with pytest.warns(RuntimeWarning, match="inexact implicit gradient"):
        z.sum().backward()


@pytest.mark.parametrize("make", [lambda: Neumann(0), lambda: Exact(0.0), lambda: Exact(max_steps=0)])
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
