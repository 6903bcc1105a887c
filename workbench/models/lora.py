"""Low-rank adaptation (Hu et al. 2022) of a prior's network, by ``peft``: base weights frozen, small files.

An adapter file holds the low-rank weights alone, the name and SHA-256 of the base they belong to, and what they were
trained for: ``load_prior(FILE)`` fetches the base and puts them in.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from torch import Tensor, nn

from workbench.limits import Count, Limited, one_of
from workbench.models.difference import decode, digest, encode
from workbench.models.files import about, check_finite, check_tensors, read_weights, write_weights
from workbench.models.unfolded import Unfolded, Unfolding
from workbench.text import require

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
    layers: Annotated[str, one_of(LAYERS)] = "attention"

    def layers_of(self, net: nn.Module) -> dict[str, Any]:
        """The layers that are adapted, by name. Raises ValueError if ``net`` has none."""
        kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
        known = {name: module for name, module in net.named_modules() if isinstance(module, kinds)}
        chosen = {n: m for n, m in known.items() if self.layers == "all" or n.rpartition(".")[2] in ATTENTION}
        require(bool(chosen), "network", f"one with {self.layers} layers", type(net).__name__)
        return chosen

    def inject(self, net: nn.Module) -> None:
        """Put the low-rank layers into ``net``, which then computes what it did; they alone ask for gradients.

        Raises:
            ValueError: ``net`` has no such layers, or has been adapted already.
        """
        # Slow to import, and needed for training alone.
        from peft import LoraConfig, inject_adapter_in_model

        require(not adapted(net), "network", "without low-rank layers", "one that has them")
        names = list(self.layers_of(net))
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
    """Write the low-rank weights of ``unfolded`` to ``path``, atomically, in half precision; where all weights were
    trained, their difference to the base (``difference``).

    Args:
        base: what ``load_prior`` finds the base under.
        card: what a reader should know; must be JSON.

    Raises:
        ValueError: weights that are not finite, another base than that of the low-rank layers, a card that is not JSON,
            a file that cannot be written; or an estimator, which the file would lack.
    """
    from workbench.models.load import load_prior  # which loads adapters through this module

    net, lora = unfolded.net, unfolded.lora
    require(unfolded.estimator is None, "unfolded", "without an estimator: files of adapters hold none", "one")
    start = cast(nn.Module, load_prior(base).net).state_dict()
    if lora is None:
        tensors = encode(net.state_dict(), start)
    elif base_digest(net) == digest(start):
        tensors = {name: p.detach().half().contiguous().cpu() for name, p in low_rank(net).items()}
    else:
        raise ValueError(f"these low-rank layers are on other weights than those of {base}")
    check_finite(tensors)
    header = {
        "format": FORMAT,
        "lora": lora and asdict(lora),
        "unfolding": asdict(unfolded.unfolding),
        "base": {"prior": base, "sha256": digest(start)},
        "card": dict(card or {}),
    }
    write_weights(path, tensors, header)


def start_from(unfolded: Unfolded, path: str | Path) -> None:
    """Copy the low-rank weights of the adapter file ``path`` into those of ``unfolded``, to go on training from there.

    Its unfolding (number of modules, levels) need not be that of ``unfolded``.

    Raises:
        ValueError: no adapter file, one of another base, other layers or another rank.
    """
    tensors, metadata = read_weights(path)
    with about(path):
        known, found = adapter_header(metadata).get("base"), base_digest(unfolded.net)
        if not isinstance(known, dict) or known.get("sha256") != found:
            raise ValueError(f"expected an adapter of the base at hand ({found[:12]}...), found one of {known!r}")
        place = low_rank(unfolded.net)
        check_tensors(tensors, place)
        check_finite(tensors)
    for name, weight in place.items():
        weight.data.copy_(tensors[name])


def is_adapter(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this ``metadata`` was written by :func:`save_adapter`."""
    return "unfolding" in adapter_header(metadata)


def adapter_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header that :func:`save_adapter` wrote, or an empty one."""
    try:
        header = json.loads(metadata.get("workbench", "null"))
    except (RecursionError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def adapter_from_checkpoint(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str, *, base: str | None = None
) -> Unfolded:
    """The unfolded network of a file by :func:`save_adapter`, its low-rank updates added to the weights.

    Args:
        base: another place of the base than the file says.

    Raises:
        ValueError: a header that is not as written, a base with other weights, tensors that do not fit, by name.
    """
    from workbench.models.load import load_prior  # which loads adapters through this module

    header = adapter_header(metadata)
    require(header.get("format") == FORMAT, "format", str(FORMAT), repr(header.get("format")))
    parts: dict[str, Any] = {"lora": None}
    for key, kind in (("lora", LoRA), ("unfolding", Unfolding)):
        content = header.get(key)
        if key == "lora" and content is None:
            continue
        if not isinstance(content, dict):
            raise ValueError(f"expected {key} as a JSON object, found {content!r}")
        try:
            parts[key] = kind(**content)
        except TypeError as error:
            raise ValueError(str(error)) from None
    known = header.get("base")
    if not isinstance(known, dict) or not isinstance(known.get("prior"), str):
        raise ValueError(f"expected base as the name of a prior and its sha256, found {known!r}")
    unfolded = Unfolded(load_prior(base or known["prior"]), parts["unfolding"], name=name)
    found = base_digest(unfolded.net)
    if found != known.get("sha256"):
        raise ValueError(
            f"it adapts {known['prior']} with the weights {str(known.get('sha256'))[:12]}..., the base at hand has "
            f"{found[:12]}...: give the file of its base as base=FILE"
        )
    if parts["lora"] is None:
        state = unfolded.net.state_dict()
        unfolded.net.load_state_dict(decode(tensors, state, state))
    else:
        put_in(unfolded, tensors, parts["lora"])
    card = header.get("card")
    unfolded.card = card if isinstance(card, dict) else {}
    return unfolded.eval().requires_grad_(False)


def put_in(unfolded: Unfolded, tensors: Mapping[str, Tensor], lora: LoRA) -> None:
    """Add the updates ``B A`` of an adapter to the weights of ``unfolded``, in place of those of another adapter.

    So adapters of one base are swapped. It needs no peft, and evaluations cost what they cost without an adapter.

    Raises:
        ValueError: tensors missing, left over, of another shape or not finite, by name.
    """
    layers = {f"{name}.weight": module.weight for name, module in lora.layers_of(unfolded.net).items()}
    place = {}
    for name, weight in layers.items():
        stem, ones = name.removesuffix("weight"), [1] * (weight.ndim - 2)
        place[f"{stem}lora_A.weight"] = weight.new_empty(lora.rank, *weight.shape[1:])
        place[f"{stem}lora_B.weight"] = weight.new_empty(len(weight), lora.rank, *ones)
    check_tensors(tensors, place)
    check_finite(tensors)
    for name, plain in unfolded.plain.items():  # the other adapter may be in more layers than this one
        weight = unfolded.net.get_parameter(name)
        weight.data = plain.to(weight)
    for name, weight in layers.items():
        unfolded.plain.setdefault(name, weight.detach().clone())
        a, b = (tensors[f"{name.removesuffix('weight')}lora_{part}.weight"].to(weight) for part in "AB")
        weight.data = weight.detach() + (b.flatten(1) @ a.flatten(1)).view_as(weight)
    unfolded.lora = lora
