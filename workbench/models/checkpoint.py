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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.ddpm import DDPM, DDPMConfig
from workbench.models.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.prior import Prior

FORMAT = 1
NETWORKS: dict[str, tuple[type[nn.Module], type]] = {"ncsnpp": (NCSNpp, NCSNppConfig), "ddpm": (DDPM, DDPMConfig)}
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
        ValueError: the adapter or the network is not one that :func:`load_checkpoint` could build again.
    """
    adapter = next((name for name, (kind, _) in ADAPTERS.items() if type(prior) is kind), None)
    net = getattr(prior, "net", None)
    network = next((name for name, (kind, _) in NETWORKS.items() if type(net) is kind), None)
    if adapter is None or network is None:
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
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"no checkpoint {file}: {'it is a folder' if file.is_dir() else 'no such file'}")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        size = file.stat().st_size
        raise ValueError(f"{file} ({size} bytes) is not a whole safetensors file: {error}") from error
    if "workbench" not in metadata:
        found = ", ".join(sorted(metadata)) or "none"
        raise ValueError(f"{file} is not a checkpoint of this package: expected header 'workbench', found {found}")
    header = json.loads(metadata["workbench"])
    if header.get("format") != FORMAT:
        raise ValueError(f"{file}: expected checkpoint format {FORMAT}, found {header.get('format')!r}")
    for key, known in (("network", NETWORKS), ("adapter", ADAPTERS)):
        if header.get(key) not in known:
            raise ValueError(f"{file}: expected {key} {' or '.join(known)}, found {header.get(key)!r}")
    return header


def load_checkpoint(path: str | Path, *, device: torch.device | str = "cpu") -> Prior:
    """Build the prior that :func:`save_prior` wrote: eval mode, float32, ``prior.card`` set.

    Raises:
        ValueError: as :func:`read_header`; tensors missing, left over, of another shape, or not finite, by name.
    """
    header = read_header(path)
    network, config = NETWORKS[header["network"]]
    net = network(config(**header["network_config"]))
    expected = net.state_dict()
    with safe_open(path, framework="pt") as opened:
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise ValueError(
            f"{path}: {len(missing)} tensors missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(extra)} left over ({', '.join(extra[:3]) or 'none'})"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name}: expected shape {tuple(expected[name].shape)}, found {tuple(tensor.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are not finite")
    net.load_state_dict(found)
    settings = dict(header["settings"])
    settings |= {name: torch.tensor(settings[name], dtype=torch.float64) for name in SCHEDULE if name in settings}
    prior = ADAPTERS[header["adapter"]][0](net, name=Path(path).stem, **settings)
    prior.card = header["card"]
    return prior.eval().requires_grad_(False).to(device)
