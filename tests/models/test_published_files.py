"""Published checkpoint files: layouts, which weights, what a file that is not whole or not ours gets told."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.models import VEScore, VPNoise, load_prior, save_prior
from workbench.models.networks.ddpm import DDPM, DDPMConfig


@pytest.fixture
def layouts(shared: Path) -> Path:
    return shared / "reference" / "models"


@pytest.mark.parametrize("file", ["ckpt_layout_score_sde_tiny.pth", "ckpt_layout_score_sde_tiny_mupet_resaved.pth"])
@pytest.mark.parametrize(
    ("weights", "expected"),
    [("auto", "output_ema_weights"), ("ema", "output_ema_weights"), ("raw", "output_raw_weights")],
)
def test_both_layouts_of_score_sde(layouts: Path, file: str, weights: str, expected: str) -> None:
    """One lists n - 1 averaged tensors behind a prefix, the other n without: both give the published outputs."""
    tensors = load_file(layouts / "ckpt_layout_score_sde_tiny.safetensors")
    prior = load_prior(layouts / file, weights=weights)
    assert isinstance(prior, VEScore)
    score = prior.score(tensors["input"].double().float(), tensors["sigma_or_t"])
    network = prior.net(2 * tensors["input"] - 1, tensors["sigma_or_t"]) / tensors["sigma_or_t"].view(-1, 1, 1, 1)
    torch.testing.assert_close(network, tensors[expected], rtol=1e-4, atol=1e-5)
    # Through the denoiser the score passes x + sigma^2 s - x: rounding of x, over sigma^2.
    bound = 1e-5 * (1 + 1 / tensors["sigma_or_t"] ** 2) * (1 + tensors["input"].abs().amax((1, 2, 3)))
    assert ((score - tensors[expected]).abs().amax((1, 2, 3)) <= bound + 1e-4 * score.abs().max()).all()
    assert (prior.sigma_min, prior.sigma_max) == (pytest.approx(0.01), pytest.approx(50))
    assert prior.source["weights"] == ("raw" if weights == "raw" else "ema")
    assert len(prior.source["sha256"]) == 64


def test_the_summary_says_what_it_is(layouts: Path) -> None:
    summary = load_prior(layouts / "ckpt_layout_score_sde_tiny.pth").summary()
    assert summary.startswith("ckpt_layout_score_sde_tiny: NCSN++ (score_sde, VE), 0.0")
    for part in ("M parameters", "colour", "multiples of 2", "noise 0.01 to 50", "data in [0, 1]", "EMA weights"):
        assert part in summary


def ddpm_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(DDPM(DDPMConfig(width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,))).state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{n}": t for n, t in state.items()}, "ema": dict(state)},
        lambda state: {"params": {n: t + 1 for n, t in state.items()}, "params_ema": state},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: [{n: t + 1 for n, t in state.items()}, {"state": {}, "param_groups": []}, 3, 400, state],
        lambda state: {"model": state, "ema": {"decay": 0.9, "shadow_params": list(state.values())}, "step": 4},
    ],
    ids=["plain", "state_dict", "module", "model-ema", "params_ema", "compiled", "ddim", "shadow"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_containers(tmp_path: Path, wrap, legacy: bool) -> None:
    state = ddpm_state()
    torch.save(wrap(state), tmp_path / "mine.ckpt", _use_new_zipfile_serialization=not legacy)
    prior = load_prior(tmp_path / "mine.ckpt")
    assert isinstance(prior, VPNoise)
    assert prior.name == "mine"
    assert not prior.training
    for name, tensor in prior.net.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_a_mupet_trained_file(layouts: Path, tmp_path: Path) -> None:
    """DEQ_train_class.py saves the raw model, torch_ema's state and the optimiser's."""
    content = torch.load(layouts / "ckpt_layout_score_sde_tiny_mupet_resaved.pth", weights_only=True)
    content |= {"epoch": 2, "optimizer_state": {"state": {}, "param_groups": []}, "scheduler_state": {"last_epoch": 2}}
    content["ema"] |= {"collected_params": None, "decay": 0.999, "num_updates": 9}
    torch.save(content, tmp_path / "mupet.pth")
    tensors = load_file(layouts / "ckpt_layout_score_sde_tiny.safetensors")
    prior = load_prior(tmp_path / "mupet.pth")
    network = prior.net(2 * tensors["input"] - 1, tensors["sigma_or_t"]) / tensors["sigma_or_t"].view(-1, 1, 1, 1)
    torch.testing.assert_close(network, tensors["output_ema_weights"], rtol=1e-4, atol=1e-5)


class Hostile:
    """A pickle that would leave a file behind if anything of it ran."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_hostile_pickles_do_not_run(tmp_path: Path, form: str) -> None:
    file, trace = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"model": ddpm_state(), "extra": Hostile(trace)}
    if form == "pickle":
        file.write_bytes(pickle.dumps({"extra": Hostile(trace)}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"evil\.pth (is refused.*any code|.*is not a whole PyTorch file)"):
        load_prior(file)
    assert not trace.exists()


def test_a_pickle_of_a_whole_network_is_refused_with_the_reason(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt is refused.*it asks for torch\.nn\.modules\.linear\.Linear"):
        load_prior(tmp_path / "net.pt")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match="it is a TorchScript program, not weights"):
        load_prior(tmp_path / "net.pt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, legacy: bool, share: float) -> None:
    file = tmp_path / "half.pth"
    torch.save(ddpm_state(), file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"half\.pth \(\d+ bytes\) is not a whole PyTorch file, truncated or damaged"):
        load_prior(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, these are no weights\n", "expected a safetensors or a PyTorch file, it starts with b'hello, these"),
        ("<html>žluťoučký kůň</html>".encode() * 30, "it starts with"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, not the weights"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "it starts with"),
    ],
    ids=["empty", "text", "html", "lfs", "png"],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_prior(tmp_path / "file.pth")


def changed(name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = ddpm_state()
    if tensor is None:
        state["strange"] = state.pop(name)
    else:
        state[name] = tensor
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            changed("mid.block_1.conv1.bias", None),
            r"1 tensors missing \(mid\.block_1\.conv1\.bias\), 1 left over \(strange\)",
        ),
        (changed("conv_in.weight", None), r"unknown layout: \d+ tensors"),
        (changed("norm_out.bias", torch.zeros(5)), r"norm_out\.bias: expected shape \(32,\), found \(5,\)"),
        (
            changed("conv_in.weight", torch.zeros(32, 27)),
            r"conv_in\.weight: expected 4 dimensions, found shape \(32, 27\)",
        ),
        (
            changed("norm_out.bias", torch.zeros(32, dtype=torch.int64)),
            "expected floating-point numbers, found torch.int64",
        ),
        (changed("norm_out.bias", torch.zeros(32, dtype=torch.complex64)), "found torch.complex64"),
        (changed("norm_out.bias", torch.full((32,), float("nan"))), r"norm_out\.bias holds values that are not finite"),
        (changed("norm_out.bias", torch.full((32,), float("-inf"))), "not finite"),
        (changed("conv_in.weight", torch.zeros(32, 4, 3, 3)), r"4 channels \(a latent-diffusion network"),
        (
            {"a.weight": torch.zeros(3)},
            r"unknown layout: 1 tensors such as a\.weight\. Known are ADM.*DDPM.*DRUNet.*NCSN",
        ),
        ({"model.diffusion_model.out.2.bias": torch.zeros(3)}, "latent-diffusion checkpoint"),
        ({"down_blocks.0.resnets.0.conv1.bias": torch.zeros(3)}, "give the folder, as diffusers:FOLDER"),
        ({"q.lora_A.weight": torch.zeros(3, 3)}, "a LoRA adapter"),
    ],
)
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_tensors_that_do_not_fit(tmp_path: Path, state, message: str, form: str) -> None:
    file = tmp_path / f"mine.{form}"
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    with pytest.raises(ValueError, match=message) as raised:
        load_prior(file)
    assert "mine" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "expected named tensors, found list"),
        ({"step": 3}, "expected named tensors, found entries step"),
    ],
)
def test_files_without_named_tensors(tmp_path: Path, content, message: str) -> None:
    torch.save(content, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=message):
        load_prior(tmp_path / "mine.pth")


