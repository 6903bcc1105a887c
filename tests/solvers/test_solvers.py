"""What every solver keeps: seeds, batches, dtypes, validation, counts; and closed forms of DiffPIR and DDNM."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import (
    SHAPE,
    SIZE,
    FunctionPrior,
    MatrixOperator,
    Recorder,
    curved_prior,
    gaussian_prior,
    problem,
    replay,
    stored,
)
from workbench.operators.base import Operator
from workbench.random import generator
from workbench.solvers import (
    DDNM,
    DDRM,
    DPS,
    ILVR,
    DDNMPlus,
    DeqIR,
    DiffPIR,
    OptimiseNoise,
    PiGDM,
    PseudoInverse,
    RePaint,
)
from workbench.solvers.base import initial_image
from workbench.solvers.schedules import vp_quad_sigmas, vp_sigmas

STOCHASTIC = [
    *(DiffPIR(steps=12), DiffPIR(steps=12, schedule="vp"), DDNM(steps=12), DDNM(12, travel_length=3, travel_repeat=2)),
    *(DeqIR(8, 5), DDRM(12), DDRM(12, eta_b=0.8), PiGDM(12), ILVR(12), RePaint(12, 3, 2), DPS(12)),
]
ALL = [PseudoInverse(), *STOCHASTIC]
# DPS meets data nearly, see test_guidance.py. With eta_b below 1 the last step of DDRM keeps a share of the prior's.
EXACT = [solver for solver in ALL if not isinstance(solver, DPS) and getattr(solver, "eta_b", 1) == 1]


def each(solvers: list, name: str = "solver"):
    """Parametrised with ids that are the same in every process: a repr may hold a function's address."""
    return pytest.mark.parametrize(name, solvers, ids=lambda solver: type(solver).__name__)


