"""Published checkpoint files: which weights are taken, what a file that is not whole or not ours gets told."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from model_files import ddpm_state, read_prior, reference, refused
from safetensors.torch import load_file

from workbench.models import VEScore, VPNoise


@pytest.fixture
def layouts(shared: Path) -> Path:
    return shared / "reference" / "models"


@pytest.mark.parametrize("file", ["score_sde_tiny", "score_sde_tiny_mupet_resaved", "mupet_trained"])
@pytest.mark.parametrize("weights", ["auto", "ema", "raw"])
def test_every_layout_of_score_sde(layouts: Path, tmp_path: Path, file: str, weights: str) -> None:
    """One lists n - 1 averaged tensors behind a prefix, the others n without: all give the published outputs."""
    tensors = load_file(layouts / "ckpt_layout_score_sde_tiny.safetensors")
    path = layouts / f"ckpt_layout_{file}.pth"
    if file == "mupet_trained":  # DEQ_train_class.py saves the raw model, torch_ema's state and the optimiser's
        content = torch.load(layouts / "ckpt_layout_score_sde_tiny_mupet_resaved.pth", weights_only=True)
        content |= {"epoch": 2, "optimizer_state": {"state": {}, "param_groups": []}, "scheduler_state": {"a": 2}}
        content["ema"] |= {"collected_params": None, "decay": 0.999, "num_updates": 9}
        path = tmp_path / "mupet.pth"
        torch.save(content, path)
    prior = read_prior(path, weights=weights)
    assert isinstance(prior, VEScore)
    x, sigma = tensors["input"], tensors["sigma_or_t"]
    expected = tensors["output_raw_weights" if weights == "raw" else "output_ema_weights"]
    network = prior.net(2 * x - 1, sigma) / sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(network, expected, rtol=1e-4, atol=1e-5)
    # Through the denoiser the score passes x + sigma^2 s - x: rounding of x, over sigma^2.
    score = prior.score(x, sigma)
    bound = 1e-5 * (1 + 1 / sigma**2) * (1 + x.abs().amax((1, 2, 3)))
    assert ((score - expected).abs().amax((1, 2, 3)) <= bound + 1e-4 * score.abs().max()).all()
    assert (prior.sigma_min, prior.sigma_max) == (pytest.approx(0.01), pytest.approx(50))
    assert prior.source["weights"] == ("raw" if weights == "raw" else "ema")
    assert len(prior.source["sha256"]) == 64


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{n}": t for n, t in state.items()}, "ema": dict(state)},
        lambda state: {"params": {n: t + 1 for n, t in state.items()}, "params_ema": state},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: [{n: t + 1 for n, t in state.items()}, {"state": {}, "param_groups": []}, 3, 400, state],
        lambda state: {"model": state, "ema": {"decay": 0.9, "shadow_params": list(state.values())}, "step": 4},
        lambda state: {"model": state, "ema": 0.999},  # the decay, no weights
    ],
)
def test_containers_in_both_formats(tmp_path: Path, wrap) -> None:
    state, file = ddpm_state(), tmp_path / "mine.ckpt"
    for new in (True, False):
        torch.save(wrap(state), file, _use_new_zipfile_serialization=new)
        prior = read_prior(file)
        assert isinstance(prior, VPNoise)
        assert (prior.name, prior.training) == ("mine", False)
        for name, tensor in prior.net.state_dict().items():
            assert torch.equal(tensor, state[name])


class Hostile:
    """A pickle that would leave a file behind if anything of it ran."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_hostile_pickles_do_not_run(tmp_path: Path, form: str) -> None:
    file, trace = tmp_path / "evil.pth", tmp_path / "ran"
    if form == "pickle":
        file.write_bytes(pickle.dumps({"extra": Hostile(trace)}))
    else:
        content = {"model": ddpm_state(), "extra": Hostile(trace)}
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    refused(file, r"evil\.pth (is refused.*any code|.*is not a whole PyTorch file)")
    assert not trace.exists()


