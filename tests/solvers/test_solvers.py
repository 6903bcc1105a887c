"""What every solver keeps: seeds, batches, dtypes, validation, counts; and closed forms of DiffPIR and DDNM."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import FunctionPrior, MatrixOperator, curved_prior, gaussian_prior, matrices, replay
from workbench.operators.base import Operator
from workbench.random import generator
from workbench.solvers import (
    DDNM,
    DDRM,
    DPS,
    ILVR,
    SOLVERS,
    DDNMPlus,
    DeqIR,
    DiffPIR,
    PiGDM,
    PseudoInverse,
    RePaint,
    describe_solvers,
    make_solver,
)
from workbench.solvers.base import initial_image
from workbench.solvers.schedules import vp_quad_sigmas, vp_sigmas

SIZE = 6
ALL = [
    PseudoInverse(),
    DiffPIR(steps=12),
    DiffPIR(steps=12, schedule="vp"),
    DDNM(steps=12),
    DDNM(12, travel_length=3, travel_repeat=2),
    DeqIR(8, 5),
    DDRM(12),
    DDRM(12, eta_b=0.8),
    PiGDM(12),
    ILVR(12),
    RePaint(12, 3, 2),
    DPS(12),
]
STOCHASTIC = ALL[1:]
NAMES = ["pinv", "diffpir", "ddnm", "ddnm+", "ddrm", "dps", "pigdm", "ilvr", "repaint", "deqir"]


def problem(name: str = "dense", dtype: torch.dtype = torch.float64, batch: int = 2) -> tuple[MatrixOperator, Tensor]:
    op = MatrixOperator(matrices(SIZE)[name], (1, SIZE, SIZE))
    x = torch.rand(batch, 1, SIZE, SIZE, generator=generator(1), dtype=torch.float64)
    return op, op(x).to(dtype)


class Squared(Operator):
    """A non-linear operator with a proximal step."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return x**2

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


def kind_of(solver: object) -> str:
    """A test id that is the same in every process: a repr may hold a function's address."""
    return type(solver).__name__


@pytest.mark.parametrize("sigma_noise", [0.0, 0.05])
@pytest.mark.parametrize("solver", STOCHASTIC, ids=kind_of)
def test_same_seed_same_image_other_seed_another(solver, sigma_noise):
    op, y = problem()
    run = lambda seed: solver(y, op, curved_prior(), sigma_noise=sigma_noise, generator=generator(seed)).image  # noqa: E731
    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(1), atol=1e-3)


@pytest.mark.parametrize("sigma_noise", [0.0, 0.05])
@pytest.mark.parametrize("solver", ALL, ids=kind_of)
def test_a_batch_with_a_generator_each_gives_what_single_images_give(solver, sigma_noise):
    op, y = problem("blur", batch=3)
    together = solver(y, op, curved_prior(), sigma_noise=sigma_noise, generator=[generator(s) for s in range(3)])
    for b in range(3):
        alone = solver(y[b : b + 1], op, curved_prior(), sigma_noise=sigma_noise, generator=generator(b))
        torch.testing.assert_close(together.image[b : b + 1], alone.image, atol=1e-10, rtol=0)
        assert together.evaluations[b] == alone.evaluations[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ALL, ids=kind_of)
