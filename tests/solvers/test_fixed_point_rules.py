"""The methods for fixed points: closed forms, GMRES, Gay's theorem, the secant equation, Adam's own steps."""

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import affine, linear_problem
from workbench.solvers import Adam, Anderson, Broyden, Picard, solve_fixed_point
from workbench.solvers.fixed_point.rules import product


@pytest.mark.parametrize("method", [Picard(0.7), Anderson(3, damping=0.5), Broyden(3)])
def test_every_method_finds_the_fixed_point_of_a_linear_map(method):
    m, b, x = linear_problem()
    result = solve_fixed_point(affine(m, b), torch.zeros_like(b), method=method, max_steps=500, tolerance=1e-12)
    assert result.converged.all()
    assert not result.message
    # The error is at most the residual times 1 / (1 - 0.9).
    torch.testing.assert_close(result.value, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("radius", [0.9, 3.0])
def test_anderson_with_full_memory_is_gmres(radius):
    """n + 1 evaluations in n dimensions, also where Picard diverges; the next one sees a residual of rounding."""
    m, b, _ = linear_problem(radius=radius)
    result = solve_fixed_point(
        affine(m, b), torch.zeros_like(b), method=Anderson(6, regularisation=0.0), max_steps=8, tolerance=0.0
    )
    assert (result.trace[:, 6] > 0).all()
    # Normal equations square the condition number: 1e-8 of the first residual, not 1e-15.
    assert (result.trace[:, 7] < 1e-8 * result.trace[:, 0]).all()


def test_broyden_is_exact_after_2n_steps():
    """Gay's theorem; also on an expansive map."""
    m, b, x = linear_problem(n=4, radius=1.5)
    result = solve_fixed_point(affine(m, b), torch.zeros_like(b), method=Broyden(8), max_steps=9, tolerance=0.0)
    assert (result.trace[:, 8] < 1e-9 * result.trace[:, 0]).all()
    torch.testing.assert_close(result.value, x, atol=1e-7, rtol=0)


def test_broyden_forgets_the_oldest_term_and_keeps_the_secant_equation():
    """B (g_k - g_{k-1}) = x_k - x_{k-1} after every step, also once the memory is full."""
    m, b, _ = linear_problem(n=12)
    method, f = Broyden(3), affine(m, b)
    x, state = torch.zeros_like(b), method.init(b)
    visited: list[tuple[Tensor, Tensor]] = []
    for _ in range(7):
        g = f(x, torch.arange(3)) - x
        following, state = method.step(state, x, x + g)
        if visited:
            secant = product(state.left, state.right, g - visited[-1][1])
            torch.testing.assert_close(secant, x - visited[-1][0], atol=1e-12, rtol=0)
        visited.append((x, g))
        x = following


@pytest.mark.parametrize("damping", [1.0, 0.3])
def test_anderson_s_damping_takes_a_share_of_the_residual(damping):
    """One earlier iterate, one dimension: the mixed residual is 0, leaving the mixed iterate (the secant method)."""
    seen: list[float] = []

    def f(x: Tensor, rows: Tensor) -> Tensor:
        seen.append(x.item())
        return x.cos()

    solve_fixed_point(f, torch.ones(1, 1, dtype=torch.float64), method=Anderson(1, damping), max_steps=3)
    assert seen[1] == pytest.approx(1 + damping * (math.cos(1) - 1), abs=1e-12)
    r0, r1 = math.cos(1) - 1, math.cos(seen[1]) - seen[1]
    assert seen[2] == pytest.approx((r0 * seen[1] - r1 * seen[0]) / (r0 - r1), abs=1e-6)


def shifted(method, steps: int) -> Tensor:
    """The last iterate on x + 1, which has no fixed point, from 0."""
    run = {"method": method, "max_steps": steps, "keep": "last"}
    return solve_fixed_point(lambda x, rows: x + 1, torch.zeros(1, 2), **run).value


def test_picard_s_step_is_damped_and_broyden_skips_a_term_without_information():
    """A constant residual: the secant says nothing, and dividing by it would give NaN."""
    torch.testing.assert_close(shifted(Picard(0.25), 3), torch.full((1, 2), 0.75))
    assert torch.equal(shifted(Broyden(), 5), torch.full((1, 2), 5.0))


def test_adam_descends_to_the_minimum_and_its_first_steps_are_adams():
    centre = torch.tensor([[0.2, -0.4], [0.1, 0.6]], dtype=torch.float64)
    steps: list[Tensor] = []
    parameter = torch.zeros_like(centre).requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=0.05)
    for _ in range(5):
        parameter.grad = (parameter - centre).detach()
        optimiser.step()
        steps.append(parameter.detach().clone())
    seen = []
    result = solve_fixed_point(
        lambda x, rows: seen.append(x.clone()) or x - centre[rows],
        torch.zeros_like(centre),
        method=Adam(0.05),
        max_steps=1000,
        tolerance=1e-6,
    )
    torch.testing.assert_close(torch.stack(seen[1:6]), torch.stack(steps), atol=1e-14, rtol=0)
    assert result.converged.all()
    torch.testing.assert_close(result.value, centre, atol=3e-6, rtol=0)


@pytest.mark.parametrize("method", [Anderson(), Broyden()])
def test_autocast_does_not_lower_the_precision_of_the_iterates(method) -> None:
    """Inside bfloat16 autocast matrix products lose 16 bits; the mixing of iterates must not be among them."""
    x0 = torch.zeros(2, 6)
    shift = torch.arange(12.0).view(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        result = solve_fixed_point(lambda x, rows: shift[rows] - 0.4 * x, x0, method=method, tolerance=1e-5)
    assert result.value.dtype == torch.float32
    torch.testing.assert_close(result.value, shift / 1.4, atol=1e-5, rtol=0)


def test_betas_that_are_none_are_refused():
    with pytest.raises(ValueError, match="betas must be"):
        Adam(betas=(0.9, 1.0))
