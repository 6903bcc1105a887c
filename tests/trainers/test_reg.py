"""PnP-ReG's joint training: the published steps, what is learned when, and the result in its solver."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import silu

from tests.solvers.published_cases import Case
from tests.trainers.small_run import small_prior
from workbench.data import Photos
from workbench.models import ConsistencyModel, VEScore, VPNoise, load_prior, save_prior
from workbench.operators import Identity
from workbench.solvers import HQS, PnPReG
from workbench.trainers import ReG, TrainSettings, train_task

OWN = """
import torch
from workbench.models import PlainDenoiser

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, sigma):
        return 0.5 + (x - 0.5) * self.share

def make():
    return PlainDenoiser(Net(), sigma_max=1.0)
"""


class Tiny(nn.Module):
    """``x + conv2(silu(conv1(x)))`` of the stored case."""

    def __init__(self, state: dict, inputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.load_state_dict(state)

    def forward(self, x):
        return x[:, :3] + self.conv2(silu(self.conv1(x)))


def test_the_published_training_steps(shared) -> None:
    case = Case(shared, "pnpreg_train_loss_joint_n4")

    def state(which: str, when: str = "init_params") -> dict:
        prefix = f"{when}/{which}/"
        return {name.removeprefix(prefix): value for name, value in case.tensors.items() if name.startswith(prefix)}

    nets = {"denoiser": Tiny(state("denoiser"), 4), "regulariser": Tiny(state("regulariser"), 3)}
    optimiser = torch.optim.Adam(
        [p for net in nets.values() for p in net.parameters()], case.info["arguments"]["learning_rate"]
    )
    objective, seen = ReG(weight=case.info["arguments"]["lambd"]), []

    def denoise(x, sigma):
        level = sigma.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        seen.append(nets["denoiser"](torch.cat([x, level], 1)))
        return seen[-1]

    for step, (images, noisy, told) in enumerate(zip(case["images"], case["noisy"], case["sigma_told"], strict=True)):
        supervised = bool(case["schedule/delta"][step])
        assert supervised == (step % 2 == 0)
        loss, _ = objective.terms(denoise, nets["regulariser"], images, noisy, told, supervised)
        torch.testing.assert_close(loss.detach(), case["output_loss"][step], atol=case.atol, rtol=0)
        torch.testing.assert_close(seen[-1].detach(), case["states_regulariser_input"][step], atol=1e-5, rtol=0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for which, net in nets.items():
        for name, value in state(which, "output_params").items():
            torch.testing.assert_close(net.state_dict()[name], value, atol=case.atol, rtol=0)


@pytest.mark.parametrize("learn", [True, False])
def test_both_networks_learn_unless_the_denoiser_is_to_stay(learn, tmp_path) -> None:
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8))
    settings = TrainSettings(steps=4, warmup=0, log_every=1, save_every=4, workers=0)
    prior, photos = small_prior(), Photos(tmp_path / "photos.npy", size=8, batch_size=2)
    before = [p.detach().clone() for p in prior.parameters()]
    found, progress = train_task(ReG(learn_denoiser=learn).task(prior, settings), photos, settings, tmp_path / "run")
    assert progress.step == 4
    assert set(found) == {"denoiser", "regulariser"}
    moved = [not torch.equal(a, b) for a, b in zip(prior.parameters(), before, strict=True)]
    assert any(moved) == learn
    save_prior(found["regulariser"], tmp_path / "regulariser.safetensors")
    regulariser, given = load_prior(tmp_path / "regulariser.safetensors"), torch.rand(1, 3, 8, 8)
    options = {"y": given, "op": Identity(), "sigma_noise": 0.05}
    found = PnPReG(max_steps=3)(prior=regulariser, **options).image
    asked = PnPReG(max_steps=3, level=0.03)(prior=regulariser, **options).image
    assert torch.equal(found, asked)  # the only level that it knows
    with pytest.raises(ValueError, match=r"knows only 0\.03"):
        HQS()(prior=regulariser, **options)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all("residual" in line for line in log)
    with pytest.raises(ValueError, match="knows noise up to 10, ReG asks up to 20"):
        ReG(level=20.0).task(prior, settings)
    with pytest.raises(ValueError, match="ReG needs a denoiser"):
        ReG().task(ConsistencyModel.start_from(prior), settings)


@pytest.mark.parametrize("kind", ["ve", "vp", "own code"])
def test_a_file_keeps_the_one_level_of_a_regulariser_whatever_network_it_is(kind, tmp_path) -> None:
    """...so that its solver asks it there, and no other takes it for a denoiser of all levels."""
    if kind == "own code":
        (tmp_path / "own.py").write_text(OWN)
        prior, options = load_prior(f"{tmp_path}/own.py:make"), {"trust_code": True}
    else:
        prior, options = {"ve": VEScore, "vp": VPNoise}[kind](small_prior().net, multiple=2), {}
    regulariser = ReG().task(prior, TrainSettings(steps=1)).modules["regulariser"]
    save_prior(regulariser, tmp_path / "regulariser.safetensors")
    loaded = load_prior(tmp_path / "regulariser.safetensors", **options)
    assert (loaded.sigma_min, loaded.sigma_max) == (0.03, 0.03)
