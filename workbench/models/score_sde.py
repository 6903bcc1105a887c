"""Published score_sde tensors into our :mod:`~workbench.models.networks.ncsnpp` network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from workbench.models.files import assign, check_tensors
from workbench.models.networks.ncsnpp import DownLevel, NCSNpp, ResidualBlock, UpLevel


def load_published(net: NCSNpp, state: Mapping[str, Tensor], where: str | Path = "published tensors") -> None:
    """Put a published state dict (names ``all_modules.N...`` without prefix) into ``net``, every tensor once.

    ``net`` takes over the memory of the tensors where their layout allows, and may be on the meta device.

    Raises:
        ValueError: tensors missing, left over, of another shape or kind, or not finite, named.
    """
    ours = net.state_dict()
    pairs = list(published_names(net))
    expected = {theirs: ours[name].T if _transposed(theirs, ours[name]) else ours[name] for theirs, name in pairs}
    check_tensors(state, expected, where)
    tensors = {
        name: state[theirs].T.contiguous() if _transposed(theirs, ours[name]) else state[theirs]
        for theirs, name in pairs
    }
    assign(net, tensors)


def _transposed(theirs: str, tensor: Tensor) -> bool:
    return theirs.endswith(".W") and tensor.ndim == 2


def published_names(net: NCSNpp) -> Iterator[tuple[str, str]]:
    """Pairs (published name, our name) for every tensor, in the published state dict's order.

    Published files number their modules in one flat list, ``all_modules.N``; the walk below is that list's order.
    NIN layers (``W`` of shape (in, out), ``b``) are our linear layers: their weights are the transpose.
    """
    config = net.config
    if config.sigmas:
        yield "sigmas", "sigmas"
    for number, (kind, path) in enumerate(_published_modules(net)):
        for theirs, ours in _TENSORS[kind]:
            if ours.startswith("shortcut"):
                block = net.get_submodule(path)
                assert isinstance(block, ResidualBlock)
                if block.shortcut is None:
                    continue
            yield f"all_modules.{number}.{theirs}", f"{path}.{ours}"


def _affine(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}{part}", f"{ours}{part}") for part in ("weight", "bias")]


_TENSORS: dict[str, list[tuple[str, str]]] = {
    "fourier": [("W", "frequencies")],
    "layer": _affine("", ""),
    "combine": _affine("Conv_0.", ""),
    "pyramid": _affine("Conv2d_0.", "conv."),
    "block": [
        *_affine("GroupNorm_0.", "norm_in."),
        *_affine("Conv_0.", "conv_in."),
        *_affine("Dense_0.", "embed."),
        *_affine("GroupNorm_1.", "norm_out."),
        *_affine("Conv_1.", "conv_out."),
        *_affine("Conv_2.", "shortcut."),
    ],
    "attention": [
        *_affine("GroupNorm_0.", "norm."),
        *(
            pair
            for index, ours in enumerate(("query", "key", "value", "out"))
            for pair in ((f"NIN_{index}.W", f"{ours}.weight"), (f"NIN_{index}.b", f"{ours}.bias"))
        ),
    ],
}


def _published_modules(net: NCSNpp) -> Iterator[tuple[str, str]]:
    """Pairs (kind, path of our module) in the order of the published flat module list."""
    if net.config.embedding == "fourier":
        yield "fourier", "embedding"
    yield "layer", "embed_in"
    yield "layer", "embed_out"
    yield "layer", "first"
    for i, down in enumerate(net.down):
        assert isinstance(down, DownLevel)
        for j in range(len(down.blocks)):
            yield "block", f"down.{i}.blocks.{j}"
            if down.attentions:
                yield "attention", f"down.{i}.attentions.{j}"
        if down.down is not None:
            yield "block", f"down.{i}.down"
            if down.combine is not None:
                yield "combine", f"down.{i}.combine"
            elif down.pyramid_down is not None:
                yield "pyramid", f"down.{i}.pyramid_down"
    yield "block", "middle_in"
    if net.middle_attention is not None:
        yield "attention", "middle_attention"
    yield "block", "middle_out"
    for i, up in enumerate(net.up):
        assert isinstance(up, UpLevel)
        for j in range(len(up.blocks)):
            yield "block", f"up.{i}.blocks.{j}"
        if up.attention is not None:
            yield "attention", f"up.{i}.attention"
        if up.head is not None:
            yield "layer", f"up.{i}.head.0"
            yield "layer", f"up.{i}.head.2"
        if up.up is not None:
            yield "block", f"up.{i}.up"
    if net.head is not None:
        yield "layer", "head.0"
        yield "layer", "head.2"
