"""A DDPM prior as a repository of diffusers, which ``diffusers.DDPMPipeline`` and ``diffusers:FOLDER`` read."""

import re
from pathlib import Path

from workbench.models.adapters import VPNoise, linear_alphas_cumprod
from workbench.models.files import optional_package
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.prior import Prior

# Our (that is, the published) names and diffusers'. Levels on the way up are counted from the smallest size there.
NAMES = (
    (r"temb\.dense\.0\.", "time_embedding.linear_1."),
    (r"temb\.dense\.1\.", "time_embedding.linear_2."),
    (r"norm_out\.", "conv_norm_out."),
    (r"mid\.block_1\.", "mid_block.resnets.0."),
    (r"mid\.block_2\.", "mid_block.resnets.1."),
    (r"mid\.attn_1\.", "mid_block.attentions.0."),
    (r"(down|up)\.(\d+)\.block\.", r"\1_blocks.\2.resnets."),
    (r"(down|up)\.(\d+)\.attn\.", r"\1_blocks.\2.attentions."),
    (r"(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
    (r"\.temb_proj\.", ".time_emb_proj."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)


def save_diffusers(prior: Prior, folder: str | Path) -> None:
    """Write ``prior``, a :class:`VPNoise` around a :class:`DDPM`, to ``folder`` in the layout of diffusers.

    The pipeline's other settings are those of ``google/ddpm-cifar10-32``: data in [-1, 1], fixed variances.

    Raises:
        ValueError: diffusers is not installed, or not such a prior: another network, or another noise schedule than the
            linear one.
        RuntimeError: a network that diffusers does not have: without convolutions where it resamples, or with a first
            level of another width than its first convolution.
    """
    library = optional_package("diffusers")
    net = getattr(prior, "net", None)
    if not isinstance(prior, VPNoise) or not isinstance(net, DDPM) or prior.prediction != "noise":
        raise ValueError(
            f"only a DDPM that predicts noise can be written, got {type(prior).__name__} of {type(net).__name__}"
        )
    steps = len(prior.alphas_cumprod)
    if not linear_alphas_cumprod(steps).allclose(prior.alphas_cumprod.cpu()):
        raise ValueError("only the linear noise schedule of DDPM can be written, this prior has another one")
    unet = library.UNet2DModel(**_configuration(net.config, prior.trained_size))
    expected, levels = unet.state_dict(), len(net.config.multipliers)
    state = {_name(name, levels): tensor for name, tensor in net.state_dict().items()}
    # The 1x1 convolutions of attention are linear layers there.
    unet.load_state_dict({name: tensor.view(expected[name].shape) for name, tensor in state.items()})
    scheduler = library.DDPMScheduler(num_train_timesteps=steps, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    library.DDPMPipeline(unet, scheduler).save_pretrained(Path(folder))


def _configuration(config: DDPMConfig, size: int | None) -> dict[str, object]:
    levels = range(len(config.multipliers))
    down = ["AttnDownBlock2D" if level in config.attention_levels else "DownBlock2D" for level in levels]
    return {
        "sample_size": size,
        "in_channels": config.channels,
        "out_channels": config.outputs or config.channels,
        "block_out_channels": tuple(config.widths),
        "layers_per_block": config.blocks,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
        "norm_eps": 1e-6,
        "norm_num_groups": 32,
        "attention_head_dim": None,  # one head
        "downsample_padding": 0,  # below and to the right only
        "flip_sin_to_cos": False,
        "freq_shift": 1,  # the exponents' ramp is divided by one less than their number
    }


def _name(name: str, levels: int) -> str:
    name = re.sub(r"^up\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name
