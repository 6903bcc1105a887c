"""What tensors of a published file do not show, and how a user says it."""

import re
from pathlib import Path

import pytest
import torch
from model_files import ddpm_state, read_prior, reference, refused

from workbench.models import VPNoise, save_prior
from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.published_files import continuous_vp

ADM_CASE = "adm_c_head16_multires"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"none of the published ones.*ADM 256x256.*layers of 32, 64 channels.*pass head_channels=64",
        ),
        ({"head_channels": 0}, "cannot be seen: pass head_channels=64"),
        ({"heads": 2, "head_channels": 16}, "pass one of them"),
        ({"head_channels": 64}, "cannot be split into heads of 64 channels"),
        ({"head_channels": "all"}, r"setting head_channels of ADM \(guided-diffusion\) must be int, got 'all'"),
        ({"head_chanels": 64}, r"unknown setting of ADM.*'head_chanels', did you mean 'head_channels'\?"),
    ],
)
def test_heads_are_never_guessed(shared: Path, tmp_path: Path, settings, message: str) -> None:
    state = reference(shared, ADM_CASE)[0]
    refused(tmp_path / "adm.pt", message, state, **settings)
    if not settings:
        encoder = {name: tensor for name, tensor in state.items() if not name.startswith("output_blocks")}
        refused(tmp_path / "adm.pt", "a classifier, not a denoiser", encoder)
        labels = {"label_emb.weight": torch.zeros(1000, 128)}
        message = r"class-conditional ADM \(1000 classes\); only unconditional"
        refused(tmp_path / "adm.pt", message, state | labels, head_channels=16)


def test_heads_win_over_those_of_a_published_network(tmp_path: Path) -> None:
    """A network in a published size may have been trained with another number of heads."""
    with torch.device("meta"):
        shapes = ADM(ADMConfig(width=128, blocks=1, attention_levels=(4,))).state_dict()
    torch.save({name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "adm.pt")
    config = read_prior(tmp_path / "adm.pt", heads=8).net.config
    assert (config.head_channels, config.heads) == (0, 8)
    assert read_prior(tmp_path / "adm.pt").net.config.head_channels == 64


def test_what_score_sde_does_not_say(shared: Path, tmp_path: Path) -> None:
    state = reference(shared, "ncsnpp_cifar_a")[0]
    for sigmas, message in (
        (torch.linspace(0.01, 50, 10), r"must be 0 < sigma_min <= sigma_max, got 50 and 0\.01"),
        (torch.zeros(10), "must be 0 < sigma_min <= sigma_max, got 0 and 0"),
        (torch.tensor(1.0), r"sigmas: expected 1 dimensions, found shape \(\)"),
    ):
        refused(tmp_path / "levels.pth", message, state | {"sigmas": sigmas})
    del state["sigmas"]
    refused(tmp_path / "a.pth", "does not say its noise levels: pass sigma_min and sigma_max", state)
    assert read_prior(tmp_path / "a.pth", sigma_min=0.01, sigma_max=50.0).sigma_max == 50.0
    del state["all_modules.0.W"]
    flat = {re.sub(r"\d+", lambda m: str(int(m[0]) - 1), name, count=1): tensor for name, tensor in state.items()}
    flat["all_modules.0.weight"] = torch.zeros(64, 16)
    refused(tmp_path / "b.pth", r"variance preserving and variance exploding.*pass sde='vp'", flat)
    assert isinstance(read_prior(tmp_path / "b.pth", sde="vp"), VPNoise)


def test_continuous_vp_levels() -> None:
    """DDPM++ at label 999 t expects abar(t) of the continuous process, not the product of 1000 discrete betas."""
    alphas, times = continuous_vp()
    t = times / 999
    slope = torch.gradient(alphas.log(), spacing=(t,))[0]
    torch.testing.assert_close(slope[1:-1], -(0.1 + t * 19.9)[1:-1], rtol=1e-3, atol=0)  # d log abar / dt = -beta(t)
    assert float(alphas[-1]) == pytest.approx(4.3e-5, rel=0.02)  # exp(-10.05)


def test_a_published_file_becomes_one_of_this_package(shared: Path, tmp_path: Path) -> None:
    torch.save(reference(shared, ADM_CASE)[0], tmp_path / "adm.pt")
    score_sde = shared / "reference" / "models" / "ckpt_layout_score_sde_tiny.pth"
    for prior in (read_prior(score_sde), read_prior(tmp_path / "adm.pt", heads=2)):
        save_prior(prior, tmp_path / "own.safetensors", card={"data": "unknown"})
        again = read_prior(tmp_path / "own.safetensors")
        x, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.03, 1.0])
        assert torch.equal(again(x, sigma), prior(x, sigma))
        assert again.data_range == prior.data_range


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": -1}, "no network has this configuration: Trying to create tensor with negative dimension"),
        ({"step": "round"}, "step must be one of interpolate, nearest, got 'round'"),
        ({"alphas_cumprod": [0.9, -0.1]}, r"alphas_cumprod must be between 0 and 1, got 0\.9 to -0\.1"),
        ({"content": 3}, r"unknown setting of .*'content'"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, settings, message: str) -> None:
    refused(tmp_path / "mine.pth", message, ddpm_state(), **settings)
    # A schedule may be a list, as the command line has it.
    assert read_prior(tmp_path / "mine.pth", alphas_cumprod=[0.9, 0.5]).sigma_max == pytest.approx(0.5)
