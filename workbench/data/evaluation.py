"""Photos to measure on: a fixed, numbered list of images of one size, so that two sets can be told to be disjoint.

Photos come in an order fixed by the seed. In that order each gives its first image, then each its second, and so on:
any run of numbers spreads over the photos evenly, and ``first`` and ``count`` pick a run.
"""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from workbench.data.sources import Indexed, Sample, Streamed, open_source
from workbench.images import sample_photo, to_uint8
from workbench.text import require

CUTS = ("tiles", "halve", "fit")
NATURAL = ("astronaut", "coffee", "cat", "rocket", "motorcycle")  # of SAMPLES; the others are black for the most part


def evaluation_photos(
    specs: Sequence[str],
    *,
    count: int | None,
    first: int = 0,
    size: int = 32,
    cut: str = "tiles",
    short_side: int = 128,
    seed: int = 0,
) -> tuple[Tensor, list[str]]:
    """Images number ``first`` to ``first + count - 1``: (count, 3, size, size) in [0, 1], and their names: those of the
    photos' files, or whole paths where several photos have one name, and of tiles also their row and column.

    Args:
        specs: sources (``sources.py``); empty: the natural sample photos.
        count, first: which images; ``count`` None: all from ``first`` on.
        cut: "tiles": photos are resized so that their short side is ``short_side`` pixels (0: not resized), then cut
            into tiles that do not overlap; "halve": photos of twice the size, averaged over 2x2 pixels (a box filter
            leaves no JPEG blocks); "fit": the centre square, resized.
        seed: order of the photos and of their tiles.

    Raises:
        ValueError: nothing at a spec, a photo that cannot be cut that way, numbers out of range, or fewer images than
            asked for; the message says how many there are.
    """
    require(cut in CUTS, "cut", f"one of {', '.join(CUTS)}", repr(cut))
    if (count is not None and count < 1) or size < 1 or min(first, short_side, seed) < 0:
        given = f"{count}, {size}, {first}, {short_side}, {seed}"
        raise ValueError(f"count and size must be at least 1, first, short_side and seed at least 0, got {given}")
    wanted = None if count is None else first + count
    photos = dict(enumerate(_named(list(_photos(specs, seed, wanted)))))
    found = list(itertools.islice(_dealt(photos, size, cut, short_side, seed), wanted))
    if len(found) < (first + 1 if wanted is None else wanted):
        skipped = f" after the first {first}" if first else ""
        raise ValueError(f"asked for {count or 'all'} images{skipped}, but the photos give only {len(found)} in all")
    _, names, pixels = zip(*found[first:], strict=True)
    return _tensor(pixels), list(names)


def evaluation_batches(
    specs: Sequence[str], numbers: range, *, batch: int, size: int, cut: str = "fit", seed: int = 0
) -> Iterator[tuple[list[int], Tensor]]:
    """The images ``numbers`` of :func:`evaluation_photos`, one of each photo, a batch at a time, so that memory does
    not grow with them: their numbers (B), and images (B, 3, size, size). What cannot be read keeps its number.

    Raises:
        ValueError: as there, or ``cut`` is "tiles".
    """
    require(cut in CUTS[1:], "cut", f"{' or '.join(CUTS[1:])} where one photo is one image", repr(cut))
    photos = itertools.islice(enumerate(_photos(specs, seed, numbers.stop)), numbers.start, None)
    for start in range(numbers.start, numbers.stop, batch):
        part = dict(itertools.islice(photos, min(batch, numbers.stop - start)))
        if len(part) < min(batch, numbers.stop - start):
            raise ValueError(f"asked for {numbers.stop} photos, but there are only {start + len(part)}")
        if found := list(_dealt(part, size, cut, 0, seed)):
            yield [number for number, _, _ in found], _tensor([pixels for _, _, pixels in found])


def photo_of(name: str) -> str:
    """The photo that the image called ``name`` by :func:`evaluation_photos` is, or is a tile of."""
    return re.sub(r" \d+,\d+$", "", name)


def _photos(specs: Sequence[str], seed: int, most: int | None) -> Iterator[Sample]:
    """All sources in turns, not permuted as a whole: what comes first must not depend on how much is asked for."""
    samples = [(name, partial(lambda name: to_uint8(sample_photo(name, None))[0], name)) for name in NATURAL]
    sources = [open_source(spec) for spec in specs] or [samples]
    turns = itertools.zip_longest(*(_in_order(source, seed, most) for source in sources))
    return (photo for turn in turns for photo in turn if photo is not None)


def _tensor(pixels: Sequence[np.ndarray]) -> Tensor:
    return (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255).contiguous()


def _in_order(source: Indexed | Streamed, seed: int, most: int | None) -> Iterator[Sample]:
    """The samples of a source in its seeded order; of a stream no more than needed."""
    if isinstance(source, Streamed):
        return itertools.islice(source.stream(seed, 0), most)
    order = np.random.default_rng((seed, len(source), 2)).permutation(len(source))
    return (source[int(index)] for index in order)


def _named(photos: list[Sample]) -> list[Sample]:
    """``photos`` by the names of their files; by whole paths where files of several folders share one."""
    shared = Counter(Path(path).name for path in {path for path, _ in photos})
    return [(name if shared[name := Path(path).name] == 1 else path, decode) for path, decode in photos]


def _dealt(
    photos: dict[int, Sample], size: int, cut: str, short_side: int, seed: int
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Round by round, one image of each photo that still has one, with the photo's number. Photos are decoded when
    their turn comes; a warning names those that cannot be."""
    opened: dict[int, list[tuple[str, np.ndarray]]] = {}
    for turn in itertools.count():
        given = 0
        for number, (name, decode) in photos.items():
            if turn == 0:
                try:
                    pixels = decode()
                except Exception as error:  # decoders raise anything
                    warnings.warn(f"left out: {name}: {error}", stacklevel=2)
                    opened[number] = []
                    continue
                opened[number] = _images(name, pixels, size, cut, short_side, (seed, number))
            if turn < len(opened[number]):
                given += 1
                yield number, *opened[number][turn]
        if not given:
            return


def _images(
    name: str, pixels: np.ndarray, size: int, cut: str, short_side: int, seed: tuple[int, int]
) -> list[tuple[str, np.ndarray]]:
    """The images of one photo, uint8 (size, size, 3) each."""
    height, width = pixels.shape[:2]
    if cut == "halve":
        if (height, width) != (2 * size, 2 * size):
            raise ValueError(f"{name}: cut 'halve' needs photos of {2 * size}x{2 * size} pixels, got {height}x{width}")
        halved = pixels.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
        return [(name, halved.round().astype(np.uint8))]
    photo = Image.fromarray(np.ascontiguousarray(pixels))
    if cut == "fit":
        return [(name, np.asarray(ImageOps.fit(photo, (size, size), Image.Resampling.BICUBIC)))]
    if short_side:
        zoom = short_side / min(height, width)
        photo = photo.resize((round(width * zoom), round(height * zoom)), Image.Resampling.BICUBIC)
    rows, columns = photo.height // size, photo.width // size
    places = list(itertools.product(range(rows), range(columns)))
    if not places:
        raise ValueError(f"{name}: {photo.height}x{photo.width} pixels hold no tile of {size}x{size}")
    whole = np.asarray(photo)
    return [
        (f"{name} {row},{column}", whole[row * size : (row + 1) * size, column * size : (column + 1) * size])
        for row, column in (places[k] for k in np.random.default_rng((*seed, 3)).permutation(len(places)))
    ]