def test_dtype_follows_the_input_and_nothing_is_changed(solver, dtype):
    op, y = problem(dtype=dtype)
    copy, state = y.clone(), torch.get_rng_state()
    result = solver(y, op, curved_prior(), sigma_noise=0.01, generator=generator(0))
    assert result.image.dtype == dtype
    assert result.image.shape == (2, 1, SIZE, SIZE)
    assert result.image.isfinite().all()
    assert torch.equal(y, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert not result.image.requires_grad


@pytest.mark.parametrize("solver", ALL, ids=kind_of)
def test_no_graph_is_kept(solver):
    weight = torch.tensor(0.9, requires_grad=True, dtype=torch.float64)
    inner = curved_prior()
    prior = FunctionPrior(lambda x, sigma: weight * inner.denoise(x, sigma), channels=1)
    op, y = problem()
    assert not solver(y.requires_grad_(), op, prior, generator=generator(0)).image.requires_grad


@pytest.mark.parametrize("solver", ALL, ids=kind_of)
def test_evaluations_are_what_the_network_was_asked_and_the_callback_sees_them(solver):
    asked, steps = [0], []
    inner = curved_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked[0] += len(x)
        return inner.denoise(x, sigma)

    op, y = problem()
    result = solver(y, op, FunctionPrior(denoise, channels=1), generator=generator(0), callback=steps.append)
    assert int(result.evaluations.sum()) == asked[0]
    assert [s.index for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == int(result.iterations.max()) <= steps[-1].total
    assert torch.equal(steps[-1].evaluations, result.evaluations)
    assert all(s.image.shape == result.image.shape for s in steps)
    torch.testing.assert_close(steps[-1].image, result.image, atol=0, rtol=0)


@pytest.mark.parametrize("solver", ALL, ids=kind_of)
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, torch.tensor([0.1, math.nan]), torch.ones(3)])
def test_bad_noise_levels_are_refused(solver, bad):
    op, y = problem()
    with pytest.raises(ValueError, match="sigma_noise must"):
        solver(y, op, curved_prior(), sigma_noise=bad)


@pytest.mark.parametrize("solver", [DDNM(), DeqIR(), DDRM(), PiGDM(), ILVR(), RePaint()], ids=kind_of)
def test_a_non_linear_operator_is_refused_by_name(solver):
    with pytest.raises(ValueError, match="needs a linear operator, Squared is not: use diffpir"):
        solver(torch.rand(1, 1, 4, 4), Squared(), curved_prior())


def test_diffpir_takes_a_non_linear_operator_also_without_noise():
    for noise in (0.0, 0.1):
        result = DiffPIR(5)(torch.rand(1, 1, 4, 4), Squared(), curved_prior(), sigma_noise=noise)
        assert result.image.isfinite().all()


def test_generator_and_noise_exclude_each_other():
    op, y = problem()
    with pytest.raises(ValueError, match="give generator or noise, not both"):
        DDNM(3)(y, op, curved_prior(), generator=generator(0), noise=torch.randn_like)


@pytest.mark.parametrize("schedule", ["vp", "geometric", "karras"])
@pytest.mark.parametrize("kind", [DDNM, DeqIR, DiffPIR, DDRM, DPS, PiGDM, ILVR, RePaint])
def test_no_solver_asks_the_prior_beyond_its_range(kind, schedule):
    """Priors raise above sigma_max; here it is far below where the published schedules start."""
    op, y = problem()
    solver = kind(steps=10, schedule="geometric" if kind is DiffPIR and schedule == "karras" else schedule)
    levels: list[float] = []
    inner = curved_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(float(sigma.max()))
        return inner.denoise(x, sigma)

    prior = FunctionPrior(denoise, channels=1, sigma_max=2.0, sigma_min=0.01)
    assert solver(y, op, prior, sigma_noise=0.1, generator=generator(0)).image.isfinite().all()
    assert max(levels) <= 2.0 * (1 + 1e-6)
    # VP levels exist at published times only.
    assert max(levels) >= 2.0 * (0.99 if schedule != "vp" else 0.5)


# Closed forms.


# DPS meets data nearly: see test_dps.py. With eta_b below 1 the last step of DDRM keeps a share of the prior's image.
EXACT = [solver for solver in ALL if not isinstance(solver, DPS) and getattr(solver, "eta_b", 1) == 1]


@pytest.mark.parametrize("name", sorted(matrices(SIZE)))
@pytest.mark.parametrize("solver", EXACT, ids=kind_of)
def test_noise_free_data_are_met_exactly(solver, name):
    op, y = problem(name)
    result = solver(y, op, curved_prior(), generator=generator(0))
    torch.testing.assert_close(op(result.image), y, atol=1e-9, rtol=0)


def test_pinv_is_the_pseudo_inverse_and_asks_nothing():
    op, y = problem()
    result = PseudoInverse()(y, op)
    torch.testing.assert_close(result.image.flatten(1), y @ torch.linalg.pinv(op.matrix).T, atol=1e-10, rtol=0)
    assert result.evaluations.tolist() == [0, 0]


