"""Which published network do these tensors belong to, and in which configuration? Told from names and shapes alone.

A network's width, levels, blocks, attention layers and outputs are all visible in its tensors. What is not (the number
of attention heads, what the time step means) follows from the published configurations in :data:`KNOWN`, or the user
says it. Half a file is still recognised: what is missing is then named by
:func:`~workbench.models.files.check_tensors`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.networks.drunet import DRUNet, DRUNetConfig
from workbench.models.networks.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.networks.unet import UNet, UNetConfig

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A network of the package, and how published files of it are told.

    Attributes:
        title: for people.
        network, config: the classes.
        signs: tensors that every published file of it has; empty for networks of this package alone.
        configure: configuration from the tensors; raises ValueError where they are not enough.
        unseen: fields of the configuration that tensors do not show.
        settings: of the adapter, which a user may say of a published file.
    """

    title: str
    network: type[nn.Module]
    config: type
    signs: tuple[str, ...] = ()
    configure: Callable[[State], Any] = dict
    unseen: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedConfig:
    """A configuration that was published: what it is, and the image size it was trained at."""

    title: str
    image_size: int
    config: Any


def configure_adm(state: State) -> ADMConfig:
    """ADM from ``input_blocks``, ``output_blocks`` and ``out``; heads are not visible."""
    first = _shape(state, "input_blocks.0.0.weight", 4)
    if "label_emb.weight" in state:
        classes = _shape(state, "label_emb.weight", 2)[0]
        raise ValueError(
            f"it is a class-conditional ADM ({classes} classes); only unconditional priors can be used here"
        )
    _image_channels(first[1])
    if not any(name.startswith("output_blocks.") for name in state):
        raise ValueError("it has no way up (output_blocks): a classifier, not a denoiser")
    resampling = [n for n in state if re.fullmatch(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.0)\.weight", n)]
    within = any("in_layers" in name for name in resampling)
    levels = 1 + sum(("in_layers" in name) == within for name in resampling)
    blocks = _count(state, r"output_blocks\.(\d+)\.") // levels - 1
    starts = [1 + level * (blocks + 1) for level in range(levels)]
    shift = _shape(state, "input_blocks.1.0.emb_layers.1.weight", 2)[0]
    return ADMConfig(
        channels=first[1],
        width=first[0],
        multipliers=_multipliers(state, [f"input_blocks.{start}.0.out_layers.3.weight" for start in starts], first[0]),
        blocks=blocks,
        attention_levels=tuple(
            level
            for level, start in enumerate(starts)
            if any(f"input_blocks.{start + index}.1.qkv.weight" in state for index in range(blocks))
        ),
        learned_variance=_shape(state, "out.2.weight", 4)[0] == 2 * first[1],
        scale_shift=shift == 2 * _shape(state, "input_blocks.1.0.out_layers.3.weight", 4)[0],
        resample_in_blocks=within or levels == 1,
        head_channels=0,
        heads=1,
    )


def configure_ddpm(state: State) -> DDPMConfig:
    """The DDPM U-Net from ``down`` and ``conv_in``: all of it is visible."""
    first = _shape(state, "conv_in.weight", 4)
    _image_channels(first[1])
    levels = _count(state, r"down\.(\d+)\.")
    outputs = _shape(state, "conv_out.weight", 4)[0]
    if outputs not in (first[1], 2 * first[1]):  # the latter: with a learned variance
        raise ValueError(f"it has {first[1]} input and {outputs} output channels")
    return DDPMConfig(
        channels=first[1],
        width=first[0],
        multipliers=_multipliers(state, [f"down.{level}.block.0.conv2.weight" for level in range(levels)], first[0]),
        blocks=_count(state, r"down\.0\.block\.(\d+)\."),
        attention_levels=tuple(
            level for level in range(levels) if any(name.startswith(f"down.{level}.attn.") for name in state)
        ),
        convolve_resampling=levels == 1 or any(".downsample.conv." in name for name in state),
        outputs=None if outputs == first[1] else outputs,
    )


def configure_drunet(state: State) -> DRUNetConfig:
    """DRUNet: all of it is visible."""
    inputs = _shape(state, "m_head.weight", 4)[1]
    outputs = _shape(state, "m_tail.weight", 4)[0]
    if inputs != outputs + 1:
        raise ValueError(f"DRUNet takes its image and a noise map, got {inputs} input and {outputs} output channels")
    blocks = _count(state, r"m_down1\.(\d+)\.") - 1
    body = "m_body.0.res.0.weight" if "m_body.0.res.0.weight" in state else "m_body.res.0.weight"
    names = [f"m_down{level}.0.res.0.weight" for level in (1, 2, 3)] + [body]
    first, second, third, fourth = (_shape(state, name, 4)[0] for name in names)
    return DRUNetConfig(channels=outputs, widths=(first, second, third, fourth), blocks=blocks)


def configure_ncsnpp(state: State) -> NCSNppConfig:
    """NCSN++ and DDPM++ from the flat list ``all_modules.N``, whose order is that of the computation."""
    kinds = [_kind(state, index) for index in range(_count(state, r"all_modules\.(\d+)\."))]
    fourier = kinds[0] == "fourier"
    first = _shape(state, f"all_modules.{2 + fourier}.weight", 4)
    blocks = [index for index, kind in enumerate(kinds) if kind in ("block", "resample")]
    levels = 1 + sum(kind == "resample" for kind in kinds) // 2
    per_level = (len(blocks) - 2 * (levels - 1) - 2 - levels) // (2 * levels)
    if per_level < 1:
        raise ValueError(f"its {len(blocks)} residual blocks do not make {levels} levels")
    # On the way down, blocks of a level are followed by the one that halves the size.
    stages = [blocks[level * (per_level + 1) :][:per_level] for level in range(levels)]
    pyramid = "input_skip" if "combine" in kinds else "residual" if "pyramid" in kinds else "none"
    return NCSNppConfig(
        channels=first[1],
        width=first[0],
        multipliers=_multipliers(state, [f"all_modules.{stage[0]}.Conv_1.weight" for stage in stages], first[0]),
        blocks=per_level,
        attention_levels=tuple(
            level for level, stage in enumerate(stages) if any(kinds[index + 1] == "attention" for index in stage)
        ),
        embedding="fourier" if fourier else "positional",
        # The filter has no weights. Of the published networks those with a pyramid or Fourier features have it.
        fir=fourier or pyramid != "none",
        input_pyramid=pyramid,
        output_pyramid="output_skip" if kinds.count("norm") > 1 else "none",
        sigmas=_shape(state, "sigmas", 1)[0] if "sigmas" in state else 0,
    )


def _kind(state: State, index: int) -> str:
    """What module ``index`` of the flat list is."""
    here = f"all_modules.{index}."

    def has(name: str) -> bool:
        return here + name in state

    if has("W"):
        return "fourier"
    if has("NIN_0.W") or has("NIN_1.W"):
        return "attention"
    if has("GroupNorm_0.weight") or has("Conv_1.weight"):
        # Only resampling blocks have a shortcut although their width stays.
        widths = state.get(here + "Conv_1.weight"), state.get(here + "Conv_0.weight")
        same = all(weight is not None and len({*weight.shape[:2]}) == 1 for weight in widths)
        return "resample" if has("Conv_2.weight") and same else "block"
    if has("Conv_0.weight"):
        return "combine"
    if has("Conv2d_0.weight"):
        return "pyramid"
    return {2: "linear", 4: "conv", 1: "norm"}.get(state[here + "weight"].ndim if has("weight") else 0, "unknown")


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"{name} is missing")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name}: expected {dimensions} dimensions, found shape {shape}")
    return shape


