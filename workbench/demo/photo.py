"""A visitor's photo, made ready: read within limits, then cropped, resized or kept whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from workbench.images import from_pillow, open_image

FITS = {
    "square": "Crop a square, resize it",
    "crop": "Cut out a square, as it is",
    "resize": "Resize the whole photo",
    "whole": "Keep every pixel",
}
# What cameras, editors and the web write. Others stay closed: Pillow reads some by starting programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000")
SMALLEST = 8  # pixels a side; below, no degradation and no metric means anything


@dataclass(frozen=True)
class Framing:
    """What of a photo is restored.

    Attributes:
        fit: "square" crops the largest square and resizes it to ``side`` pixels; "crop" cuts out ``side`` pixels a side
            without resizing, or all there are; "resize" makes the longer side ``side`` pixels; "whole" keeps the photo.
        side: in pixels.
        across, down: where the square lies, from 0 (left, top) to 1 (right, bottom).
    """

    fit: str = "square"
    side: int = 96
    across: float = 0.5
    down: float = 0.5

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"expected one of {', '.join(FITS)}, got {self.fit!r}")
        if self.side < SMALLEST:
            raise ValueError(f"the side must be at least {SMALLEST} pixels, got {self.side}")
        if not (0 <= self.across <= 1 and 0 <= self.down <= 1):
            raise ValueError(f"the crop lies from 0 to 1 across and down, got {self.across} and {self.down}")


def read_photo(path: str | Path, name: str, max_pixels: int) -> tuple[Image.Image, str]:
    """The photo in ``path`` as an RGB picture, and a remark on what was done to read it, often empty.

    Args:
        name: what the visitor calls the file; messages begin with it.

    Raises:
        ValueError: no picture, damaged, smaller than 8 or with more than ``max_pixels`` pixels.
    """
    try:
        picture = open_image(path, max_pixels, FORMATS)
    except ValueError as error:
        raise ValueError(str(error).replace(str(Path(path)), name)) from None
    if min(picture.size) < SMALLEST:
        raise ValueError(
            f"{name}: {picture.width}x{picture.height} pixels are too few, at least {SMALLEST} a side are needed"
        )
    return picture, _remark(path)


def frame(picture: Image.Image, framing: Framing, max_pixels: int) -> Tensor:
    """What of ``picture`` (RGB) is restored, (1, 3, h, w) in [0, 1].

    Raises:
        ValueError: more than ``max_pixels`` pixels would be left, or a side of less than 8.
    """
    side = framing.side
    if framing.fit == "square":
        _check(side, side, max_pixels)
        centre = (framing.across, framing.down)
        return from_pillow(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC, centering=centre))
    if framing.fit == "crop":
        width, height = (min(side, length) for length in picture.size)
        _check(width, height, max_pixels)
        left = round(framing.across * (picture.width - width))
        top = round(framing.down * (picture.height - height))
        return from_pillow(picture.crop((left, top, left + width, top + height)))
    if framing.fit == "resize":
        scale = side / max(picture.size)
        width, height = (max(SMALLEST, round(length * scale)) for length in picture.size)
        _check(width, height, max_pixels)
        return from_pillow(picture.resize((width, height), Image.Resampling.BICUBIC))
    _check(*picture.size, max_pixels)
    return from_pillow(picture)


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(
            f"{width}x{height} pixels are too many to restore here, the limit is {max_pixels:,}: "
            "crop a square or resize the photo"
        )


def _remark(path: str | Path) -> str:
    with Image.open(path, formats=FORMATS) as image:
        remarks = []
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            remarks.append(f"the first of {frames} frames")
        # Cameras and editors write an alpha channel that hides nothing.
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            remarks.append("transparent parts on white")
        if image.mode.startswith("I"):
            remarks.append("16 bits rounded to 8")
        if image.mode == "CMYK":
            remarks.append("CMYK converted to RGB")
    return ", ".join(remarks)
