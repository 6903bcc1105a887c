"""Published checkpoints: from the file that the authors put on the net to a prior.

The layouts (score_sde, MUPET, guided-diffusion, pytorch_diffusion, DPIR) are told from their tensors; of a file that
holds raw and averaged weights the averaged ones are taken.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from workbench.models.adapters import PlainDenoiser, VEScore, VPNoise
from workbench.models.files import assign, build, check_plain, check_tensors
from workbench.models.formats import FAMILIES, KNOWN, Family, family_of, published_config
from workbench.models.networks.adm import ADM
from workbench.models.networks.drunet import SIGMA_MAX, DRUNet
from workbench.models.networks.ncsnpp import NCSNpp
from workbench.models.prior import Prior
from workbench.models.score_sde import load_published
from workbench.text import check_types, require, unknown

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
RAW = ("model", "state_dict", "params", "net")
AVERAGED = ("params_ema", "ema", "model_ema", "ema_state_dict")
BUFFERS = ("sigmas",)  # in state dicts, but not among the averaged parameters


def prior_from_published(content: Any, name: str, /, *, weights: str = "auto", **settings: Any) -> Prior:
    """A prior from what a published file holds.

    Args:
        content: as :func:`~workbench.models.files.read_weights` returned it.
        name: of the prior.
        weights: "ema" (averaged over training), "raw", or "auto": EMA weights if the file has them.
        settings: what the tensors do not show, or other than what was recognised: fields of the network's
            configuration (such as ``head_channels`` of ADM), and per family ``step`` or ``alphas_cumprod`` (ADM, DDPM;
            see ``VPNoise``), ``sigma_min`` and ``sigma_max`` (VE networks, DRUNet), ``sde`` ("vp" or "ve", score_sde).

    Returns:
        The prior in eval mode, float32, without gradients; its weights share the memory of ``content``.

    Raises:
        ValueError: an unknown layout, or one that needs settings: what was found, what is known, how to say it; an
            unknown setting; tensors that do not fit, by name.
    """
    state, kind = choose_weights(content, weights)
    check_plain(state)
    family = family_of(state)
    if family is None:
        raise ValueError(_unknown(state))
    try:
        config = family.configure(state)
    except ValueError as error:
        raise ValueError(f"it looks like {family.title}, but {error}") from None
    known = published_config(family, config)
    config = config if known is None else known.config
    given = {field.name: settings.pop(field.name) for field in fields(config) if field.name in settings}
    _check_settings(family, config, given, settings)
    if family.network is ADM:
        _set_heads(config, given, state, published=known is not None)
    net = build(family.network, lambda: replace(config, **given), len(state))
    if isinstance(net, NCSNpp):
        load_published(net, state)
    else:
        check_tensors(state, net.state_dict())
        assign(net, state)
    prior = _adapt(net, state, settings)
    prior.name = name
    prior.trained_size = known.image_size if known is not None else None
    prior.card["network"] = known.title if known is not None else _title(prior, family)
    if kind:
        prior.source["weights"] = kind
    return prior.eval().requires_grad_(False)


def choose_weights(content: Any, weights: str = "auto") -> tuple[dict[str, Tensor], str]:
    """The state dict in ``content``, without prefixes, and whether it is "ema" or "raw" ("": not said).

    Raises:
        ValueError: there is none, or not of the kind asked for.
    """
    require(weights in ("auto", "ema", "raw"), "weights", "'auto', 'ema' or 'raw'", repr(weights))
    if isinstance(content, Sequence) and any(_tensors(entry) for entry in content):
        # DDIM's training code saves a list: model, optimiser, epoch, step and, if there are any, EMA weights.
        states = [entry for entry in content if _tensors(entry)]
        content = {"model": states[0]} | ({"ema": states[-1]} if len(states) > 1 else {})
    if not isinstance(content, Mapping):
        raise ValueError(f"expected named tensors, found {type(content).__name__}")
    if _tensors(content):
        if weights != "auto":
            raise ValueError(f"it holds one set of weights and does not say which: {weights!r} cannot be chosen")
        return _without_prefix(content), ""
    raw: Any = next((content[key] for key in RAW if key in content), None)
    average: Any = next((content[key] for key in AVERAGED if key in content), None)
    if weights != "raw" and isinstance(average, Mapping | list | tuple) and average:  # else such as the decay
        return _averaged(average, raw), "ema"
    if weights == "ema":
        raise ValueError(f"it holds no averaged weights, only {_shown(content)}")
    if not _tensors(raw):
        raise ValueError(f"expected named tensors, found entries {_shown(content)}")
    return _without_prefix(raw), "raw"


def _averaged(average: Any, raw: Any) -> dict[str, Tensor]:
    """Averaged weights with their names, which those of ``raw`` lend to bare lists (``shadow_params``)."""
    if _tensors(average):
        return _without_prefix(average)
    if not isinstance(average, Mapping) or "shadow_params" not in average:
        # Whoever saved them wants them used: raw weights in their place would be a silent surprise.
        raise ValueError("its averaged weights are in no known form; weights='raw' takes the others")
    if not _tensors(raw):
        raise ValueError("its averaged weights have no names, and the raw ones that would name them are missing")
    return _named(average["shadow_params"], _without_prefix(raw))


def _tensors(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _shown(names: Iterable[Any], count: int = 8) -> str:
    """The first names of a file, which may hold any text."""
    return ", ".join(" ".join(str(name).split())[:80] for name in islice(names, count)) or "none"


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without what DataParallel, torch.compile and training frameworks put before every name."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return dict(state)


def _named(shadow: Any, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names for averaged parameters, which are a bare list in the order of the parameters: all of them (torch_ema), or
    those that are trained (score_sde), which leaves out the Fourier frequencies.
    """
    if not isinstance(shadow, list | tuple) or not all(isinstance(tensor, Tensor) for tensor in shadow):
        raise ValueError(f"expected a list of averaged tensors, found {type(shadow).__name__}")
    names = [name for name in raw if name not in BUFFERS]
    trained = [name for name in names if not (name.endswith(".W") and raw[name].ndim == 1)]
    orders = {len(trained): trained, len(names): names}
    if len(shadow) not in orders:
        counts = " or ".join(map(str, orders))
        raise ValueError(f"expected {counts} averaged tensors, as there are parameters, found {len(shadow)}")
    return dict(raw) | dict(zip(orders[len(shadow)], shadow, strict=True))