def adm_state(shared: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(shared / "reference" / "models" / "adm_c_head16_multires.safetensors")
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}


def test_ambiguous_and_conditional_adm(shared: Path, tmp_path: Path) -> None:
    state = adm_state(shared)
    torch.save(state, tmp_path / "adm.pt")
    with pytest.raises(ValueError, match=r"layers of 32, 64 channels.*cannot be seen: pass head_channels=64") as raised:
        load_prior(tmp_path / "adm.pt")
    assert "ADM 256x256" in str(raised.value)
    assert load_prior(tmp_path / "adm.pt", heads=2).net.config.heads == 2
    with pytest.raises(ValueError, match="cannot be split into heads of 64 channels"):
        load_prior(tmp_path / "adm.pt", head_channels=64)
    with pytest.raises(ValueError, match=r"setting head_channels of ADM \(guided-diffusion\) must be int, got 'all'"):
        load_prior(tmp_path / "adm.pt", head_channels="all")
    with pytest.raises(ValueError, match=r"unknown setting of ADM.*'head_chanels', did you mean 'head_channels'\?"):
        load_prior(tmp_path / "adm.pt", head_chanels=64)
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("output_blocks")}
    torch.save(encoder, tmp_path / "classifier.pt")
    with pytest.raises(ValueError, match="a classifier, not a denoiser"):
        load_prior(tmp_path / "classifier.pt")
    torch.save(state | {"label_emb.weight": torch.zeros(1000, 128)}, tmp_path / "adm.pt")
    with pytest.raises(ValueError, match=r"class-conditional ADM \(1000 classes\); only unconditional"):
        load_prior(tmp_path / "adm.pt", head_channels=16)


