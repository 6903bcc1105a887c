"""DeqIR: the parallel fixed point is the sequential chain; the paper's equation in its corrected form."""

import math

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import SIZE, FunctionPrior, Recorder, curved_prior, problem, replay, stored
from workbench.operators import Blur, gaussian_kernel
from workbench.random import generator
from workbench.solvers import DDNM, DeqIR
from workbench.solvers.deqir.wiener import PhotoModel


@pytest.mark.parametrize(("name", "sigma_noise", "memory"), [("dense", 0.0, 5), ("blur", 0.1, 0), ("dense", 0.1, 5)])
def test_t_iterations_are_the_sequential_chain(name, sigma_noise, memory):
    op, y = problem(name)
    settings = {"steps": 12, "eta": 0.3}
    arguments = {"sigma_noise": sigma_noise, "prior": curved_prior()}
    expected = DDNM(**settings)(y, op, generator=generator(0), **arguments)
    result = DeqIR(**settings, iterations=12, memory=memory, tolerance=0.0)(y, op, generator=generator(0), **arguments)
    torch.testing.assert_close(result.image, expected.image, atol=1e-9, rtol=0)
    assert result.converged.all()
    # 12 + 11 + ... + 1: exact states are not evaluated again.
    assert (result.evaluations <= 78).all()


def vp(case: dict, printed: bool) -> Tensor:
    """The right side of eq. (9), all states from the given ones, in VP coordinates with explicit matrices.

    ``printed`` takes the coefficients of Proposition 1 as printed (errata 1).
    """
    a, x, e, eps, proj, y, eta = (case[k] for k in ("abar", "x", "e", "eps", "proj", "y", "eta"))
    steps = len(a) - 1
    null = torch.eye(len(proj), dtype=torch.float64) - proj
    z = {}
    for s in range(1, steps + 1):
        level = 1 - (a[s] if printed else a[s - 1])
        c2, c1 = level.sqrt() * (1 - eta**2) ** 0.5, level.sqrt() * eta
        scale = ((1 - a[s]) / a[s]).sqrt() * (1 if printed else a[s - 1].sqrt())
        z[s] = c2 * e[s] - scale * null @ e[s] + a[s - 1].sqrt() * y + c1 * eps[s]
    out = []
    for j in range(steps):
        total = (a[j] / a[steps]).sqrt() * null @ x[steps] + proj @ z[j + 1]
        total = total + sum((a[j] / a[s]).sqrt() * null @ z[s + 1] for s in range(j, steps))
        out.append(total)
    return torch.stack(out)


def test_equation_9_holds_on_the_sequential_chain_with_the_corrected_coefficients():
    """Errata 1: x_0 ... x_{T-1} of DDNM's chain satisfy eq. (9); with the printed coefficients they do not."""
    op, y = problem("dense", batch=1)
    steps, eta = 8, 0.4
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.3, steps, dtype=torch.float64), 0)
    abar = torch.cat([torch.ones(1, dtype=torch.float64), abar])
    levels = ((1 - abar) / abar).sqrt().flip(0)
    prior, noises = Recorder(curved_prior()), stored(steps + 1, 1, seed=3)
    image = DDNM(steps, eta, tuple(levels.tolist()))(y, op, prior, noise=replay(noises)).image
    states = [u for u, _, _ in prior.calls] + [image]
    x = {steps - k: abar[steps - k].sqrt() * u.flatten() for k, u in enumerate(states)}
    case = {
        "abar": abar,
        "x": x,
        "e": {steps - k: ((u - clean) / sigma).flatten() for k, (u, sigma, clean) in enumerate(prior.calls)},
        "eps": {steps - k: noises[k + 1].flatten() for k in range(steps)},
        "proj": torch.linalg.pinv(op.matrix) @ op.matrix,
        "y": op.pinv(y).flatten(),
        "eta": eta,
    }
    expected = torch.stack([x[j] for j in range(steps)])
    torch.testing.assert_close(vp(case, printed=False), expected, atol=1e-10, rtol=0)
    assert (vp(case, printed=True) - expected).abs().max() > 0.1


