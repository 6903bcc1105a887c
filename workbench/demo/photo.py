"""A visitor's photo: uploaded (and never fetched from an address), read within limits, cropped or resized."""

from pathlib import Path
from typing import Any, cast

import gradio as gr
import numpy as np
from gradio.components.image_editor import EditorData, EditorValue
from gradio.data_classes import ImageData
from gradio_client.utils import is_http_url_like
from PIL import Image, ImageOps
from torch import Tensor

from workbench import photo_file
from workbench.demo.problem import SMALLEST, Problem
from workbench.images import from_pillow, to_pillow
from workbench.operators.masks import paint_in

FITS = {
    "square": "Crop a square, resize it",
    "crop": "Cut out a square, as it is",
    "resize": "Resize the whole photo",
    "whole": "Keep every pixel",
}
# What cameras, editors and the web write. Others stay closed: Pillow reads some by starting programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000")
EDITOR_SIDE = 384  # the picture to paint on has at least so many pixels along its longer side


class Drawn:
    """Drawn as the component of Gradio that it derives from."""

    def get_block_name(self) -> str:
        """Its name in the browser."""
        return next(kind.__name__.lower() for kind in type(self).__mro__ if kind.__module__.startswith("gradio."))


class AsSent(Drawn):
    """A number as it was sent: Gradio's own reading rounds it, or refuses it without saying which control it is of."""

    def preprocess(self, payload: Any) -> Any:
        """What came, for :class:`workbench.demo.problem.Problem` to check."""
        return payload


class Amount(AsSent, gr.Number):
    """A number that is typed."""


class Range(AsSent, gr.Slider):
    """A number that is dragged. What is typed into one, the browser cuts to its range."""


class NoAddresses(Drawn):
    """Refuses web addresses, which Gradio's components would download on a visitor's behalf."""

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """As Gradio's, for files that were uploaded. Raises ``gr.Error`` for an address."""
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            raise gr.Error("this server fetches nothing from the web: upload the file itself", print_exception=False)
        # Of the component that this is mixed into.
        return await super().async_move_resource_to_block_cache(url_or_file_path)  # type: ignore[misc]


class Photo(NoAddresses, gr.Image):
    """A picture as the file that came: Gradio's own reading would cut 16 bits to 8 and lose the reason of a failure."""

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The file's path."""
        return None if payload is None else payload.path


def bring(value: str | None = None, camera: bool = False, **options: Any) -> Photo:
    """Where a photo, or a mask, is brought."""
    sources: list[Any] = ["upload", "clipboard", *["webcam"] * camera]
    return Photo(value, sources=sources, type="filepath", image_mode=None, **options)


class Painting(NoAddresses, gr.ImageEditor):
    """A picture to paint a mask on."""

    def preprocess(self, payload: EditorData | None) -> EditorValue | None:
        """What was painted, and as "files" what came with it, to be removed when the visitor leaves.

        The picture under it is not read: Gradio may be writing it anew to the same file.
        """
        if payload is None or payload.id is not None:
            return super().preprocess(payload)
        files = [file.path for file in (payload.background, payload.composite, *(payload.layers or [])) if file]
        value = super().preprocess(payload.model_copy(update={"background": None, "composite": None}))
        return None if value is None else cast(EditorValue, {**value, "files": files})


def read_photo(path: str | Path, max_pixels: int) -> tuple[Image.Image, str]:
    """The photo in ``path`` as an RGB picture, and a remark on what was done to read it, often empty.

    Raises:
        ValueError: no picture, damaged, smaller than 8 or with more than ``max_pixels`` pixels; messages begin with the
            file's name.
    """
    photo = _read(path, max_pixels, flat=True)
    return Image.fromarray(photo.levels), photo.remark


def read_mask(path: str | Path, max_pixels: int) -> Image.Image:
    """What is painted in ``path`` as an RGB picture, white on black. Raises ValueError as :func:`read_photo`."""
    paint = paint_in(_read(path, max_pixels, flat=False))
    return Image.fromarray((255 * paint).round().astype(np.uint8)).convert("RGB")


def _read(path: str | Path, max_pixels: int, flat: bool) -> photo_file.Photo:
    name = Path(path).name
    photo = photo_file.read_photo(path, flat=flat, max_pixels=max_pixels, formats=FORMATS, name=name)
    height, width = photo.levels.shape[:2]
    if min(height, width) < SMALLEST:
        raise ValueError(f"{name}: {width}x{height} pixels are too few, at least {SMALLEST} a side are needed")
    return photo


def frame(picture: Image.Image, problem: Problem, max_pixels: int) -> Tensor:
    """What of ``picture`` (RGB) is restored, (1, 3, h, w) in [0, 1].

    Raises:
        ValueError: an unknown fit, or more than ``max_pixels`` pixels left.
    """
    fit, across, down = problem.fit, problem.across, problem.down
    if fit not in FITS:
        raise ValueError(f"fit: expected one of {', '.join(FITS)}, got {fit!r}")
    side, (width, height) = int(problem.side), picture.size
    if fit == "square":
        width, height = side, side
    elif fit == "crop":
        width, height = min(side, width), min(side, height)
    elif fit == "resize":
        width, height = (round(length * side / max(picture.size)) for length in picture.size)
        if min(width, height) < SMALLEST:  # to make it wider would squeeze the photo
            raise ValueError(
                f"resized so, the photo has {width}x{height} pixels, at least {SMALLEST} a side are needed"
            )
    if width * height > max_pixels:
        raise ValueError(
            f"{width:.6g}x{height:.6g} pixels are too many to restore here, the limit is {max_pixels:,}: "
            "crop a square or resize the photo"
        )
    if fit == "square":
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC, centering=(across, down))
    elif fit == "crop":
        left, top = round(across * (picture.width - width)), round(down * (picture.height - height))
        picture = picture.crop((left, top, left + width, top + height))
    elif fit == "resize":
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return from_pillow(picture)


def canvas_of(image: Tensor) -> Image.Image:
    """The picture (1, 3, h, w) for the editor to paint on, large enough to paint."""
    shown = to_pillow(image)
    scale = max(1, -(-EDITOR_SIDE // max(shown.size)))
    return shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)
