"""UD2M's training: gradients, what is trained and stored, exact resume, the discriminator's losses and its collapse."""

import copy
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn

from tests.trainers.small_run import Counting, small_prior
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
    start_from,
)
from workbench.models.formats import KNOWN
from workbench.models.lora import low_rank, put_in
from workbench.models.unfolded import smoothed
from workbench.operators import JPEG, Blur, Compose, Identity, Inpainting, Operator, block_mask, gaussian_kernel
from workbench.operators.least_squares import smooth_estimate
from workbench.random import Draws, generator
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


def test_low_rank_layers_have_the_numbers_of_table_8_and_start_as_nothing() -> None:
    with torch.device("meta"):
        adm, ddpm = ADM(ADMConfig()), DDPM(KNOWN[3].config)
    assert sum(p.numel() for p in adm.parameters()) == 552_814_086
    assert sum(p.numel() for p in ddpm.parameters()) == 113_673_219
    for base, rank, count in ((adm, 2, 165_888), (ddpm, 5, 122_880)):
        net = copy.deepcopy(base)
        LoRA(rank).inject(net)
        assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count
    x = torch.rand(1, 3, 16, 16, generator=generator(0))
    torch.testing.assert_close(network().prior(x, 0.3), tiny().eval()(x, 0.3), atol=1e-6, rtol=0)


def losses(net: Unfolded, objective: UD2M, images: Tensor) -> tuple[dict, Tensor]:
    """The modules, and the generator's loss."""
    torch.manual_seed(3)
    modules = {"generator": net, "discriminator": Discriminator(3, 4).to(images.dtype)}
    return modules, objective.generator_loss(modules, Batch(images, []), Draws(generator(5)), Context(0, {}))[0]


BLUR = Blur(gaussian_kernel(1.0))


@pytest.mark.parametrize("op", [Inpainting(block_mask((16, 16), 6)), Compose(JPEG(20), BLUR)])
def test_training_starts_where_the_solver_does(op: Operator) -> None:
    """What the data show is the smooth estimate, with the noise of each image; of a photo behind JPEG the picture
    itself, smoothed: to undo the blur exactly would leave its noise alone."""
    objective = UD2M(OneOperator(op), **PLAIN, noise=(0.01, 0.2))
    images = torch.rand(2, 3, 16, 16, generator=generator(1)).double()
    _, _, seen = objective.draw(network().double(), images, Draws(generator(5)))
    draws = Draws(generator(5))
    sigma = 0.01 + 0.19 * draws.uniform(2)
    y = op(images)
    y = y + sigma.view(2, 1, 1, 1) * draws.normal(*y.shape)
    wanted = smooth_estimate(op, y, sigma, torch.zeros_like(y)) if op.linear else smoothed(y)
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["super-resolution", "box", "jpeg"])
def test_gradients_are_finite_differences(family: str) -> None:
    """...of the squared and the adversarial loss, through proximal steps and both modules.

    JPEG's are those of a straight-through stand-in: only that they arrive is checked.
    """
    objective = UD2M(FAMILIES[family](), **PLAIN, squared=3.0, adversarial=0.1)
    net, images = network().double(), torch.rand(2, 3, 16, 16, generator=generator(1)).double()
    g = generator(2)
    for parameter in low_rank(net.net).values():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=g).double()
    losses(net, objective, images)[1].backward()
    parameters = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    direction = [torch.randn(p.shape, generator=g).double() for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    assert slope != 0
    if family == "jpeg":
        return
    values, h = [], 1e-5
    for move in (h, -2 * h):
        for p, d in zip(parameters, direction, strict=True):
            p.data += move * d
        with torch.no_grad():
            values.append(float(losses(net, objective, images)[1]))
    assert slope == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_only_the_adapter_is_trained_and_stored(photos, tmp_path) -> None:
    before, settings = network(), TrainSettings(steps=2, **SETTINGS)
    frozen = {name: p.clone() for name, p in before.named_parameters() if not p.requires_grad}
    task = UD2M(FAMILIES["super-resolution"](), **PLAIN).task(before, settings)
    found, progress = train_task(task, photos, settings, tmp_path / "run", progress_bar=False)
    trained = found["generator"]
    assert progress.step == 2
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["modules"]["generator"].keys() == {n for n, p in before.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, frozen[n]) for n, p in before.named_parameters() if n in frozen)
    values = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"generator/squared", "generator/fooling", "discriminator/certainty"} <= values.keys()

    base, file, x = tmp_path / "base.safetensors", tmp_path / "a.safetensors", torch.rand(1, 3, 16, 16)
    save_prior(tiny().eval(), base)
    save_adapter(trained, file, base=str(base), card={"title": "x"})
    assert file.stat().st_size < base.stat().st_size
    loaded = load_prior(file)
    assert (loaded.kind, loaded.unfolding, loaded.card) == ("unfolded", Unfolding(2, 0.2, None, 0.5), {"title": "x"})
    torch.testing.assert_close(loaded(x, 0.2), trained(x, 0.2), atol=2e-3, rtol=0)  # stored as float16
    narrow = network(layers="attention", seed=0)
    save_adapter(narrow, tmp_path / "narrow.safetensors", base=str(base))
    put_in(loaded, load_file(tmp_path / "narrow.safetensors"), LoRA(2, "attention"))
    for name, weight in load_prior(tmp_path / "narrow.safetensors").net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], weight), name  # nothing is left of the wider adapter
    deeper = network(depth=3)
    start_from(deeper, file)
    torch.testing.assert_close(
        deeper.denoise(x, torch.tensor([0.2])), trained.denoise(x, torch.tensor([0.2])), atol=2e-3, rtol=0
    )
    for other, message in ((network(seed=1), "expected an adapter of the base"), (network(rank=3), "expected shape")):
        with pytest.raises(ValueError, match=message):
            start_from(other, file)
    whole = network(rank=0)
    for parameter in whole.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator(4))
    save_adapter(whole, tmp_path / "whole.safetensors", base=str(base))
    again = load_prior(tmp_path / "whole.safetensors")
    torch.testing.assert_close(again(x, 0.2), whole(x, 0.2), atol=2e-3, rtol=0)  # stored as int8 differences

    save_prior(tiny(1).eval(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"it adapts .*base.safetensors with the weights"):
        load_prior(file, base=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="unknown setting 'rank'"):
        load_prior(file, rank=3)
    with pytest.raises(ValueError, match="the card must be JSON"):
        save_adapter(trained, file, base=str(base), card={"x": x})
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["workbench"])
    for change, message in (
        ({"unfolding": {"foo": 1}}, "unexpected keyword argument 'foo'"),
        ({"base": {}}, "expected base as the name of a prior"),
        ({"lora": {"rank": 3}}, "attention.* expected shape|missing"),
    ):
        metadata = {"workbench": json.dumps(header | change)}
        save_file(load_file(file), tmp_path / "odd.safetensors", metadata=metadata)
        with pytest.raises(ValueError, match=message):
            load_prior(tmp_path / "odd.safetensors")


