"""Low-rank adaptation (Hu et al. 2022) of a prior's network, by ``peft``: base weights frozen, small files.

An adapter file holds the low-rank weights alone, the name and SHA-256 of the base they belong to, and what they were
trained for: ``load_prior(FILE)`` fetches the base and puts them in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.limits import Count, Limited
from workbench.models.difference import digest
from workbench.models.files import check_finite, check_tensors
from workbench.models.unfolded import Unfolded, Unfolding
from workbench.text import check_types, replacing, require

FORMAT = 1
# Layers of attention blocks, by the names of the networks here: ADM; DDPM; the network of photo.
ATTENTION = ("qkv", "proj_out", "q", "k", "v", "query", "key", "value", "out")
LAYERS = ("attention", "all")


@dataclass(frozen=True)
class LoRA(Limited):
    """What is adapted.

    Attributes:
        rank: of each update ``B A``; its scale is 1 (``lora_alpha = rank``).
        layers: "attention", the paper's choice, or "all" convolutions and linear layers.
    """

    rank: Count = 5
    layers: str = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.layers in LAYERS, "layers", " or ".join(LAYERS), repr(self.layers))

    def inject(self, net: nn.Module) -> None:
        """Put the low-rank layers into ``net``, which then computes what it did; they alone ask for gradients.

        Raises:
            ValueError: ``net`` has no such layers, or has been adapted already.
        """
        from peft import LoraConfig, inject_adapter_in_model

        require(not adapted(net), "network", "without low-rank layers", "one that has them")
        kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
        known = [name for name, module in net.named_modules() if isinstance(module, kinds)]
        names = [name for name in known if self.layers == "all" or name.rpartition(".")[2] in ATTENTION]
        require(bool(names), "network", f"one with {self.layers} layers", type(net).__name__)
        net.requires_grad_(False)
        settings: dict[str, Any] = {"r": self.rank, "lora_alpha": self.rank, "target_modules": names}
        inject_adapter_in_model(LoraConfig(**settings), net)


def adapted(net: nn.Module) -> bool:
    """Whether ``net`` has low-rank layers."""
    return any(".lora_A." in name for name, _ in net.named_parameters())


def low_rank(net: nn.Module) -> dict[str, Tensor]:
    """The low-rank weights, by their names without that of peft's adapter."""
    return {name.replace(".default", ""): p for name, p in net.named_parameters() if ".lora_" in name}


def base_digest(net: nn.Module) -> str:
    """SHA-256 of the weights of ``net`` as it was before low-rank layers were put in."""
    state = {name.replace(".base_layer", ""): t for name, t in net.state_dict().items() if ".lora_" not in name}
    return digest(state)


def save_adapter(unfolded: Unfolded, path: str | Path, *, base: str, card: Mapping[str, Any] | None = None) -> None:
    """Write the low-rank weights of ``unfolded`` to ``path``, atomically, in half precision.

    Args:
        base: what ``load_prior`` finds the base under.
        card: what a reader should know; must be JSON.

    Raises:
        ValueError: an ``unfolded`` without low-rank layers, weights that are not finite.
    """
    net, lora = unfolded.net, unfolded.lora
    require(lora is not None and adapted(net), "an adapter file", "made of low-rank layers", "a network without")
    assert lora is not None
    tensors = {name: p.detach().half().contiguous().cpu() for name, p in low_rank(net).items()}
    check_finite(tensors)
    header = {
        "format": FORMAT,
        "lora": asdict(lora),
        "unfolding": asdict(unfolded.unfolding),
        "base": {"prior": base, "sha256": base_digest(net)},
        "card": dict(card or {}),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        save_file(tensors, file, metadata={"workbench": json.dumps(header, allow_nan=False)})


def is_adapter(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this ``metadata`` was written by :func:`save_adapter`."""
    try:
        header = json.loads(metadata.get("workbench", "null"))
    except (RecursionError, ValueError):
        return False
    return isinstance(header, dict) and "lora" in header


def adapter_from_checkpoint(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str, *, base: str | None = None
) -> Unfolded:
    """The unfolded network of a file by :func:`save_adapter`.

    Args:
        base: another place of the base than the file says.

    Raises:
        ValueError: a header that is not as written, a base with other weights, tensors that do not fit, by name.
    """
    from workbench.models.load import load_prior  # which loads adapters through this module

    header = json.loads(metadata["workbench"])
    parts: dict[str, Any] = {}
    for key, kind in (("lora", LoRA), ("unfolding", Unfolding)):
        content = header.get(key)
        require(isinstance(content, dict), key, "a JSON object", content)
        check_types(content, get_type_hints(kind), key)
        parts[key] = kind(**content)
    known = header.get("base")
    require(isinstance(known, dict) and isinstance(known.get("prior"), str), "base", "a name and its sha256", known)
    unfolded = Unfolded(load_prior(base or known["prior"]), parts["unfolding"], parts["lora"], name=name)
    found = base_digest(unfolded.net)
    if found != known.get("sha256"):
        raise ValueError(
            f"it adapts {known['prior']} with the weights {str(known.get('sha256'))[:12]}..., the base at hand has "
            f"{found[:12]}...: give the file of its base as base=FILE"
        )
    put_in(unfolded, tensors)
    unfolded.card = header.get("card", {})
    return unfolded


def put_in(unfolded: Unfolded, tensors: Mapping[str, Tensor]) -> None:
    """Replace the low-rank weights of ``unfolded``: adapters of one base are swapped like this.

    Raises:
        ValueError: tensors missing, left over, of another shape or not finite, by name.
    """
    place = low_rank(unfolded.net)
    check_tensors(tensors, place)
    check_finite(tensors)
    with torch.no_grad():
        for key, parameter in place.items():
            parameter.copy_(tensors[key])
