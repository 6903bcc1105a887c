"""The fixed-point driver and its methods: closed forms, counts, corner cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workbench.solvers import Adam, Anderson, Broyden, Picard, solve_fixed_point
from workbench.solvers.fixed_point.rules import product
from workbench.solvers.fixed_point.solve import FixedPointResult


def linear_problem(n: int = 6, batch: int = 3, radius: float = 0.9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (batch, n, n) of the given spectral norm, right sides (batch, n) and the fixed points of M x + b."""
    g = torch.Generator().manual_seed(seed)
    m = torch.randn(batch, n, n, generator=g, dtype=torch.float64)
    m = radius * m / torch.linalg.matrix_norm(m, 2)[:, None, None]
    b = torch.randn(batch, n, generator=g, dtype=torch.float64)
    return m, b, torch.linalg.solve(torch.eye(n, dtype=torch.float64) - m, b)


def affine(m: Tensor, b: Tensor):
    return lambda x, rows: (torch.bmm(m[rows], x.unsqueeze(2)).squeeze(2) + b[rows]).view_as(x)


@pytest.mark.parametrize("method", [Picard(), Picard(0.7), Anderson(), Anderson(3, damping=0.5), Broyden(), Broyden(3)])
def test_every_method_finds_the_fixed_point_of_a_linear_map(method):
    m, b, x = linear_problem()
    result = solve_fixed_point(affine(m, b), torch.zeros_like(b), method=method, max_steps=500, tolerance=1e-12)
    assert result.converged.all()
    assert not result.message
    # The error is at most the residual times 1 / (1 - 0.9).
    torch.testing.assert_close(result.value, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("method", [Picard(0.5), Anderson(), Broyden()])
def test_every_method_finds_the_fixed_point_of_a_nonlinear_map(method):
    # x = cos x, the Dottie number.
    result = solve_fixed_point(
        lambda x, rows: x.cos(), torch.ones(2, 3, 2, dtype=torch.float64), method=method, tolerance=1e-13
    )
    torch.testing.assert_close(result.value, torch.full_like(result.value, 0.7390851332151607), atol=1e-12, rtol=0)


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
    # The optimality of GMRES: the mixed residual, which damping 1 maps by m, never grows in exact arithmetic.
    gmres = [minimal_residual(m[0], b[0], k) for k in range(1, 5)]
    mixed = torch.stack([torch.linalg.solve(m[0], r) for r in residuals_of(m, b, 5)[1:]])
    torch.testing.assert_close(torch.linalg.vector_norm(mixed, dim=1), torch.stack(gmres), rtol=1e-6, atol=0)


def residuals_of(m: Tensor, b: Tensor, steps: int) -> list[Tensor]:
    """Residuals of sample 0 under Anderson with full memory."""
    seen: list[Tensor] = []

    def f(x: Tensor, rows: Tensor) -> Tensor:
        fx = affine(m, b)(x, rows)
        seen.append((fx - x)[0])
        return fx

    solve_fixed_point(f, torch.zeros_like(b), method=Anderson(6, regularisation=0.0), max_steps=steps, tolerance=0.0)
    return seen


def minimal_residual(m: Tensor, b: Tensor, k: int) -> Tensor:
    """min ||b - (I - M) x|| over the Krylov space of dimension k - 1, by least squares."""
    a = torch.eye(len(b), dtype=b.dtype) - m
    if k == 1:
        return torch.linalg.vector_norm(b)
    basis = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(a, i) @ b for i in range(k - 1)], 1))[0]
    solution = torch.linalg.lstsq(a @ basis, b[:, None]).solution
    return torch.linalg.vector_norm(b - (a @ basis @ solution)[:, 0])


@pytest.mark.parametrize("radius", [0.9, 1.5])
def test_broyden_is_exact_after_2n_steps(radius):
    """Gay's theorem; also on an expansive map."""
    m, b, x = linear_problem(n=4, radius=radius)
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


def test_picard_step_is_damped():
    result = solve_fixed_point(lambda x, rows: x + 1, torch.zeros(2, 1), method=Picard(0.25), max_steps=3, keep="last")
    torch.testing.assert_close(result.value, torch.full((2, 1), 0.75))


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


def test_broyden_skips_a_term_without_information():
    """x + 1 has a constant residual: the secant says nothing, and dividing by it would give NaN."""
    result = solve_fixed_point(
        lambda x, rows: x + 1, torch.zeros(1, 2), method=Broyden(), max_steps=5, keep="last", tolerance=1e-3
    )
    assert torch.equal(result.value, torch.full((1, 2), 5.0))


