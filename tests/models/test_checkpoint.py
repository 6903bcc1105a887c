"""Checkpoints come back as they were saved; broken ones are named; shipped ones can be used at once."""

import json
from pathlib import Path

import pytest
import torch
from model_files import refused
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from workbench.models import (
    EDMPrecond,
    LoRA,
    NCSNpp,
    NCSNppConfig,
    PlainDenoiser,
    Prior,
    UNet,
    UNetConfig,
    VEScore,
    VPNoise,
    available_priors,
    load_prior,
    save_prior,
)


def network() -> NCSNpp:
    torch.manual_seed(0)
    net = NCSNpp(NCSNppConfig(width=8, multipliers=(1, 2), blocks=1, attention_levels=(1,), sigmas=10))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


ALPHAS = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_prior(EDMPrecond(network(), sigma_max=20.0, multiple=2), path, card={"steps": 7})
    return path


@pytest.mark.parametrize(
    "prior",
    [
        EDMPrecond(network(), sigma_max=20.0, sigma_data=0.4, multiple=2, image_size=8),
        VEScore(network(), sigma_max=378.0, scale_by_sigma=False, multiple=2),
        VPNoise(network(), alphas_cumprod=ALPHAS, multiple=2),
        VPNoise(network(), alphas_cumprod=ALPHAS, times=ALPHAS * 7, prediction="velocity", step="nearest", multiple=2),
        EDMPrecond(UNet(UNetConfig(widths=(8, 12), blocks=(1, 1), heads=2)), multiple=4),
        PlainDenoiser(network(), multiple=2, data_range=(-1, 1)),  # without a largest level
    ],
)
def test_round_trip(prior: Prior, tmp_path: Path) -> None:
    save_prior(prior, tmp_path / "mine.safetensors", card={"data": "none"})
    loaded = load_prior(tmp_path / "mine.safetensors")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded(x, torch.tensor([0.1, 2.0])), prior(x, torch.tensor([0.1, 2.0])))
    for name in ("sigma_min", "sigma_max", "multiple", "image_size", "data_range"):
        assert getattr(loaded, name) == getattr(prior, name)
    assert loaded.net.config == prior.net.config
    assert (loaded.card, loaded.name, loaded.training) == ({"data": "none"}, "mine", False)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    save_prior(prior, tmp_path / "half.safetensors", dtype=torch.float16)
    half = load_prior(tmp_path / "half.safetensors")
    assert next(half.parameters()).dtype == torch.float32
    # float16 has 11 significant bits: 5e-4 per weight, a few times that through the network.
    torch.testing.assert_close(half(x, 0.2), prior(x, 0.2), rtol=0, atol=5e-3)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("mine", "half")]
    assert sizes[1] < 0.65 * sizes[0]


def test_a_loaded_prior_can_be_trained_and_its_file_stays_as_it_is(saved: Path) -> None:
    """Weights are mapped from the file; changing them must not write into it."""
    before = saved.read_bytes()
    prior = load_prior(saved).requires_grad_(True)
    optimiser = torch.optim.SGD(prior.parameters(), lr=0.1)
    x = torch.rand(1, 3, 8, 8)
    start = prior(x, 0.3).detach()
    (prior(x, 0.3) - x).pow(2).mean().backward()
    optimiser.step()
    assert not torch.equal(prior(x, 0.3), start)
    assert saved.read_bytes() == before
    assert torch.equal(load_prior(saved)(x, 0.3), start)


def rewrite(path: Path, change) -> None:
    """``change(tensors, header)``, the header itself where it returns one."""
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    tensors, header = load_file(path), json.loads(metadata["workbench"])
    text = change(tensors, header)
    save_file(tensors, path, metadata={"workbench": text if isinstance(text, str) else json.dumps(header)})


