"""Few-step solvers: what their chains converge to in closed form, what the data fix, kinds of priors, bad settings."""

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import (
    FunctionPrior,
    Recorder,
    curved_prior,
    explicit,
    gaussian_prior,
    problem,
    stored,
)
from tests.solvers.solver_problems import replay as replayed
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo
from workbench.models import ConsistencyModel, EDMPrecond, Unfolded, Unfolding, load_prior
from workbench.models.consistency import Flow, euler_step
from workbench.models.unfolded import two_centres
from workbench.operators import (
    Blur,
    Grayscale,
    Identity,
    Inpainting,
    Operator,
    SuperResolution,
    WalshHadamard,
    block_mask,
    gaussian_kernel,
)
from workbench.operators.least_squares import smooth_estimate
from workbench.random import generator
from workbench.restore import degrade, restore
from workbench.solvers import CM4IR, DDIM, EDM, LATINO, UD2M, Consistency, ConsistencyEditing

PRIOR, N, NOISE = gaussian_prior(), 36, 0.1
C, EYE = PRIOR.covariance(), torch.eye(N, dtype=torch.float64)


def power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.T


def exact(end: float = 1e-4) -> FunctionPrior:
    """The consistency function of ``PRIOR``: ``m + ((C + end^2) (C + s^2)^-1)^(1/2) (x - m)``."""

    def jump(x: Tensor, sigma: Tensor) -> Tensor:
        gain = ((PRIOR.spectrum + end**2) / (PRIOR.spectrum + sigma.view(-1, 1, 1, 1) ** 2)).sqrt()
        return PRIOR.mean + PRIOR._filter(gain, x - PRIOR.mean)

    prior = FunctionPrior(jump, channels=1, sigma_min=end, sigma_max=80.0)
    prior.kind = "consistency"
    return prior


def unfolded(depth: int = 2, level: float = 0.2, delta: float = 0.02, **options) -> Unfolded:
    return Unfolded(PRIOR, Unfolding(depth, level, None, delta / level**2, **options))


def test_heuns_method_ends_where_the_exact_consistency_function_does() -> None:
    x = 0.5 + 2.0 * torch.randn(3, 1, 6, 6, generator=generator(0), dtype=torch.float64)
    low = gaussian_prior(sigma_min=1e-3)
    errors = [float((Flow(low, steps)(x, 2.0) - exact(1e-3)(x, 2.0)).abs().max()) for steps in (19, 39)]
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] > 3  # second order
    t, s = torch.full((3,), 0.5, dtype=torch.float64), torch.full((3,), 0.3, dtype=torch.float64)
    wanted = PRIOR(x, 0.5) + 0.6 * (x - PRIOR(x, 0.5))
    torch.testing.assert_close(euler_step(PRIOR, x, t, s), wanted, atol=1e-12, rtol=0)