def test_wrong_averages(layouts: Path, tmp_path: Path) -> None:
    content = torch.load(layouts / "ckpt_layout_score_sde_tiny.pth", weights_only=True)
    shadow = content["ema"]["shadow_params"]
    for change, message in (
        (shadow[:-1], "expected 156 or 157 averaged tensors, as there are parameters, found 155"),
        ([*shadow[:3], torch.zeros(7), *shadow[4:]], r"all_modules\.2\.bias: expected shape .* found \(7,\)"),
    ):
        content["ema"]["shadow_params"] = change
        torch.save(content, tmp_path / "broken.pth")
        with pytest.raises(ValueError, match=message):
            load_prior(tmp_path / "broken.pth")
        load_prior(tmp_path / "broken.pth", weights="raw")
    with pytest.raises(ValueError, match="weights must be 'auto', 'ema' or 'raw', got 'best'"):
        load_prior(tmp_path / "broken.pth", weights="best")
    torch.save(ddpm_state(), tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="holds one set of weights"):
        load_prior(tmp_path / "plain.pth", weights="ema")


def test_what_score_sde_does_not_say(shared: Path, tmp_path: Path) -> None:
    tensors = load_file(shared / "reference" / "models" / "ncsnpp_cifar_a.safetensors")
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    del state["sigmas"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not say its noise levels: pass sigma_min and sigma_max"):
        load_prior(tmp_path / "a.pth")
    assert load_prior(tmp_path / "a.pth", sigma_min=0.01, sigma_max=50.0).sigma_max == 50.0
    del state["all_modules.0.W"]
    flat = {re.sub(r"\d+", lambda m: str(int(m[0]) - 1), name, count=1): tensor for name, tensor in state.items()}
    flat["all_modules.0.weight"] = torch.zeros(64, 16)
    torch.save(flat, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"variance preserving and variance exploding.*pass sde='vp'"):
        load_prior(tmp_path / "b.pth")
    assert isinstance(load_prior(tmp_path / "b.pth", sde="vp"), VPNoise)


def test_continuous_vp_levels() -> None:
    """DDPM++ at label 999 t expects abar(t) of the continuous process, not the product of 1000 discrete betas."""
    from workbench.models.published import continuous_vp

    alphas, times = continuous_vp()
    t = times / 999
    beta = 0.1 + t * 19.9
    slope = torch.gradient(alphas.log(), spacing=(t,))[0]
    torch.testing.assert_close(slope[1:-1], -beta[1:-1], rtol=1e-3, atol=0)  # d log abar / dt = -beta(t)
    assert float(alphas[-1]) == pytest.approx(4.3e-5, rel=0.02)  # exp(-10.05)


def test_a_published_file_becomes_one_of_this_package(layouts: Path, shared: Path, tmp_path: Path) -> None:
    for file, settings in ((layouts / "ckpt_layout_score_sde_tiny.pth", {}), (tmp_path / "adm.pt", {"heads": 2})):
        if settings:
            torch.save(adm_state(shared), file)
        prior = load_prior(file, **settings)
        save_prior(prior, tmp_path / "own.safetensors", card={"data": "unknown"})
        again = load_prior(tmp_path / "own.safetensors")
        x, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.03, 1.0])
        assert torch.equal(again(x, sigma), prior(x, sigma))
        assert again.data_range == prior.data_range