def test_one_iteration_is_the_cumulative_sum_of_errata_2():
    """Published form: u_0 = N u_T + P z_1 + sum_s N z_s, e_s at x_T in every state."""
    op, y = problem("blur")
    steps, eta, prior, noises = 6, 0.3, curved_prior(), stored(7, seed=5)
    levels = [40.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.0]
    solver = DeqIR(steps, 1, eta, memory=0, prediction="published", tolerance=0.0, schedule=levels)
    result = solver(y, op, prior, noise=replay(noises))
    top = 0.5 + levels[0] * noises[0]
    starts = [0.5 + math.sqrt(level**2 + 0.25) * noises[0] for level in levels[1:]]
    total, first, moves = op.project_null(top), op.pinv(y), []
    for k, state in enumerate([top, *starts[:-1]]):
        e = (state - prior(state, levels[k])) / levels[k]
        drive = levels[k + 1] * ((1 - eta**2) ** 0.5 * e + eta * noises[k + 1])
        z = first + drive - levels[k] * op.project_null(e)
        total = total + op.project_null(z)
        expected = total + z - op.project_null(z)
        moves.append((expected - starts[k]).square().mean((1, 2, 3)).sqrt() / (1 + levels[k + 1] ** 2) ** 0.5)
    torch.testing.assert_close(result.image, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(result.residuals[:, 0], torch.stack(moves).amax(0), atol=1e-10, rtol=0)


def test_a_prior_that_is_the_photo_model_needs_one_iteration():
    """The start is that model's own chain: nothing moves, every state is settled at once."""
    model = PhotoModel()
    prior = FunctionPrior(
        lambda x, sigma: torch.cat([model(row[None], float(s)) for row, s in zip(x, sigma, strict=True)])
    )
    x = torch.rand(2, 3, SIZE, SIZE, generator=generator(1), dtype=torch.float64)
    op = Blur(gaussian_kernel((0.7, 0.7)))
    run = {"sigma_noise": 0.1, "prior": prior}
    result = DeqIR(tolerance=1e-10)(op(x), op, generator=generator(0), **run)
    assert result.iterations.tolist() == [1, 1]
    assert result.evaluations.tolist() == [20, 20]
    expected = DDNM(20)(op(x), op, generator=generator(0), **run).image
    torch.testing.assert_close(result.image, expected, atol=1e-8, rtol=0)


def test_the_photo_model_is_the_posterior_mean_of_its_gaussian():
    """x0 ~ N(1/2, C), brightness and colour independent, against the dense solve C (C + sigma^2 I)^-1."""
    size, sigma = 4, 0.3
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    power = (0.02**2 + f[:, None] ** 2 + f**2) ** -1.3
    power = power / power.mean()
    eye = torch.eye(3 * size * size, dtype=torch.float64).view(-1, 3, size, size)
    spectrum, mean = torch.fft.fft2(eye), torch.fft.fft2(eye.mean(1, keepdim=True))
    covariance = torch.fft.ifft2(power * (0.012 * (spectrum - mean) + 0.22 * mean)).real.flatten(1)
    x = torch.rand(2, 3, size, size, generator=generator(2), dtype=torch.float64)
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(len(covariance), dtype=torch.float64))
    expected = 0.5 + ((x - 0.5).flatten(1) @ gain.T).view_as(x)
    torch.testing.assert_close(PhotoModel()(x, sigma), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("window", "sigma_noise"), [(1, 0.1), (3, 0.0)])
