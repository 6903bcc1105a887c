"""ADM, the DDPM U-Net and DRUNet: the published code's outputs, and every tensor of the published files."""

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from model_files import read_prior, reference
from safetensors.torch import save_file

from tests.conftest import program
from workbench.models import VPNoise
from workbench.models.formats import FAMILIES, family_of, published_config
from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.score_sde import published_names

HEADS = {"adm_a_head64": 64, "adm_b_head32_multires": 32, "adm_c_head16_multires": 16}
CASES = [*HEADS, "ddpm_a", "ddpm_b", "drunet_a", "drunet_b", "ncsnpp_cifar_a", "ncsnpp_cifar_b", "ncsnpp_bedroom_a"]
MANIFESTS = {
    "adm_256x256_diffusion_uncond": 256,
    "adm_diffusion_ffhq_10m": 256,
    "adm_lsun_bedroom": 256,
    "ddpm_cifar10": 32,
    "ddpm_lsun_bedroom_256": 256,
    "drunet_color": None,
    "drunet_gray": None,
    "score_sde_bedroom_ncsnpp_continuous": 256,
    "score_sde_church_ncsnpp_continuous": 256,
    "score_sde_cifar10_ddpmpp_continuous_vp": 32,
    "score_sde_cifar10_ncsnpp_continuous": 32,
}

# A floor is the published code against itself with another convolution backend, on one processor: how far single
# precision lies from the exact result. The stored output and this one are each about a floor away from that: on an AMD
# EPYC, where the two backends differ by up to 2.1 floors, up to 1.96 with oneDNN and 1.47 without.
FLOORS = 2.0


def plain_convolutions() -> AbstractContextManager[None]:
    """Convolutions without oneDNN, whose kernels differ most between processors and thread counts."""
    return torch.backends.mkldnn.flags(enabled=False)


def case(shared: Path, name: str, folder: Path) -> tuple[Path, dict, dict[str, torch.Tensor], dict]:
    """The case's weights as the published file would hold them, its description, inputs and outputs, and settings."""
    state, tensors, description = reference(shared, name)
    torch.save(state, folder / f"{name}.pt")
    return folder / f"{name}.pt", description, tensors, {"head_channels": HEADS[name]} if name in HEADS else {}


@pytest.mark.parametrize("name", [*CASES, "ddpmpp_vp_a"])
def test_a_published_file_is_recognised_and_computes_what_the_published_code_does(
    shared: Path, tmp_path: Path, name: str
) -> None:
    """So does what the benchmark compares it with."""
    file, description, tensors, settings = case(shared, name, tmp_path)
    prior, score_sde = read_prior(file, **settings), name.startswith("ncsnpp")
    told, scale = tensors["sigma_or_t"], tensors["sigma_or_t"].view(-1, 1, 1, 1) if score_sde else 1
    x, limit = (
        2 * tensors["input"] - 1 if score_sde else tensors["input"],
        FLOORS * description["max_abs_diff_mkldnn_off"],
    )
    with torch.no_grad(), plain_convolutions():
        assert (prior.net(x, told) / scale - tensors["output"]).abs().max() <= limit
        networks = program("benchmarks", "plain_networks")
        plain = getattr(networks, "adm" if name in HEADS else name.partition("_")[0], None)
        if plain is not None and "bedroom" not in name:
            state = {key: value.float() for key, value in torch.load(file, weights_only=True).items()}
            output = plain(state, x, told, *settings.values())
            assert (output / scale - tensors["output"]).abs().max() <= limit


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_published_tensor_is_used_once_and_the_configuration_is_known(shared: Path, name: str) -> None:
    manifest = json.loads((shared / "reference" / "manifests" / f"{name}.json").read_text())
    state = {entry["name"]: torch.empty(entry["shape"], device="meta") for entry in manifest["state_dict"]}
    family = family_of(state)
    assert family is not None
    config = family.configure(state)
    with torch.device("meta"):
        net = family.network(config)
    names = {ours: theirs for theirs, ours in published_names(net)} if family is FAMILIES["ncsnpp"] else {}
    ours = {names.get(key, key): value for key, value in net.state_dict().items()}
    assert set(ours) == set(state)
    for key, tensor in ours.items():
        transposed = key.endswith(".W") and tensor.ndim == 2  # a published NIN layer is (in, out)
        assert (tensor.T if transposed else tensor).shape == state[key].shape, key
    assert sum(weights.numel() for weights in net.parameters()) == manifest["n_parameters_requires_grad"]
    known = published_config(family, config)
    assert MANIFESTS[name] == (known and known.image_size)
    if known is not None and name.startswith("adm"):
        assert known.config.head_channels == manifest["create_model_args"]["num_head_channels"]