def shared_state(shared: Path, name: str) -> dict[str, torch.Tensor]:
    tensors = load_file(shared / "reference" / "models" / f"{name}.safetensors")
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}


def refused(state, file: Path, message: str, **settings) -> None:
    torch.save(state, file)
    with pytest.raises(ValueError, match=message) as raised:
        load_prior(file, **settings)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({1: torch.zeros(3)}, "expected named tensors, found entries 1"),
        ({"model": {None: torch.zeros(3)}}, "expected named tensors, found entries model"),
        ({"a\nb": torch.zeros(3)}, "unknown layout: 1 tensors such as a b"),
        ({"a" * 5000: 3}, "found entries aaa"),
        ({"model": ddpm_state(), "ema": {"shadow_params": 3}}, "expected a list of averaged tensors, found int"),
        ({"model": ddpm_state(), "ema": [1]}, r"averaged weights are in no known form; weights='raw' takes the others"),
    ],
    ids=["numbered", "none", "line", "long", "shadow", "ema"],
)
def test_odd_containers(tmp_path: Path, content, message: str) -> None:
    refused(content, tmp_path / "odd.pth", message)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(32).to_sparse(), "norm_out.bias: expected a dense tensor, found a sparse one"),
        (torch.quantize_per_tensor(torch.zeros(32), 0.1, 0, torch.qint8), "found a quantised one"),
        (torch.zeros(32).to(torch.float8_e4m3fn), "expected floating-point numbers, found torch.float8_e4m3fn"),
        (torch.nested.nested_tensor([torch.zeros(3), torch.zeros(4)]), "found a nested one"),
        (torch.zeros(32, device="meta"), "has a shape, but no values"),
        (torch.zeros(1).expand(10**12), r"shape \(1000000000000,\) is more than the file holds values"),
    ],
    ids=["sparse", "quantised", "float8", "nested", "meta", "huge"],
)
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    refused(ddpm_state() | {"norm_out.bias": tensor}, tmp_path / "odd.pth", message)


