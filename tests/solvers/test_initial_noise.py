"""Gradients to the initial noise of DeqIR, and what they are good for."""

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import SHAPE, FunctionPrior, curved_prior, problem, replay, stored
from workbench.operators import Grayscale
from workbench.random import generator
from workbench.solvers import DeqIR, OptimiseNoise, noise_gradient
from workbench.solvers.base import noise_levels
from workbench.solvers.deqir.losses import apart, colour_distance, data_distance, image_distance, perceptual_distance
from workbench.solvers.null_space import transition

STEPS, ETA = 7, 0.3
PRIOR = curved_prior()


def noisy_problem(name: str, sigma_noise: float):
    op, y = problem(name)
    target = torch.rand(2, *SHAPE, generator=generator(4), dtype=torch.float64)
    return op, y + sigma_noise * 0.5, stored(STEPS + 1, seed=3), target


def solved(name: str, sigma_noise: float, **settings):
    op, y, noises, target = noisy_problem(name, sigma_noise)
    solver = DeqIR(STEPS, STEPS, ETA, tolerance=0.0, **settings)
    with torch.no_grad():
        chain = solver.chain(solver.problem(y, op, PRIOR, sigma_noise, replay(noises)), keep=True)
        image = solver.solve(chain).image
    return chain, 2 * (image - target)


def through_the_chain(name: str, sigma_noise: float, levels: list[float]) -> Tensor:
    """Autograd through the sequential chain."""
    op, y, noises, target = noisy_problem(name, sigma_noise)
    step = transition(op, y, noise_levels(sigma_noise, y), ETA)
    unit = noises[0].clone().requires_grad_()
    u = 0.5 + levels[0] * unit
    for s in range(STEPS):
        clean = PRIOR(u, levels[s])
        u = step(clean, (u - clean) / levels[s], noises[s + 1], levels[s + 1])
    return torch.autograd.grad((u - target).square().sum(), unit)[0]


@pytest.mark.parametrize(("name", "sigma_noise", "prediction"), [("dense", 0.0, "photos"), ("blur", 0.1, "published")])
def test_the_exact_gradient_is_autograd_through_the_chain(name, sigma_noise, prediction):
    chain, gradient = solved(name, sigma_noise, prediction=prediction)
    expected = through_the_chain(name, sigma_noise, chain.levels)
    exact, products = noise_gradient(chain, gradient, "exact")
    torch.testing.assert_close(exact, expected, atol=1e-9, rtol=1e-9)
    assert products == STEPS
    # Triangular: T corrections leave nothing.
    neumann, products = noise_gradient(chain, gradient, "neumann", STEPS)
    torch.testing.assert_close(neumann, expected, atol=1e-9, rtol=1e-9)
    assert products == 1 + STEPS * STEPS


def test_one_step_is_the_paper_s():
    """dL/dx* dF/dx_T of eq. (9) with all other states held: + sign, to be descended (errata 4)."""
    _, _, noises, target = noisy_problem("means", 0.0)
    chain, gradient = solved("means", 0.0, prediction="published")
    unit = noises[0].clone().requires_grad_()
    u = top = 0.5 + chain.levels[0] * unit
    for s in range(STEPS):
        state = top if s == 0 else chain.states[s]
        seen = (state - PRIOR(state, chain.levels[s])) / chain.levels[s]
        u = chain.transition(u - chain.levels[s] * seen, seen, noises[s + 1], chain.levels[s + 1])
    expected = torch.autograd.grad((u - target).square().sum(), unit)[0]
    one_step, products = noise_gradient(chain, gradient)
    torch.testing.assert_close(one_step, expected, atol=1e-10, rtol=1e-9)
    assert products == 1


