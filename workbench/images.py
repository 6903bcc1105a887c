"""Photos in and out: image files, and tensors (B, C, H, W) in [0, 1].

A tensor is clipped to [0, 1] once, here, when it becomes a picture; algorithms never clip.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from workbench.text import replacing, unknown

# 50 million pixels take 600 MB as float32 RGB; a few kilobytes of PNG can claim far more (a decompression bomb).
MAX_PIXELS = 50_000_000

# Colour photos that lie inside the scikit-image wheel: reading them needs no network.
SAMPLES = {
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "cat": "chelsea.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "galaxies": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
}


def load_image(path: str | Path, size: int | None = None) -> Tensor:
    """Read a photo as (1, 3, H, W) float32 in [0, 1], RGB, at 8 bits per channel.

    Honours the EXIF orientation, puts transparent pictures on white, and takes the first frame of animated ones.

    Args:
        path: any format that Pillow reads; grey, palette, CMYK and 16-bit pictures are converted to RGB.
        size: crop the centre square and resize it (antialiased) to ``size`` x ``size``; None keeps the picture whole.

    Raises:
        ValueError: no such file, not an image, empty, damaged, or more than ``MAX_PIXELS`` pixels; one line that
            begins with the path.
    """
    return from_pillow(open_image(path), size)


def open_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] | None = None, name: str | None = None
) -> Image.Image:
    """Read a photo as an RGB picture; see :func:`load_image`.

    Args:
        formats: those of Pillow that are tried; None: all. Some start programs (EPS: Ghostscript).
        name: begins messages; None: the path.

    Raises:
        ValueError: as :func:`load_image`, or more than ``max_pixels`` pixels.
    """
    path, name = Path(path), name or str(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise ValueError(f"{name}: {kind}" + (", expected an image file" if path.exists() else ""))
    if path.stat().st_size == 0:
        raise ValueError(f"{name}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow's own warning about large pictures: the limit below is stricter and is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as image:
                width, height = image.size
                if width * height <= max_pixels:
                    image.load()
                    return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: claims to be a far larger picture than the limit of {max_pixels:,} pixels") from None
    except PermissionError:
        raise ValueError(f"{name}: no permission to read it") from None
    except ValueError as error:
        raise ValueError(f"{name}: damaged or unsupported image ({error})") from None
    except Exception as error:
        # Pillow's decoders raise whatever their parsing hit: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{name}: damaged or truncated image ({error})") from None
    raise ValueError(f"{name}: {width}x{height} pixels, the limit is {max_pixels:,}")


def from_pillow(image: Image.Image, size: int | None = None) -> Tensor:
    """An RGB picture as (1, 3, H, W) float32 in [0, 1]; ``size`` as in :func:`load_image`."""
    if size is not None:
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size}")
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion to RGB would saturate
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"integer grey values {grey.min()}..{grey.max()} exceed 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white level; save it as 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def to_uint8(images: Tensor) -> np.ndarray:
    """``images`` (B, C, H, W), nominal [0, 1], as uint8 (B, H, W, C): clipped and rounded.

    Raises:
        ValueError: a value is not finite, or the shape has not four dimensions.
    """
    if images.ndim != 4:
        raise ValueError(f"expected images (B, C, H, W), got shape {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise ValueError("the picture has pixels that are NaN or infinite")
    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def clipped_pair(restored: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches (B, C, H, W), nominal [0, 1], as a viewer sees them: clipped to it. What every metric starts with.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    if restored.shape != original.shape or original.ndim != 4:
        raise ValueError(
            f"expected two batches (B, C, H, W) of one shape, got {tuple(restored.shape)} and {tuple(original.shape)}"
        )
    if not bool(restored.isfinite().all() and original.isfinite().all()):
        raise ValueError("an image has pixels that are NaN or infinite")
    return restored.clamp(0, 1), original.clamp(0, 1)


def to_pillow(image: Tensor) -> Image.Image:
    """``image`` (1, C, H, W) with 1 or 3 channels, nominal [0, 1], as a Pillow picture.

    Raises:
        ValueError: more than one image, another number of channels, or values that are not finite.
    """
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise ValueError(f"expected one image (1, 1 or 3, H, W), got shape {tuple(image.shape)}")
    pixels = to_uint8(image)[0]
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def save_image(image: Tensor, path: str | Path) -> None:
    """Write ``image`` (1, C, H, W) with 1 or 3 channels as PNG; a file of that name is replaced in one step."""
    picture = to_pillow(image)
    with replacing(path) as file:
        picture.save(file, format="PNG")


def sample_photo(name: str, size: int) -> Tensor:
    """One of the photos named in ``SAMPLES``, centre-cropped and resized: (1, 3, size, size) in [0, 1].

    Raises:
        ValueError: unknown name.
    """
    import skimage

    if name not in SAMPLES:
        raise ValueError(unknown("sample photo", name, SAMPLES))
    return load_image(Path(skimage.__file__).parent / "data" / SAMPLES[name], size)


def sample_photos(size: int, names: tuple[str, ...] = ("astronaut", "coffee", "cat", "rocket")) -> Tensor:
    """A batch (len(names), 3, size, size) of :func:`sample_photo`."""
    return torch.cat([sample_photo(name, size) for name in names])
