"""diffusers repositories as priors: against diffusers' own schedulers, and every refusal."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from model_files import read_prior
from safetensors.torch import load_file, save_file

from workbench.models import DDPM, DDPMConfig, PlainDenoiser, VEScore, VPNoise, save_prior
from workbench.models.diffusers_export import save_diffusers

diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")


def unet(**settings):
    torch.manual_seed(0)
    small = {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
    types = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return diffusers.UNet2DModel(**small | types | {"attention_head_dim": 8} | settings).eval()


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """In the layout of a pipeline."""
    folder = tmp_path_factory.mktemp("hub") / "ddpm-small"
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    diffusers.DDPMPipeline(unet(), scheduler).save_pretrained(folder)
    return folder


def copied(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [
        ("DDPMScheduler", "epsilon"),
        ("DDIMScheduler", "sample"),
        ("PNDMScheduler", "v_prediction"),
    ],
)
def test_the_denoised_image_is_that_of_diffusers(tmp_path: Path, prediction: str, kind: str) -> None:
    scheduler = getattr(diffusers, kind)(prediction_type=prediction, beta_schedule="scaled_linear", beta_end=0.015)
    unet().save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    prior = read_prior(f"diffusers:{tmp_path}")
    assert isinstance(prior, VPNoise)

    reference = diffusers.DDPMScheduler.from_config(scheduler.config, clip_sample=False)
    for step in (2, 400, 990):
        alpha = float(reference.alphas_cumprod[step])
        state = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            output = prior.net(state, torch.tensor([float(step)] * 2))
            expected = reference.step(output, step, state).pred_original_sample
            sigma = ((1 - alpha) / alpha) ** 0.5 / 2
            found = prior((state / alpha**0.5 + 1) / 2, sigma)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, (expected + 1) / 2, rtol=0, atol=2e-4 * max(1.0, scale))


def test_variance_exploding_networks_return_the_score(tmp_path: Path) -> None:
    net = unet(time_embedding_type="fourier", center_input_sample=True)
    net.save_pretrained(tmp_path / "unet")
    diffusers.ScoreSdeVeScheduler(sigma_min=0.02, sigma_max=90.0).save_pretrained(tmp_path / "scheduler")
    prior = read_prior(tmp_path)
    assert isinstance(prior, VEScore)
    assert (prior.sigma_min, prior.sigma_max) == (0.02, 90.0)
    x, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.1, 3.0])
    with torch.no_grad():
        score = net(x, sigma).sample
        torch.testing.assert_close(prior(x, sigma), x + sigma.view(-1, 1, 1, 1) ** 2 * score)
    with pytest.raises(ValueError, match="a variance-exploding network has no steps"):
        read_prior(f"diffusers:{tmp_path}", step="nearest")


def test_layouts_formats_and_names(repository: Path, tmp_path: Path, monkeypatch) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(repository / "unet", flat)
    shutil.copy(repository / "scheduler" / "scheduler_config.json", flat)
    changed = copied(repository, tmp_path)
    weights, x = changed / "unet" / "diffusion_pytorch_model.safetensors", torch.rand(1, 3, 16, 16)
    state = load_file(weights)
    prior = read_prior(repository)
    expected = prior(x, 0.2)
    assert torch.equal(read_prior(f"diffusers:{flat}")(x, 0.2), expected)
    # google/ddpm-cifar10-32 and its like were saved before attention layers had their present names.
    old = {}
    for name, tensor in state.items():
        for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(now, then)
        old[name] = tensor
    assert any("proj_attn" in name for name in old)
    save_file(old, weights, metadata={"format": "pt"})
    # Weights that are read otherwise are at other addresses, and vectorised sums round otherwise.
    torch.testing.assert_close(read_prior(changed)(x, 0.2), expected, rtol=0, atol=1e-6)
    weights.unlink()
    torch.save(state, weights.with_suffix(".bin"))
    torch.testing.assert_close(read_prior(changed)(x, 0.2), expected, rtol=0, atol=1e-6)
    for part in ("ddpm-small: UNet2DModel (diffusers)", "trained at 16x16", "of 2", "0.005 to 78.7", "[-1, 1]"):
        assert part in prior.summary()
    with pytest.raises(ValueError, match=r"unknown setting 'stepp', did you mean 'step'\?"):
        read_prior(repository, stepp="nearest")
    with pytest.raises(ValueError, match="got VPNoise around Sample"):
        save_prior(prior, tmp_path / "a.safetensors")
    monkeypatch.chdir(repository)
    assert read_prior("diffusers:.").name == "ddpm-small"
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'restoration-workbench\[diffusers\]'"):
        read_prior(repository)


INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (INDEX, {"vqvae": ["diffusers", "VQModel"]}, "it is a latent-diffusion pipeline"),
        (UNET, {"_class_name": "UNet2DConditionModel"}, r"a conditional network \(UNet2DConditionModel\)"),
        (UNET, "{not json", "config.json is not JSON"),
        (UNET, {"num_class_embeds": 10}, "is class-conditional"),
        (UNET, {"in_channels": 4}, "takes 4 channels, the code of an autoencoder"),
        (UNET, {"out_channels": 4}, "for 3 channels a network returns 3, or 6 with a learned variance; .* returns 4"),
        (UNET, {"time_embedding_type": "fourier"}, "and positional time embedding, or ScoreSdeVeScheduler"),
        (SCHEDULER, {"_class_name": "LCMScheduler"}, "a network of LCMScheduler means is not known"),
        (SCHEDULER, {"_class_name": "ScoreSdeVeScheduler", "sigma_min": -1}, "must be 0 < sigma_min <= sigma_max"),
        (SCHEDULER, {"timestep_type": "continuous"}, "a network of DDPMScheduler means is not known"),
        (SCHEDULER, {"beta_schedule": "steep"}, "no such noise schedule: steep is not implemented"),
        (SCHEDULER, {"prediction_type": "flow"}, "prediction_type epsilon, sample, v_prediction, found 'flow'"),
        (SCHEDULER, {"rescale_betas_zero_snr": True}, "its last step is pure noise"),
    ],
)
def test_refusals(repository: Path, tmp_path: Path, file: str, changes: dict | str, message: str) -> None:
    target = copied(repository, tmp_path) / file
    text = changes if isinstance(changes, str) else json.dumps(json.loads(target.read_text()) | changes)
    target.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prior(f"diffusers:{tmp_path / 'copy'}")


def test_what_a_scheduler_leaves_out_is_its_default(repository: Path, tmp_path: Path) -> None:
    expected = read_prior(repository).alphas_cumprod
    folder = copied(repository, tmp_path)
    betas = diffusers.DDPMScheduler().betas
    for config in ({}, {"trained_betas": betas.tolist()}):
        (folder / SCHEDULER).write_text(json.dumps({"_class_name": "DDPMScheduler", **config}))
        assert torch.equal(read_prior(folder).alphas_cumprod, expected)
    (folder / SCHEDULER).write_text(json.dumps({"_class_name": "HeunDiscreteScheduler"}))
    heun = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012)  # what Heun's are by default
    torch.testing.assert_close(read_prior(folder).alphas_cumprod.float(), heun.alphas_cumprod)


def test_learned_variance_and_absent_parts(tmp_path: Path) -> None:
    net = unet(out_channels=6, sample_size=(16, 16))
    net.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    (tmp_path / INDEX).write_text(json.dumps({"_class_name": "DDPMPipeline", "vae": [None, None]}))
    prior = read_prior(tmp_path)
    assert prior.trained_size == 16
    assert prior.card["image_size"] == [16, 16]
    alpha, x = prior.alphas_cumprod[300], torch.rand(1, 3, 16, 16)
    sigma = float(((1 - alpha) / alpha).sqrt() / 2)
    with torch.no_grad():
        noise = net((2 * x - 1) * alpha.sqrt().float(), 300).sample[:, :3]
    torch.testing.assert_close(prior(x, sigma), x - sigma * noise, rtol=0, atol=1e-5)


def test_files_that_are_missing_or_damaged(repository: Path, tmp_path: Path) -> None:
    folder, ran = copied(repository, tmp_path), tmp_path / "ran"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(repository / "unet" / weights.name)
    name = next(iter(state))

    class Program:
        def __reduce__(self):
            return Path.touch, (ran,)

    def refuse(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_prior(f"diffusers:{folder}")

    save_file({key: value for key, value in state.items() if key != name}, weights, metadata={"format": "pt"})
    refuse(rf"1 tensors missing \({name}\), 0 left over")
    weights.unlink()
    refuse(r"no weights: expected unet/diffusion_pytorch_model\.safetensors")
    torch.save({"conv_in.weight": Program()}, weights.with_suffix(".bin"))
    refuse(r"diffusion_pytorch_model\.bin is truncated, damaged or not")
    assert not ran.exists()
    shutil.rmtree(folder / "scheduler")
    refuse(r"does not say its noise levels: expected scheduler/scheduler_config\.json")
    (folder / "unet" / "config.json").unlink()
    refuse(r"no model there: .* found model_index\.json, unet")


def test_two_implementations_of_ddpm_agree(tmp_path: Path) -> None:
    """Our DDPM network, written as a diffusers repository: theirs computes the same from it."""
    torch.manual_seed(0)
    net = DDPM(DDPMConfig(width=32, multipliers=(1, 2, 2, 2), blocks=2, attention_levels=(1,))).eval()
    ours = VPNoise(net, multiple=net.multiple)
    save_diffusers(ours, tmp_path / "repository")
    theirs = read_prior(f"diffusers:{tmp_path / 'repository'}")
    assert theirs.multiple == ours.multiple
    x, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.02, 1.7])
    with torch.no_grad():
        torch.testing.assert_close(theirs(x, sigma), ours(x, sigma), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="only a DDPM that predicts noise can be written, got PlainDenoiser"):
        save_diffusers(PlainDenoiser(torch.nn.Identity()), tmp_path)
    with pytest.raises(ValueError, match="only the linear noise schedule of DDPM"):
        save_diffusers(VPNoise(net, alphas_cumprod=torch.linspace(0.9, 0.1, 10)), tmp_path)
