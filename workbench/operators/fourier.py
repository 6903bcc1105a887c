"""What the Fourier operators share: kernels on the torus, real orthonormal coefficients, spectra computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def wrap_kernel(kernel: Tensor, size: tuple[int, int], origin: tuple[int, int]) -> Tensor:
    """``kernel`` (b, c, kh, kw) added up on an H x W torus, (b, c, H, W), with its tap ``origin`` at pixel (0, 0)."""
    for dim, (length, offset) in zip((-2, -1), zip(size, origin, strict=True), strict=True):
        index = (torch.arange(kernel.shape[dim], device=kernel.device) - offset) % length
        shape = list(kernel.shape)
        shape[dim] = length
        kernel = kernel.new_zeros(shape).index_add(dim, index, kernel)
    return kernel


def hartley(spectrum: Tensor) -> Tensor:
    """Real coefficients of the Fourier transform (..., H, W) of a real image: orthonormal, as many as pixels.

    Each coefficient is ``Re - Im`` (Hartley 1942); those of a frequency and its opposite carry the pair of numbers that
    the two conjugate Fourier coefficients carry. Unlike those, they may be changed or drawn one by one.
    """
    return spectrum.real - spectrum.imag


def from_hartley(c: Tensor) -> Tensor:
    """The Fourier transform whose :func:`hartley` is ``c`` (..., H, W)."""
    mirrored = opposite(c)
    return torch.complex(c + mirrored, mirrored - c) / 2


def transform(plane: Tensor, half: bool) -> Tensor:
    """``rfft2`` or ``fft2`` of real planes (..., H, W), Hermitian to the last bit.

    Where a kernel lets nothing through, its transform is rounding, whose phase torch does not keep Hermitian.
    """
    full = torch.fft.fft2(plane)
    full = (full + opposite(full).conj()) / 2
    return full[..., : plane.shape[-1] // 2 + 1].contiguous() if half else full


def opposite(c: Tensor) -> Tensor:
    """Entry -k (modulo the size) in place of k, along the last two dimensions."""
    return c.flip((-2, -1)).roll((1, 1), (-2, -1))


class Memo:
    """Remembers the last few things computed from one tensor (a kernel, a mask), such as its spectra at some size.

    No visible state: a value depends on nothing but the tensor and the key, is dropped when the tensor changes or is
    replaced (also in place, also by ``.to`` or ``load_state_dict``), and is not copied or saved with the operator. That
    complex tensors live here and not in buffers is why ``.to(dtype)`` cannot strip their imaginary parts.
    """

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self.entries: dict[Hashable, tuple[Tensor, int, Any]] = {}

    def get(self, source: Tensor, key: Hashable, compute: Callable[[], Value]) -> Value:
        """``compute()``, or what it gave last time for this ``source`` and ``key``."""
        entry = self.entries.get(key)
        if entry is not None and entry[0] is source and entry[1] == _version(source):
            return entry[2]
        # A tensor made in inference mode could not take part in a graph later.
        with torch.inference_mode(False), torch.no_grad():
            value = compute()
        if len(self.entries) >= self.limit:
            self.entries = {}
        self.entries[key] = (source, _version(source), value)
        return value

    def spectrum(self, kernel: Tensor, like: Tensor, key: Hashable, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """``compute(kernel)``, complex, with the device and precision of ``like``.

        Computed in float64 and rounded once, unless the kernel is being learned: then as it is, on its graph.
        """
        if kernel.requires_grad:
            return compute(kernel.to(like))

        def rounded() -> Tensor:
            return compute(kernel.detach().cpu().double()).to(device=like.device, dtype=like.dtype.to_complex())

        return self.get(kernel, (key, like.dtype, like.device), rounded)

    def __reduce__(self) -> tuple[type[Memo], tuple[int]]:
        return Memo, (self.limit,)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
