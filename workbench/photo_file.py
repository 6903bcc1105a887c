"""Files of photos: read at all their bits and in sRGB, with what the file of a restoration keeps of them."""

import io
import math
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

# 50 million pixels take 600 MB as float32 RGB; a few kilobytes of PNG can claim far more (a decompression bomb).
MAX_PIXELS = 50_000_000

# A profile that moves no colour of this chart by more than two levels is one of the many spellings of sRGB.
_CHART = Image.fromarray((15 * np.indices((18, 18, 18), np.uint8)).reshape(3, 18, -1).transpose(1, 2, 0))

_TAGS = ExifTags.Base
# Other tags of a file's first directory describe its own pixels.
_KEPT_TAGS = (
    *(_TAGS.ImageDescription, _TAGS.Make, _TAGS.Model, _TAGS.Software, _TAGS.DateTime, _TAGS.Artist, _TAGS.Copyright),
    *(_TAGS.XPTitle, _TAGS.XPComment, _TAGS.XPAuthor, _TAGS.XPKeywords, _TAGS.XPSubject, _TAGS.Rating),
)
_STALE_TAGS = (_TAGS.ExifImageWidth, _TAGS.ExifImageHeight, ExifTags.IFD.Interop)  # the last one says Adobe RGB or sRGB


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as its file has it, in sRGB.

    Attributes:
        levels: (H, W, 3), or (H, W, 4) with alpha where something is transparent; uint8, or uint16 where the file has
            16 bits a channel. Pixels that are wholly transparent are white: what is hidden there stays hidden.
        exif: what the camera said (date, place, ...), as PNG keeps it; without thumbnail; the orientation is applied.
        remark: what was done to read it, in words; often empty.
    """

    levels: np.ndarray
    exif: bytes
    remark: str

    @property
    def image(self) -> Tensor:
        """Its colours, (1, 3, H, W) float32 in [0, 1]."""
        return _tensor(self.levels[..., :3])

    @property
    def alpha(self) -> Tensor | None:
        """(1, 1, H, W) float32, 0 is transparent, 1 opaque; None: all is opaque."""
        return _tensor(self.levels[..., 3:]) if self.levels.shape[2] == 4 else None


def read_photo(
    path: str | Path,
    size: int | None = None,
    *,
    flat: bool = False,
    to_srgb: bool = True,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
    name: str | None = None,
) -> Photo:
    """Read the photo in a file: the first frame, as its EXIF orientation says, its colours converted to sRGB.

    All 16 bits of grey pictures, and of RGB in PNG and TIFF unless a profile is converted; other formats at 8 bits.

    Args:
        path: any format that Pillow reads; grey, palette and CMYK pictures are converted to RGB.
        size: crop the centre square and resize it (antialiased) to ``size`` x ``size``; None keeps the picture whole.
        flat: on white and rounded to 8 bits, without EXIF, as a page shows it.
        to_srgb: False: take the file's numbers for sRGB, whatever its profile says.
        formats: those of Pillow that are tried; None: all. Some start programs (EPS: Ghostscript).
        name: begins messages; None: the path.

    Raises:
        ValueError: no such file, not an image, empty, damaged, or more than ``max_pixels`` pixels; one line that
            begins with ``name``. Or a size below 1 or of more pixels.
    """
    path, name = Path(path), name or str(path)
    if size is not None and not 1 <= size <= math.isqrt(max_pixels):
        raise ValueError(f"size must be at least 1 pixel and at most {math.isqrt(max_pixels)}, got {size}")
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise ValueError(f"{name}: {kind}" + (", expected an image file" if path.exists() else ""))
    if path.stat().st_size == 0:
        raise ValueError(f"{name}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow's own, about large pictures (the limit below is stricter and is an error) and damaged EXIF.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=formats) as image:
                width, height = image.size
                if width * height <= max_pixels:
                    return _read(image, path, size, flat, to_srgb)
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


def _read(file: ImageFile.ImageFile, path: Path, size: int | None, flat: bool, to_srgb: bool) -> Photo:
    remarks = _frames(file, path)
    low = _low_bytes(file, path, remarks)
    file.load()
    exif = _exif(file, remarks)
    image = ImageOps.exif_transpose(file)
    deep = _sixteen_bits(image, low)
    profile = image.info.get("icc_profile") if to_srgb and image.mode != "LAB" else None  # Lab is of no device
    if deep is not None:
        if "transparency" in image.info:
            remarks.append("its transparent colour ignored")
        image = Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    converted = _to_srgb(image, profile, remarks) if profile else None
    if image.mode in ("CMYK", "LAB") and converted is None:
        remarks.append(f"{image.mode} converted to RGB")
    if deep is not None:
        remarks.append("16 bits rounded to 8" if flat or converted is not None else "16 bits a channel")
    if deep is not None and not flat and converted is None:
        levels = deep if deep.ndim == 3 else np.repeat(deep[..., None], 3, axis=2)
    else:
        clear = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        image = image.convert("RGB") if converted is None else converted
        if clear is not None:
            image.putalpha(clear)
        levels = np.array(image)
    if levels.shape[2] == 4 and levels[..., 3].min() == np.iinfo(levels.dtype).max:
        levels = levels[..., :3]  # cameras and editors write an alpha channel that hides nothing
    if levels.shape[2] == 4:
        remarks.append("transparent parts on white" if flat else "alpha kept")
        levels = _on_white(levels) if flat else _hidden_white(levels)
    return Photo(levels if size is None else _square(levels, size), b"" if flat else exif, ", ".join(remarks))


def _frames(file: ImageFile.ImageFile, path: Path) -> list[str]:
    """The remark on further frames, if there are some. Counting reads them all: not in ``file``, whose first may do."""
    try:
        with Image.open(path, formats=("JPEG" if file.format == "MPO" else str(file.format),)) as other:
            count = getattr(other, "n_frames", 1)
    except Exception:  # whatever parsing hits
        return ["the first frame; others are damaged"]
    return [f"the first of {count} frames"] if count > 1 else []


def _low_bytes(file: ImageFile.ImageFile, path: Path, remarks: list[str]) -> Image.Image | None:
    """The lower bytes of 16-bit colours, of which Pillow reads the upper ones: read in the other order of bytes."""
    arguments = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in file.tile]
    mode = str(arguments[0][0]) if arguments and arguments[0] else ""
    tags = getattr(file, "tag_v2", {})
    bits, planes, white = tags.get(_TAGS.BitsPerSample, ()), _TAGS.PlanarConfiguration, _TAGS.PhotometricInterpretation
    signs = tags.get(_TAGS.SampleFormat, ())
    if 2 in signs or (32 in bits and 3 not in signs):
        raise ValueError("signed or 32-bit integers have no agreed white level; save it with 8 or 16 bits")
    if 12 in bits or (16 in bits and (tags.get(planes) == 2 or tags.get(white) == 0)):
        what = "12 bits, or 16 bits in separate planes or with 0 for white"
        raise ValueError(f"{what}, which Pillow misreads; save it with 16 bits, interleaved, and 0 for black")
    found = re.fullmatch(r"(RGBA?;16)([BLN])", mode)
    if found is None:
        wide = file.format == "PPM" and file.mode == "RGB" and arguments[0][1:2] > (255,)
        if wide or (";16" in mode and not mode.startswith("I")):
            remarks.append("8 of its 16 bits read")
        return None
    little = found[2] == "L" or (found[2] == "N" and sys.byteorder == "little")
    raw = found[1] + ("B" if little else "L")
    with Image.open(path, formats=(str(file.format),)) as other:
        other.tile = [tile._replace(args=(raw, *rest[1:])) for tile, rest in zip(other.tile, arguments, strict=True)]
        other.load()
        return ImageOps.exif_transpose(other)


def _sixteen_bits(image: Image.Image, low: Image.Image | None) -> np.ndarray | None:
    """All bits of a picture that has 16: uint16 (H, W) grey, or (H, W, 3 or 4); None for others."""
    if low is not None:
        return (np.asarray(image).astype(np.uint16) << 8) | np.asarray(low)
    if image.mode.startswith("I"):  # grey, which Pillow's own conversion to RGB would saturate
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"integer grey values {grey.min()}..{grey.max()} exceed 16 bits")
        return grey.astype(np.uint16)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white level; save it as 8 or 16 bits")
    return None


def _to_srgb(image: Image.Image, profile: bytes, remarks: list[str]) -> Image.Image | None:
    """``image`` in sRGB, mode RGB; None where its ``profile`` changes nothing, or is broken. ``remarks`` says so."""
    kind = "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("1", "L", "LA") else "RGB"
    plain = image.convert(kind)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = "".join(filter(str.isprintable, ImageCms.getProfileDescription(source))).strip()[:60]
        # As photo editors do, for profiles whose intents differ.
        how = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), kind, "RGB", *how)
        if kind != "CMYK":
            before = _CHART.convert(kind)
            change = ImageChops.difference(transform.apply(before), before.convert("RGB"))
            if np.asarray(change).max() <= 2:
                return None
        converted = transform.apply(plain)
    except (ImageCms.PyCMSError, OSError):
        remarks.append("its broken colour profile ignored")
        return None
    remarks.append(f"converted from {name or 'its colour profile'}")
    if kind != "CMYK" and len({band.tobytes() for band in plain.split()}) == 1:
        return converted.convert("L").convert("RGB")  # grey stays grey, whatever is rounded
    return converted


def _exif(file: ImageFile.ImageFile, remarks: list[str]) -> bytes:
    """The EXIF of ``file`` that stays true of another picture, as far as it can be read; empty where there is none."""
    kept, damaged = Image.Exif(), False
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            found = file.getexif()
            kept.update({tag: found[tag] for tag in _KEPT_TAGS if tag in found})
            for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                entries = {tag: value for tag, value in found.get_ifd(directory).items() if tag not in _STALE_TAGS}
                if _TAGS.ColorSpace in entries:
                    entries[_TAGS.ColorSpace] = 1  # sRGB
                if entries:
                    kept[directory] = entries
            if kept:
                kept[_TAGS.Orientation] = 1
            written = kept.tobytes() if kept else b""
        except Exception:  # whatever parsing hits; the picture may be whole
            written, damaged = b"", True
    if damaged or complaints:
        remarks.append("its EXIF is damaged")
    return written


def _hidden_white(levels: np.ndarray) -> np.ndarray:
    shown = levels.copy()
    shown[levels[..., 3] == 0, :3] = np.iinfo(levels.dtype).max
    return shown


def _on_white(levels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(levels)
    white = Image.new("RGBA", picture.size, "white")
    return np.array(Image.alpha_composite(white, picture).convert("RGB"))


def _square(levels: np.ndarray, size: int) -> np.ndarray:
    """The centre square of ``levels``, resized. Of 8 bits Pillow weighs colours by their alpha."""
    if levels.dtype == np.uint8:
        fitted = np.array(ImageOps.fit(Image.fromarray(levels), (size, size), Image.Resampling.BICUBIC))
        return _hidden_white(fitted) if levels.shape[2] == 4 else fitted
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in levels.transpose(2, 0, 1)]
    squares = [np.asarray(ImageOps.fit(plane, (size, size), Image.Resampling.BICUBIC)) for plane in planes]
    return np.dstack(squares).round().clip(0, 65535).astype(np.uint16)


def _tensor(levels: np.ndarray) -> Tensor:
    scaled = torch.from_numpy(levels.astype(np.float32)) / float(np.iinfo(levels.dtype).max)
    return scaled.permute(2, 0, 1)[None]