def test_adam_descends_to_the_minimum_and_its_first_steps_are_adams():
    centre = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
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
        max_steps=2000,
        tolerance=1e-6,
    )
    torch.testing.assert_close(torch.stack(seen[1:6]), torch.stack(steps), atol=1e-14, rtol=0)
    assert result.converged.all()
    torch.testing.assert_close(result.value, centre, atol=3e-6, rtol=0)


def test_finished_samples_cost_nothing_more():
    """Sample i contracts by its own factor; f sees each only until it has converged."""
    rates = torch.tensor([0.0, 0.5, 0.1, 0.9], dtype=torch.float64)
    seen = torch.zeros(4, dtype=torch.int64)

    def f(x: Tensor, rows: Tensor) -> Tensor:
        assert len(x) == len(rows)
        seen[rows] += 1
        return rates[rows, None] * x

    result = solve_fixed_point(f, torch.ones(4, 5, dtype=torch.float64), method=Picard(), max_steps=400, tolerance=1e-6)
    # |f(x_k) - x_k| = (1 - r) r^k <= 1e-6 first holds at this k; k + 1 evaluations. For r = 0 it is k = 1.
    expected = [2] + [math.ceil(math.log(1e-6 / (1 - r)) / math.log(r)) + 1 for r in rates[1:].tolist()]
    assert seen.tolist() == expected
    assert result.evaluations.tolist() == expected
    assert result.trace.shape == (4, max(expected))
    assert (~result.trace.isnan()).sum(1).tolist() == expected
    assert result.converged.all()


def test_relative_tolerance_scales_with_the_iterate_and_the_absolute_one_stops_at_zero():
    rates = torch.tensor([0.5, 0.5])
    shift = torch.tensor([[500.0], [0.0]])
    result = solve_fixed_point(
        lambda x, rows: rates[rows, None] * x + shift[rows],
        torch.ones(2, 1),
        method=Picard(),
        max_steps=60,
        tolerance=1e-6,
        relative_tolerance=1e-3,
    )
    assert result.converged.all()
    assert 0.1 < result.residual[0] <= 1.0 + 1e-6
    assert result.evaluations[1] > result.evaluations[0]


# torchdeq keeps its best estimate with `mask * a + ~mask * b`: one NaN iterate destroyed it.
@pytest.mark.parametrize("method", [Picard(), Anderson(), Broyden()])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_iterate_leaves_the_best_one(method, bad):
    calls = [0]

    def f(x: Tensor, rows: Tensor) -> Tensor:
        calls[0] += 1
        fx = 0.5 * x + 1
        if calls[0] == 4:
            fx[rows == 1, 0] = bad
        return fx

    result = solve_fixed_point(
        f,
        torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        method=method,
        max_steps=60,
        tolerance=0.0,
    )
    assert result.value.isfinite().all()
    assert result.diverged.tolist() == [False, True, False]
    assert "1 of 3 samples diverged" in result.message
    assert result.trace[1, 3] == math.inf
    assert result.trace[1, 4:].isnan().all()
    assert result.residual[1] == result.trace[1, :3].min()
    # The others go on as if alone.
    torch.testing.assert_close(result.value[[0, 2]], torch.full((2, 4), 2.0, dtype=torch.float64), atol=1e-9, rtol=0)


class Overshoot(Picard):
    """A method that loses sample 1 at its second step although f is finite there."""

    def step(self, state: None, x: Tensor, fx: Tensor) -> tuple[Tensor, None]:
        proposal = fx.clone()
        if len(x) == 3 and float(x[1, 0]) == 1:
            proposal[1] = math.inf
        return proposal, None


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_non_finite_proposal_leaves_the_best_iterate(keep):
    result = solve_fixed_point(lambda x, rows: 0.5 * x + 1, torch.zeros(3, 2), method=Overshoot(), keep=keep)
    assert result.diverged.tolist() == [False, True, False]
    assert result.evaluations[1] == 2
    assert torch.equal(result.value[1], torch.ones(2))


def test_nan_in_the_start_touches_one_sample_only():
    x0 = torch.zeros(3, 4)
    x0[2, 1] = math.nan
    result = solve_fixed_point(lambda x, rows: 0.5 * x + 1, x0, tolerance=1e-6)
    assert result.converged.tolist() == [True, True, False]
    assert result.diverged.tolist() == [False, False, True]
    assert result.residual[2] == math.inf
    assert result.evaluations[2] == 1


def test_divergence_is_caught_and_the_best_iterate_kept():
    result = solve_fixed_point(
        lambda x, rows: 3 * x + 1, torch.zeros(2, 3), method=Picard(), max_steps=100, keep="last", divergence=1e3
    )
    assert result.diverged.all()
    assert (result.evaluations < 10).all()
    assert torch.equal(result.value, torch.zeros(2, 3))