def test_ddnm_samples_the_prior_where_nothing_is_seen():
    """White Gaussian prior, half the pixels seen: the others are N(mean, S), in the limit of many steps."""
    eye = torch.eye(4, dtype=torch.float64)[:2]
    op, batch = MatrixOperator(eye, (1, 2, 2)), 4000
    prior = gaussian_prior(2)
    prior.spectrum = torch.full((1, 2, 2), 0.04, dtype=torch.float64)
    y = torch.tensor([[0.1, 0.8]], dtype=torch.float64).expand(batch, 2)
    for eta in (0.0, 0.85):
        solver = DDNM(200, eta, "karras")
        image = solver(y, op, gaussian_like(prior), generator=generator(0)).image.flatten(1)
        torch.testing.assert_close(image[:, :2], y, atol=1e-9, rtol=0)
        # Monte Carlo: 0.2 / sqrt(8000) = 0.002 on the mean, 1.6 % on the variance; time steps: 1 %.
        assert abs(float(image[:, 2:].mean()) - 0.5) < 0.01
        if eta == 0:
            assert float(image[:, 2:].var()) == pytest.approx(0.04, rel=0.05)


def gaussian_like(prior):
    prior.sigma_min, prior.sigma_max = 0.002, 50.0
    return prior


def test_diffpir_without_noise_added_is_half_quadratic_splitting_on_its_levels():
    """One step: the image is prox(D(start), y, lambda (sigma_n / sigma)^2) by an explicit solve."""
    op, y = problem()
    prior, unit = gaussian_prior(SIZE), torch.randn(2, 1, SIZE, SIZE, generator=generator(3), dtype=torch.float64)
    solver = DiffPIR(1, sigma_start=0.5, sigma_end=0.5, lambda_=2.0)
    image = solver(y, op, prior, sigma_noise=0.1, noise=replay([unit])).image
    ridge = 2.0 * (0.1 / 0.5) ** 2 * torch.eye(SIZE * SIZE, dtype=torch.float64)
    start = initial_image(op, y, torch.full((2,), 0.1, dtype=torch.float64)) + 0.5 * unit
    right = y @ op.matrix + prior(start, 0.5).flatten(1) @ ridge
    expected = torch.linalg.solve(op.matrix.T @ op.matrix + ridge, right.T).T
    torch.testing.assert_close(image.flatten(1), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sigma_noise", [0.0, 0.1])
def test_the_first_estimate_is_the_posterior_mean_of_a_white_prior(sigma_noise):
    op, y = problem("blur")
    ridge = max((sigma_noise / 0.25) ** 2, 1e-4) * torch.eye(SIZE * SIZE, dtype=torch.float64)
    expected = torch.linalg.solve(op.matrix.T @ op.matrix + ridge, (y @ op.matrix + 0.5 * ridge.sum(0)).T).T
    got = initial_image(op, y, torch.full((2,), sigma_noise, dtype=torch.float64))
    torch.testing.assert_close(got.flatten(1), expected, atol=1e-9, rtol=0)


def test_diffpir_levels_never_fall_below_the_noise_of_each_image():
    prior = curved_prior(sigma_max=5.0)
    levels = DiffPIR(30, sigma_start=10.0).levels(torch.tensor([0.0, 0.2, 9.0], dtype=torch.float64), prior)
    assert levels.shape == (30, 3)
    assert (levels[0] == 5.0).all()
    assert levels[-1].tolist() == pytest.approx([0.01, 0.2, 5.0])
    ratios = levels[1:, 0] / levels[:-1, 0]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


# The registry.


def test_the_registry_makes_and_describes():
    assert make_solver("deqir", steps=7) == DeqIR(steps=7)
    described = describe_solvers()
    assert [name for name, _, _ in described] == list(SOLVERS)
    assert set(SOLVERS) == {*NAMES, "map", "map-adam"}
    assert all(line and "\n" not in line and paper for _, line, paper in described)


def test_unknown_names_and_settings_name_the_nearest():
    with pytest.raises(ValueError, match="unknown solver 'diffpri', did you mean 'diffpir'"):
        make_solver("diffpri")
    with pytest.raises(ValueError, match="unknown setting of ddnm 'step', did you mean 'steps'"):
        make_solver("ddnm", step=3)
    with pytest.raises(ValueError, match="unknown setting of pinv 'steps'"):
        make_solver("pinv", steps=3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("diffpir", {"steps": 0}),
        ("diffpir", {"zeta": math.nan}),
        ("diffpir", {"zeta": 1.1}),
        ("diffpir", {"sigma_start": 0.001}),
        ("diffpir", {"sigma_start": math.nan}),
        ("diffpir", {"sigma_end": 0.0}),
        ("diffpir", {"lambda_": -1.0}),
        ("ddnm", {"steps": 0}),
        ("ddnm", {"eta": 1.0}),
        ("ddnm", {"eta": math.nan}),
        ("ddnm", {"travel_length": 0}),
        ("ddnm", {"travel_repeat": 0}),
        ("ddnm+", {"travel_length": 0}),
        ("ddrm", {"steps": 0}),
        ("ddrm", {"eta": 1.1}),
        ("ddrm", {"eta_b": -0.1}),
        ("dps", {"steps": 0}),
        ("dps", {"zeta": math.nan}),
        ("dps", {"zeta": -1.0}),
        ("pigdm", {"steps": 0}),
        ("pigdm", {"eta": math.nan}),
        ("pigdm", {"spread": 0.0}),
        ("pigdm", {"spread": math.inf}),
        ("ilvr", {"steps": 0}),
        ("repaint", {"steps": 0}),
        ("repaint", {"travel_length": 0}),
        ("repaint", {"travel_repeat": 0}),
        ("deqir", {"steps": 0}),
        ("deqir", {"iterations": 0}),
        ("deqir", {"eta": 1.0}),
        ("deqir", {"window": 0}),
        ("deqir", {"damping": 0.0}),
        ("deqir", {"regularisation": math.nan}),
        ("deqir", {"prediction": "none"}),
        ("deqir", {"sigma_start": 0.0}),
        ("deqir", {"memory": -1}),
        ("deqir", {"eta": -0.1}),
        ("deqir", {"tolerance": math.nan}),
    ],
)
def test_bad_settings_are_refused(name, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        make_solver(name, **settings)


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_prior_that_knows_too_little_noise_is_refused(name):
    """DiffPIR starts from a first estimate and does with what there is."""
    op, y = problem()
    with pytest.raises(ValueError, match=r"knows noise up to 0.2: use diffpir"):
        make_solver(name)(y, op, curved_prior(sigma_max=0.2))
    assert DiffPIR(5, schedule="vp")(y, op, curved_prior(sigma_max=0.2)).image.isfinite().all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_an_image_that_does_not_suit_the_prior_is_refused(name):
    op, y = problem()
    with pytest.raises(ValueError, match="takes sides that are multiples of 4, got 6x6"):
        make_solver(name)(y, op, curved_prior(multiple=4))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("karras", "schedule must be 'geometric', 'vp' or a list"),
        ([1.0, 0.5], "expected 3 positive levels"),
        ([1.0, 2.0, 0.5], "expected 3 positive levels"),
        ([1.0, 0.5, 0.0], "expected 3 positive levels"),
        ([1.0, math.nan, 0.1], "expected 3 positive levels"),
        ([900.0, 1.0, 0.1], "knows noise up to sigma = 500, the schedule starts at 900"),
    ],
)
def test_levels_that_do_not_suit_diffpir_are_refused(schedule, message):
    op, y = problem()
    with pytest.raises(ValueError, match=message):
        DiffPIR(3, schedule=schedule)(y, op, curved_prior())


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
    plus = DDNMPlus(20)(y, op, curved_prior(), sigma_noise=0.1, generator=generator(0))
    same = DDNM(20, travel_length=10, travel_repeat=2)(y, op, curved_prior(), sigma_noise=0.1, generator=generator(0))
    assert torch.equal(plus.image, same.image)
    assert plus.evaluations.tolist() == [30, 30]


def test_solvers_are_frozen():
    for solver in STOCHASTIC:
        with pytest.raises(FrozenInstanceError):
            setattr(solver, fields(solver)[0].name, 1)
