"""The objective of MTDEQ: its gradient by finite differences, what the denoiser is told, the tasks, bad input."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import Recorder
from tests.trainers.test_mupet import Shrinking, draws
from workbench.images import sample_photo
from workbench.models import EDMPrecond, UNet, UNetConfig, load_prior, save_prior
from workbench.models.networks.unet import grown
from workbench.random import Draws
from workbench.solvers import Exact, ForwardBackward
from workbench.solvers.plug_and_play.forward_backward import forward_backward_step
from workbench.trainers import MTDEQ, Degradations

TIGHT = ForwardBackward(memory=5, max_steps=200, tolerance=1e-22)
IMAGES = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Doubled(Draws):
    """Draws in float64, for finite differences."""

    def normal(self, *shape: int) -> Tensor:
        return super().normal(*shape).double()


def loss(prior: Shrinking, objective: MTDEQ) -> Tensor:
    return objective(prior, IMAGES, Doubled(torch.Generator().manual_seed(3)))[0]


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    objective = MTDEQ(fixed_point=TIGHT, backward=Exact(1e-10), denoising=0.5)
    prior, step = Shrinking(), 1e-5
    loss(prior, objective).backward()
    for name, parameter in prior.named_parameters():
        ends = []
        for sign in (1, -1):
            moved = Shrinking()
            with torch.no_grad():
                dict(moved.named_parameters())[name].add_(sign * step)
                ends.append(loss(moved, objective))
        assert float(parameter.grad) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_the_jacobian_free_gradient_holds_the_equilibria_fixed() -> None:
    """Eq. 4: the derivative of one application of f at the equilibrium, averaged over all measurements."""
    prior, objective = Shrinking(), MTDEQ(fixed_point=TIGHT, per_image=3)
    op = objective.degradations.sample(6, (8, 8), draws())
    clean, sigma = IMAGES.repeat_interleave(3, 0), torch.linspace(0, 0.2, 6, dtype=torch.float64)
    y = op(clean)
    value, _ = objective.equilibrium(prior, clean, op, y, sigma)
    value.backward()
    points = TIGHT(y, op, prior, sigma_noise=sigma, initial=op.first_estimate(y)).image
    ends = []
    for sign in (1, -1):
        moved = Shrinking()
        with torch.no_grad():
            moved.a.add_(sign * 1e-5)
            f = forward_backward_step(moved, op, y, 0.49 * sigma, 0.49)
            ends.append((f(points, torch.arange(6)) - clean).square().mean())
    assert float(prior.a.grad) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_equilibria_are_found_in_full_precision_while_training_in_bfloat16() -> None:
    """The smallest step of bfloat16 is 1/256: rounded iterates do not come within 1e-7, and none converged on a GPU."""
    prior, images = load_prior("photo"), sample_photo("cat", 32)
    objective = MTDEQ(fixed_point=ForwardBackward(memory=1, max_steps=50), per_image=2)
    plain = objective(prior, images, draws())[1]
    with torch.autocast("cpu", torch.bfloat16):
        lowered = objective(prior, images, draws())[1]
    assert float(plain["converged"]) > 0
    assert lowered["converged"] == plain["converged"]
    assert lowered["evaluations"] == plain["evaluations"]


def test_tasks_noise_and_levels_are_those_of_the_paper() -> None:
    """Section III-A, and errata 14: the denoiser is told eta times the noise, 0 where there is none."""
    prior, noise = Recorder(Shrinking(), sigma_min=0.0), [0.0, 0.005, 0.245]
    objective = MTDEQ(fixed_point=ForwardBackward(max_steps=1))
    assert objective.noise == pytest.approx([0.005 * s for s in range(50)])
    assert objective.per_image == 5
    replace(objective, noise=tuple(noise), per_image=30)(prior, IMAGES, draws())
    assert len(prior.calls[0][0]) == 60
    told = set(prior.calls[0][1].tolist())
    assert sorted(told) == pytest.approx([0.49 * level for level in noise], rel=1e-6)
    kinds = objective.degradations.sample(3000, (8, 8), draws()).kinds
    seen = {name: {kind[1] for kind in kinds if kind[0] == name} for name in {kind[0] for kind in kinds}}
    assert seen["super-resolution"] == {1, 2, 3, 4}
    assert sorted(seen["deblurring"]) == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.4])
    assert sorted(seen["pixels"]) == pytest.approx([0.2, 0.4, 0.5, 0.6, 0.8, 0.9])
    single = MTDEQ.single("completion")
    assert single.per_image == 1
    assert single.noise == (0.0,)
    assert {kind for kind, _ in single.degradations.sample(9, (8, 8), draws()).kinds} == {"pixels"}
    assert MTDEQ.single("super-resolution").degradations.factors == (2,)


def test_a_level_of_the_solvers_own_is_that_of_the_gradient_too() -> None:
    """...or it would be taken of another map than the one whose equilibria were found."""
    prior = Recorder(Shrinking())
    MTDEQ(fixed_point=ForwardBackward(max_steps=2, sigma=0.05), denoising=1.0)(prior, IMAGES, draws())
    assert {round(level, 4) for _, told, _ in prior.calls for level in told.tolist()} == {0.05}


def test_without_equilibria_it_is_gaussian_denoising_at_the_same_levels() -> None:
    prior = Recorder(Shrinking())
    objective = MTDEQ(weight=0.0, denoising=1.0)
    value, logged = objective(prior, IMAGES, draws())
    assert len(prior.calls) == 1
    assert set(logged) == {"denoising"}
    noisy, told, _ = prior.calls[0]
    assert float(told.max()) <= 0.49 * 0.245 + 1e-6  # of the noise of measurements, the denoiser's share
    clean = IMAGES.repeat_interleave(5, 0)
    spread = ((noisy - clean).flatten(1).std(1) / told)[told > 0.02]
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=0.25, rtol=0)
    torch.testing.assert_close(value.double(), (prior.calls[0][2] - clean).square().mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MTDEQ(noise=()), "noise must be standard deviations"),
        (lambda: MTDEQ(backward=1), r"backward must be JacobianFree \| Neumann \| Exact, got 1"),
        (lambda: MTDEQ.single("blur"), "task must be completion or super-resolution, got blur"),
        (lambda: MTDEQ(noise=(30.0,))(Shrinking(), IMAGES, draws()), r"noise must be within .* got 14\.7"),
        (lambda: MTDEQ()(Shrinking(), IMAGES / torch.tensor([1, 0]).view(2, 1, 1, 1), draws()), "image 1 of the"),
        (lambda: Degradations(factors=(2.5,)), r"factors must be tuple\[int, ...\], got"),
    ],
)
def test_bad_input_is_refused_before_anything_is_solved(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_grown_network_is_the_same_function_with_an_output_that_noise_does_not_scale(tmp_path) -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), embedding=8))
    torch.nn.init.normal_(net.tail.weight)
    prior, x = EDMPrecond(net, multiple=8), torch.rand(1, 3, 16, 16)
    larger = EDMPrecond(grown(net, direct=True, heads=2), multiple=8)
    torch.testing.assert_close(larger(x, 0.1), prior(x, 0.1))
    with torch.no_grad():
        larger.net.tail.bias[12:] = 0.2
    torch.testing.assert_close(larger(x, 0.002), prior(x, 0.002) + 0.1)
    save_prior(larger, tmp_path / "direct.safetensors")
    torch.testing.assert_close(load_prior(str(tmp_path / "direct.safetensors"))(x, 0.1), larger(x, 0.1))
