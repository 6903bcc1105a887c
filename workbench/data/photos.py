"""Photos to training batches: random crops, flips, antialiased resizing; deterministic, resumable, sharded.

Sample number p of a run is a pure function of the seed and p: which source it comes from, which image, which crop,
which flip. Batch b of rank r holds samples ``(b * ranks + r) * size ... + size - 1``. So the order does not depend on
the number of workers, and a run resumes at any batch. Streamed sources cannot jump: resuming reads (without
decoding) up to the place, and every worker reads the whole stream and decodes its share.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm.auto import tqdm

from workbench.data.sources import Array, Decode, Folder, Indexed, Sample, Streamed, open_source
from workbench.text import check_types, require

if TYPE_CHECKING:
    from workbench.data.crops import CropPool

Cursor = Callable[[int], Iterator[Sample]]  # the sample at a position, and those that may stand in for it


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, size, size), float32 in [0, 1]; the names of files skipped on the way (with the reason); and the
    smallest noise levels (B,) at which the images may be used, if they are not clean.
    """

    images: Tensor
    skipped: list[str] = field(default_factory=list)
    floor: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        floor = None if self.floor is None else self.floor.to(device)
        return Batch(self.images.to(device, non_blocking=True), self.skipped, floor)


class Photos(IterableDataset):
    """An endless stream of :class:`Batch`.

    Args:
        sources: specs (``sources.py``) or opened sources; samples are drawn from source i with chance ``weights[i]``.
        size: side of the square crops.
        batch_size: images per batch and rank.
        resize: short side after antialiased resizing, before cropping; None keeps the size. One for all or one each.
        scales: (smallest, largest) random zoom factor, uniform, antialiased; (1, 1) for none. One tuple for all or
            a list of one each. An image smaller than the crop is enlarged to it.
        flip: mirror half of the images.
        preload: decode indexed sources once into memory (before workers start, so that they share it).
        seed, start: order, and the batch to begin with.
        rank, ranks: this process among those that train together.

    Raises:
        ValueError: numbers out of range, or lists of different lengths.
    """

    def __init__(
        self,
        sources: Sequence[str | Path | Indexed | Streamed] | str | Path,
        *,
        size: int,
        batch_size: int,
        weights: Sequence[float] | None = None,
        resize: int | Sequence[int | None] | None = None,
        scales: tuple[float, float] | list[tuple[float, float]] = (1.0, 1.0),
        flip: bool = True,
        preload: bool = False,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        settings = {"sources": sources, "size": size, "batch_size": batch_size, "weights": weights, "resize": resize}
        check_types(settings | {"seed": seed}, get_type_hints(Photos.__init__), "Photos")
        given = [sources] if isinstance(sources, str | Path) else list(sources)
        self.sources = [open_source(item) if isinstance(item, str | Path) else item for item in given]
        count = len(self.sources)
        shares = np.asarray([1.0] * count if weights is None else list(weights), dtype=float)
        self.resize = [resize] * count if resize is None or isinstance(resize, int) else list(resize)
        self.scales = [scales] * count if isinstance(scales, tuple) else list(scales)
        if not count or len(shares) != count or len(self.resize) != count or len(self.scales) != count:
            raise ValueError(
                f"expected one weight, resize and scale per source: {count} sources, {len(shares)} weights, "
                f"{len(self.resize)} sizes, {len(self.scales)} scales"
            )
        if not (shares >= 0).all() or not np.isfinite(shares).all() or shares.sum() <= 0:
            raise ValueError(f"weights must be finite, not negative and not all zero, got {shares.tolist()}")
        require(min(size, batch_size) >= 1, "size and batch_size", "at least 1", f"{size} and {batch_size}")
        pairs = all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in self.scales)
        fits = pairs and all(0 < low <= high < np.inf for low, high in self.scales)
        require(fits, "scales", "pairs, 0 < smallest <= largest", self.scales)
        require(all(side is None or side >= 1 for side in self.resize), "resize", "at least 1 or None", self.resize)
        require(seed >= 0, "seed", "at least 0", seed)
        self.shares = shares / shares.sum()
        self.size, self.batch_size, self.flip = size, batch_size, flip
        self.seed, self.start, self.rank, self.ranks = seed, start, rank, ranks
        self.contents = [s.fingerprint() if isinstance(s, Folder | Array) else None for s in self.sources]
        if preload:
            self.sources = [s if isinstance(s, Streamed) else _preloaded(s) for s in self.sources]

    def described(self) -> dict[str, Any]:
        """What a run that is continued must find again: the settings, how many images each source has, and which."""
        counts = [type(s).__name__ if isinstance(s, Streamed) else len(s) for s in self.sources]
        return {
            "size": self.size,
            "seed": self.seed,
            "sources": counts,
            "contents": self.contents,
            "weights": self.shares.tolist(),
            "resize": self.resize,
            "scales": self.scales,
            "flip": self.flip,
        }

    def from_batch(self, start: int, rank: int, ranks: int) -> Photos:
        """The same stream, from another batch on and for another process; sources are shared."""
        photos = copy.copy(self)
        photos.start, photos.rank, photos.ranks = start, rank, ranks
        return photos

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        cursors = [_cursor(source, self.seed) for source in self.sources]
        batch = 0
        while True:
            # Batches are dealt to workers in turn, counted from `start`: the loader collects them in that order.
            mine = batch >= self.start and (batch - self.start) % workers == number
            for rank in range(self.ranks):
                first = (batch * self.ranks + rank) * self.batch_size
                if mine and rank == self.rank:
                    yield self._batch(first, cursors)
                else:
                    self._pass(first, cursors)
            batch += 1

    def _choose(self, position: int) -> tuple[int, np.random.Generator]:
        rng = np.random.default_rng((self.seed, position))
        return int(rng.choice(len(self.shares), p=self.shares)), rng

    def _batch(self, first: int, cursors: list[Cursor]) -> Batch:
        images: list[Tensor] = []
        skipped: list[str] = []
        for position in range(first, first + self.batch_size):
            which, rng = self._choose(position)
            for name, decode in cursors[which](position):
                try:
                    images.append(self._crop(decode(), which, rng))
                    break
                except Exception as error:  # decoders raise anything: the file is named, counted and left out
                    skipped.append(f"{name}: {type(error).__name__}: {error}")
        if not images:
            raise ValueError(f"none of {len(skipped)} images could be decoded, the last: {skipped[-1]}")
        # A stream has no other image to offer without moving all that follow: one of this batch stands in.
        images += [images[k % len(images)] for k in range(self.batch_size - len(images))]
        return Batch(torch.stack(images), skipped)

    def _pass(self, first: int, cursors: list[Cursor]) -> None:
        """Advance the streamed sources past a batch that another worker or rank makes."""
        if any(isinstance(source, Streamed) for source in self.sources):
            for position in range(first, first + self.batch_size):
                next(cursors[self._choose(position)[0]](position))

    def _crop(self, pixels: np.ndarray, which: int, rng: np.random.Generator) -> Tensor:
        height, width = pixels.shape[:2]
        low, high = self.scales[which]
        zoom = rng.uniform(low, high) if high > low else low
        target = self.resize[which]
        zoom *= target / min(height, width) if target is not None else 1.0
        zoom = max(zoom, self.size / min(height, width))
        new = (max(round(height * zoom), self.size), max(round(width * zoom), self.size))
        top = int(rng.integers(new[0] - self.size + 1))
        left = int(rng.integers(new[1] - self.size + 1))
        if new == (height, width):
            crop = pixels[top : top + self.size, left : left + self.size]
        else:
            # The crop of the resized image, without resizing the rest of it. Pillow widens the filter when it
            # shrinks (antialiased) and reads past the box.
            down, right = height / new[0], width / new[1]
            box = (left * right, top * down, (left + self.size) * right, (top + self.size) * down)
            image = Image.fromarray(np.ascontiguousarray(pixels))
            crop = np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box))
        if self.flip and rng.random() < 0.5:
            crop = crop[:, ::-1]
        return torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255


