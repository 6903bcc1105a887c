"""A device that does not exist, to count how often a run would wait for it.

Tensors moved there with :func:`send` say that they are on "meta", compute on the CPU, and refuse to mix with those of
the CPU. A wait is what would hold up the program until a GPU has done its work: a number, a choice or a copy that comes
back, indices found among flags, and a copy there that does not say ``non_blocking``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
LOOKS = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select, aten._unique2}


class There(Tensor):
    """A tensor of that device, around one of the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        options = {"dtype": here.dtype, "device": ELSEWHERE, "strides": here.stride()}
        made = Tensor._make_wrapper_subclass(cls, here.shape, **options)
        made.here = here
        return made

    def __repr__(self, **options: Any) -> str:
        return f"There({self.here})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        raise RuntimeError(f"{function} outside of Waits")


def send(value: Any) -> Any:
    """A tensor, or a module with its buffers, over there."""
    if isinstance(value, Tensor):
        return There(value)
    for module in value.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = There(buffer)
    return value


class _Made(TorchFunctionMode):
    """Tensors made of numbers for another device are made on the CPU and copied there, as they are."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = dict(options or {})
        if function in (torch.tensor, torch.as_tensor) and options.get("device") == ELSEWHERE:
            if isinstance(arguments[0], Tensor):
                return arguments[0].to(**options)
            return function(*arguments, **options | {"device": "cpu"}).to(ELSEWHERE)
        if function is Tensor.new_tensor and isinstance(arguments[0], There):
            return torch.tensor(arguments[1], dtype=options.get("dtype", arguments[0].dtype)).to(ELSEWHERE)
        return function(*arguments, **options)


class Waits(TorchDispatchMode):
    """Counts waits: ``by`` what, and ``count`` in all."""

    def __init__(self) -> None:
        super().__init__()
        self.by: Counter[str] = Counter()
        self._made = _Made()

    @property
    def count(self) -> int:
        return self.by.total()

    def __enter__(self) -> Waits:
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._made.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options, kind = dict(options or {}), function.overloadpacket
        tensors = [each for each in tree_flatten((arguments, options))[0] if isinstance(each, Tensor)]
        there = {id(each.here): each for each in tensors if isinstance(each, There)}
        away = torch.device(options["device"]) == ELSEWHERE if options.get("device") else bool(there)
        if kind in (aten._to_copy, aten.copy_):
            goes, comes = away and len(there) < len(tensors), there and not away
            free = options.get("non_blocking") or any(each is True for each in arguments)
            self.by["copy there"] += bool(goes and not free)
            self.by["copy back"] += bool(comes)
        else:
            indices = arguments[1] if kind in (aten.index, aten.index_put, aten.index_put_) else ()
            looks = kind in LOOKS or any(
                index is not None and (index.dtype == torch.bool or not isinstance(index, There)) for index in indices
            )
            self.by[kind.__name__] += bool(there and looks)
            if there and not looks and any(not isinstance(each, There) and each.ndim for each in tensors):
                raise RuntimeError(f"{function} mixes devices")
        if kind is aten._conj:  # marks a tensor, which below this level nobody heeds
            function = aten.conj_physical.default
        if options.get("device") is not None:
            options["device"] = "cpu"

        def wrapped(out: Any) -> Any:
            # What an operation in place returns is its own argument.
            return there.get(id(out), There(out)) if isinstance(out, Tensor) and away else out

        plain = tree_map(lambda each: each.here if isinstance(each, There) else each, (arguments, options))
        return tree_map(wrapped, function(*plain[0], **plain[1]))