def test_a_number_in_a_name_takes_no_memory(shared: Path, tmp_path: Path) -> None:
    for state, name in (
        (ddpm_state(), "down.0.block.999999999.x"),
        (ddpm_state(), "down.999999999.x"),
        (shared_state(shared, "drunet_a"), "m_down1.999999999.x"),
        (shared_state(shared, "ncsnpp_cifar_a"), "all_modules.999999999.weight"),
        (adm_state(shared), "output_blocks.999999999.x"),
    ):
        refused(
            state | {name: torch.zeros(3)}, tmp_path / "long.pth", r"count up to 999999999, and it has only \d+ ten"
        )


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        (torch.linspace(0.01, 50, 10), r"must be 0 < sigma_min < sigma_max, got 50 and 0\.01"),
        (torch.zeros(10), "must be 0 < sigma_min < sigma_max, got 0 and 0"),
        (torch.tensor(1.0), r"sigmas: expected 1 dimensions, found shape \(\)"),
    ],
    ids=["ascending", "zero", "number"],
)
def test_levels_that_are_none(shared: Path, tmp_path: Path, sigmas: torch.Tensor, message: str) -> None:
    refused(shared_state(shared, "ncsnpp_cifar_a") | {"sigmas": sigmas}, tmp_path / "levels.pth", message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": -1}, "no network has this configuration: Trying to create tensor with negative dimension"),
        ({"blocks": 10**30}, r"10{30} blocks per level, and only \d+ tensors"),
        ({"width": 32 * 10**30}, "no network has this configuration"),
        ({"step": "round"}, "step must be one of interpolate, nearest, got 'round'"),
        ({"alphas_cumprod": ["a"]}, r"alphas_cumprod must be numbers, got \['a'\]"),
        ({"alphas_cumprod": [0.9, -0.1]}, r"alphas_cumprod must lie between 0 and 1, got 0\.9 to -0\.1"),
        ({"weights": None}, "weights must be 'auto', 'ema' or 'raw', got None"),
        ({"content": 3}, r"unknown setting of .*'content'"),
        ({"source": 3}, "unknown setting of .*'source'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_are_none(tmp_path: Path, settings, message: str) -> None:
    refused(ddpm_state(), tmp_path / "mine.pth", message, **settings)


def test_a_schedule_may_be_a_list(tmp_path: Path) -> None:
    """As the command line has it."""
    torch.save(ddpm_state(), tmp_path / "mine.pth")
    assert load_prior(tmp_path / "mine.pth", alphas_cumprod=[0.9, 0.5]).sigma_max == pytest.approx(0.5)


def test_levels_of_a_denoiser_are_in_order(shared: Path, tmp_path: Path) -> None:
    for settings in ({"sigma_max": -1.0}, {"sigma_min": -1.0}, {"sigma_min": 0.2, "sigma_max": 0.1}):
        refused(shared_state(shared, "drunet_a"), tmp_path / "d.pth", "must be 0 <= sigma_min <= sigma_max", **settings)


def test_heads_are_never_guessed(shared: Path, tmp_path: Path) -> None:
    for settings in ({"head_channels": 0}, {"heads": 0}):
        refused(adm_state(shared), tmp_path / "adm.pt", "cannot be seen: pass head_channels=64", **settings)
    refused(adm_state(shared), tmp_path / "adm.pt", "at least one head, got heads=-1", heads=-1)
    refused(adm_state(shared), tmp_path / "adm.pt", "pass one of them", heads=2, head_channels=16)


def test_heads_win_over_those_of_a_published_network(tmp_path: Path) -> None:
    """A network in a published size may have been trained with another number of heads."""
    from workbench.models.networks.adm import ADM, ADMConfig

    published = ADMConfig(width=128, blocks=1, attention_levels=(4,))
    with torch.device("meta"):
        shapes = ADM(published).state_dict()
    torch.save({name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "adm.pt")
    config = load_prior(tmp_path / "adm.pt", heads=8).net.config
    assert (config.head_channels, config.heads) == (0, 8)
    assert load_prior(tmp_path / "adm.pt").net.config.head_channels == 64


def test_damaged_pickles_say_what_is_wrong(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "junk.pth", "w") as file:
        file.writestr("a/data.pkl", b"junk")
        file.writestr("a/version", b"3")
    with pytest.raises(ValueError, match=r"junk\.pth \(\d+ bytes\) is not a whole PyTorch file"):
        load_prior(tmp_path / "junk.pth")
    (tmp_path / "new.pth").write_bytes(pickle.dumps({"a": [1]}, 5))
    with pytest.raises(ValueError, match=r"plain containers \(Unsupported operand 149\)"):
        load_prior(tmp_path / "new.pth")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match=r"no weights .*pipe\.pth: not a regular file"):
        load_prior(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match=r"cannot read aaa.*too long"):
        load_prior("a" * 5000 + ".pth")
    with pytest.raises(ValueError, match=r"cannot read ~nobody-here/a\.pth"):
        load_prior("~nobody-here/a.pth")


def test_flat_convolutions_of_score_sde(shared: Path, tmp_path: Path) -> None:
    state = shared_state(shared, "ncsnpp_cifar_a")
    for name in (name for name in state if name.endswith(("Conv_0.weight", "Conv_1.weight"))):
        refused(state | {name: state[name].flatten()}, tmp_path / "flat.pth", "flat.pth")


def test_an_ema_entry_that_is_no_weights_is_passed_over(tmp_path: Path) -> None:
    for entry in (0.999, torch.zeros(3)):  # such as the decay
        torch.save({"model": ddpm_state(), "ema": entry}, tmp_path / "mine.pth")
        assert load_prior(tmp_path / "mine.pth").source["weights"] == "raw"


def test_outputs_of_ddpm_fit_its_inputs(tmp_path: Path) -> None:
    state = dict(DDPM(DDPMConfig(width=32, multipliers=(1, 2), blocks=1, outputs=1)).state_dict())
    refused(state, tmp_path / "one.pth", "it has 3 input and 1 output channels")