def test_weights_that_share_memory_and_a_first_byte_that_is_that_of_a_pickle(saved: Path) -> None:
    """A safetensors file starts with the length of its header, of which 1 in 256 is 0x80 modulo 256."""
    net = network()
    numbers = torch.randn(max(tensor.numel() for tensor in net.state_dict().values()))
    shared = {n: numbers.to(t.dtype)[: t.numel()].view(t.shape) for n, t in net.state_dict().items()}
    net.load_state_dict(shared, assign=True)
    for padding in range(0, 256, 8):  # headers are filled up to multiples of 8
        save_prior(EDMPrecond(net, multiple=2), saved, card={"padding": "x" * padding})
        if saved.read_bytes()[0] == 0x80:
            break
    assert saved.read_bytes()[0] == 0x80
    for name, tensor in load_prior(saved).net.state_dict().items():
        torch.testing.assert_close(tensor, shared[name])


def test_what_is_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    refused(saved, r"mine\.safetensors \(\d+ bytes\) is not a whole safetensors file")
    saved.write_text("hello")
    refused(saved, "not a whole safetensors file")
    save_file({"a": torch.zeros(2)}, saved, metadata={"format": "pt"})
    refused(saved, r"unknown layout: 1 tensors such as a\. Known are ADM")
    saved.unlink()
    refused(saved, "no such file")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, r"no model there: expected model\.safetensors.*found notes\.txt")
    for name, message in (
        (available_priors()[0][:-1], f"did you mean '{available_priors()[0]}'"),
        ("", "unknown prior ''"),  # not the folder one is in
        ("diffusers:", "what follows diffusers: must be a name, got nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            load_prior(name)
    with pytest.raises(ValueError, match=r"device 'gpu' cannot be used .*there are cpu"):
        load_prior("photo", device="gpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "its header 'workbench' is not JSON"),
        ({"format": 9}, "expected format 1, found 9"),
        ({"network": []}, r"expected network .*, found \[\]"),
        ({"settings": None}, "expected settings as a JSON object"),
        ({"trained_size": -5}, "expected trained_size as a number"),
        ({"network_config": {"foo": 1}}, "unexpected keyword argument 'foo'"),
        ({"network_config": {"blocks": 10**9}}, "1000000000 blocks per level, and only"),
        ({"settings": {"name": "a"}}, "unknown setting 'name' of adapter edm"),
        ({"settings": {"channels": "3"}}, "setting channels of adapter edm must be int"),
        ({"settings": {"sigma_max": -1}}, "0 <= sigma_min <= sigma_max"),
        ({"adapter": "plain", "settings": {"data_range": 5}}, "setting data_range of adapter plain must be tuple"),
        (lambda t: t.update(strange=t.pop("first.bias")), r"1 tensors missing \(first\.bias\), 1 left over \(strange"),
        (lambda t: t.update({"first.bias": torch.zeros(5)}), r"first\.bias: expected shape \(8,\), found \(5,\)"),
        (lambda t: t["first.bias"].fill_(torch.nan), r"first\.bias holds values that are not finite"),
    ],
)
def test_odd_headers_and_tensors(saved: Path, change, message: str) -> None:
    if callable(change):
        rewrite(saved, lambda tensors, header: change(tensors))
    else:
        rewrite(saved, lambda tensors, header: change if isinstance(change, str) else header.update(change))
    refused(saved, message)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    prior, file = EDMPrecond(network(), multiple=2), tmp_path / "a.safetensors"
    (tmp_path / "folder.safetensors").mkdir()

    def cannot(message: str, prior: Prior = prior, file: Path = file, **options) -> None:
        with pytest.raises(ValueError, match=message):
            save_prior(prior, file, **options)

    cannot(r"cannot write .*folder\.safetensors", file=tmp_path / "folder.safetensors")
    cannot("got PlainDenoiser around Identity", PlainDenoiser(torch.nn.Identity()))
    cannot("the card must be JSON", card={"data": torch.zeros(3)})
    cannot(r"dtype must be one of torch\.float16, .* got torch\.int8", dtype=torch.int8)  # all weights would be 0
    adapted = EDMPrecond(UNet(UNetConfig(widths=(8, 8), blocks=(1, 1), heads=2)), multiple=4)
    LoRA(2).inject(adapted.net)
    cannot("prior must be of type Prior", "photo")
    cannot("has low-rank layers: save_adapter writes them", adapted)
    with torch.no_grad():
        prior.net.first.bias.fill_(1e5)
    cannot(r"first\.bias holds values that are not finite in torch\.float16", dtype=torch.float16)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.safetensors"]