class Squared(Operator):
    """A non-linear operator with a proximal step."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return x**2

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


@each(STOCHASTIC)
def test_same_seed_same_image_other_seed_another(solver):
    op, y = problem()
    first, again, other = (
        solver(y, op, curved_prior(), sigma_noise=0.05, generator=generator(seed)).image for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@each(ALL)
def test_a_batch_with_a_generator_each_gives_what_single_images_give(solver):
    op, y = problem("blur", batch=3)
    run = {"op": op, "prior": curved_prior(), "sigma_noise": 0.05}
    together = solver(y, generator=[generator(s) for s in range(3)], **run)
    for b in range(3):
        alone = solver(y[b : b + 1], generator=generator(b), **run)
        torch.testing.assert_close(together.image[b : b + 1], alone.image, atol=1e-10, rtol=0)
        assert together.evaluations[b] == alone.evaluations[0]


@each(ALL)
def test_dtype_follows_the_input_nothing_is_changed_and_no_graph_kept(solver):
    op, y = problem(dtype=torch.float32)
    copy, state = y.clone(), torch.get_rng_state()
    weight, inner = torch.tensor(0.9, requires_grad=True), curved_prior()
    prior = FunctionPrior(lambda x, sigma: weight * inner.denoise(x, sigma), channels=1)
    result = solver(y.requires_grad_(), op, prior, sigma_noise=0.01, generator=generator(0))
    assert result.image.dtype == torch.float32
    assert result.image.shape == (2, *SHAPE)
    assert result.image.isfinite().all()
    assert torch.equal(y, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert not result.image.requires_grad


@each(ALL)
def test_evaluations_are_what_the_network_was_asked_and_the_callback_sees_them(solver):
    (op, y), prior, steps = problem(), Recorder(curved_prior()), []
    result = solver(y, op, prior, generator=generator(0), callback=steps.append)
    assert int(result.evaluations.sum()) == prior.images
    assert [s.index for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == int(result.iterations.max()) <= steps[-1].total
    assert torch.equal(steps[-1].evaluations, result.evaluations)
    assert all(s.image.shape == result.image.shape for s in steps)
    assert torch.equal(steps[-1].image, result.image)


BRIGHTEST = OptimiseNoise(lambda image: -image.flatten(1).mean(1), DeqIR(8, 5), steps=3)


@each([*ALL, BRIGHTEST])
def test_what_a_callback_keeps_stays_as_it_was(solver):
    (op, y), steps, copies = problem(), [], []

    def keep(step):
        steps.append(step)
        copies.append(step.image.clone())

    solver(y, op, curved_prior(), generator=generator(0), callback=keep)
    assert all(torch.equal(step.image, copy) for step, copy in zip(steps, copies, strict=True))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, torch.tensor([0.1, math.nan]), torch.ones(3)])
def test_bad_noise_levels_are_refused(bad):
    op, y = problem()
    with pytest.raises(ValueError, match="sigma_noise must"):
        DDNM(3)(y, op, curved_prior(), sigma_noise=bad)


def test_a_non_linear_operator_is_refused_by_name_and_taken_by_diffpir_and_dps():
    y = torch.rand(1, 1, 4, 4)
    for solver in (DDNM(), DeqIR(), DDRM(), PiGDM(), ILVR(), RePaint()):
        with pytest.raises(ValueError, match=r"needs a linear operator, Squared is not; these do not: .*diffpir, dps"):
            solver(y, Squared(), curved_prior())
    for noise in (0.0, 0.1):
        for solver in (DiffPIR(2), DPS(2)):
            assert solver(y, Squared(), curved_prior(), sigma_noise=noise).image.isfinite().all()


def test_generator_and_noise_exclude_each_other():
    op, y = problem()
    with pytest.raises(ValueError, match="give generator or noise, not both"):
        DDNM(3)(y, op, curved_prior(), generator=generator(0), noise=torch.randn_like)


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        *((kind, "vp") for kind in (DDNM, DeqIR, DiffPIR, DDRM, DPS, PiGDM, ILVR, RePaint)),
        *((DDNM, "geometric"), (DDNM, "karras"), (DiffPIR, "geometric")),
    ],
)
def test_no_solver_asks_the_prior_beyond_its_range(kind, schedule):
    """Priors raise above sigma_max; here it is far below where the published schedules start."""
    op, y = problem()
    solver = kind(steps=10, schedule=schedule)
    prior = Recorder(curved_prior(), sigma_max=2.0, sigma_min=0.01)
    assert solver(y, op, prior, sigma_noise=0.1, generator=generator(0)).image.isfinite().all()
    # VP levels exist at published times only.
    assert 2.0 * (0.99 if schedule != "vp" else 0.5) <= max(prior.told) <= 2.0 * (1 + 1e-6)


# Closed forms.


@each(EXACT)
def test_noise_free_data_are_met_exactly(solver):
    op, y = problem()
    result = solver(y, op, curved_prior(), generator=generator(0))
    torch.testing.assert_close(op(result.image), y, atol=1e-9, rtol=0)


def test_pinv_is_the_pseudo_inverse_and_asks_nothing():
    op, y = problem()
    result = PseudoInverse()(y, op)
    torch.testing.assert_close(result.image.flatten(1), y @ torch.linalg.pinv(op.matrix).T, atol=1e-10, rtol=0)
    assert result.evaluations.tolist() == [0, 0]


def ridge_solution(op: MatrixOperator, y: Tensor, z: Tensor, weight: float) -> Tensor:
    """argmin |A x - y|^2 + weight |x - z|^2 by an explicit solve, flat."""
    eye = torch.eye(SIZE * SIZE, dtype=torch.float64)
    right = y @ op.matrix + weight * z.flatten(1)
    return torch.linalg.solve(op.matrix.T @ op.matrix + weight * eye, right.T).T


def test_diffpir_without_noise_added_is_half_quadratic_splitting_on_its_levels():
    """One step: the image is prox(D(start), y, lambda (sigma_n / sigma)^2)."""
    (op, y), prior, (unit,) = problem(), gaussian_prior(), stored(1)
    solver = DiffPIR(1, sigma_start=0.5, sigma_end=0.5, lambda_=2.0)
    image = solver(y, op, prior, sigma_noise=0.1, noise=replay([unit])).image
    start = initial_image(op, y, torch.full((2,), 0.1, dtype=torch.float64)) + 0.5 * unit
    expected = ridge_solution(op, y, prior(start, 0.5), 2.0 * (0.1 / 0.5) ** 2)
    torch.testing.assert_close(image.flatten(1), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sigma_noise", [0.0, 0.1])
def test_the_first_estimate_is_the_posterior_mean_of_a_white_prior(sigma_noise):
    op, y = problem("blur")
    grey = torch.full((2, *SHAPE), 0.5, dtype=torch.float64)
    expected = ridge_solution(op, y, grey, max((sigma_noise / 0.25) ** 2, 1e-4))
    got = initial_image(op, y, torch.full((2,), sigma_noise, dtype=torch.float64))
    torch.testing.assert_close(got.flatten(1), expected, atol=1e-9, rtol=0)


def test_published_levels_of_diffpir_never_fall_below_the_noise_of_each_image():
    prior, noise = curved_prior(sigma_max=5.0), torch.tensor([0.0, 0.2, 9.0], dtype=torch.float64)
    assert (DiffPIR(30, sigma_start=10.0).levels(noise, prior)[-1] == 0.01).all()
    levels = DiffPIR(30, sigma_start=10.0, sigma_end=0.01).levels(noise, prior)
    assert levels.shape == (30, 3)
    assert (levels[0] == 5.0).all()
    assert levels[-1].tolist() == pytest.approx([0.01, 0.2, 5.0])
    ratios = levels[1:, 0] / levels[:-1, 0]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_quadratic_steps_descend_to_the_lowest_level():
    """Half of the steps are the last quarter of the times."""
    for steps, start in ((1, math.inf), (2, 5.0), (50, math.inf), (50, 3.0), (900, math.inf)):
        levels = vp_quad_sigmas(steps, start)
        assert levels.shape == (steps,)
        assert (levels.diff() <= 0).all()
        assert levels[0] <= start
        if steps > 1:
            assert levels[-1] == vp_sigmas(1000)[-1]
    assert vp_quad_sigmas(1)[0] == vp_sigmas(1000)[0]
    assert vp_quad_sigmas(101)[25] == vp_sigmas(1000)[500]


def test_ddnm_plus_is_ddnm_with_time_travel():
    op, y = problem()
    plus, same = (
        solver(y, op, curved_prior(), sigma_noise=0.1, generator=generator(0))
        for solver in (DDNMPlus(20), DDNM(20, travel_length=10, travel_repeat=2))
    )
    assert torch.equal(plus.image, same.image)
    assert plus.evaluations.tolist() == [30, 30]
