"""What operators ask of images, masks, kernels, matrices and weights; each raises ValueError in one line."""

import torch
from torch import Tensor

from workbench.text import require, require_kind


def check_image(x: Tensor, channels: int | None = None, name: str = "images") -> None:
    """Raise ValueError unless ``x`` is (B, C, H, W), not empty, float32 or float64, with ``channels`` if given."""
    expected = f"{name} must be (B, {channels or 'C'}, H, W)"
    if x.ndim != 4 or x.numel() == 0 or (channels is not None and x.shape[1] != channels):
        raise ValueError(f"{expected}, got shape {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{expected} of torch.float32 or torch.float64, got {x.dtype}")


def check_real(name: str, value: Tensor, shape: str) -> Tensor:
    """``value`` as floating-point numbers with leading dimensions of 1 where it lacks some of ``shape``, such as
    "(1 or B, 1 or C, H, W)"; ValueError if it has another number of dimensions, or is empty, complex or not finite."""
    require_kind(value, Tensor, name, shape)
    dimensions = shape.count(",") + 1
    full = value[(None,) * (dimensions - 2)] if value.ndim == 2 else value
    if full.ndim != dimensions or full.numel() == 0:
        raise ValueError(f"{name} must be {shape} or its last two dimensions, got shape {tuple(value.shape)}")
    if full.is_complex() or not bool(full.isfinite().all()):
        raise ValueError(f"{name} must be real and finite")
    return full if full.is_floating_point() else full.to(torch.get_default_dtype())


def check_weight(weight: float | Tensor, x: Tensor) -> Tensor:
    """``weight`` as a tensor () or (B,) of x's dtype; ValueError unless finite and not negative.

    It is on the CPU, where looking at it costs no wait for a device; :func:`column` moves it to where it is needed.
    """
    checked = torch.as_tensor(weight, dtype=x.dtype, device="cpu")
    if checked.ndim > 1 or (checked.ndim == 1 and checked.shape[0] not in (1, x.shape[0])):
        raise ValueError(f"weight must be a number or have shape ({x.shape[0]},), got shape {tuple(checked.shape)}")
    require(bool(((checked >= 0) & checked.isfinite()).all()), "weight", "finite and not negative", weight)
    return checked


def check_rcond(rcond: float | None) -> float | None:
    """``rcond``; ValueError unless it is None or in [0, 1)."""
    require(rcond is None or 0 <= rcond < 1, "rcond", "in [0, 1)", rcond)
    return rcond
