"""Implicit gradients: closed form and finite differences, two routes, so that no error is shared."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from workbench.solvers import Exact, JacobianFree, Neumann, Picard, attach_gradient, implicit_fixed_point

EXACT = Exact(tolerance=1e-13)
SOLVE = {"max_steps": 200, "tolerance": 1e-14}


def linear(n: int = 5, batch: int = 3, radius: float = 0.6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    m = torch.randn(n, n, generator=g, dtype=torch.float64)
    return radius * m / torch.linalg.matrix_norm(m, 2), torch.randn(batch, n, generator=g, dtype=torch.float64)


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


def test_exact_gradient_of_a_layer_is_that_of_finite_differences():
    """z = tanh(W z + U x): a layer as a user would write it."""
    g = torch.Generator().manual_seed(2)
    w, u = (0.3 * torch.randn(4, 4, generator=g, dtype=torch.float64) for _ in range(2))
    x = torch.randn(2, 4, dtype=torch.float64, generator=g)

    def layer(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
        return implicit_fixed_point(
            lambda z, rows: torch.tanh(z @ w.T + x[rows] @ u.T), torch.zeros_like(x), backward=EXACT, **SOLVE
        )[0]

    inputs = [each.requires_grad_() for each in (x, w, u)]
    assert torch.autograd.gradcheck(layer, inputs, atol=1e-7, rtol=1e-6)
    with torch.no_grad():
        plain = layer(*inputs)
    torch.testing.assert_close(plain, torch.tanh(plain @ w.T + x @ u.T), atol=1e-12, rtol=0)


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


@pytest.mark.parametrize("backward", [JacobianFree(), EXACT])
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


def test_a_backward_rule_by_its_name_alone_is_refused_before_the_backward_pass():
    for given in ("exact", Exact):
        with pytest.raises(ValueError, match=r"backward must be JacobianFree\(\), Neumann\(\) or Exact\(\), got"):
            attach_gradient(lambda z, rows: z / 2, torch.zeros(1, 2), given)


def test_an_unconverged_backward_solve_warns():
    m, b = linear(radius=0.99)
    b.requires_grad_()
    z = attach_gradient(lambda z, rows: z @ m.T + b[rows], b.detach(), Exact(1e-12, max_steps=2))
    with pytest.warns(RuntimeWarning, match="inexact implicit gradient"):
        z.sum().backward()
