"""Weights stored as differences to those of another prior: a quarter of the size of float32, half of float16.

Fine-tuning changes weights little. Their change is stored as whole numbers from -127 to 127 with one scale per output
channel; its rounding is about that of float16 weights. Parts that the other prior lacks (``grown`` of ``unet.py``)
count as zero there.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"
State = Mapping[str, Tensor]


def digest(state: State) -> str:
    """SHA-256 of weights as float32, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode() + state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def padded(base: State, like: State) -> dict[str, Tensor]:
    """``base`` with zeros where ``like`` has more output channels or more tensors.

    Raises:
        ValueError: tensors of ``base`` that do not fit, by name.
    """
    result = {name: torch.zeros(tensor.shape) for name, tensor in like.items()}
    for name, tensor in base.items():
        place = result.get(name)
        if place is None or place.shape[1:] != tensor.shape[1:] or len(place) < len(tensor):
            shape = None if place is None else tuple(place.shape)
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} in the base, {shape} in the network")
        place[: len(tensor)] = tensor
    return result


def encode(state: State, base: State) -> dict[str, Tensor]:
    """The difference of ``state`` to ``base``: int8 tensors, and their scales."""
    result = {}
    for name, start in padded(base, state).items():
        change = state[name].detach().float().cpu() - start
        scale = (change.flatten(1) if change.ndim > 1 else change[:, None]).abs().amax(1).clamp(min=1e-30) / 127
        result[name] = (change / _along(scale, change)).round().to(torch.int8)
        result[name + SCALE] = scale
    return result


def decode(stored: State, base: State, like: State) -> dict[str, Tensor]:
    """The weights again, with the shapes of ``like``. Raises ValueError for tensors that are missing or do not fit."""
    result = padded(base, like)
    for name, start in result.items():
        numbers, scale = stored.get(name), stored.get(name + SCALE)
        if numbers is None or scale is None or numbers.shape != start.shape or scale.shape != start.shape[:1]:
            raise ValueError(
                f"{name}: expected its difference of shape {tuple(start.shape)}, and one scale per channel"
            )
        start += numbers.float() * _along(scale.float(), start)
    return result


def _along(scale: Tensor, like: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (like.ndim - 1))
