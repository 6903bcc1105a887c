"""The fixed-point driver and its methods: closed forms, counts, corner cases."""

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import affine, linear_problem
from workbench.solvers import Adam, Anderson, Broyden, Picard, solve_fixed_point


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
@pytest.mark.parametrize(("method", "bad"), [(Picard(), math.inf), (Anderson(), math.nan), (Broyden(), math.nan)])
def test_a_non_finite_iterate_leaves_the_best_one(method, bad):
    calls = [0]

    def f(x: Tensor, rows: Tensor) -> Tensor:
        calls[0] += 1
        fx = 0.5 * x + 1
        if calls[0] == 4:
            fx[rows == 1, 0] = bad
        return fx

    start = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = solve_fixed_point(f, start, method=method, max_steps=60, tolerance=0.0)
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


def test_divergence_is_caught_and_the_best_iterate_kept():
    result = solve_fixed_point(
        lambda x, rows: 3 * x + 1, torch.zeros(2, 3), method=Picard(), max_steps=100, keep="last", divergence=1e3
    )
    assert result.diverged.all()
    assert (result.evaluations < 10).all()
    assert torch.equal(result.value, torch.zeros(2, 3))


def test_best_is_the_evaluated_iterate_of_smallest_residual_and_last_the_newest():
    # Residuals of x -> -1.1 x grow: the start stays best.
    run = {"method": Picard(), "max_steps": 3, "tolerance": 0.0}
    best, last = (
        solve_fixed_point(lambda x, rows: -1.1 * x, torch.ones(1, 1).double(), **run, keep=keep)
        for keep in ("best", "last")
    )
    assert (best.value.item(), best.residual.item()) == (1.0, pytest.approx(2.1))
    assert (last.value.item(), last.residual.item()) == (pytest.approx(-(1.1**3)), pytest.approx(2.1 * 1.1**2))
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


def test_bad_input_is_named():
    for options, message in (
        ({"max_steps": 0}, "max_steps must be a whole number, at least 1, got 0"),
        ({"max_steps": "20"}, "max_steps must be a whole number, at least 1, got '20'"),
        ({"tolerance": torch.zeros(3)}, r"tolerance must be a number or \(1,\), got \(3,\)"),
        ({"tolerance": math.nan}, "tolerance must be finite and >= 0, got nan"),
        ({"relative_tolerance": -1.0}, "relative_tolerance"),
        ({"keep": "first"}, "keep must be 'best' or 'last', got 'first'"),
        ({"divergence": 0.5}, "divergence"),
    ):
        with pytest.raises(ValueError, match=message):
            solve_fixed_point(lambda x, rows: x, torch.zeros(1, 1), **options)
    with pytest.raises(ValueError, match=r"must keep the shape \(2, 3\), it returned \(2, 1\)"):
        solve_fixed_point(lambda x, rows: x[:, :1], torch.zeros(2, 3))
    for start in (torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.int64), torch.tensor(0.0), [0.0]):
        with pytest.raises(ValueError, match=r"x0 must be floating-point numbers \(B, ...\), not none"):
            solve_fixed_point(lambda x, rows: x, start)
    with pytest.raises(ValueError, match="what f returns must be of type Tensor"):
        solve_fixed_point(lambda x, rows: None, torch.zeros(2, 3))


@pytest.mark.parametrize("method", [Picard(), Anderson(3), Broyden(4)])
def test_a_map_may_write_into_what_it_is_given_and_answer_in_another_precision(method):
    """x = x/2 + 1 has the fixed point 2, by whatever means it is computed."""
    start = torch.zeros(2, 3)
    for f in (lambda x, rows: x.mul_(0.5).add_(1), lambda x, rows: x.double() / 2 + 1):
        result = solve_fixed_point(f, start, method=method, tolerance=1e-6)
        assert result.converged.all()
        torch.testing.assert_close(result.value, torch.full((2, 3), 2.0), atol=1e-5, rtol=0)
    assert not start.any()