def _cursor(source: Indexed | Streamed, seed: int) -> Cursor:
    """Position p of a source is entry p of an endless sequence of permutations, one per epoch; should it not decode,
    those that follow it, at most a hundred. Each call for a stream takes the next sample, whatever the position."""
    if isinstance(source, Streamed):
        samples = _endless(source, seed)
        return lambda position: itertools.islice(samples, 1)
    count = len(source)
    order = lru_cache(1)(lambda epoch: np.random.default_rng((seed, epoch, 1)).permutation(count))

    def candidates(position: int) -> Iterator[Sample]:
        for number in range(position, position + min(count, 100)):
            epoch, place = divmod(number, count)
            yield source[int(order(epoch)[place])]

    return candidates


def _endless(source: Streamed, seed: int) -> Iterator[Sample]:
    for epoch in itertools.count():
        sample = None
        for sample in source.stream(seed, epoch):
            yield sample
        if sample is None:
            raise ValueError("the stream holds no image")


def _preloaded(source: Indexed) -> list[Sample]:
    """An indexed source held in memory, decoded. A broken file keeps raising its error."""

    def decoded(name: str, decode: Decode) -> Sample:
        try:
            pixels = decode()
        except Exception:
            return name, decode
        return name, lambda: pixels

    return [decoded(*source[index]) for index in tqdm(range(len(source)), desc="decode", leave=False)]


def loader(photos: Photos | CropPool, *, workers: int = 2, pin_memory: bool = False) -> Iterator[Batch]:
    """Batches of ``photos`` in order, prepared ahead by ``workers`` processes (0: in this one)."""
    if not isinstance(photos, Photos):
        return iter(photos)
    data = DataLoader(
        photos,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        # Batches are keyed by seed and position; the workers' own random states must not draw from the global one.
        generator=torch.Generator().manual_seed(photos.seed),
    )
    return iter(data)
