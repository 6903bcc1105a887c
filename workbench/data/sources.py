"""Where training photos come from: a folder, an array, tar shards, a Hugging Face data set. One spec string each.

=====================================  ==================================================================
spec                                   what
=====================================  ==================================================================
``photos/``                            every image below the folder, sorted by path
``photos.npz``, ``photos.npy``         uint8 (N, 3, H, W) or (N, H, W, 3); key ``images`` or the only one
``shards-{00..05}.tar``, ``a.tar``     WebDataset shards (webdataset's brace notation or ``*``), streamed
``hf:NAME[:SPLIT[:COLUMN]]``           a data set by name (or local folder), streamed by ``datasets``
=====================================  ==================================================================

Indexed sources (folder, array) know their length. Streamed ones are read in order, shuffled through a buffer; raw
bytes are decoded only where a sample is used. A sample is ``(name, decode)``; ``decode()`` returns uint8 (H, W, 3) and
raises whatever the decoder raises on a broken file.
"""

import glob
import os
import random
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from workbench.photo_file import read_photo

Decode = Callable[[], np.ndarray]
Sample = tuple[str, Decode]
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
SHUFFLE_BUFFER = 1000
MOST_PIXELS = 2**28


class Indexed(Protocol):
    """A source with random access (anything with these two methods)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class Streamed(Protocol):
    """A source that is read from its start; ``stream(seed, epoch)`` yields one epoch in an order fixed by the two."""

    def stream(self, seed: int, epoch: int) -> Iterator[Sample]: ...


def open_source(spec: str | Path) -> Indexed | Streamed:
    """The source that ``spec`` names (see the table above).

    Raises:
        ValueError: nothing there, no image in it, or an array of another layout; what was found is said.
    """
    text = str(spec)
    if text.startswith("hf:"):
        return HuggingFace(text.removeprefix("hf:"))
    if text.endswith(".tar"):
        return TarShards(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return Folder(path)
    if path.suffix in (".npy", ".npz"):
        return Array(path)
    raise ValueError(f"no photos at {text!r}: expected a folder, a .npz or .npy file, .tar shards or hf:NAME")


def decode_image(data: bytes | Path) -> np.ndarray:
    """uint8 (H, W, 3) from encoded bytes or a file, as ``read_photo`` reads it: upright, sRGB, on white."""
    if isinstance(data, Path):
        return read_photo(data, flat=True, max_pixels=MOST_PIXELS).levels
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_photo(file.name, flat=True, max_pixels=MOST_PIXELS, name="it").levels


def images_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of ``suffixes`` and the folders without permission below ``folder``, sorted, none hidden."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_dir() or file.suffix.lower() in suffixes)
    files = (file for file in files if not (file.is_dir() and os.access(file, os.R_OK | os.X_OK)))
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


class Folder:
    """Every image file below a folder, in sorted order."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, images_below(path, SUFFIXES)
        if not self.files:
            raise ValueError(f"no images below {path} (looked for {', '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        """Of names and sizes of the files, wherever the folder is."""
        told = [f"{file.relative_to(self.path)} {file.stat().st_size}" for file in self.files]
        return sha256("\n".join(told).encode()).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        file = self.files[index]
        return str(file), partial(decode_image, file)


class Array:
    """A uint8 array of images in a ``.npy`` (memory-mapped) or ``.npz`` file."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"no photos at {str(path)!r}: no such file")
        self.path = path
        try:
            if path.suffix == ".npy":
                images = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                with np.load(path, allow_pickle=False) as archive:
                    keys = archive.files
                    images = archive["images" if "images" in keys or len(keys) != 1 else keys[0]]
        except KeyError:
            raise ValueError(f"{path}: expected a key 'images' or a single array, found {', '.join(keys)}") from None
        except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a whole file of numbers ({error})") from None
        if images.dtype != np.uint8 or images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
            raise ValueError(
                f"{path}: expected uint8 images (N, 3, H, W) or (N, H, W, 3), found {images.dtype} {images.shape}"
            )
        if not len(images):
            raise ValueError(f"{path}: no images in it, shape {images.shape}")
        self.images = images if images.shape[3] == 3 else images.transpose(0, 2, 3, 1)

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """Of the first and the last image."""
        return sha256(self.images[0].tobytes() + self.images[-1].tobytes()).hexdigest()

    def __getitem__(self, index: int) -> Sample:
        return f"{self.path}[{index}]", lambda: np.asarray(self.images[index])


def _buffered(samples: Iterator[Any], rng: random.Random) -> Iterator[Any]:
    """Shuffle a stream through a buffer of fixed size."""
    buffer: list[Any] = []
    for sample in samples:
        if len(buffer) < SHUFFLE_BUFFER:
            buffer.append(sample)
            continue
        slot = rng.randrange(SHUFFLE_BUFFER)
        buffer[slot], sample = sample, buffer[slot]
        yield sample
    rng.shuffle(buffer)
    yield from buffer


class TarShards:
    """WebDataset shards, read by the webdataset library: shard order and a buffer are shuffled per epoch."""

    def __init__(self, pattern: str) -> None:
        from webdataset.shardlists import expand_urls

        self.shards = sorted(glob.glob(pattern)) if "*" in pattern else expand_urls(pattern)
        missing = [shard for shard in self.shards if "://" not in shard and not Path(shard).is_file()]
        if missing or not self.shards:
            raise ValueError(f"no tar shard {missing[0] if missing else pattern!r}")
        for shard in (Path(shard) for shard in self.shards if "://" not in shard):
            # Of a file that is cut webdataset reads what is left without a word. A whole one ends with zeros.
            size = shard.stat().st_size
            if size < 1024 or np.fromfile(shard, np.uint8, offset=size - 1024).any():
                raise ValueError(f"{shard} ({size} bytes) is not a whole tar file: 1024 zeros at its end are missing")

    def stream(self, seed: int, epoch: int) -> Iterator[Sample]:
        import webdataset

        rng = random.Random(f"{seed}/{epoch}")
        shards = rng.sample(self.shards, len(self.shards))
        # Batches are dealt to ranks and workers in photos.py: here every process reads the whole stream.
        dataset = webdataset.WebDataset(
            shards, shardshuffle=False, nodesplitter=None, workersplitter=None, empty_check=False
        )
        found = (
            (f"{item['__url__']}:{item['__key__']}.{suffix}", data)
            for item in dataset
            for suffix, data in item.items()
            if f".{suffix.rsplit('.', 1)[-1].lower()}" in SUFFIXES
        )
        for name, data in _buffered(found, rng):
            yield name, partial(decode_image, data)


class HuggingFace:
    """A data set of the Hugging Face Hub, or a local folder in the same format, streamed without unpacking."""

    def __init__(self, spec: str) -> None:
        parts = spec.split(":")
        if not parts[0] or len(parts) > 3:
            raise ValueError(f"expected hf:NAME[:SPLIT[:COLUMN]], got 'hf:{spec}'")
        self.name = parts[0]
        self.split = parts[1] if len(parts) > 1 and parts[1] else "train"
        self.column = parts[2] if len(parts) > 2 else None

    def stream(self, seed: int, epoch: int) -> Iterator[Sample]:
        import datasets

        try:
            data = datasets.load_dataset(self.name, split=self.split, streaming=True)
        except Exception as error:
            raise ValueError(f"cannot open the data set {self.name!r} (split {self.split!r}): {error}") from error
        features = data.features or {}
        columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        column = self.column or (columns[0] if columns else None)
        if column not in columns:
            raise ValueError(
                f"data set {self.name!r}: no image column {self.column or ''!r}, it has "
                f"{', '.join(f'{name} ({type(feature).__name__})' for name, feature in features.items()) or 'none'}"
            )
        data = data.cast_column(column, datasets.Image(decode=False))
        data = data.shuffle(seed=seed * 1_000_003 + epoch, buffer_size=SHUFFLE_BUFFER)
        # `iter` reads the whole stream; plain iteration would deal rows to loader workers a second time.
        raws = (raw for rows in data.iter(batch_size=16) for raw in rows[column])
        for number, raw in enumerate(raws):
            content = raw["bytes"] if raw["bytes"] is not None else Path(raw["path"])
            yield raw["path"] or f"{self.name}[{number}]", partial(decode_image, content)