def test_a_consistency_model_is_the_identity_at_its_lowest_level() -> None:
    model = ConsistencyModel(lambda u, told: torch.sin(7 * u), sigma_min=0.01, sigma_max=3.0)
    x = torch.rand(2, 3, 4, 4, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(model(x, 0.01), x, atol=1e-12, rtol=0)
    assert float((model(x, 0.5) - x).abs().max()) > 0.1


def covariance(step: float, level: float, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Mean map and stationary covariance of LATINO with constant steps, by iterating its linear recursion."""
    jump = power(C, 0.5) @ power(C + level**2 * EYE, -0.5)
    pull = torch.linalg.inv(EYE + step / NOISE**2 * gram)
    found = EYE.clone()
    for _ in range(1500):
        found = jump @ (pull @ found @ pull.T + level**2 * EYE) @ jump.T
    return jump @ pull, found


def test_latino_samples_the_law_of_its_recursion() -> None:
    op, y = problem("mask", batch=1)
    level, delta = 0.2, 0.5
    step = delta * level**2 / (1 + 4 * level**2)
    _, wanted = covariance(step, level, op.matrix.T @ op.matrix)
    solver = LATINO(steps=25, schedule=[level] * 25, delta=delta, clip=False)
    copies = y.expand(3000, -1).contiguous()
    found = solver(copies, op, exact(1e-9), sigma_noise=NOISE, generator=generator(0)).image.flatten(1)
    scale = float(wanted.diagonal().mean())
    assert float((torch.cov(found.T) - wanted).abs().max()) < 0.12 * scale  # 3000 samples: sd of an entry 2.6 %
    assert float(torch.cov(found.T).diagonal().mean()) == pytest.approx(scale, rel=0.025)


def test_half_the_squared_level_is_the_step_at_which_latino_samples_the_posterior() -> None:
    """Langevin: noise t and its removal are a step t^2 / 2 on the prior, so the likelihood's has to be as long."""
    gram = explicit("mask").matrix.T @ explicit("mask").matrix
    posterior = torch.linalg.inv(torch.linalg.inv(C) + gram / NOISE**2)
    level = 0.02
    off = {d: covariance(d * level**2, level, gram)[1] for d in (0.25, 0.5, 1.0)}
    errors = {d: float((found - posterior).norm() / posterior.norm()) for d, found in off.items()}
    assert errors[0.5] < 0.06
    assert min(errors[0.25], errors[1.0]) > 3 * errors[0.5]


def test_latino_takes_the_data_before_the_prior() -> None:
    """The other order is that of the published runs."""
    op, y = problem("mask")
    noise = stored(2)
    solver = LATINO(steps=2, schedule=[0.3, 0.1], delta=[0.5, 0.7], clip=False)
    x = initial = torch.full((2, 1, 6, 6), 0.4, dtype=torch.float64)
    for level, delta, draw in zip((0.3, 0.1), (0.5, 0.7), noise, strict=True):
        weight = NOISE**2 * (1 + 4 * level**2) / (delta * level**2)
        x = exact()(op.prox(x, y, weight) + level * draw, level)
    found = solver(y, op, exact(), sigma_noise=NOISE, initial=initial, noise=replayed(noise))
    torch.testing.assert_close(found.image, x, atol=1e-12, rtol=0)
    assert found.evaluations.tolist() == [2, 2]


def test_cm4ir_with_the_other_sign_follows_the_trajectory() -> None:
    """With eta = 0 and data that say nothing it is then the deterministic sampler: one trajectory, one end."""
    op = explicit("mask")
    op.matrix.zero_()
    op.values.zero_()
    y, noise = torch.zeros(2, 18, dtype=torch.float64), stored(1)
    start = torch.full((2, 1, 6, 6), 0.5, dtype=torch.float64)
    found = CM4IR(3, eta=0.0, seen_sign=1)(
        y, op, exact(), initial=start, noise=replayed([*noise, *torch.zeros(3, 2, 1, 6, 6)])
    )
    levels = CM4IR(3).levels(op, start)[:, 0].tolist()
    x = start + levels[0] * noise[0]
    for level, lower in zip(levels, [*levels[1:], 0.0], strict=True):
        end = exact()(x, level).clamp(0, 1)
        x = end + lower / level * (x - end)
    torch.testing.assert_close(found.image, x, atol=1e-9, rtol=0)


def test_cm4ir_starts_higher_where_the_operator_damps() -> None:
    image = torch.zeros(1, 3, 8, 8)
    whole = Inpainting(block_mask((8, 8), 4)), Grayscale(), WalshHadamard((8, 8), 0.3)
    operators = (*whole, Blur(gaussian_kernel(1.0)), SuperResolution(2))
    firsts = [
        float(CM4IR().levels(op, image)[0]) for op in (*operators, *(op.take(torch.tensor([0]), 1) for op in operators))
    ]
    assert firsts == pytest.approx(([0.2333] * 3 + [0.3474] * 2) * 2, abs=1e-3)
    assert float(CM4IR(first=400).levels(Grayscale(), image)[0]) == pytest.approx(0.449, abs=2e-3)


def test_the_step_with_two_centres_is_the_minimiser() -> None:
    """Errata 9 against an explicit solve of eq. (6)-(7)."""
    op, y = problem("blur")
    g = generator(3)
    x_t, x = (torch.rand(2, 1, 6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    t, sigma, delta = torch.tensor([0.3, 2.0]).double(), torch.tensor([0.1, 0.05]).double(), 0.02
    found = two_centres(op, y, sigma, x_t, t, x, delta)
    for i in range(2):
        s, level = float(sigma[i]), float(t[i])
        matrix = op.matrix.T @ op.matrix / s**2 + (1 / level**2 + 1 / delta) * EYE
        right = op.matrix.T @ y[i] / s**2 + x_t[i].flatten() / level**2 + x[i].flatten() / delta
        torch.testing.assert_close(found[i].flatten(), torch.linalg.solve(matrix, right), atol=1e-10, rtol=0)


def test_a_student_takes_the_sizes_of_its_teacher() -> None:
    teacher = EDMPrecond(lambda x, sigma: x, sigma_min=0.01, sigma_max=3.0, channels=1, multiple=4, image_size=8)
    student = ConsistencyModel.start_from(teacher)
    assert (student.channels, student.multiple, student.image_size) == (1, 4, 8)


@pytest.mark.parametrize("given", [True, False])
def test_ud2m_is_algorithm_1(given: bool) -> None:
    """From an image of one's own, or the smooth estimate from the data."""
    op, y = problem("mask")
    network, noise = unfolded(), stored(1 + 2 * 2 + 1)
    solver = UD2M(steps=2, eta=0.7)
    high, low, _ = solver.levels(network.sigma_max)
    draws = iter(noise)
    first = torch.full((2, 1, 6, 6), 0.45, dtype=torch.float64)
    initial = first if given else None
    if not given:
        first = smooth_estimate(op, y, torch.full((2,), NOISE).double(), first)
    x = 0.5 + high * next(draws)
    for level, lower in ((high, low), (low, 0.0)):
        share = level**2 / (level**2 + 0.005)
        z = share * first + (1 - share) * x
        for _ in range(2):
            z = two_centres(op, y, torch.full((2,), NOISE).double(), x, torch.full((2,), level).double(), z, 0.02)
            z = PRIOR(z + 0.2 * next(draws), 0.2)
        if lower:
            fresh = (0.7 * lower) ** 2 * (1 - (lower / level) ** 2)
            x = z + math.sqrt(lower**2 - fresh) / level * (x - z) + math.sqrt(fresh) * next(draws)
    found = solver(y, op, network, sigma_noise=NOISE, initial=initial, noise=replayed(noise))
    # The first state is 79 wide, and its rounding is what differs.
    torch.testing.assert_close(found.image, z, atol=1e-8, rtol=0)
    assert found.evaluations.tolist() == [4, 4]
    assert high == pytest.approx(78.7, abs=0.1)


def test_samplers_and_scores_refuse_other_kinds_of_priors() -> None:
    for sampler, prior in ((DDIM(2), exact()), (EDM(2), exact()), (Consistency(1), curved_prior())):
        with pytest.raises(ValueError, match="needs a"):
            sampler(prior, (1, 1, 6, 6))
    for ask in (exact().score, exact().noise, unfolded().score):
        with pytest.raises(ValueError, match="needs a denoiser, E"):
            ask(torch.zeros(1, 1, 6, 6), 0.5)
    assert Recorder(exact()).kind == "consistency"


def test_settings_that_do_not_fit_are_refused() -> None:
    op, y = problem("mask")
    for make, message in (
        (lambda: LATINO(steps=3, delta=[1.0, 2.0]), "delta must be a number or 3"),
        (lambda: LATINO(encode=torch.sin), "encode and decode must be both or none"),
        (lambda: LATINO(sigma_start=0.01)(y, op, exact()), "must be at most sigma_start, here 0.01, got 0.03"),
        (lambda: LATINO(sigma_end=0.3)(y, op, exact()), "sigma_end must be at most sigma_start, here 0.2, got 0.3"),
        (lambda: LATINO(sigma_start=1e3)(y, op, exact()), "sigma_start must be at most"),
        (lambda: LATINO(steps=2, schedule=[0.1, 0.2])(y, op, exact()), "levels that do not rise"),
        (lambda: CM4IR(deltas=0.1, scaled_apart=True)(y, op, exact()), "scaled_apart must be used with"),
        (lambda: UD2M(depth=5)(y, op, unfolded()), "depth .K. is fixed by training"),
        (lambda: UD2M(steps=2000)(y, op, unfolded()), "steps must be at most 1000"),
        (lambda: Unfolding(level=0.1, last_level=0.2), "last_level must be at most level"),
        (lambda: unfolded(start="estimator"), "estimator must be given"),
        (lambda: ConsistencyModel(lambda u, s: u, sigma_min=0.0), "sigma_min must be above 0"),
        (lambda: ConsistencyModel.start_from(PRIOR), "expected a prior with the preconditioning of EDM"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_levels_fall_from_module_to_module() -> None:
    assert Unfolding(3, 0.2, 0.05).levels() == pytest.approx([0.2, 0.1, 0.05])
    assert Unfolding(2, 0.2, None).levels() == [0.2, 0.2]
    assert Unfolding(1, 0.2, 0.05).levels() == [0.2]
    asked = Recorder(PRIOR)
    op, y = problem("mask")
    UD2M(1)(y, op, Unfolded(asked, Unfolding(3, 0.2, 0.05)), sigma_noise=NOISE, generator=generator(0))
    assert asked.told == pytest.approx([0.2, 0.1, 0.05])


def test_an_estimator_makes_the_first_estimate() -> None:
    op, y = problem("mask")

    def estimate(y: Tensor, op: Operator, sigma_noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x_t, 0.7)

    network = Unfolded(PRIOR, Unfolding(1, 0.2, None, 1e-6, start="estimator"), estimator=estimate)
    zero = replayed(torch.zeros(9, 2, 1, 6, 6))
    found = UD2M(1)(y, op, network, sigma_noise=1e3, noise=zero).image
    # A tiny step on data that say nothing leaves the estimate, which the network then denoises.
    wanted = PRIOR(torch.full((2, 1, 6, 6), 0.7, dtype=torch.float64), 0.2)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_cm4ir_does_not_magnify_the_noise_of_a_blurred_photo() -> None:
    photo = sample_photo("cat", 64)
    blurred = degrade(photo, "blur:2", 0.025, seed=0)
    found = restore(blurred, CM4IR(), load_prior("photo-cm")).image
    before, after = (float(psnr(image, photo, clip=True)) for image in (blurred.y, found))
    assert after > before + 1


def test_few_jumps_begin_at_the_prepared_image() -> None:
    """From grey and the prior's highest level, as in the published functions, four jumps do not arrive."""
    photo, prior = sample_photo("cat", 64), load_prior("photo-cm")
    holes = degrade(photo, "inpaint:0.7", seed=0)
    images = (restore(holes, ConsistencyEditing(sigma_start=start), prior).image for start in (None, 0.2))
    grey, prepared = (float(psnr(image, photo, clip=True)) for image in images)
    assert prepared > grey + 5


def test_jumps_keep_count_of_the_noise_that_the_data_step_leaves() -> None:
    """By hand, on pixels seen as they are: the prior is told what is truly in the image."""
    prior, noise, initial = exact(), stored(2), torch.full((2, 1, 6, 6), 0.4, dtype=torch.float64)
    asked, y = Recorder(prior), torch.rand(2, 1, 6, 6, generator=generator(2), dtype=torch.float64)
    found = ConsistencyEditing(2)(y, Identity(), asked, sigma_noise=0.3, initial=initial, noise=replayed(noise)).image
    level = asked.told[0]
    assert level == pytest.approx(0.6)  # twice the noise
    weight = (0.3 / level) ** 2
    image = (weight * prior(initial + level * noise[0], level).clamp(0, 1) + y) / (1 + weight)
    left = 0.3 / (1 + weight)
    assert asked.told[1] == pytest.approx(left)  # above the grid's second level
    torch.testing.assert_close(found, prior(image, left).clamp(0, 1), atol=1e-9, rtol=0)


def test_few_steps_begin_lower_above_a_decoded_jpeg() -> None:
    photo, prior = sample_photo("cat", 64), load_prior("photo-cm")
    for kind, least in ((ConsistencyEditing, 0.1), (LATINO, 0.2)):
        images = (restore(degrade(photo, "jpeg:20"), solver, prior).image for solver in (kind(), kind(sigma_start=0.2)))
        low, high = (float(psnr(image, photo, clip=True)) for image in images)
        assert low > high + least
