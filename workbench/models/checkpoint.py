"""Our own checkpoints: one safetensors file that holds weights, configuration and model card.

The header's ``workbench`` entry is JSON: format number, network and its configuration, adapter and its settings, and
the card (free-form facts: data, steps, hours, hardware, measured quality). Nothing in the file is executed on loading.
Weights may be stored in half precision; they are loaded as float32.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_type_hints

import torch
from torch import Tensor, nn

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.consistency import ConsistencyModel
from workbench.models.difference import decode, digest, encode
from workbench.models.files import (
    FLOATS,
    about,
    assign,
    build,
    check_finite,
    check_tensors,
    read_weights,
    write_weights,
)
from workbench.models.formats import FAMILIES
from workbench.models.lora import adapted, adapter_header
from workbench.models.prior import Prior
from workbench.text import check_types, require, require_kind

FORMAT = 1
SIZES = ("channels", "multiple", "image_size")
# Adapter name: (class, the constructor arguments that a file records).
ADAPTERS: dict[str, tuple[type[Prior], tuple[str, ...]]] = {
    "edm": (EDMPrecond, ("sigma_min", "sigma_max", "sigma_data", *SIZES)),
    "consistency": (ConsistencyModel, ("sigma_min", "sigma_max", "sigma_data", *SIZES)),
    "ve_score": (VEScore, ("sigma_min", "sigma_max", "scale_by_sigma", "centre", *SIZES)),
    "vp_noise": (VPNoise, ("prediction", "step", *SIZES)),
    "plain": (PlainDenoiser, ("sigma_min", "sigma_max", "data_range", *SIZES)),
}

SCHEDULE = ("alphas_cumprod", "times")


def save_prior(
    prior: Prior,
    path: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    base: str | None = None,
) -> None:
    """Write ``prior`` (an adapter around one of our networks) to ``path``, atomically.

    Of one that was loaded from one's own code, ``FILE.py:NAME`` and so on, the weights are written, and that name.

    Args:
        card: what a reader should know; must be JSON (no NaN).
        dtype: storage precision of the weights.
        base: name of a shipped prior: only the difference to its weights is stored, see ``difference``.

    Raises:
        ValueError: the adapter or the network is not one that :func:`~workbench.models.load_prior` could build again;
            weights that are not finite in ``dtype``; a card that is not JSON; a file that cannot be written.
    """
    require(dtype in FLOATS, "dtype", f"one of {', '.join(map(str, FLOATS))}", dtype)
    header = check_saves(prior) | {"card": dict(card or {})}
    net = prior if "code" in header else cast(nn.Module, prior.net)
    require(base is None or "code" not in header, "base", "of a network of this package", type(prior).__name__)
    if base is not None:
        start = _weights(base)
        header["base"] = {"prior": base, "sha256": digest(start)}
    tensors = _stored(net, dtype) if base is None else encode(net.state_dict(), start)
    write_weights(path, tensors, header)


def check_saves(prior: Prior) -> dict[str, Any]:
    """What a file says of ``prior``, without its card. Raises ValueError as :func:`save_prior` if there can be none:
    to be asked before hours of training, not after."""
    require_kind(prior, Prior, "prior", "load_prior('photo')")
    net = getattr(prior, "net", None)
    if isinstance(net, nn.Module) and adapted(net):
        raise ValueError("its network has low-rank layers: save_adapter writes them")
    adapter = next((name for name, (kind, _) in ADAPTERS.items() if type(prior) is kind), None)
    network = next((name for name, family in FAMILIES.items() if type(net) is family.network), None)
    header: dict[str, Any] = {"format": FORMAT, "trained_size": prior.trained_size}
    if prior.sigma_min == prior.sigma_max:  # as ReG trains it, whatever its schedule or code says
        header["level"] = prior.sigma_min
    if adapter is not None and network is not None and net is not None:
        header |= {"network": network, "network_config": asdict(net.config)}
        header |= {"adapter": adapter, "settings": _settings(prior, adapter)}
    elif "code" in prior.source:
        code = {key: prior.source[key] for key in ("code", "code_sha256")}
        header |= code | {"code_settings": json.loads(prior.source.get("code_settings", "{}"))}
    else:
        raise ValueError(
            f"can save adapters {', '.join(ADAPTERS)} around networks {', '.join(FAMILIES)}, "
            f"got {type(prior).__name__} around {type(net).__name__}"
        )
    return header


def _settings(prior: Prior, adapter: str) -> dict[str, Any]:
    defaults = {"sigma_max": float("inf"), "data_range": (0, 1), "image_size": None}  # JSON has no infinity
    settings = {name: getattr(prior, name) for name in ADAPTERS[adapter][1]}
    settings = {name: value for name, value in settings.items() if name not in defaults or value != defaults[name]}
    if adapter == "vp_noise":
        settings |= {name: prior.get_buffer(name).tolist() for name in SCHEDULE}
    return settings


def _stored(net: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict in ``dtype`` on the CPU, no two tensors in the same memory: safetensors refuses those."""
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, tensor in net.state_dict().items():
        stored = (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
        place = stored.untyped_storage().data_ptr()
        tensors[name] = stored.clone() if place in places else stored
        places.add(place)
    check_finite(tensors)
    return tensors


def _weights(name: str) -> dict[str, Tensor]:
    """The weights of a shipped prior."""
    from workbench.models.load import load_prior  # which loads checkpoints through this module

    return cast(nn.Module, load_prior(name).net).state_dict()


def _completed(tensors: Mapping[str, Tensor], base: Any, net: nn.Module) -> dict[str, Tensor]:
    """The weights that are stored as a difference to those of the prior ``base["prior"]``."""
    if not isinstance(base, dict) or not isinstance(base.get("prior"), str):
        raise ValueError(f"expected base as the name of a prior and its sha256, found {base!r}")
    start = _weights(base["prior"])
    if digest(start) != base.get("sha256"):
        raise ValueError(f"it is a difference to other weights than those of the prior {base['prior']} at hand")
    return decode(tensors, start, net.state_dict())


def read_header(path: str | Path) -> dict[str, Any]:
    """The ``workbench`` header of a checkpoint, without reading its weights.

    Raises:
        ValueError: no such file, not a safetensors file (or a truncated one), or not written by :func:`save_prior`.
    """
    with about(path):
        metadata = read_weights(path)[1]
        adapter = adapter_header(metadata)
        return adapter if "unfolding" in adapter else checkpoint_header(metadata)


def checkpoint_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    if "workbench" not in metadata:
        found = ", ".join(sorted(metadata)) or "none"
        raise ValueError(f"not a checkpoint of this package: expected header 'workbench', found {found}")
    try:
        header = json.loads(metadata["workbench"])
    except (RecursionError, ValueError) as error:
        raise ValueError(f"its header 'workbench' is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise ValueError(f"its header 'workbench' is no JSON object, but {type(header).__name__}")
    own = isinstance(header.get("code"), str)
    parts: dict[str, list[Any]] = {} if own else {"network": list(FAMILIES), "adapter": list(ADAPTERS)}
    for key, known in {"format": [FORMAT], **parts}.items():
        if header.get(key) not in known:
            raise ValueError(f"expected {key} {' or '.join(map(str, known))}, found {header.get(key)!r}")
    names = ("code_settings", "card") if own else ("network_config", "settings", "card")
    objects = dict.fromkeys(names, (dict, "a JSON object"))
    numbers = {"trained_size": (int | None, "a number of pixels"), "level": (float | int | None, "a noise level")}
    for key, (kind, words) in {**objects, **numbers}.items():
        if not isinstance(header.get(key), kind) or (key == "trained_size" and (header.get(key) or 1) < 1):
            raise ValueError(f"expected {key} as {words}, found {header.get(key)!r}")
    return header


def prior_from_checkpoint(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str, *, step: str | None = None
) -> Prior:
    """Build the prior that :func:`save_prior` wrote: eval mode, float32, ``prior.card`` set.

    Args:
        tensors, metadata: as :func:`~workbench.models.files.read_weights` returned them. Mapped weights in single
            precision stay mapped: they are read when they are used, and never copied.
        name: of the prior.
        step: for variance-preserving networks, other than the file says; see ``VPNoise``.

    Raises:
        ValueError: as :func:`read_header`; tensors missing, left over, of another shape, or not finite, by name.
    """
    header = checkpoint_header(metadata)
    family = FAMILIES[header["network"]]
    net = build(family.network, lambda: family.config(**header["network_config"]), len(tensors))
    if "base" in header:
        tensors = _completed(tensors, header["base"], net)
    check_tensors(tensors, net.state_dict())
    assign(net, tensors)
    adapter, known = ADAPTERS[header["adapter"]]
    settings = dict(header["settings"])
    if isinstance(limits := settings.get("data_range"), list):
        settings["data_range"] = tuple(limits)
    if step is not None:
        if "step" not in settings:
            raise ValueError(f"a variance-exploding network has no steps, got step={step!r}")
        settings["step"] = step
    for key in settings:
        if key not in known and not (key in SCHEDULE and adapter is VPNoise):
            raise ValueError(f"unknown setting {key!r} of adapter {header['adapter']}")
    builders = [vars(kind)["__init__"] for kind in adapter.mro()[::-1] if "__init__" in vars(kind)]
    types = {name: hint for builder in builders for name, hint in get_type_hints(builder).items()}
    try:
        schedule = {key: torch.tensor(settings.pop(key), dtype=torch.float64) for key in SCHEDULE if key in settings}
        check_types(settings, types, f"adapter {header['adapter']}")
        prior = cast(Any, adapter)(net, name=name, **settings, **schedule)
    except (RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from None
    if prior.channels != header["network_config"].get("channels", prior.channels):
        raise ValueError(f"its adapter has {prior.channels} channels, its network another number")
    return as_saved(prior, header).eval().requires_grad_(False)


def as_saved(prior: Prior, header: Mapping[str, Any]) -> Prior:
    """``prior`` with what the header of its file says beside its network: card, size, the level if it knows but one."""
    prior.card, prior.trained_size = header["card"], header.get("trained_size")
    if header.get("level") is not None:
        prior.sigma_min = prior.sigma_max = header["level"]
    return prior