def test_best_is_the_evaluated_iterate_of_smallest_residual_and_last_the_newest():
    # Residuals of x -> -1.1 x grow: the start stays best.
    arguments = {"method": Picard(), "max_steps": 3, "tolerance": 0.0}
    best = solve_fixed_point(lambda x, rows: -1.1 * x, torch.ones(1, 1, dtype=torch.float64), **arguments)
    last = solve_fixed_point(lambda x, rows: -1.1 * x, torch.ones(1, 1, dtype=torch.float64), keep="last", **arguments)
    assert best.value.item() == 1.0
    assert best.residual.item() == pytest.approx(2.1)
    assert last.value.item() == pytest.approx(-(1.1**3))
    assert last.residual.item() == pytest.approx(2.1 * 1.1**2)
    assert "1 of 1 samples did not reach" in best.message


@pytest.mark.parametrize("method", [Picard(0.9), Anderson(3), Broyden(4), Adam(0.1)])
def test_a_batch_gives_what_single_samples_give(method):
    m, b, _ = linear_problem(batch=4, radius=0.8)
    run = {"method": method, "max_steps": 25, "tolerance": 1e-5}
    together = solve_fixed_point(affine(m, b), torch.zeros_like(b), **run)
    for i in range(4):
        alone = solve_fixed_point(affine(m[i : i + 1], b[i : i + 1]), torch.zeros(1, 6, dtype=torch.float64), **run)
        torch.testing.assert_close(together.value[i : i + 1], alone.value, atol=1e-12, rtol=0)
        assert together.evaluations[i] == alone.evaluations[0]


def test_any_shape_any_dtype_and_nothing_is_changed():
    x0 = torch.rand(2, 3, 1, 4, 5)
    copy = x0.clone()
    for method in (Picard(), Anderson(), Broyden(), Adam()):
        result = solve_fixed_point(lambda x, rows: 0.2 * x, x0, method=method, max_steps=5)
        assert result.value.shape == x0.shape
        assert result.value.dtype == torch.float32
    assert torch.equal(x0, copy)


def test_no_graph_is_kept():
    weight = torch.tensor(0.5, requires_grad=True)
    result = solve_fixed_point(lambda x, rows: weight * x + 1, torch.zeros(2, 3))
    assert not result.value.requires_grad


def test_the_callback_sees_every_step():
    seen: list[FixedPointResult] = []
    result = solve_fixed_point(
        lambda x, rows: 0.5 * x + 1, torch.zeros(2, 3), method=Picard(), tolerance=1e-3, callback=seen.append
    )
    assert [s.trace.shape[1] for s in seen] == list(range(1, result.trace.shape[1] + 1))
    assert torch.equal(seen[-1].value, result.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"tolerance": math.nan}, "tolerance must be finite and >= 0, got nan"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"relative_tolerance": math.inf}, "relative_tolerance"),
        ({"keep": "first"}, "keep must be 'best' or 'last', got 'first'"),
        ({"divergence": 0.5}, "divergence"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        solve_fixed_point(lambda x, rows: x, torch.zeros(1, 1), **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Picard(0.0),
        lambda: Picard(math.nan),
        lambda: Anderson(0),
        lambda: Anderson(damping=1.5),
        lambda: Anderson(regularisation=-1.0),
        lambda: Broyden(0),
        lambda: Adam(0.0),
        lambda: Adam(betas=(0.9, 1.0)),
        lambda: Adam(epsilon=0.0),
        lambda: Adam(bias_correction_offset=-1),
    ],
)
def test_bad_settings_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_a_map_that_changes_the_shape_is_named():
    with pytest.raises(ValueError, match=r"must keep the shape \(2, 3\), it returned \(2, 1\)"):
        solve_fixed_point(lambda x, rows: x[:, :1], torch.zeros(2, 3))


@pytest.mark.parametrize("method", [Anderson(), Broyden()])
def test_autocast_does_not_lower_the_precision_of_the_iterates(method) -> None:
    """Inside bfloat16 autocast matrix products lose 16 bits; the mixing of iterates must not be among them."""
    x0 = torch.zeros(2, 6)
    shift = torch.arange(12.0).view(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        result = solve_fixed_point(lambda x, rows: shift[rows] - 0.4 * x, x0, method=method, tolerance=1e-5)
    assert result.value.dtype == torch.float32
    torch.testing.assert_close(result.value, shift / 1.4, atol=1e-5, rtol=0)