def _image_channels(channels: int) -> None:
    if channels not in (1, 3):
        known = {4: " (a latent-diffusion network, which needs its autoencoder)", 6: " (an image beside another one)"}
        raise ValueError(f"its input has {channels} channels{known.get(channels, '')}, expected 3 or 1")


def _count(state: State, pattern: str) -> int:
    """One more than the highest number that ``pattern`` finds at the start of a name."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).match, state) if match]
    count = max(numbers, default=-1) + 1
    # Each number has tensors of its own. Without this bound, one long number in a name could take all memory.
    if count > len(state):
        raise ValueError(f"its names count up to {count - 1}, and it has only {len(state)} tensors")
    return count


def _multipliers(state: State, names: Iterable[str], width: int) -> tuple[int, ...]:
    """The widths of these convolutions, one per level, as multiples of the first one's ``width``."""
    widths = [_shape(state, name, 4)[0] for name in names]
    if not widths or any(outputs % width for outputs in widths):
        raise ValueError(f"the widths of its levels are not multiples of the first convolution's: {widths}")
    return tuple(outputs // width for outputs in widths)


FAMILIES = {
    "adm": Family(
        "ADM (guided-diffusion)",
        ADM,
        ADMConfig,
        signs=("time_embed.0.weight", "input_blocks.0.0.weight"),
        configure=configure_adm,
        unseen=("head_channels", "heads", "query_key_value_first"),
        settings=("step", "alphas_cumprod"),
    ),
    "ddpm": Family(
        "DDPM U-Net (pytorch_diffusion)",
        DDPM,
        DDPMConfig,
        signs=("temb.dense.0.weight", "conv_in.weight"),
        configure=configure_ddpm,
        settings=("step", "alphas_cumprod"),
    ),
    "drunet": Family(
        "DRUNet (DPIR)",
        DRUNet,
        DRUNetConfig,
        signs=("m_head.weight", "m_tail.weight"),
        configure=configure_drunet,
        settings=("sigma_min", "sigma_max"),
    ),
    "ncsnpp": Family(
        "NCSN++ or DDPM++ (score_sde)",
        NCSNpp,
        NCSNppConfig,
        signs=("all_modules.0.", "all_modules.3."),
        configure=configure_ncsnpp,
        unseen=("fir",),
        settings=("sigma_min", "sigma_max", "sde", "step"),
    ),
    "unet": Family("U-Net of the photo prior", UNet, UNetConfig),
}

KNOWN = (
    PublishedConfig("ADM 256x256, unconditional (ImageNet, LSUN)", 256, ADMConfig()),
    PublishedConfig(
        "ADM 256x256 of DPS and DiffPIR (FFHQ)", 256, ADMConfig(width=128, blocks=1, attention_levels=(4,))
    ),
    PublishedConfig("DDPM CIFAR-10", 32, DDPMConfig()),
    PublishedConfig(
        "DDPM 256x256 (LSUN, CelebA-HQ)", 256, DDPMConfig(multipliers=(1, 1, 2, 2, 4, 4), attention_levels=(4,))
    ),
    PublishedConfig("NCSN++ CIFAR-10, continuous, VE", 32, NCSNppConfig(sigmas=1000)),
    PublishedConfig(
        "NCSN++ 256x256 (LSUN), continuous, VE",
        256,
        NCSNppConfig(
            multipliers=(1, 1, 2, 2, 2, 2, 2),
            blocks=2,
            attention_levels=(4,),
            input_pyramid="input_skip",
            output_pyramid="output_skip",
            sigmas=2000,
        ),
    ),
    PublishedConfig(
        "DDPM++ CIFAR-10, continuous, VP",
        32,
        NCSNppConfig(embedding="positional", fir=False, input_pyramid="none", sigmas=1000),
    ),
)


def family_of(state: State) -> Family | None:
    """The family whose signs are all there, or None."""
    for family in FAMILIES.values():
        if family.signs and all(any(name.startswith(sign) for name in state) for sign in family.signs):
            return family
    return None


def published_config(family: Family, config: Any) -> PublishedConfig | None:
    """The published configuration that looks like ``config``."""
    unseen = {name: getattr(config, name) for name in family.unseen}
    alike = (known for known in KNOWN if isinstance(known.config, family.config))
    return next((known for known in alike if replace(known.config, **unseen) == config), None)
