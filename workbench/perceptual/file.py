"""The file of ``perceptual-tiny``: safetensors whose header's ``workbench`` entry is JSON with the card.

The card holds free-form facts (data, training, measured quality) and ``classes``, the class names in the order of their
numbers. Nothing in the file is executed on loading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from workbench.models.files import assign, check_tensors, read_weights
from workbench.perceptual.network import PerceptualNetwork, fused

FORMAT = 1
NETWORK = "perceptual-tiny"


def save_network(network: PerceptualNetwork, path: str | Path, card: Mapping[str, Any]) -> None:
    """Write ``network`` (in eval mode, as trained or fused) to ``path`` in half precision, fused, in one step.

    Args:
        card: JSON facts; ``classes`` must name every class.

    Raises:
        ValueError: another number of classes, a card that is not JSON, weights that half precision cannot hold.
    """
    if len(card.get("classes", ())) != network.head.out_features:
        raise ValueError(f"the card must name the {network.head.out_features} classes of the network")
    normalised = any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    plain = fused(network) if normalised else network
    tensors = {name: tensor.half().contiguous() for name, tensor in plain.state_dict().items()}
    check_tensors(tensors, plain.state_dict(), f"cannot write {path}")
    try:
        header = json.dumps({"format": FORMAT, "network": NETWORK, "card": dict(card)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card must be JSON without NaN: {error}") from None
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    save_file(tensors, partial, metadata={"workbench": header})
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    os.replace(partial, target)


def load_network(path: str | Path) -> tuple[PerceptualNetwork, dict[str, Any]]:
    """The network in eval mode, float32, and its card.

    Raises:
        ValueError: no such file, damaged, not written by :func:`save_network`, or with wrong tensors, by name.
    """
    tensors, metadata = read_weights(path)
    try:
        header = json.loads(metadata["workbench"])
        known = (header["format"], header["network"]) == (FORMAT, NETWORK)
        classes = len(header["card"]["classes"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not a network of {NETWORK}: its header does not say so") from None
    if not known:
        raise ValueError(
            f"{path}: expected format {FORMAT} of {NETWORK}, found {header['format']!r} of {header['network']!r}"
        )
    network = PerceptualNetwork(classes, normalised=False)
    check_tensors(tensors, network.state_dict(), path)
    assign(network, tensors)
    return network.eval(), header["card"]