def test_a_window_leads_to_the_same_image_and_bounds_what_is_stored(window, sigma_noise):
    op, y = problem("means", batch=3)
    y[0] = 0.5
    prior, draws = curved_prior(), stored(17, 3, seed=4)
    draws[:, 0] *= 0.01  # This image moves little: it runs ahead of the others.
    expected = DDNM(16, 0.3)(y, op, prior, sigma_noise=sigma_noise, noise=replay(draws)).image
    solver = DeqIR(16, 40, 0.3, window=window, tolerance=1e-9)
    chain = solver.chain(solver.problem(y, op, prior, sigma_noise, replay(draws)))
    most = []
    result = solver.solve(chain, lambda step: most.append(max(len(chain.states), len(chain.fresh), len(chain.gaps))))
    torch.testing.assert_close(result.image, expected, atol=1e-7, rtol=0)
    assert result.converged.all()
    assert max(most) <= 2 * window + 1
    for b in range(3):
        alone = solver(y[b : b + 1], op, prior, sigma_noise=sigma_noise, noise=replay(draws[:, b : b + 1]))
        torch.testing.assert_close(result.image[b : b + 1], alone.image, atol=1e-9, rtol=0)
        assert (result.evaluations[b], result.iterations[b]) == (alone.evaluations[0], alone.iterations[0])


def test_a_window_that_does_not_come_to_the_end_says_so():
    op, y = problem("means")
    result = DeqIR(20, 4, window=3)(y, op, curved_prior(), generator=generator(0))
    assert not result.converged.any()
    assert "did not reach the tolerance 0.001 in 4 steps" in result.message
    assert result.image.abs().max() < 3


@pytest.mark.parametrize("memory", [0, 3])
def test_damping_takes_part_of_the_step(memory):
    """Two iterations: the second state of the mixing is x + damping (F(x) - x), and T iterations are still exact."""
    op, y = problem("means")
    full = DeqIR(6, 6, 0.3, memory=memory, tolerance=0.0)
    half = DeqIR(6, 6, 0.3, memory=memory, damping=0.5, tolerance=0.0)
    image = half(y, op, curved_prior(), generator=generator(0)).image
    torch.testing.assert_close(image, full(y, op, curved_prior(), generator=generator(0)).image, atol=1e-9, rtol=0)
    chains = []
    for solver in (full, half):
        chain = solver.chain(solver.problem(y, op, curved_prior(), 0.0, replay(stored(7))), keep=True)
        before = chain.states.clone()
        chain.iterate(torch.ones(2, dtype=torch.bool), 0.0)
        chains.append((before, chain.states))
    start, moved = chains[0]
    for s in range(2, 7):  # State 1 is exact after one iteration, damped or not.
        expected = start[s] + 0.5 * (moved[s] - start[s])
        torch.testing.assert_close(chains[1][1][s], expected, atol=1e-12, rtol=0)
    assert torch.equal(chains[1][1][1], moved[1])


def relative_error(**settings) -> float:
    """Distance to the sequential image after 5 of 20 iterations, relative."""
    op, y = problem("means", batch=4)
    expected = DDNM(steps=20)(y, op, curved_prior(), generator=generator(0)).image
    run = DeqIR(iterations=5, tolerance=0.0, **settings)
    return float((run(y, op, curved_prior(), generator=generator(0)).image - expected).norm() / expected.norm())


def test_acceleration_and_the_prediction_pay():
    """Published form: Anderson helps (errata 3). A denoiser's slope instead of the published 1 helps far more."""
    picard, anderson = relative_error(memory=0, prediction="published"), relative_error(prediction="published")
    assert anderson < 0.2 * picard
    assert relative_error() < 0.1 * anderson
    assert relative_error() < 0.01


def test_an_image_the_prior_fails_on_leaves_the_others_alone():
    (op, y), draws = problem("mask", batch=3), stored(21, 3, seed=4)
    draws[0, 1, 0, 0, 0] = math.nan
    result = DeqIR(tolerance=1e-9)(y, op, curved_prior(), noise=replay(draws))
    assert result.converged.tolist() == [True, False, True]
    assert "1 of 3 samples diverged" in result.message
    assert result.iterations[1] == 1
    draws[0, 1, 0, 0, 0] = 0.0
    fine = DeqIR(tolerance=1e-9)(y, op, curved_prior(), noise=replay(draws))
    torch.testing.assert_close(result.image[[0, 2]], fine.image[[0, 2]], atol=1e-10, rtol=0)
