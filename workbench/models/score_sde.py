"""Published score_sde tensors into our :mod:`~workbench.models.networks.ncsnpp` network."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from workbench.models.files import assign, check_tensors
from workbench.models.networks.ncsnpp import (
    Attention,
    Combine,
    DownLevel,
    FourierEmbedding,
    NCSNpp,
    PyramidDown,
    ResidualBlock,
    UpLevel,
)

# Published names of our modules' parts and tensors.
NAMES: dict[type[nn.Module], dict[str, str]] = {
    FourierEmbedding: {"frequencies": "W"},
    Combine: {"weight": "Conv_0.weight", "bias": "Conv_0.bias"},
    PyramidDown: {"conv": "Conv2d_0"},
    ResidualBlock: {
        "norm_in": "GroupNorm_0",
        "conv_in": "Conv_0",
        "embed": "Dense_0",
        "norm_out": "GroupNorm_1",
        "conv_out": "Conv_1",
        "shortcut": "Conv_2",
    },
    Attention: {"norm": "GroupNorm_0"}
    | {f"{part}.weight": f"NIN_{index}.W" for index, part in enumerate(("query", "key", "value", "out"))}
    | {f"{part}.bias": f"NIN_{index}.b" for index, part in enumerate(("query", "key", "value", "out"))},
}


def load_published(net: NCSNpp, state: Mapping[str, Tensor]) -> None:
    """Put a published state dict (names ``all_modules.N...`` without prefix) into ``net``, every tensor once.

    ``net`` takes over the memory of the tensors where their layout allows, and may be on the meta device.

    Raises:
        ValueError: tensors missing, left over, of another shape or kind, or not finite, named.
    """
    ours, names = net.state_dict(), dict(published_names(net))
    turned = {theirs for theirs, name in names.items() if theirs.endswith(".W") and ours[name].ndim == 2}
    check_tensors(state, {theirs: ours[name].T if theirs in turned else ours[name] for theirs, name in names.items()})
    assign(
        net,
        {name: state[theirs].T.contiguous() if theirs in turned else state[theirs] for theirs, name in names.items()},
    )


def published_names(net: NCSNpp) -> Iterator[tuple[str, str]]:
    """Pairs (published name, our name) for every tensor, in the published state dict's order.

    Published files number their modules in one flat list, ``all_modules.N``. NIN layers (``W`` of shape (in, out),
    ``b``) are our linear layers: their weights are the transpose.
    """
    if net.config.sigmas:
        yield "sigmas", "sigmas"
    paths = {module: path for path, module in net.named_modules()}
    modules = [module for module in _flat(net) if module is not None and module.state_dict()]
    for number, module in enumerate(modules):
        table = NAMES.get(type(module), {})
        for name in module.state_dict():
            part, dot, kind = name.rpartition(".")
            theirs = table.get(name) or table.get(part, part) + dot + kind
            yield f"all_modules.{number}.{theirs}", f"{paths[module]}.{name}"


def _flat(net: NCSNpp) -> Iterator[nn.Module | None]:
    """Our modules in the order of the published list, in which those that are None or have no tensors do not count."""
    yield from (net.embedding, net.embed_in, net.embed_out, net.first)
    for down in net.down:
        assert isinstance(down, DownLevel)
        for index, block in enumerate(down.blocks):
            yield from (block, down.attentions[index] if down.attentions else None)
        yield from (down.down, down.combine, down.pyramid_down)
    yield from (net.middle_in, net.middle_attention, net.middle_out)
    for up in net.up:
        assert isinstance(up, UpLevel)
        yield from (*up.blocks, up.attention, *(up.head or ()), up.up)
    yield from net.head or ()
