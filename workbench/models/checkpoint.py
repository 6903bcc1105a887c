"""Our own checkpoints: one safetensors file that holds weights, configuration and model card.

The header's ``workbench`` entry is JSON: format number, network and its configuration, adapter and its settings, and
the card (free-form facts: data, steps, hours, hardware, measured quality). Nothing in the file is executed on loading.
Weights may be stored in half precision; they are loaded as float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.files import assign, build, check_tensors, read_weights
from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.networks.drunet import DRUNet, DRUNetConfig
from workbench.models.networks.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.networks.unet import UNet, UNetConfig
from workbench.models.prior import Prior
from workbench.text import check_types

FORMAT = 1
NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    "ncsnpp": (NCSNpp, NCSNppConfig),
    "adm": (ADM, ADMConfig),
    "ddpm": (DDPM, DDPMConfig),
    "drunet": (DRUNet, DRUNetConfig),
    "unet": (UNet, UNetConfig),
}
# Adapter name: (class, the constructor arguments that a file records).
ADAPTERS: dict[str, tuple[Callable[..., Prior], tuple[str, ...]]] = {
    "edm": (EDMPrecond, ("sigma_min", "sigma_max", "sigma_data", "channels", "multiple")),
    "ve_score": (VEScore, ("sigma_min", "sigma_max", "scale_by_sigma", "centre", "channels", "multiple")),
    "vp_noise": (VPNoise, ("prediction", "step", "channels", "multiple", "image_size")),
    "plain": (PlainDenoiser, ("sigma_min", "sigma_max", "channels", "multiple")),
}

SCHEDULE = ("alphas_cumprod", "times")


def save_prior(
    prior: Prior, path: str | Path, *, card: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write ``prior`` (an adapter around one of our networks) to ``path``, atomically.

    Args:
        card: what a reader should know; must be JSON (no NaN).
        dtype: storage precision of the weights.

    Raises:
        ValueError: the adapter or the network is not one that :func:`~workbench.models.load_prior` could build again;
            weights that are not finite in ``dtype``; a card that is not JSON; a file that cannot be written.
    """
    adapter = next((name for name, (kind, _) in ADAPTERS.items() if type(prior) is kind), None)
    net = getattr(prior, "net", None)
    network = next((name for name, (kind, _) in NETWORKS.items() if type(net) is kind), None)
    if adapter is None or network is None or net is None:
        raise ValueError(
            f"can save adapters {', '.join(ADAPTERS)} around networks {', '.join(NETWORKS)}, "
            f"got {type(prior).__name__} around {type(net).__name__}"
        )
    settings = {name: getattr(prior, name) for name in ADAPTERS[adapter][1]}
    if adapter == "plain" and settings["sigma_max"] == float("inf"):
        del settings["sigma_max"]  # JSON has no infinity, and it is the default
    if adapter == "vp_noise":
        settings |= {name: prior.get_buffer(name).tolist() for name in SCHEDULE}
    header = {
        "format": FORMAT,
        "network": network,
        "network_config": asdict(net.config),
        "adapter": adapter,
        "settings": settings,
        "trained_size": prior.trained_size,
        "card": dict(card or {}),
    }
    try:
        metadata = {"workbench": json.dumps(header, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card must be JSON without NaN: {error}") from None
    tensors: dict[str, Tensor] = {}
    places = set()
    for name, tensor in net.state_dict().items():
        stored = _stored(tensor, dtype)
        if stored.is_floating_point() and not bool(torch.stack(torch.aminmax(stored)).isfinite().all()):
            raise ValueError(f"cannot write {path}: {name} holds values that are not finite{_beyond(tensor, dtype)}")
        # safetensors refuses tensors that share memory, as some files have them.
        place = stored.untyped_storage().data_ptr()
        tensors[name] = stored.clone() if place in places else stored
        places.add(place)
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ValueError(f"cannot write {target}: {error}") from None


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()


def _beyond(tensor: Tensor, dtype: torch.dtype) -> str:
    return f" in {dtype}" if bool(tensor.isfinite().all()) else ""


def read_header(path: str | Path) -> dict[str, Any]:
    """The ``workbench`` header of a checkpoint, without reading its weights.

    Raises:
        ValueError: no such file, not a safetensors file (or a truncated one), or not written by :func:`save_prior`.
    """
    return _header(read_weights(path)[1], path)


def _header(metadata: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    if "workbench" not in metadata:
        found = ", ".join(sorted(metadata)) or "none"
        raise ValueError(f"{path} is not a checkpoint of this package: expected header 'workbench', found {found}")
    try:
        header = json.loads(metadata["workbench"])
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: its header 'workbench' is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: its header 'workbench' is no JSON object, but {type(header).__name__}")
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: expected checkpoint format {FORMAT}, found {header.get('format')!r}")
    for key, known in (("network", NETWORKS), ("adapter", ADAPTERS)):
        if header.get(key) not in list(known):
            raise ValueError(f"{path}: expected {key} {' or '.join(known)}, found {header.get(key)!r}")
    for key in ("network_config", "settings", "card"):
        if not isinstance(header.get(key), dict):
            raise ValueError(f"{path}: expected {key} as a JSON object, found {header.get(key)!r}")
    if not isinstance(header.get("trained_size"), int | None):
        raise ValueError(f"{path}: expected trained_size as a number of pixels, found {header['trained_size']!r}")
    return header


def prior_from_checkpoint(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: str | Path, *, step: str | None = None
) -> Prior:
    """Build the prior that :func:`save_prior` wrote: eval mode, float32, ``prior.card`` set.

    Args:
        tensors, metadata: as :func:`~workbench.models.files.read_weights` returned them. Mapped weights in single
            precision stay mapped: they are read when they are used, and never copied.
        step: for variance-preserving networks, other than the file says; see ``VPNoise``.

    Raises:
        ValueError: as :func:`read_header`; tensors missing, left over, of another shape, or not finite, by name.
    """
    header = _header(metadata, path)
    network, config = NETWORKS[header["network"]]
    net = build(network, lambda: config(**header["network_config"]), len(tensors), path)
    check_tensors(tensors, net.state_dict(), path)
    assign(net, tensors)
    settings = dict(header["settings"])
    if step is not None:
        if "step" not in settings:
            raise ValueError(f"{path}: a variance-exploding network has no steps, got step={step!r}")
        settings["step"] = step
    adapter, known = ADAPTERS[header["adapter"]]
    for name in settings:
        if name not in known and not (name in SCHEDULE and adapter is VPNoise):
            raise ValueError(f"{path}: unknown setting {name!r} of adapter {header['adapter']}")
    try:
        lists = {name: settings.pop(name) for name in SCHEDULE if name in settings}
        schedule = {name: torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}
        check_types(settings, get_type_hints(adapter.__init__), f"adapter {header['adapter']}")
        prior = adapter(net, name=Path(path).stem, **settings, **schedule)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if prior.channels != header["network_config"].get("channels", prior.channels):
        raise ValueError(f"{path}: its adapter has {prior.channels} channels, its network another number")
    prior.card = header["card"]
    prior.trained_size = header.get("trained_size")
    return prior.eval().requires_grad_(False)
