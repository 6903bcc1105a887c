"""Crops cut on the device that trains: photos decoded once, at a few zooms, and kept there as bytes.

A fast device waits for :class:`~workbench.data.photos.Photos`, whose workers decode and resize image by image. Here a
batch is one gather from memory. Batch number k is a pure function of the seed and k, so that a run resumes at any step.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workbench.data.photos import Batch
from workbench.text import require


@dataclass(frozen=True)
class Stock:
    """Photos of one kind.

    Attributes:
        photos: uint8 (H, W, 3) each.
        weight: share of the crops, relative to other stocks.
        zooms: each photo is kept at these sizes (1: as it is), antialiased; all are equally likely. A zoom at which a
            photo is smaller than the crop is left out.
        floor: smallest noise level at which these may be used, in units of [0, 1] images: 0.1 hides what JPEG
            compression did to a thumbnail.
    """

    photos: Sequence[np.ndarray]
    weight: float = 1.0
    zooms: tuple[float, ...] = (1.0,)
    floor: float = 0.0


class CropPool:
    """An endless stream of :class:`Batch` on ``device``: square crops of ``stocks``, turned and mirrored at random.

    Args:
        stocks: what to draw from.
        size: side of the crops.
        batch_size: crops per batch and rank.
        seed: of the crops.
        device: where the photos lie and the batches come from.

    Raises:
        ValueError: a stock of which no photo is as large as the crop, or of another layout.
    """

    def __init__(
        self, stocks: Sequence[Stock], *, size: int, batch_size: int, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        require(min(size, batch_size, len(stocks)) >= 1, "size, batch_size and stocks", "at least 1", "less")
        weights = [stock.weight for stock in stocks]
        require(min(weights) >= 0 and 0 < sum(weights) < float("inf"), "weights", "at least 0, not all 0", weights)
        self.size, self.batch_size, self.seed, self.device = size, batch_size, seed, torch.device(device)
        self.start, self.rank, self.ranks = 0, 0, 1
        pixels: list[Tensor] = []
        entries: list[tuple[int, int, int]] = []  # first pixel, height, width
        chances: list[float] = []
        floors: list[float] = []
        place = 0
        for number, stock in enumerate(stocks):
            sized = [image for photo in stock.photos for image in _zoomed(photo, stock.zooms, size)]
            if not sized:
                raise ValueError(f"stock {number}: none of its {len(stock.photos)} photos is at least {size}x{size}")
            for image in sized:
                entries.append((place, *image.shape[:2]))
                pixels.append(torch.from_numpy(np.array(image.reshape(-1, 3))))
                place += image.shape[0] * image.shape[1]
            chances += [stock.weight / len(sized)] * len(sized)
            floors += [stock.floor] * len(sized)
        self.pixels = torch.cat(pixels).to(self.device)
        self.entries = torch.tensor(entries, device=self.device)
        self.chances = torch.tensor(chances, device=self.device)
        self.floors = torch.tensor(floors, device=self.device)

    def described(self) -> dict[str, Any]:
        """What a run that is continued must find again: size, seed, how many photos and pixels."""
        return {"size": self.size, "seed": self.seed, "entries": len(self.entries), "pixels": len(self.pixels)}

    def from_batch(self, start: int, rank: int, ranks: int) -> CropPool:
        """The same stream, from another batch on and for another process; the photos are shared."""
        pool = copy.copy(self)
        pool.start, pool.rank, pool.ranks = start, rank, ranks
        return pool

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, itertools.count(self.start))

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the stream."""
        count, size = self.batch_size, self.size
        seed = (self.seed * 1_000_003 + number * self.ranks + self.rank) % 2**63
        generator = torch.Generator(self.device).manual_seed(seed)
        which = torch.multinomial(self.chances, count, replacement=True, generator=generator)
        first, height, width = self.entries[which].unbind(1)
        draws = torch.rand(5, count, generator=generator, device=self.device)
        top = (draws[0] * (height - size + 1)).long()
        left = (draws[1] * (width - size + 1)).long()
        steps = torch.arange(size, device=self.device)
        rows, columns = steps.view(1, -1, 1), steps.view(1, 1, -1)
        flip_rows, flip_columns, turn = (draws[2:] < 0.5).view(3, count, 1, 1)
        down, right = torch.where(turn, columns, rows), torch.where(turn, rows, columns)
        down = torch.where(flip_rows, size - 1 - down, down) + top.view(-1, 1, 1)
        right = torch.where(flip_columns, size - 1 - right, right) + left.view(-1, 1, 1)
        index = first.view(-1, 1, 1) + down * width.view(-1, 1, 1) + right
        return Batch(self.pixels[index].permute(0, 3, 1, 2).float() / 255, floor=self.floors[which])


def _zoomed(photo: np.ndarray, zooms: Sequence[float], smallest: int) -> Iterator[np.ndarray]:
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"expected photos uint8 (H, W, 3), got {photo.dtype} {photo.shape}")
    height, width = photo.shape[:2]
    for zoom in zooms:
        new = (round(height * zoom), round(width * zoom))
        if min(new) >= smallest:
            image = Image.fromarray(photo)
            yield photo if zoom == 1 else np.array(image.resize(new[::-1], Image.Resampling.BICUBIC))


class InTurn(CropPool):
    """Batches of several pools, one after the other: one step of a training run with as many ``accumulate`` parts sees
    crops of every size.
    """

    def __init__(self, pools: Sequence[CropPool]) -> None:
        require(len(pools) >= 1, "pools", "at least one", "none")
        self.pools = list(pools)
        self.size, self.batch_size, self.seed = pools[0].size, pools[0].batch_size, pools[0].seed
        self.start = 0

    def described(self) -> dict[str, Any]:
        """That of every pool."""
        own = {"size": self.size, "seed": self.seed}
        return own | {f"pool{number}": pool.described() for number, pool in enumerate(self.pools)}

    def from_batch(self, start: int, rank: int, ranks: int) -> InTurn:
        turns = InTurn([pool.from_batch(0, rank, ranks) for pool in self.pools])
        turns.start = start
        return turns

    def batch(self, number: int) -> Batch:
        turn, pool = divmod(number, len(self.pools))
        return self.pools[pool].batch(turn)