def test_descent_brings_the_image_nearer_to_its_target():
    """A target that a noise exists for: the restoration from another seed."""
    op, y, _, _ = noisy_problem("mask", 0.0)
    solver = DeqIR(STEPS, STEPS, 0.0)
    target = solver(y, op, PRIOR, generator=generator(9)).image
    optimise = OptimiseNoise(image_distance(target), solver, steps=20, rate=0.1)
    given = torch.randn(STEPS + 1, 2, *SHAPE, generator=generator(0), dtype=y.dtype)
    kept = given.clone()
    steps = []
    result = optimise(y, op, PRIOR, noise=replay(given), callback=steps.append)
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].total == 21
    assert torch.equal(given, kept)
    before = solver(y, op, PRIOR, noise=replay(given)).image
    assert ((result.image - target).norm() / (before - target).norm()) < 0.4
    # The noise keeps the length of white noise.
    lengths = [unit.flatten(1).norm(dim=1) for unit in (result.extras["noise"], given[0])]
    torch.testing.assert_close(*lengths)
    # The best of all restorations, whose noise is returned.
    assert torch.allclose(image_distance(target)(result.image), result.residuals.amin(1), atol=1e-12)
    again = solver(y, op, PRIOR, noise=replay([result.extras["noise"], *torch.zeros(STEPS, 2, *SHAPE)])).image
    torch.testing.assert_close(again, result.image, atol=5e-3, rtol=0)  # Both to the solver's tolerance of 1e-3.
    torch.testing.assert_close(op(result.image), y, atol=1e-9, rtol=0)


def test_evaluations_count_calls_and_products():
    calls = [0]
    inner = curved_prior()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls[0] += len(x) * (2 if torch.is_grad_enabled() else 1)
        return inner.denoise(x, sigma)

    op, y, _, target = noisy_problem("mask", 0.0)
    optimise = OptimiseNoise(image_distance(target), DeqIR(STEPS, 5), steps=3, gradient="neumann", terms=2)
    prior = FunctionPrior(denoise, channels=1)
    prior.checked = True  # a look at it would count
    result = optimise(y, op, prior, generator=generator(0))
    products = 3 * (1 + 2 * STEPS)
    # A product is one call with a graph; the count above took it for two.
    assert int(result.evaluations.sum()) == calls[0] - 2 * products


def test_losses():
    image = torch.rand(3, 3, 16, 16, generator=generator(0))
    target = torch.rand(3, 3, 16, 16, generator=generator(1))
    expected = torch.stack([((a - b) ** 2).mean() for a, b in zip(image, target, strict=True)])
    torch.testing.assert_close(image_distance(target)(image), expected)
    gray = Grayscale()
    torch.testing.assert_close(data_distance(gray, gray(target))(image), (gray(image - target) ** 2).mean((1, 2, 3)))
    assert torch.equal(perceptual_distance(image)(image), torch.zeros(3))
    # Colours of the pixels in any order are the same colours; those of another tint are not.
    order = torch.randperm(256, generator=generator(2))
    shuffled = image.flatten(2)[:, :, order].view_as(image)
    torch.testing.assert_close(colour_distance(shuffled)(image), torch.zeros(3), atol=1e-10, rtol=0)
    assert (colour_distance(image.roll(1, 1) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1))(image) > 0.01).all()
    values = apart(lambda a, b: (a - b).square().mean((1, 2, 3)).sqrt())(image)
    rms = (image[0] - image[1]).square().mean().sqrt(), (image[0] - image[2]).square().mean().sqrt()
    torch.testing.assert_close(values[0], -(rms[0] + rms[1]) / 2)
    torch.testing.assert_close(apart()(image[:2]), -perceptual_distance(image[1:2])(image[:1]).expand(2))


def test_bad_input():
    op, y, noises, target = noisy_problem("mask", 0.0)
    with pytest.raises(ValueError, match="window must be None"):
        OptimiseNoise(apart(), DeqIR(window=3))
    for loss, data, message in (
        (image_distance(target[:1]), y, r"target must have the shape \(2, 1, 6, 6\)"),
        (apart(image_distance), y[:1], "at least 2 of the same measurement"),
        (lambda image: image.sum(), y, r"one number per image \(2,\), got shape \(\)"),
        (lambda image: image.sum((1, 2, 3)) * float("nan"), y, "not finite"),
        (lambda image: image.sum((1, 2, 3)).detach(), y, "differentiable"),
        (lambda image: 1.0, y, "what the loss returns must be of type Tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            OptimiseNoise(loss)(data, op, PRIOR, generator=generator(0))
    with pytest.raises(ValueError, match="reference must be"):
        colour_distance(torch.zeros(3, 4, 4))
    chain = DeqIR(STEPS).chain(DeqIR(STEPS).problem(y, op, PRIOR, 0.0, replay(noises)))
    DeqIR(STEPS).solve(chain)
    with pytest.raises(ValueError, match=f"chain must be with all {STEPS + 1} states"):
        noise_gradient(chain, target)
