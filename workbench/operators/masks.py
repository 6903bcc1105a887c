"""Masks for ``Inpainting``: (1, 1, H, W) or (B, 1, H, W) float, 1 keeps a pixel."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from workbench.photo_file import Photo, read_photo

Size = tuple[int, int]


def random_mask(size: Size, missing: float, generator: torch.Generator | None = None, batch: int = 1) -> Tensor:
    """A share ``missing`` of the pixels lost, exactly (to the nearest pixel), drawn for each of ``batch`` images.

    Raises:
        ValueError: missing outside [0, 1].
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"the missing share must be in [0, 1], got {missing}")
    pixels = _pixels(size)
    device = generator.device if generator is not None else None
    rank = torch.rand(batch, pixels, generator=generator, device=device).argsort(1).argsort(1)
    return (rank >= round(missing * pixels)).float().view(batch, 1, *size)


def block_mask(size: Size, side: int | Size, generator: torch.Generator | None = None) -> Tensor:
    """A missing rectangle of ``side`` (height, width), in the middle, or anywhere if there is a ``generator``.

    Raises:
        ValueError: a block that is larger than the image, or without pixels.
    """
    block = (side, side) if isinstance(side, int) else side
    _pixels(size)
    if not all(1 <= b <= n for b, n in zip(block, size, strict=True)):
        raise ValueError(f"a block of {block[0]}x{block[1]} does not fit into an image of {size[0]}x{size[1]}")
    room = [n - b for b, n in zip(block, size, strict=True)]
    if generator is None:
        top, left = (r // 2 for r in room)
    else:
        top, left = (int(torch.randint(r + 1, (), generator=generator, device=generator.device)) for r in room)
    mask = torch.ones(1, 1, *size)
    mask[..., top : top + block[0], left : left + block[1]] = 0
    return mask


def text_mask(size: Size, text: str = "the quick brown fox jumps over the lazy dog ") -> Tensor:
    """Lines of ``text`` written all over the image, lost where there is ink. Letters are about 1/8 of the height.

    Raises:
        ValueError: no visible text.
    """
    if not text.strip():
        raise ValueError("text must have visible letters")
    _pixels(size)
    height, width = size
    letter = max(8, height // 8)
    font = ImageFont.load_default(letter)
    canvas = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(canvas)
    repeated = text * (2 + 4 * width // letter)
    for line, top in enumerate(range(0, height, letter + letter // 4)):
        # Each line starts elsewhere in the text, so that letters do not stand in columns.
        draw.text((1, top), repeated[7 * line % len(text) :][: 4 * width // letter + 1], fill=0, font=font)
    return _from_canvas(canvas)


def stripes_mask(size: Size, period: int = 8, width: int = 2) -> Tensor:
    """Diagonal stripes lost, ``width`` of every ``period`` pixels of a row.

    Raises:
        ValueError: unless 0 < width <= period.
    """
    if not 0 < width <= period:
        raise ValueError(f"stripes need 0 < width <= period, got width {width} and period {period}")
    _pixels(size)
    diagonal = torch.arange(size[0])[:, None] + torch.arange(size[1])
    return (diagonal % period >= width).float()[None, None]


def scratches_mask(size: Size, count: int = 12, generator: torch.Generator | None = None) -> Tensor:
    """``count`` straight scratches from edge to edge lost, at random; their width is 1/64 of the smaller side."""
    _pixels(size)
    height, width = size
    device = generator.device if generator is not None else None
    ends = torch.rand(count, 4, generator=generator, device=device).tolist()
    canvas = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(canvas)
    for index, (a, b, c, d) in enumerate(ends):
        across = [(0, a * height), (width, b * height)] if index % 2 else [(c * width, 0), (d * width, height)]
        draw.line(across, fill=0, width=max(1, min(size) // 64))
    return _from_canvas(canvas)


def paint_in(photo: Photo) -> np.ndarray:
    """How much each pixel of a mask's file is painted, float32 (H, W) in [0, 1]; see :func:`file_mask`."""
    levels = photo.levels
    paint = levels[..., 3] if levels.shape[2] == 4 else levels.max(axis=2)
    return paint.astype(np.float32) / np.iinfo(levels.dtype).max


def file_mask(path: str | Path, size: Size) -> Tensor:
    """The mask that somebody painted: **white is lost, to be filled; black is kept**, (1, 1, H, W) with 0 where white.

    So it is in photo editors, OpenCV and diffusers: the opposite of the masks here. Colours count by their brightest
    channel (a red stroke is paint), greys of soft brushes from 1/2 on. On a layer, which is transparent where nobody
    painted, what is opaque is lost, whatever its colour.

    Raises:
        ValueError: no picture (see ``read_photo``), another size than ``size`` (H, W), or nothing is lost, or all.
    """
    photo = read_photo(path)
    paint = paint_in(photo)
    _pixels(size)
    if paint.shape != tuple(size):
        found, expected = (f"{width}x{height}" for height, width in (paint.shape, size))
        raise ValueError(f"{path}: the mask has {found} pixels (width x height), the image has {expected}")
    mask = torch.from_numpy(paint < 0.5).float()[None, None]
    rule = ("white", "black", "brightest") if photo.alpha is None else ("opaque", "transparent", "most opaque")
    meaning = f"{rule[0]} (255) is filled, {rule[1]} (0) is kept"
    if not bool(mask.any()):
        raise ValueError(f"{path}: the mask is {rule[0]} everywhere: {meaning}")
    if bool(mask.all()):
        most = round(255 * float(paint.max()))
        raise ValueError(f"{path}: the mask fills nothing, its {rule[2]} value is {most} of 255: {meaning}")
    return mask


def _from_canvas(canvas: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(canvas) >= 128).float()[None, None]


def _pixels(size: Size) -> int:
    if size[0] < 1 or size[1] < 1:
        raise ValueError(f"a mask has at least one pixel, got size {size}")
    return size[0] * size[1]
