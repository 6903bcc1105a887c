"""What every solver keeps: seeds, batches, dtypes, validation, counts; and closed forms of DiffPIR and DDNM."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
from workbench.models import Prior, Unfolded, Unfolding
from workbench.operators import Inpainting, random_mask
from workbench.operators.base import Operator
from workbench.random import generator
from workbench.solvers import (
    DDNM,
    DDRM,
    DPS,
    ILVR,
    LATINO,
    MMPS,
    SOLVERS,
    UD2M,
    DDNMPlus,
    DeqIR,
    DiffPIR,
    Iterate,
    PiGDM,
    Problem,
    RePaint,
    Sampler,
    Solver,
    make_solver,
)
from workbench.solvers.start import initial_image

TRAVEL = {"steps": 6, "travel_length": 3, "travel_repeat": 2}
SIX = {"steps": 6}
# These meet data without noise exactly.
EXACT = [
    *(("diffpir", SIX), ("ddnm", TRAVEL), ("deqir", SIX), ("ddrm", SIX), ("pigdm", SIX), ("ilvr", SIX)),
    *(("repaint", TRAVEL), ("mmps", {"steps": 4, "inner": 18}), ("daps", {"steps": 4, "inner": 2})),
    *(("consistency", {"steps": 2}), ("cm4ir", {"steps": 4, "zeta": 0.0})),
]
# DPS nears them, see test_guidance.py; with eta_b below 1 the last step of DDRM keeps a share of the prior's.
STOCHASTIC = [*EXACT, ("dps", SIX), ("ddrm", SIX | {"eta_b": 0.8}), ("ud2m", {"steps": 2})]
STOCHASTIC += [("latino", {"steps": 2})]
RULES = [(name, {"max_steps": 20}) for name in ("hqs", "admm", "red", "pnp-reg", "forward-backward", "map-gd")]
RULES += [("map", {"tolerance": 1e-6}), ("map-adam", {"max_steps": 30})]
ALL = [("pinv", {}), *STOCHASTIC, *RULES]


def each(solvers: list[tuple[str, dict]]):
    ids = [name for name, _ in solvers]
    return pytest.mark.parametrize("solver", [make_solver(name, **settings) for name, settings in solvers], ids=ids)


def prior_for(solver: Solver, denoiser: Prior | None = None) -> Prior:
    """A prior of the kind that the solver takes, which asks ``denoiser``."""
    denoiser = denoiser or curved_prior()
    if solver.prior_kind == "unfolded":
        return Unfolded(denoiser, Unfolding(2, 0.2, None, 0.5))
    if solver.prior_kind == "consistency":
        denoiser = FunctionPrior(denoiser.denoise, channels=1)
        denoiser.kind = "consistency"
    return denoiser


def test_every_solver_of_the_registry_is_here():
    assert {name for name, _ in ALL} == SOLVERS.keys() - {"network", "ddnm+"}


@each(STOCHASTIC)
def test_same_seed_same_image_other_seed_another(solver):
    op, y = problem()
    first, again, other = (
        solver(y, op, prior_for(solver), sigma_noise=0.05, generator=generator(seed)).image for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@each(ALL)
def test_a_batch_gives_what_single_images_give(solver):
    """Each image has a generator, a noise level and a mask of its own, and stops by itself."""
    masks = random_mask((SIZE, SIZE), 0.4, generator(0), batch=3).double()
    y = Inpainting(masks)(torch.rand(3, *SHAPE, generator=generator(1), dtype=torch.float64))
    lowest = 0.02 if type(solver) in {SOLVERS[name] for name, _ in RULES} else 0.0
    # The first image is the first to stop.
    sigma = torch.tensor([0.3, lowest, 0.05], dtype=torch.float64)
    prior = prior_for(solver)
    together = solver(y, Inpainting(masks), prior, sigma_noise=sigma, generator=[generator(s) for s in range(3)])
    for b in range(3):
        one = slice(b, b + 1)
        alone = solver(y[one], Inpainting(masks[one]), prior, sigma_noise=sigma[one], generator=generator(b))
        torch.testing.assert_close(together.image[one], alone.image, atol=1e-8, rtol=0)
        assert (together.evaluations[b], together.iterations[b]) == (alone.evaluations[0], alone.iterations[0])


@each(ALL)
def test_dtype_follows_the_input_nothing_is_changed_and_no_graph_kept(solver):
    op, y = problem(dtype=torch.float32)
    copy, state = y.clone(), torch.get_rng_state()
    weight, inner = torch.tensor(0.9, requires_grad=True), curved_prior()
    prior = prior_for(solver, FunctionPrior(lambda x, sigma: weight * inner.denoise(x, sigma), channels=1))
    result = solver(y.requires_grad_(), op, prior, sigma_noise=0.01, generator=generator(0))
    assert result.image.dtype == torch.float32
    assert result.image.shape == (2, *SHAPE)
    assert result.image.isfinite().all()
    assert torch.equal(y, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert not result.image.requires_grad
    assert weight.grad is None
    with torch.inference_mode():
        inside = solver(y.detach(), op, prior, sigma_noise=0.01, generator=generator(0))
    torch.testing.assert_close(inside.image, result.image)


@each(ALL)
def test_evaluations_are_what_the_network_was_asked_and_the_callback_keeps_each_step(solver):
    (op, y), asked, steps, copies = problem(), Recorder(curved_prior()), [], []

    def keep(step):
        steps.append(step)
        copies.append(step.image.clone())

    prior = prior_for(solver, asked)
    prior.checked = True  # a look at it would count
    result = solver(y, op, prior, sigma_noise=0.05, generator=generator(0), callback=keep)
    if not isinstance(solver, MMPS):  # which counts products too
        assert int(result.evaluations.sum()) == asked.images
    assert torch.equal(steps[-1].evaluations, result.evaluations)
    assert torch.equal(steps[-1].image, result.image)
    assert [s.index for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == int(result.iterations.max()) <= steps[-1].total
    assert all(torch.equal(step.image, copy) for step, copy in zip(steps, copies, strict=True))


class Squared(Operator):
    """A non-linear operator with a proximal step."""

    linear = False

    def forward(self, x: Tensor) -> Tensor:
        return x**2

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


def test_a_non_linear_operator_is_refused_by_name_and_taken_by_diffpir_and_dps():
    y, refused = torch.rand(1, 1, 4, 4), r"needs a linear operator, Squared is not; these do not: .*diffpir, dps"
    for solver in (make_solver(name) for name in SOLVERS):
        if solver.linear:
            with pytest.raises(ValueError, match=refused):
                solver(y, Squared(), prior_for(solver))
    for noise in (0.0, 0.1):
        for solver in (DiffPIR(2), DPS(2)):
            assert solver(y, Squared(), curved_prior(), sigma_noise=noise).image.isfinite().all()


@pytest.mark.parametrize("name", [name for name, kind in SOLVERS.items() if kind.needs_prior])
def test_every_solver_refuses_other_kinds_of_priors(name):
    op, y = problem("mask")
    for other in (DDNM(), LATINO(), UD2M()):
        if other.prior_kind != SOLVERS[name].prior_kind:
            with pytest.raises(ValueError, match=f"{name.replace('+', '.')} needs a"):
                make_solver(name)(y, op, prior_for(other))


def test_bad_noise_is_refused():
    op, y = problem()
    for bad in (-0.1, math.inf, torch.tensor([0.1, math.nan]), torch.ones(3)):
        with pytest.raises(ValueError, match="sigma_noise must"):
            DDNM(3)(y, op, curved_prior(), sigma_noise=bad)
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
    prior = Recorder(curved_prior(), sigma_max=2.0, sigma_min=0.01)
    kind(steps=10, schedule=schedule)(y, op, prior, sigma_noise=0.1, generator=generator(0))
    # VP levels exist at published times only.
    assert 2.0 * (0.99 if schedule != "vp" else 0.5) <= max(prior.told) <= 2.0 * (1 + 1e-6)


# Closed forms.


@each(EXACT)
def test_noise_free_data_are_met_exactly(solver):
    op, y = problem()
    result = solver(y, op, prior_for(solver), generator=generator(0))
    torch.testing.assert_close(op(result.image), y, atol=1e-9, rtol=0)


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


def test_ddnm_plus_is_ddnm_with_time_travel():
    op, y = problem()
    plus, same = (
        solver(y, op, curved_prior(), sigma_noise=0.1, generator=generator(0))
        for solver in (DDNMPlus(20), DDNM(20, travel_length=10, travel_repeat=2))
    )
    assert torch.equal(plus.image, same.image)
    assert plus.evaluations.tolist() == [30, 30]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([], "iterate must be a generator that yields an Iterate after every step, got one that yields nothing"),
        ([torch.zeros(1)], "what iterate yields must be of type Iterate: .*got Tensor"),
        ([Iterate(torch.zeros(1, 1, 3, 6), None, torch.zeros(1), 1)], "the restored image must be of .*, got .*3, 6"),
    ],
)
def test_what_a_sampler_of_ones_own_yields_is_looked_at(answer: list[Any], says: str) -> None:
    @dataclass(frozen=True)
    class Mine(Sampler):
        def iterate(self, p: Problem) -> Iterator[Iterate]:
            yield from answer

    op, y = problem("mask")
    with pytest.raises(ValueError, match=says):
        Mine()(y, op, gaussian_prior(6))