def test_programs_and_truncated_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    refused(file, r"net\.pt is refused.*it asks for torch\.nn\.modules\.linear\.Linear", torch.nn.Linear(2, 2))
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(file))
    refused(file, "it is a TorchScript program, not weights")
    for new in (False, True):
        torch.save(ddpm_state(), file, _use_new_zipfile_serialization=new)
        whole = file.read_bytes()
        for share in (0.01, 0.5, 0.999):
            file.write_bytes(whole[: int(share * len(whole))])
            refused(file, r"net\.pt \(\d+ bytes\) is not a whole PyTorch file, truncated or damaged")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    for content, message in (
        (b"", "is empty"),
        (b"hello, these are no weights\n", "expected a safetensors or a PyTorch file, it starts with b'hello, these"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, not the weights"),
        (pickle.dumps({"a": [1]}, 5), r"plain containers \(Unsupported operand 149\)"),
    ):
        (tmp_path / "file.pth").write_bytes(content)
        refused(tmp_path / "file.pth", message)
    with zipfile.ZipFile(tmp_path / "junk.pth", "w") as file:
        file.writestr("a/data.pkl", b"junk")
        file.writestr("a/version", b"3")
    refused(tmp_path / "junk.pth", r"junk\.pth \(\d+ bytes\) is not a whole PyTorch file")
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth", r"no weights .*pipe\.pth: not a regular file")
    for name, message in (("a" * 5000 + ".pth", "cannot read aaa.*too long"), ("~nobody-here/a.pth", "cannot read ~n")):
        with pytest.raises(ValueError, match=message):
            read_prior(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_out.bias": None}, r"1 tensors missing \(norm_out\.bias\), 1 left over \(strange\)"),
        ({"conv_in.weight": None}, r"unknown layout: \d+ tensors"),
        ({"norm_out.bias": torch.zeros(5)}, r"norm_out\.bias: expected shape \(32,\), found \(5,\)"),
        ({"conv_in.weight": torch.zeros(32, 27)}, r"weight: expected 4 dimensions, found shape \(32, 27\)"),
        ({"conv_in.weight": torch.zeros(32, 4, 3, 3)}, r"4 channels \(a latent-diffusion network"),
        ({"norm_out.bias": torch.zeros(32).long()}, "expected floating-point numbers, found torch.int64"),
        ({"norm_out.bias": torch.full((32,), torch.nan)}, r"norm_out\.bias holds values that are not finite"),
        ({"norm_out.bias": torch.zeros(32).to_sparse()}, "norm_out.bias: expected a dense tensor, found a sparse one"),
        ({"norm_out.bias": torch.zeros(32, device="meta")}, "has a shape, but no values"),
        ({"norm_out.bias": torch.zeros(1).expand(10**12)}, r"shape \(10{12},\) is more than the file holds values"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, changes, message: str) -> None:
    state = ddpm_state()
    for name, tensor in changes.items():
        if tensor is None:
            state["strange"] = state.pop(name)
        else:
            state[name] = tensor
    refused(tmp_path / "mine.pth", message, state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "expected named tensors, found list"),
        ({"step": 3}, "expected named tensors, found entries step"),
        ({"a\nb": torch.zeros(3)}, "unknown layout: 1 tensors such as a b"),
        ({"a.weight": torch.zeros(3)}, r"1 tensors such as a\.weight\. Known are ADM.*DDPM.*DRUNet.*NCSN"),
        ({"model.diffusion_model.out.2.bias": torch.zeros(3)}, "latent-diffusion checkpoint"),
        ({"down_blocks.0.resnets.0.conv1.bias": torch.zeros(3)}, "give the folder, as diffusers:FOLDER"),
        ({"q.lora_A.weight": torch.zeros(3, 3)}, "a LoRA adapter"),
        ({"model": ddpm_state(), "ema": {"shadow_params": 3}}, "expected a list of averaged tensors, found int"),
        ({"model": ddpm_state(), "ema": [1]}, "averaged weights are in no known form; weights='raw' takes the others"),
    ],
)
def test_contents_that_are_no_prior(tmp_path: Path, content, message: str) -> None:
    refused(tmp_path / "odd.pth", message, content)


def test_wrong_averages(layouts: Path, tmp_path: Path) -> None:
    content = torch.load(layouts / "ckpt_layout_score_sde_tiny.pth", weights_only=True)
    shadow = content["ema"]["shadow_params"]
    for change, message in (
        (shadow[:-1], "expected 156 or 157 averaged tensors, as there are parameters, found 155"),
        ([*shadow[:3], torch.zeros(7), *shadow[4:]], r"all_modules\.2\.bias: expected shape .* found \(7,\)"),
    ):
        content["ema"]["shadow_params"] = change
        refused(tmp_path / "broken.pth", message, content)
        read_prior(tmp_path / "broken.pth", weights="raw")
    refused(tmp_path / "broken.pth", "weights must be 'auto', 'ema' or 'raw', got 'best'", weights="best")
    refused(tmp_path / "plain.pth", "holds one set of weights", ddpm_state(), weights="ema")


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (None, "down.0.block.999999999.x"),
        ("ncsnpp_cifar_a", "all_modules.999999999.weight"),
        ("adm_c_head16_multires", "output_blocks.999999999.x"),
    ],
)
def test_a_number_in_a_name_takes_no_memory(shared: Path, tmp_path: Path, case: str | None, name: str) -> None:
    state = ddpm_state() if case is None else reference(shared, case)[0]
    message = r"count up to 999999999, and it has only \d+ ten"
    refused(tmp_path / "long.pth", message, state | {name: torch.zeros(3)})
    names = [name for name in state if name.endswith(("Conv_0.weight", "Conv_1.weight"))]  # score_sde
    for name in names[:2] + names[-1:]:
        refused(tmp_path / "flat.pth", "flat.pth", state | {name: state[name].flatten()})