def test_the_discriminators_losses_are_eq_12_and_13_and_its_collapse_stops_the_run() -> None:
    real, fake = torch.randn(2, 5, generator=generator(0))
    wanted = torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean()
    torch.testing.assert_close(adversarial(real, fake), wanted)
    x = torch.rand(2, 3, 4, 4)
    penalty = gradient_penalty(lambda x, seen: (3 * x + seen).flatten(1).sum(1), x, x, x, torch.rand(2))
    assert float(penalty) == pytest.approx(9 * 48)  # the square of the gradient, summed over 48 numbers
    # Errata 16: eq. (9) maximises L_adv + w L_GS, which would make it steeper; here it is subtracted.
    objective, images = UD2M(OneOperator(Identity()), **PLAIN, penalty=1.0), torch.rand(4, 3, 16, 16)
    modules, slopes = losses(network().requires_grad_(False), objective, images)[0], []
    stepper = torch.optim.SGD(modules["discriminator"].parameters(), lr=0.3)
    for _ in range(5):
        loss, values = objective.discriminator_loss(modules, Batch(images, []), Draws(generator(5)))
        slopes.append(float(values["slope"]))
        stepper.zero_grad()
        (loss - values["certainty"]).backward()  # the penalty alone
        stepper.step()
    assert all(after < before for before, after in pairwise(slopes))
    watch = CollapseWatch(patience=3, certain=0.02)
    for step, certainty in enumerate((0.01, 0.01, 2 * math.log(2), 0.01, 0.01)):
        for _ in range(2):  # batches of a step: what is counted is steps
            watch.see(certainty, step)
    with pytest.raises(FloatingPointError, match=r"certain .*for 3 steps.*Raise the gradient penalty"):
        watch.see(0.0, 5)


class Silent(Identity):
    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        return super().prox(z, y, weight).detach()


SILENT = UD2M(OneOperator(Silent()), **PLAIN, adversarial=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UD2M(squared=0.0, adversarial=0.0, distance="none"), "must be not all 0"),
        (lambda: LoRA().inject(nn.Sequential(nn.Conv2d(1, 1, 1))), "network must be one with attention layers"),
        (lambda: UD2M(**PLAIN).task(small_prior(), TrainSettings(steps=1)), "UD2M needs an unfolded network"),
        (lambda: UD2M(**PLAIN).task(load_prior("photo-ud2m"), TrainSettings(steps=1)), "in its weights, as files are"),
        (lambda: save_adapter(network(), "x.safetensors", base="photo"), "other weights than those of photo"),
        (lambda: losses(network(), SILENT, torch.rand(1, 3, 16, 16)), "the prox of Silent carries no gradient"),
    ],
)
def test_what_does_not_fit_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_processes_share_the_gradients_of_both_networks() -> None:
    objective, images = UD2M(OneOperator(Identity()), **PLAIN), torch.rand(2, 3, 16, 16)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = {name: Counting(module) for name, module in losses(network(), objective, images)[0].items()}
        for loss in (objective.generator_loss, objective.discriminator_loss):
            Counting.shared = 0
            options = (Context(0, {}),) if loss == objective.generator_loss else ()
            loss(wrapped, Batch(images, []), Draws(generator(5)), *options)[0].backward()
            assert Counting.shared == (2 if options else 1)  # the generator's loss goes through the discriminator
    finally:
        distributed.destroy_process_group()


def test_a_stopped_run_goes_on_to_the_same_weights(photos, tmp_path) -> None:
    def run(folder: str, seconds: float | None) -> list[Tensor]:
        """Parameters of both modules, and of their averages."""
        settings = TrainSettings(steps=3, **SETTINGS)
        task = UD2M(FAMILIES["universal"](), **PLAIN).task(network(), settings)
        averages, _ = train_task(task, photos, settings, tmp_path / folder, max_seconds=seconds, progress_bar=False)
        return [p for module in (*task.modules.values(), *averages.values()) for p in module.parameters()]

    whole = run("whole", None)
    for _ in range(3):
        sliced = run("sliced", 0.0)
    assert all(torch.equal(a, b) for a, b in zip(whole, sliced, strict=True))
