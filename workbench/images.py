"""Photos in and out: image files, and tensors (B, C, H, W) in [0, 1].

A tensor is clipped to [0, 1] once, here, when it becomes a picture; algorithms never clip. What cannot be an image of
that range, such as one in 0..255, is refused where it comes in: :func:`check_range`.
"""

import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workbench.photo_file import read_photo
from workbench.text import replacing, require_kind, unknown

PLAUSIBLE = (-0.5, 1.5)  # a restoration with values beyond is none
FINITE = (-sys.float_info.max, sys.float_info.max)  # for what is to be clipped
ROUNDING = 1e-3  # how far an image may leave [0, 1]

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
    """Read a photo as (1, 3, H, W) float32 in [0, 1], sRGB; transparent pictures on white.

    :func:`workbench.photo_file.read_photo` says how files are read, and also gives their alpha and EXIF.

    Args:
        path: any format that Pillow reads; grey, palette and CMYK pictures are converted to RGB.
        size: crop the centre square and resize it (antialiased) to ``size`` x ``size``; None keeps the picture whole.

    Raises:
        ValueError: as ``read_photo``: one line that begins with the path.
    """
    photo = read_photo(path, size)
    return photo.image if photo.alpha is None else photo.image * photo.alpha + (1 - photo.alpha)


def is_grey(images: Tensor) -> Tensor:
    """Whether each of ``images`` (B, C, H, W) has no colours, its channels being equal everywhere: bool (B,)."""
    return (images == images[:, :1]).flatten(1).all(dim=1)


def finite_images(images: Tensor) -> Tensor:
    """Which of ``images`` (B, ...) have no NaN and no infinite value: bool (B,)."""
    return images.flatten(1).isfinite().all(dim=1)


def from_pillow(image: Image.Image) -> Tensor:
    """An RGB picture as (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def to_uint8(images: Tensor) -> np.ndarray:
    """``images`` (B, C, H, W), nominal [0, 1], as uint8 (B, H, W, C): clipped and rounded.

    Raises:
        ValueError: a value is not finite, or the shape has not four dimensions.
    """
    return _levels(images, torch.uint8)


def check_range(images: Tensor, name: str, low: float = -ROUNDING, high: float = 1 + ROUNDING) -> None:
    """Raise ValueError unless ``images`` are floating-point numbers from ``low`` to ``high``, which stand for [0, 1]
    and what rounding, or a solver, may add. The message says what came and, where it can be told, what to do."""
    require_kind(images, Tensor, name, "(B, 3, H, W), as load_image returns")
    expected = f"{name} must have values in [0, 1], got"
    if not images.is_floating_point():
        hint = ": divide by 255?" if images.dtype == torch.uint8 else ""
        raise ValueError(f"{expected} {images.dtype}{hint}")
    least, most = (float(value) for value in images.detach().aminmax()) if images.numel() else (0.0, 1.0)
    if low <= least and most <= high:
        return
    if not math.isfinite(least + most):
        raise ValueError(f"{expected} {'NaN' if math.isnan(least + most) else 'infinite values'}")
    if most > 2 and least > -most / 2:
        raise ValueError(f"{expected} values up to {most:.6g}: divide by {255 if most < 300 else 65535}?")
    hint = "(x + 1) / 2" if -1 + low <= least < PLAUSIBLE[0] and most <= high else "clip or rescale"
    raise ValueError(f"{expected} values from {least:.4g} to {most:.4g}: {hint}?")


def clipped_pair(restored: Tensor, original: Tensor, clip: bool = False) -> tuple[Tensor, Tensor]:
    """Two batches (B, C, H, W), nominal [0, 1], as a viewer sees them: clipped to it. What every metric starts with.

    Args:
        clip: also clip a restored image with values beyond ``PLAUSIBLE``, such as one that diverged or pure noise.

    Raises:
        ValueError: the shapes differ, ``original`` is no image in [0, 1], ``restored`` is beyond ``PLAUSIBLE`` without
            ``clip``, or a value is not finite.
    """
    if restored.shape != original.shape or original.ndim != 4:
        raise ValueError(
            f"expected two batches (B, C, H, W) of one shape, got {tuple(restored.shape)} and {tuple(original.shape)}"
        )
    check_range(original, "the original")
    check_range(restored, "the restored image", *(FINITE if clip else PLAUSIBLE))
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


def check_bits(bits: int) -> None:
    """Raise ValueError unless a channel of a picture can have so many ``bits``."""
    if bits not in (8, 16):
        raise ValueError(f"pictures have 8 or 16 bits a channel, got {bits}")


def save_image(
    image: Tensor, path: str | Path, *, alpha: Tensor | None = None, bits: int = 8, exif: bytes = b""
) -> None:
    """Write ``image`` (1, C, H, W) with 1 or 3 channels as PNG; a file of that name is replaced in one step.

    The file has no colour profile, which means sRGB.

    Args:
        alpha: (1, 1, H, W) in [0, 1], 1 is opaque.
        bits: of each channel, 8 or 16.
        exif: as ``Photo.exif``.

    Raises:
        ValueError: as :func:`to_pillow`, or another number of ``bits``.
    """
    check_bits(bits)
    picture = to_pillow(image)
    if alpha is not None:
        picture.putalpha(to_pillow(alpha))
    with replacing(path) as file:
        if bits == 8:
            picture.save(file, format="PNG", exif=exif)
        else:
            whole = image if alpha is None else torch.cat([image, alpha.to(image)], dim=1)
            file.write_bytes(_png16(_levels(whole, torch.uint16)[0], exif))


def _levels(images: Tensor, kind: torch.dtype) -> np.ndarray:
    """``images`` (B, C, H, W), nominal [0, 1], as unsigned integers (B, H, W, C): clipped and rounded."""
    if images.ndim != 4:
        raise ValueError(f"expected images (B, C, H, W), got shape {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise ValueError("the picture has pixels that are NaN or infinite")
    levels = (images.detach().float().clamp(0, 1) * torch.iinfo(kind).max).round().to(kind)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def _png16(levels: np.ndarray, exif: bytes) -> bytes:
    """A PNG file of ``levels``, uint16 (H, W, 1 to 4): Pillow writes 16 bits of grey pictures only."""
    height, width, channels = levels.shape
    rows = np.frombuffer(levels.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    # Each row is preceded by the number of its filter. 2: the difference to the row above, which packs better.
    rows = np.insert(np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1])), 0, 2, axis=1)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    chunks += [(b"eXIf", exif.removeprefix(b"Exif\0\0"))] if exif else []
    chunks += [(b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    parts = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sample_photo(name: str, size: int | None) -> Tensor:
    """One of the photos named in ``SAMPLES``, centre-cropped and resized: (1, 3, size, size) in [0, 1]; None: whole.

    Their numbers are taken for sRGB, as in every figure of the documentation, though the rocket is in Adobe RGB.

    Raises:
        ValueError: unknown name.
    """
    import skimage

    if name not in SAMPLES:
        raise ValueError(unknown("sample photo", name, SAMPLES))
    return read_photo(Path(skimage.__file__).parent / "data" / SAMPLES[name], size, to_srgb=False).image


def sample_photos(size: int, names: tuple[str, ...] = ("astronaut", "coffee", "cat", "rocket")) -> Tensor:
    """A batch (len(names), 3, size, size) of :func:`sample_photo`."""
    return torch.cat([sample_photo(name, size) for name in names])