def _check_settings(family: Family, config: Any, given: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise ValueError unless ``settings`` are those of the family's adapter, and all values have their types."""
    for name in settings:
        if name not in family.settings:
            known = [*(field.name for field in fields(config)), *family.settings, "weights"]
            raise ValueError(unknown(f"setting of {family.title}", name, known))
    types = {"sigma_min": float, "sigma_max": float, "step": str, "sde": str}
    check_types(given | settings, types | get_type_hints(family.config), family.title)


def _set_heads(config: Any, given: dict[str, Any], state: Mapping[str, Tensor], *, published: bool) -> None:
    """How the attention of ADM is split, which its tensors do not show, from ``given`` or a published network."""
    if not published and not (given.get("head_channels") or given.get("heads")):
        raise ValueError(_ambiguous_heads(config, state))
    if given.get("heads") and given.get("head_channels"):
        raise ValueError("head_channels and heads say the same thing: pass one of them")
    if given.get("heads"):
        given["head_channels"] = 0  # published configurations set it, and it would win


def _title(prior: Prior, family: Family) -> str:
    if family.network is not NCSNpp:
        return family.title
    return "NCSN++ (score_sde, VE)" if isinstance(prior, VEScore) else "DDPM++ (score_sde, continuous VP)"


def _adapt(net: nn.Module, state: Mapping[str, Tensor], settings: dict[str, Any]) -> Prior:
    if isinstance(net, NCSNpp):
        return _adapt_score_sde(net, state, **settings)
    if isinstance(net, DRUNet):
        settings = {"sigma_min": 0.0, "sigma_max": SIGMA_MAX, **settings}
        return PlainDenoiser(net, channels=net.config.channels, multiple=net.multiple, **settings)
    if settings.get("alphas_cumprod") is not None:
        try:
            settings["alphas_cumprod"] = torch.as_tensor(settings["alphas_cumprod"], dtype=torch.float64)
        except (RuntimeError, TypeError, ValueError):
            raise ValueError(f"alphas_cumprod must be numbers, got {settings['alphas_cumprod']!r}") from None
    known: Any = net
    return VPNoise(net, channels=known.config.channels, multiple=known.multiple, **settings)


def _adapt_score_sde(net: NCSNpp, state: Mapping[str, Tensor], *, sde: str | None = None, **settings: Any) -> Prior:
    common: dict[str, Any] = {"channels": net.config.channels, "multiple": net.multiple}
    positional = net.config.embedding == "positional"
    if sde is None and positional and net.config.input_pyramid != "none":
        raise ValueError(
            "NCSN++ with time steps was published variance preserving and variance exploding (discrete), and its "
            "tensors do not tell which: pass sde='vp' (the other is not supported)"
        )
    if sde not in (None, "vp", "ve") or (sde == "ve" and positional):
        raise ValueError(f"sde must be 'vp', or 've' for a network with Fourier features, got {sde!r}")
    if sde == "vp" or positional:
        if {"sigma_min", "sigma_max"} & set(settings):
            raise ValueError("the noise levels of a variance-preserving network are those of its schedule")
        alphas, times = continuous_vp()
        return VPNoise(net, alphas_cumprod=alphas, times=times, **common, **settings)
    if "step" in settings:
        raise ValueError("a variance-exploding network has no steps")
    if "sigmas" in state:  # descending, geometric
        settings = {"sigma_min": float(state["sigmas"][-1]), "sigma_max": float(state["sigmas"][0])} | settings
    if not {"sigma_min", "sigma_max"} <= set(settings):
        raise ValueError("the file does not say its noise levels: pass sigma_min and sigma_max")
    return VEScore(net, **common, **settings)


def continuous_vp() -> tuple[Tensor, Tensor]:
    """Levels of the continuous VP process of score_sde, and what its networks are told there: two (1000,) float64.

    ``abar(t) = exp(-t^2 (beta_1 - beta_0) / 2 - t beta_0)`` with beta_0 = 0.1 and beta_1 = 20 (Song et al. 2021,
    eq. 33); the network is told 999 t. Levels start at t = 1e-3, where the published samplers end.
    """
    t = torch.linspace(1e-3, 1, 1000, dtype=torch.float64)
    return torch.exp(-0.5 * t**2 * 19.9 - 0.1 * t), 999 * t


def _ambiguous_heads(config: Any, state: Mapping[str, Tensor]) -> str:
    widths = sorted({tensor.shape[1] for name, tensor in state.items() if name.endswith("qkv.weight")})
    known = "; ".join(published.title for published in KNOWN if published.title.startswith("ADM"))
    return (
        f"an ADM network of width {config.width}, multipliers {config.multipliers}, {config.blocks} blocks per level, "
        f"which is none of the published ones ({known}). How its attention layers of {', '.join(map(str, widths))} "
        "channels are split into heads cannot be seen: pass head_channels=64 (what the published ones have; on "
        "the command line --prior-set head_channels=64) or heads=4, as it was trained"
    )


def _unknown(state: Mapping[str, Tensor]) -> str:
    """Why a state dict is not a prior, as precisely as its names allow."""
    names = "\n".join(state)
    if re.search(r"^(first_stage_model|diffusion_model)\.", names, re.M):
        return (
            "a latent-diffusion checkpoint: it denoises an autoencoder's code, not pictures, and cannot be a prior here"
        )
    if re.search(r"^down_blocks\.", names, re.M):
        if ".transformer_blocks." in names:
            return "the network of a text-conditional diffusers pipeline; only unconditional priors can be used here"
        return "the weights of a diffusers repository, without its configuration: give the folder, as diffusers:FOLDER"
    if re.search(r"lora_[AB]\.weight$", names, re.M):
        return "a LoRA adapter, not a whole network"
    known = "; ".join(family.title for family in FAMILIES.values() if family.signs)
    return (
        f"unknown layout: {len(state)} tensors such as {_shown(state, 4)}. Known are {known}; files of this package "
        "(`workbench convert`); diffusers:NAME; deepinv:NAME; spandrel:FILE, for feed-forward restorers. Any other "
        "network becomes a prior in Python with an adapter of workbench.models"
    )
