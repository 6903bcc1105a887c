"""Plug-and-play solvers: known fixed points and rates, stopping image by image, acceleration, what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.solvers.solver_problems import Recorder, curved_prior, gaussian_prior, problem
from workbench.operators import JPEG, Identity, Inpainting, SuperResolution, block_mask
from workbench.operators.inpainting import fill_holes
from workbench.operators.least_squares import smooth_estimate
from workbench.random import generator
from workbench.solvers import ADMM, HQS, RED, ForwardBackward, MapByGradient, PnPReG, make_solver

PRIOR, LEVEL, NOISE, N = gaussian_prior(), 0.2, 0.1, 36
C = PRIOR.covariance()
EYE = torch.eye(N, dtype=torch.float64)
W = C @ torch.linalg.inv(C + LEVEL**2 * EYE)  # D(x) = m + W (x - m): symmetric, eigenvalues in (0, 1)
ETA, RHO, WEIGHT = 0.4, 0.3, 0.25
FIXED = {"max_steps": 5000, "tolerance": 1e-24}
SLOW = {**FIXED, "memory": 10, "step_size": ETA}  # gradient steps, on what the data hardly see
ONE_LEVEL = {"sigma_start": LEVEL, "sigma_end": LEVEL, "penalty": RHO}
# Each solver, and (a, b) such that its fixed point is m + solve(a(A^T A), b A^T (y - A m)).
CLOSED = {
    "forward-backward": (ForwardBackward(step_size=ETA, sigma=LEVEL, **FIXED), lambda g: EYE - W @ (EYE - ETA * g)),
    "hqs": (HQS(**ONE_LEVEL, **FIXED), lambda g: g + RHO * EYE - RHO * W),
    "admm": (ADMM(**ONE_LEVEL, **FIXED), lambda g: g + RHO * LEVEL**2 * torch.linalg.inv(C)),
    "admm, relaxed": (ADMM(**ONE_LEVEL, relaxation=1.6, **FIXED), lambda g: g + RHO * LEVEL**2 * torch.linalg.inv(C)),
    "red": (RED(sigma=LEVEL, lambda_=WEIGHT * 4, **FIXED), lambda g: g + WEIGHT * (EYE - W)),
    "red, damped": (RED(sigma=LEVEL, lambda_=WEIGHT * 4, damping=0.6, **FIXED), lambda g: g + WEIGHT * (EYE - W)),
    "red, gradient": (RED(form="gradient", sigma=LEVEL, lambda_=WEIGHT * 4, **SLOW), None),
    "pnp-reg": (PnPReG(rule="gradient", sigma=LEVEL, **SLOW), None),
    "map-gd": (MapByGradient(step_size=ETA, tolerance=1e-11, max_steps=5000, memory=10), None),
}


def system(name: str, gram: Tensor) -> tuple[Tensor, Tensor]:
    """``a`` and ``b`` of the fixed point, see ``CLOSED``."""
    if name == "red, gradient":
        return gram + WEIGHT * (EYE - W), EYE
    if name in ("pnp-reg", "map-gd"):
        level = LEVEL if name == "pnp-reg" else NOISE
        return gram + level**2 * torch.linalg.inv(C + level**2 * EYE), EYE
    if name == "hqs":  # x = W prox(x) about the mean; multiplied by the matrix of the prox
        inner = torch.linalg.inv(gram + RHO * EYE)
        return EYE - RHO * W @ inner, W @ inner
    right = {"forward-backward": ETA * W}.get(name, EYE)
    return CLOSED[name][1](gram), right


@pytest.mark.parametrize("name", CLOSED)
def test_the_fixed_point_is_the_known_one_from_any_start(name: str) -> None:
    op, y = problem("dense")
    y = y + 0.02 * torch.randn(y.shape, generator=generator(5), dtype=y.dtype)
    gram = op.matrix.T @ op.matrix
    # red's weight is lambda_ (noise / sigma)^2: with NOISE = LEVEL / 2 a quarter of lambda_
    a, b = system(name, gram)
    mean = torch.full((N,), 0.5, dtype=torch.float64)
    exact = (mean + torch.linalg.solve(a, b @ op.matrix.T @ (y - mean @ op.matrix.T).T).T).view(-1, 1, 6, 6)
    for start in (None, torch.rand(2, 1, 6, 6, generator=generator(1), dtype=torch.float64)):
        found = CLOSED[name][0](y, op, PRIOR, sigma_noise=NOISE, initial=start)
        assert found.converged.all()
        assert not found.message
        torch.testing.assert_close(found.image, exact, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["forward-backward", "admm", "red"])
def test_anderson_finds_the_same_point_in_fewer_evaluations(name: str) -> None:
    op, y = problem("blur")
    settings: dict[str, Any] = {"max_steps": 2000, "tolerance": 1e-20}
    settings |= ONE_LEVEL if name == "admm" else {}
    plain, mixed = (make_solver(name, memory=memory, **settings)(y, op, PRIOR, sigma_noise=NOISE) for memory in (0, 5))
    assert plain.converged.all()
    assert mixed.converged.all()
    torch.testing.assert_close(mixed.image, plain.image, atol=1e-6, rtol=0)
    assert int(mixed.evaluations.max()) <= 0.67 * int(plain.evaluations.max())


def test_levels_fall_to_the_noise_of_each_image() -> None:
    prior, sigma = Recorder(curved_prior()), torch.tensor([0.0, 0.1], dtype=torch.float64)
    y = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    HQS(max_steps=5, sigma_start=0.4)(y, Identity(), prior, sigma_noise=sigma)
    told = torch.stack([level for _, level, _ in prior.calls])
    expected = torch.stack([torch.logspace(*torch.tensor([0.4, end]).log10(), 5) for end in (1 / 255, 0.1)], 1)
    torch.testing.assert_close(told, expected.double(), atol=1e-7, rtol=0)
    prior.calls.clear()
    HQS(max_steps=3, sigma_start=0.05)(y, Identity(), prior, sigma_noise=0.1)  # never less than the noise
    assert prior.told == pytest.approx([0.1] * 3)
    prior.calls.clear()
    limited = Recorder(curved_prior(sigma_min=0.02))
    HQS(max_steps=2)(y, Identity(), limited)
    assert limited.told[-1] == pytest.approx(0.02)


def test_forward_backward_tells_the_denoiser_its_share_of_the_noise() -> None:
    """Errata 14: eta times the noise of the measurement; 0 where there is none."""
    prior = Recorder(curved_prior(sigma_min=0.0))
    y = torch.rand(2, 1, 8, 8)
    ForwardBackward(max_steps=1)(y, Identity(), prior, sigma_noise=torch.tensor([0.0, 0.2]))
    torch.testing.assert_close(prior.calls[0][1], torch.tensor([0.0, 0.49 * 0.2]))


def test_the_start_is_the_smooth_estimate_or_the_measurement_at_the_size_of_the_image() -> None:
    x = torch.rand(1, 3, 16, 16, generator=generator(0), dtype=torch.float64)
    prior, holes = Recorder(curved_prior(channels=3)), Inpainting(block_mask((16, 16), 6))
    pictures = {
        SuperResolution(2): lambda y: interpolate(y, scale_factor=2, mode="bilinear"),
        holes: lambda y: fill_holes(y, holes.mask),
        Identity(): lambda y: y,
    }
    for op, picture in pictures.items():
        y = op(x)
        smooth = smooth_estimate(op, y, torch.tensor([0.01]).double(), picture(y))
        for start, expected in ({}, smooth), ({"start": "picture"}, picture(y)):
            prior.calls.clear()
            RED(max_steps=1, **start)(y, op, prior, sigma_noise=0.01)
            torch.testing.assert_close(prior.calls[0][0], expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="start must be one of smooth, picture, data, got 'pinv'"):
        RED(start="pinv")
    with pytest.raises(ValueError, match="initial must be of the shape of the result"):
        RED()(x, Identity(), prior, initial=torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="red needs a linear operator for form='gradient', JPEG is not"):
        RED(form="gradient")(x, JPEG(50), prior)
    with pytest.raises(ValueError, match="sigma_end must be at most sigma_start"):
        ADMM(sigma_start=0.1, sigma_end=0.2)
    with pytest.raises(ValueError, match=r"relaxation must be in \(0, 2\], got 3"):
        ADMM(relaxation=3.0)


def test_a_divergent_iteration_stops_early_with_its_best_iterate() -> None:
    y = torch.rand(2, 1, 8, 8, generator=generator(0))
    prior = gaussian_prior(8)
    found = ForwardBackward(step_size=40.0, sigma=0.001)(y, Identity(), prior, initial=torch.rand(2, 1, 8, 8))
    assert found.extras["diverged"].all()
    assert not found.converged.any()
    assert "2 of 2 samples diverged" in found.message
    assert int(found.evaluations.max()) < 20
    assert found.image.isfinite().all()
    assert float(found.image.abs().max()) < 10


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (HQS(), {"sigma_min": 0.1, "sigma_max": 0.1}, "levels fall from .* but denoiser knows only 0.1"),
        (ADMM(sigma_start=0.9), {"sigma_max": 0.5}, "knows 0.0001 to 0.5: change sigma_start or sigma_end"),
        (RED(sigma=0.9), {"sigma_max": 0.5}, "denoiser knows 0.0001 to 0.5"),
        (ForwardBackward(sigma=0.9), {"sigma_max": 0.5}, "knows noise up to sigma = 0.5, got 0.9"),
    ],
)
def test_levels_that_the_prior_does_not_know_are_refused(solver, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        solver(torch.rand(1, 1, 8, 8), Identity(), curved_prior(name="denoiser", **options))
    one_level = HQS(sigma_start=0.1, sigma_end=0.1)
    blind = curved_prior(sigma_min=0.1, sigma_max=0.1)
    assert one_level(torch.rand(1, 1, 8, 8), Identity(), blind).image.isfinite().all()
