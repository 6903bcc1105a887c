"""UD2M's training: gradients, what is trained and stored, exact resume, the discriminator's losses and its collapse."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainers.small_run import small_prior
from workbench.data import Photos
from workbench.data.photos import Batch
from workbench.models import (
    ADM,
    DDPM,
    ADMConfig,
    EDMPrecond,
    LoRA,
    UNet,
    UNetConfig,
    Unfolded,
    Unfolding,
    load_prior,
    save_adapter,
    save_prior,
)
from workbench.models.formats import KNOWN
from workbench.models.lora import low_rank
from workbench.operators import Identity, Operator
from workbench.random import Draws, generator
from workbench.solvers import UD2M as Sampler
from workbench.trainers import UD2M, Context, TrainSettings, train_task
from workbench.trainers.adversarial import CollapseWatch, Discriminator, adversarial, gradient_penalty
from workbench.trainers.ud2m import FAMILIES, OneOperator

SETTINGS = {"warmup": 0, "schedule": "constant", "log_every": 1, "save_every": 1, "workers": 0}
PLAIN = {"distance": "none", "perceptual": 0.0, "width": 4}


def tiny(seed: int = 0) -> EDMPrecond:
    torch.manual_seed(seed)
    net = UNet(UNetConfig(widths=(8, 8), blocks=(1, 1), heads=2, embedding=8))
    for parameter in net.parameters():  # it starts as the identity, where nothing could be learned by low rank
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return EDMPrecond(net, sigma_max=80.0, multiple=net.multiple)


def network(rank: int = 2, layers: str = "all", depth: int = 2, seed: int = 0) -> Unfolded:
    lora = LoRA(rank, layers) if rank else None
    return Unfolded(tiny(seed).eval(), Unfolding(depth, 0.2, None, 0.5), lora)


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 255, (8, 24, 24, 3), np.uint8))
    return Photos(tmp_path / "photos.npy", size=16, batch_size=2)


def test_low_rank_layers_have_the_numbers_of_table_8(shared) -> None:
    with torch.device("meta"):
        adm, ddpm = ADM(ADMConfig()), DDPM(KNOWN[3].config)
    assert sum(p.numel() for p in adm.parameters()) == 552_814_086
    assert sum(p.numel() for p in ddpm.parameters()) == 113_673_219
    for rank, count in ((2, 165_888), (5, 414_720), (20, 1_658_880)):
        net = copy.deepcopy(adm)
        LoRA(rank).inject(net)
        assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count
    LoRA(5).inject(ddpm)
    assert sum(p.numel() for p in ddpm.parameters() if p.requires_grad) == 122_880


def test_an_adapted_network_starts_as_its_base() -> None:
    x = torch.rand(1, 3, 16, 16, generator=generator(0))
    plain, adapted = tiny().eval(), network()
    torch.testing.assert_close(adapted.prior(x, 0.3), plain(x, 0.3), atol=1e-6, rtol=0)


def squared_loss(net: Unfolded, objective: UD2M, images: Tensor) -> Tensor:
    modules = {"generator": net, "discriminator": judge(net)}
    return objective.generator_loss(modules, Batch(images, []), Draws(generator(5)), Context(0, {}))[0]


def judge(like: nn.Module) -> Discriminator:
    torch.manual_seed(3)
    return Discriminator(3, 4).to(next(like.parameters()).dtype)


@pytest.mark.parametrize("family", ["super-resolution", "inpainting", "box", "jpeg"])
def test_gradients_are_finite_differences(family: str) -> None:
    """...of the squared and the adversarial loss, through proximal steps and both modules, in every family.

    JPEG's are those of a straight-through stand-in: only that they arrive is checked.
    """
    objective = UD2M(FAMILIES[family](), **PLAIN, squared=3.0, adversarial=0.1)
    net, images = network().double(), torch.rand(2, 3, 16, 16, generator=generator(1)).double()
    g = generator(2)
    for parameter in low_rank(net.net).values():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=g).double()
    squared_loss(net, objective, images).backward()
    parameters = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    direction = [torch.randn(p.shape, generator=g).double() for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    assert slope != 0
    if family == "jpeg":
        return
    values, step = [], 1e-5
    for sign in (1, -1):
        for p, d in zip(parameters, direction, strict=True):
            p.data += sign * step * d
        with torch.no_grad():
            values.append(float(squared_loss(net, objective, images)))
        for p, d in zip(parameters, direction, strict=True):
            p.data -= sign * step * d
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_a_prox_without_a_gradient_is_refused() -> None:
    class Silent(Identity):
        def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
            return super().prox(z, y, weight).detach()

    objective = UD2M(OneOperator(Silent()), **PLAIN, adversarial=0.0)
    with pytest.raises(ValueError, match="the prox of Silent carries no gradient"):
        squared_loss(network(), objective, torch.rand(1, 3, 16, 16))


def test_a_nonlinear_prox_has_the_gradient_of_its_minimum() -> None:
    class Curve(Operator):
        linear = False

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(1.5 * x) + 0.3 * x.roll(1, -1)

        def adjoint(self, y: Tensor) -> Tensor:
            return y

    op = Curve(max_iterations=3000)
    z, y = 0.3 * torch.randn(2, 2, 1, 2, 2, generator=generator(0), dtype=torch.float64)
    z, y = z.requires_grad_(), y.requires_grad_()
    weight = torch.tensor([0.4, 0.8]).double().requires_grad_()
    # The descent ends 1e-7 from the minimum, so the differences need a wide step.
    assert torch.autograd.gradcheck(op.prox, (z, y, weight), eps=1e-4, atol=1e-4)


def test_only_the_adapter_is_trained_and_stored(photos, tmp_path) -> None:
    objective = UD2M(FAMILIES["super-resolution"](), **PLAIN)
    before = network()
    frozen = {name: p.clone() for name, p in before.named_parameters() if not p.requires_grad}
    trained, progress = train_task(
        objective.task(before, TrainSettings(steps=2, **SETTINGS)),
        photos,
        TrainSettings(steps=2, **SETTINGS),
        tmp_path / "run",
        progress_bar=False,
    )
    assert progress.step == 2
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["modules"]["generator"].keys() == {n for n, p in before.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, frozen[n]) for n, p in before.named_parameters() if n in frozen)
    values = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"generator/squared", "generator/fooling", "discriminator/certainty"} <= values.keys()

    save_prior(tiny().eval(), tmp_path / "base.safetensors")
    file = tmp_path / "adapter.safetensors"
    save_adapter(trained["generator"], file, base=str(tmp_path / "base.safetensors"), card={"title": "x"})
    assert file.stat().st_size < (tmp_path / "base.safetensors").stat().st_size
    loaded = load_prior(file)
    assert (loaded.kind, loaded.unfolding, loaded.card) == ("unfolded", Unfolding(2, 0.2, None, 0.5), {"title": "x"})
    x = torch.rand(1, 3, 16, 16, generator=generator(0))
    torch.testing.assert_close(loaded(x, 0.2), trained["generator"](x, 0.2), atol=2e-3, rtol=0)  # stored as float16

    whole = network(rank=0)
    for parameter in whole.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator(4))
    save_adapter(whole, file.with_name("whole.safetensors"), base=str(tmp_path / "base.safetensors"))
    again = load_prior(file.with_name("whole.safetensors"))
    torch.testing.assert_close(again(x, 0.2), whole(x, 0.2), atol=2e-3, rtol=0)  # stored as int8 differences

    save_prior(tiny(1).eval(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"it adapts .*base.safetensors with the weights"):
        load_prior(file, base=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="unknown setting 'rank'"):
        load_prior(file, rank=3)


def test_a_stopped_run_goes_on_to_the_same_weights(photos, tmp_path) -> None:
    def run(folder: str, seconds: float | None) -> Unfolded:
        net, settings = network(), TrainSettings(steps=3, **SETTINGS)
        task = UD2M(FAMILIES["universal"](), **PLAIN).task(net, settings)
        train_task(task, photos, settings, tmp_path / folder, max_seconds=seconds, progress_bar=False)
        return net

    whole = run("whole", None)
    for _ in range(3):
        sliced = run("sliced", 0.0)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), sliced.parameters(), strict=True))


def test_the_discriminators_losses_are_eq_12_and_13() -> None:
    real, fake = torch.randn(2, 5, generator=generator(0))
    wanted = torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean()
    torch.testing.assert_close(adversarial(real, fake), wanted)

    class Linear(nn.Module):
        def forward(self, x: Tensor, seen: Tensor) -> Tensor:
            return (3 * x + seen).flatten(1).sum(1)

    x = torch.rand(2, 3, 4, 4)
    penalty = gradient_penalty(Linear(), x, x, x, torch.rand(2))
    assert float(penalty) == pytest.approx(9 * 48)  # the square of the gradient, summed over 48 numbers


def test_the_penalty_makes_the_discriminator_flatter() -> None:
    """Errata 16: eq. (9) maximises L_adv + w L_GS, which would make it steeper; here it is subtracted."""
    objective = UD2M(OneOperator(Identity()), **PLAIN, penalty=1.0)
    net = network().requires_grad_(False)
    modules = {"generator": net, "discriminator": judge(net)}
    batch, slopes = Batch(torch.rand(4, 3, 16, 16, generator=generator(1)), []), []
    stepper = torch.optim.SGD(modules["discriminator"].parameters(), lr=0.3)
    for _ in range(5):
        loss, values = objective.discriminator_loss(modules, batch, Draws(generator(5)))
        slopes.append(float(values["slope"]))
        stepper.zero_grad()
        (loss - values["certainty"]).backward()  # the penalty alone
        stepper.step()
    assert all(after < before for before, after in pairwise(slopes))


def test_a_discriminator_that_is_certain_of_everything_stops_the_run() -> None:
    watch = CollapseWatch(patience=3, certain=0.02)
    for loss in (0.01, 0.01, 2 * math.log(2), 0.01, 0.01):
        watch.see(loss)
    with pytest.raises(FloatingPointError, match=r"certain .*for 3 steps.*Raise the gradient penalty"):
        watch.see(0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(0), "rank must be at least 1"),
        (lambda: LoRA(5, "convolutions"), "layers must be attention or all"),
        (lambda: LoRA().inject(nn.Sequential(nn.Conv2d(1, 1, 1))), "network must be one with attention layers"),
        (lambda: LoRA().inject(network().net), "network must be without low-rank layers"),
        (lambda: UD2M(noise=(0.1, 0.05)), "noise must be two levels that rise"),
        (lambda: UD2M(distance="effnet2"), "distance must be one of lpips, effnet, none"),
        (lambda: UD2M(**PLAIN).task(small_prior(), TrainSettings(steps=1)), "UD2M needs an unfolded network"),
        (lambda: save_adapter(network(), "x.safetensors", base="photo"), "other weights than those of photo"),
    ],
)
def test_what_does_not_fit_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_sampler_takes_what_was_trained_at_another_noise_and_operator() -> None:
    x = torch.rand(2, 3, 16, 16, generator=generator(0))
    found = Sampler(steps=2)(x, Identity(), network(), sigma_noise=torch.tensor([0.01, 0.3]), generator=generator(1))
    assert found.image.isfinite().all()
    assert found.evaluations.tolist() == [4, 4]