@pytest.mark.parametrize(
    "config",
    [
        ADMConfig(
            width=32, multipliers=(1, 2), blocks=2, attention_levels=(), head_channels=32, learned_variance=False
        ),
        ADMConfig(
            width=32,
            multipliers=(1, 2, 2),
            attention_levels=(2,),
            head_channels=16,
            scale_shift=False,
            resample_in_blocks=False,
        ),
        ADMConfig(channels=1, width=64, multipliers=(1,), blocks=1, attention_levels=(0,), head_channels=32),
        DDPMConfig(channels=1, width=32, multipliers=(1, 1, 2), blocks=3, attention_levels=(0, 2)),
        DDPMConfig(width=32, multipliers=(2, 1), blocks=1, attention_levels=(), convolve_resampling=False, outputs=6),
    ],
    ids=lambda config: f"{type(config).__name__}-{config.multipliers}-{config.channels}",
)
def test_any_configuration_is_told_from_its_tensors(config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = (ADM if isinstance(config, ADMConfig) else DDPM)(config).eval()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    settings = {"head_channels": config.head_channels} if isinstance(config, ADMConfig) else {}
    prior = read_prior(tmp_path / "mine.safetensors", **settings)
    assert isinstance(prior, VPNoise)
    x, time = torch.randn(1, config.channels, 8, 8), torch.tensor([30.0])
    torch.testing.assert_close(prior.net(x, time), net(x, time))


@pytest.mark.parametrize("name", ["adm_a_head64", "drunet_a"])
def test_bfloat16_and_channels_last_stay_close(shared: Path, tmp_path: Path, name: str) -> None:
    file, _, tensors, settings = case(shared, name, tmp_path)
    x, sigma = (
        torch.rand(tensors["input"].shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.05, 0.15]),
    )
    exact = read_prior(file, **settings)(x, sigma)
    correction = (exact - x).abs().amax((1, 2, 3))
    last = read_prior(file, channels_last=True, **settings)
    kernels = [weights for weights in last.parameters() if weights.ndim == 4]
    assert all(weights.is_contiguous(memory_format=torch.channels_last) for weights in kernels)
    assert ((last(x, sigma) - exact).abs().amax((1, 2, 3)) < 1e-4 * correction).all()
    if name == "drunet_a":  # it is told the level, up to 50/255
        assert (last(x, 0.1) - last(x, 0.19)).abs().max() > 1e-3
        with pytest.raises(ValueError, match=r"knows noise up to sigma = 0\.196"):
            last(x, 0.3)
    half = read_prior(file, dtype=torch.bfloat16, **settings)
    assert {weights.dtype for weights in half.parameters()} == {torch.bfloat16}
    restored = half(x, sigma)
    assert restored.dtype == torch.float32
    # 8 significant bits, through some 20 layers: measured 1 to 3 % of what the network changes.
    assert ((restored - exact).abs().amax((1, 2, 3)) < 0.06 * correction).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_loading_needs_hardly_more_memory_than_the_weights(tmp_path: Path) -> None:
    """A network of 64 MB: the bar is 1.3 times its size, of which 1.0 are the weights themselves."""
    script = program("benchmarks", "load_memory")
    for name, (file, bar) in script.write_files(tmp_path, 64).items():
        if name in ("safetensors", "PyTorch, with averages and optimiser"):
            assert script.peak(file) < bar, name
