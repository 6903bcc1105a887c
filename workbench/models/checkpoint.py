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
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.adm import ADM, ADMConfig
from workbench.models.ddpm import DDPM, DDPMConfig
from workbench.models.drunet import DRUNet, DRUNetConfig
from workbench.models.files import assign, check_tensors, read_weights
from workbench.models.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.prior import Prior

FORMAT = 1
NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    "ncsnpp": (NCSNpp, NCSNppConfig),
    "adm": (ADM, ADMConfig),
    "ddpm": (DDPM, DDPMConfig),
    "drunet": (DRUNet, DRUNetConfig),
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
        ValueError: the adapter or the network is not one that :func:`~workbench.models.load_prior` could build again.
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
    tensors = {name: _stored(tensor, dtype) for name, tensor in net.state_dict().items()}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    save_file(tensors, partial, metadata={"workbench": json.dumps(header, allow_nan=False)})
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    os.replace(partial, target)


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()


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
    header = json.loads(metadata["workbench"])
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: expected checkpoint format {FORMAT}, found {header.get('format')!r}")
    for key, known in (("network", NETWORKS), ("adapter", ADAPTERS)):
        if header.get(key) not in known:
            raise ValueError(f"{path}: expected {key} {' or '.join(known)}, found {header.get(key)!r}")
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
    with torch.device("meta"):
        net = network(config(**header["network_config"]))
    check_tensors(tensors, net.state_dict(), path)
    assign(net, tensors)
    settings = dict(header["settings"])
    settings |= {name: torch.tensor(settings[name], dtype=torch.float64) for name in SCHEDULE if name in settings}
    if step is not None:
        if "step" not in settings:
            raise ValueError(f"{path}: a variance-exploding network has no steps, got step={step!r}")
        settings["step"] = step
    prior = ADAPTERS[header["adapter"]][0](net, name=Path(path).stem, **settings)
    prior.card = header["card"]
    prior.trained_size = header.get("trained_size")
    return prior.eval().requires_grad_(False)
