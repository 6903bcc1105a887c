"""The MUPET objective: the published training step, gradients by finite differences, options, bad input."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.solvers.published_cases import Case
from tests.solvers.solver_problems import FunctionPrior
from workbench.models import Prior
from workbench.operators import Blur
from workbench.random import Draws
from workbench.solvers import Exact, MapByAdam, MapByProx, Neumann
from workbench.solvers.fixed_point.map import gradient_step, prox_step
from workbench.trainers import MUPET, Degradations
from workbench.trainers.mupet import LEVELS


class Shrinking(Prior):
    """D(x) = 1/2 + gain(sigma) (a (x - 1/2) + b (mean of the four neighbours - 1/2)): two parameters, contractive."""

    def __init__(self) -> None:
        super().__init__(sigma_min=0.01, sigma_max=5.0, channels=3)
        self.a = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        c = x - 0.5
        around = (c.roll(1, -1) + c.roll(-1, -1) + c.roll(1, -2) + c.roll(-1, -2)) / 4
        return 0.5 + (self.a * c + self.b * around) / (1 + sigma.view(-1, 1, 1, 1) ** 2)


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def published(case: Case) -> MUPET:
    info = case.info
    rule = MapByAdam(info["stepsize"], info["convmarg"] / info["sigma"], info["maxit"], whole_batch=True)
    return MUPET(fixed_point=rule, step_size=info["bpstepsize"])


@pytest.mark.parametrize("name", ["blur", "inpaint"])
def test_published_training_step(shared, name: str) -> None:
    """mupet_train_step_*: both losses and the gradient of every weight."""
    case = Case(shared, f"mupet_train_step_{name}")
    weights = {name: value.requires_grad_() for name, value in case.tensors.items() if name.startswith("net/")}
    prior, images = case.ve_prior(), case["x_orig"]
    noises = iter(case[f"noise_{which}"] for which in ("dsm", "y", "init"))
    loss, values = published(case).terms(
        prior, images, case.operator(), torch.full((2,), case.info["sigma"]), lambda *shape: next(noises)
    )
    loss.backward()
    torch.testing.assert_close(values["dsm"].double(), case["dsm_loss"], atol=case.atol, rtol=0)
    torch.testing.assert_close(values["map"].double(), case["deq_loss_alone"], atol=case.atol, rtol=0)
    assert float(values["evaluations"]) == case.info["returned_iterations"]
    assert float(values["converged"]) == case.info["returned_converged"]
    for name, weight in weights.items():
        torch.testing.assert_close(weight.grad, case[name.replace("net/", "grad/")], atol=case.atol, rtol=0)


def problem() -> tuple[Shrinking, Tensor, Tensor, MUPET]:
    prior = Shrinking()
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64)
    exact = MapByProx(tolerance=1e-12, max_steps=200)
    return prior, images, sigma, MUPET(alpha=0.7, fixed_point=exact)


def blur() -> Blur:
    return Blur(torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64))


def noises():
    generator = torch.Generator().manual_seed(2)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def slope(prior: Shrinking, name: str, value) -> float:
    """Central difference of ``value()`` in a parameter; the truncation error is of order 1e-10."""
    weight, h = getattr(prior, name), 1e-5
    with torch.no_grad():
        weight += h
        above = float(value())
        weight -= 2 * h
        below = float(value())
        weight += h
    return (above - below) / (2 * h)


@pytest.mark.parametrize(("which", "loss"), [("gradient", "squared"), ("prox", "absolute")])
def test_jacobian_free_gradient_by_finite_differences(which: str, loss: str) -> None:
    """Eq. (9) with the fixed point held, one application of the map with a graph (eq. 10, minus: errata 10)."""
    prior, images, sigma, objective = problem()
    objective = replace(objective, map=which, loss=loss)
    total, _ = objective.terms(prior, images, blur(), sigma, noises())
    gradients = torch.autograd.grad(total, [prior.a, prior.b])

    normal, level = noises(), sigma.view(-1, 1, 1, 1)
    noise = normal(*images.shape)
    y = blur()(images) + level * normal(*images.shape)
    held = objective.fixed_point(y, blur(), prior, sigma_noise=sigma).image
    op, everyone = blur(), torch.arange(3)

    def value() -> Tensor:
        dsm = ((prior(images + level * noise, sigma) - images) / level).square().mean()
        step = gradient_step(prior, op, y, sigma, 0.05) if which == "gradient" else prox_step(prior, op, y, sigma)
        error = (step(held, everyone) - images) / level
        return dsm + 0.7 * (error.square() if loss == "squared" else error.abs()).mean()

    for name, gradient in zip("ab", gradients, strict=True):
        assert float(gradient) == pytest.approx(slope(prior, name, value), rel=1e-7)


@pytest.mark.parametrize(("which", "backward"), [("gradient", Exact(tolerance=1e-10)), ("prox", Neumann(400))])
def test_exact_gradient_by_finite_differences(which: str, backward) -> None:
    """The fixed point solved again for every parameter value: eq. (4), whatever the map."""
    prior, images, sigma, objective = problem()
    objective = replace(objective, map=which, backward=backward)

    def value() -> Tensor:
        return objective.terms(prior, images, blur(), sigma, noises())[0]

    gradients = torch.autograd.grad(value(), [prior.a, prior.b])
    for name, gradient in zip("ab", gradients, strict=True):
        assert float(gradient) == pytest.approx(slope(prior, name, value), rel=1e-6)


def test_alpha_zero_is_score_matching_with_the_same_numbers() -> None:
    prior, images = Shrinking(), torch.rand(4, 3, 8, 8)
    full, values = MUPET()(prior, images, draws())
    control, alone = MUPET(alpha=0.0)(prior, images, draws())
    assert control.item() == values["dsm"].item() == alone["dsm"].item()
    assert full.item() == pytest.approx((values["dsm"] + values["map"]).item())


def test_published_levels() -> None:
    """Eq. (11): r uniform, sigma = (sigma_max - sigma_min + 1)^r - 1 + sigma_min; median 6.14 for 0.01 to 50."""
    prior = FunctionPrior(lambda x, s: x, sigma_min=0.01, sigma_max=50.0)
    levels = MUPET().noise_levels(prior, 20_000, draws())
    assert 0.01 <= float(levels.min()) < 0.02
    assert 49.5 < float(levels.max()) <= 50
    # The share of r below 1/2 has standard deviation 0.0035.
    assert float((levels < 50.99**0.5 - 0.99).float().mean()) == pytest.approx(0.5, abs=0.014)
    uniform = MUPET(levels="log-uniform", sigma_max=1.0).noise_levels(prior, 20_000, draws())
    assert float((uniform < 0.1).float().mean()) == pytest.approx(0.5, abs=0.014)
    batch = MUPET(degradations=Degradations(per="batch")).noise_levels(prior, 7, draws())
    assert len(set(batch.tolist())) == 1
    low = FunctionPrior(lambda x, s: x, sigma_min=0.0, sigma_max=0.2)  # as DRUNet: nothing can be learnt at 0
    for name in LEVELS:
        assert 1e-3 <= float(MUPET(levels=name).noise_levels(low, 2000, draws()).min()) < 3e-3


def test_perceptual_loss_pulls_on_the_network() -> None:
    prior, images = Shrinking().float(), torch.rand(2, 3, 32, 32)
    loss, values = MUPET(loss="effnet", map="prox", sigma_max=0.5)(prior, images, draws())
    both = torch.autograd.grad(loss, prior.a, retain_graph=True)[0]
    alone = torch.autograd.grad(values["dsm"], prior.a)[0]
    assert values["map"].item() > 0
    assert float((both - alone).abs()) > 0


GREY, LOW = torch.rand(2, 1, 8, 8), FunctionPrior(lambda x, s: x, sigma_min=0.0, sigma_max=50.0)
NAN = torch.stack([torch.rand(3, 8, 8), torch.full((3, 8, 8), torch.nan)])


def ask(images: Tensor, **options) -> Tensor:
    return MUPET(**options)(Shrinking().float(), images, draws())[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ask(NAN), "image 1 of the batch has NaN"),
        (lambda: ask(GREY), "takes colour images"),
        (lambda: ask(NAN[:1], sigma_max=50.0), r"within the prior's range \[0.01, 5\], got .* 50"),
        (lambda: MUPET(sigma_min=0.0).noise_levels(LOW, 4, draws()), "must be above 0, .* got sigma_min 0 and"),
        (lambda: ask(torch.rand(2, 3, 32, 32), loss="lpips"), "unavailable: place alexnet"),
    ],
)
def test_wrong_options_batches_and_levels(make, message: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        make()


def test_several_processes_take_the_jacobian_free_gradient_only(tmp_path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Shrinking().float())
        with pytest.raises(ValueError, match=r"Jacobian-free gradient only, got Neumann\(terms=5\)"):
            MUPET(backward=Neumann())(wrapped, torch.rand(2, 3, 8, 8), draws())
        loss, _ = MUPET()(wrapped, torch.rand(2, 3, 8, 8), draws())
        assert bool(loss.isfinite())
    finally:
        torch.distributed.destroy_process_group()
