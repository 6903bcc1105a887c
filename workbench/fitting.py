"""Operators that fit a photo, and sizes that fit an operator."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.operators.base import Operator
from workbench.operators.compose import Compose, MaskedGrayscale
from workbench.operators.inpainting import Inpainting
from workbench.operators.own import shape_behind, spec_of
from workbench.operators.parse import is_own, parse_operator, shrink_factor
from workbench.photo_file import MAX_PIXELS
from workbench.random import generator, stream_of


def operator_for(spec: Any, photos: Tensor, seed: int, numbers: Sequence[int] = (0,)) -> Operator:
    """The operator written ``spec``, or one's own (``operator_from``), for ``photos`` (B, C, H, W), on their device.

    Args:
        seed, numbers: what is drawn at random, see :func:`workbench.random.stream_of`. Each image has a mask of its
            own; a Walsh-Hadamard pattern is the instrument's, one for all images and batches.

    Raises:
        ValueError: bad ``spec``, or a size that the operator does not take; the message names one that it takes.
    """
    try:
        return _drawn(spec, tuple(photos.shape[1:]), seed, numbers).to(photos.device)
    except ValueError as error:
        side = None if is_own(spec) else fitting_size(spec, min(photos.shape[-2:]))
        if side is None or photos.shape[-2:] == (side, side):
            raise
        raise ValueError(f"{error}; size {side} would do") from None


def operator_behind(spec: Any, photos: Tensor, seed: int) -> tuple[Operator, Tensor]:
    """The operator that measures ``photos`` (B, 3, h, w), and blank images of the size that it takes.

    Raises:
        ValueError: bad ``spec``; a measurement that is no picture of that shape, or one that depends on chance.
    """
    name, factor = spec_of(spec), 1 if is_own(spec) else shrink_factor(spec)
    height, width = (
        factor * side for side in (shape_behind(spec, photos.shape) if is_own(spec) else photos.shape)[-2:]
    )
    if height * width > max(MAX_PIXELS, photos.shape[-2] * photos.shape[-1]):
        raise ValueError(f"{name!r} would make a picture of {height}x{width} pixels, the limit is {MAX_PIXELS:,}")
    blank = photos.new_zeros(()).expand(*photos.shape[:2], height, width)  # without memory: only its shape counts
    chance = stream_of(seed, "operator")
    before = chance.get_state()
    op = parse_operator(spec, tuple(blank.shape[1:]), chance).to(photos.device)
    measured = op.measurement_shape(blank.shape)
    if len(measured) != 4 or measured[-2:] != photos.shape[-2:]:
        raise ValueError(f"{name!r} does not turn pictures into pictures, so a photo is not its result")
    if not torch.equal(before, chance.get_state()):
        raise ValueError(
            f"{name!r} is drawn at random: which pixels of this photo are missing cannot be known; paint them white in "
            "a picture of its size: mask:FILE or oldphoto:FILE"
        )
    return op, blank


def fitting_size(spec: str, limit: int) -> int | None:
    """The largest square side of at most ``limit`` pixels that the operator takes, or None if none was found."""
    sides = [limit - k for k in range(64)] + [2**k for k in range(12, 3, -1)]
    for side in (side for side in sides if 0 < side <= limit):
        try:
            parse_operator(spec, (3, side, side), generator(0))
        except ValueError:
            continue
        return side
    return None


def filled_share(op: Operator) -> float | None:
    """The share of the pixels that are lost, and filled by a restoration; None for operators without a mask."""
    mask = _mask_of(op)
    return None if mask is None else float((mask == 0).double().mean())


def _drawn(spec: Any, shape: tuple[int, ...], seed: int, numbers: Sequence[int]) -> Operator:
    chance = stream_of(seed, "operator")
    before = chance.get_state()
    op = parse_operator(spec, shape, chance)
    if _mask_of(op) is None or torch.equal(before, chance.get_state()):
        return op
    masks = [_mask_of(parse_operator(spec, shape, stream_of(seed, "operator", number))) for number in numbers]
    mask = Inpainting(torch.cat([mask for mask in masks if mask is not None]))
    return Compose(mask, op.inner) if isinstance(op, MaskedGrayscale) else mask


def _mask_of(op: Operator) -> Tensor | None:
    part = op.outer if isinstance(op, MaskedGrayscale) else op
    return part.mask if isinstance(part, Inpainting) else None
