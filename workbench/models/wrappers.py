"""Priors around a prior: in tiles, for photos of any size; on several devices; in several processes.

Tiles: DeqIR (section 5.8, "Arbitrary size") restores overlapping patches one by one and puts the results side by side.
Each patch then invents its own details, the data step sees one patch only, and borders show. Deviation: only the
denoiser is cut into tiles,

    D(x) = sum_i w_i D_i(x),    sum_i w_i = 1 at every pixel, w_i >= 0 smooth,

with ``D_i`` the prior on tile i. State, noise, operator and data step stay those of the whole image, so every solver
works as it is, operators that reach across tiles (blur, super-resolution) too, and neighbours agree because after each
call they share one state. ``w_i`` is zero within a quarter of the overlap from a border between tiles, where the prior
does not see enough, and rises as sin^2 over the half in the middle. Hence:

- a prior that acts on each pixel alone gives what it gives on the whole image;
- so does one whose output depends on no pixel further than a quarter of the overlap, at borders of the image too, where
  tiles end with it (if the sides are multiples of ``prior.multiple``; else the mirrored strip is what it sees there);
- one that looks further (most do) gives something else, the nearer the larger tile and overlap are.

Devices and processes: DeqIR asks a prior about all T noise levels of all images in one batch; that batch is what is
split here, so the solver itself knows nothing of it. ``SplitPrior`` holds a copy of the network on every device of one
machine. ``SharedPrior`` is for processes of ``torch.distributed`` (launched by torchrun or accelerate) that all run the
same solver on the same data with the same seed: each evaluates its share of the batch and hears of the others'.
"""

import copy
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workbench.models.prior import CPU_PIXELS, Prior, Wrapped
from workbench.text import require

ACCELERATOR_PIXELS = 4 * 256 * 256  # per network call elsewhere than on a CPU
# For priors of any size. photo at sigma 0.1, 0.5 and 2, three photos of 480x320, PSNR in tiles of 128 (64; whole):
# 32.11 (32.09; 32.11), 25.36 (25.28; 25.37), 20.75 (20.43; 20.82).
USUAL_TILE = 128
WHOLE_PIXELS = 512 * 512  # the shipped priors take 2.5 kB of memory per pixel of one network call


class TiledPrior(Wrapped):
    """``prior`` in tiles: takes images (B, C, H, W) of every size, ``multiple`` 1 and ``image_size`` None.

    Images whose sides are no multiples of ``prior.multiple``, or smaller than the one size a prior takes, are mirrored
    at their lower and right border, and cut back. One that fits into a tile is one tile, no larger than it must be.

    Memory for the network is bounded: at most ``batch`` tiles at a time, and where gradients are wanted the others are
    evaluated again on the way back instead of being kept. So a gradient costs one more evaluation of the network.

    Attributes:
        prior: the prior inside; noise levels, channels, card and source are its own.
        tile, overlap: in pixels, see below.

    Args:
        tile: side of the tiles, a multiple of ``prior.multiple``. None: the one size the prior takes, else 128 (next
            multiple) of the pixels that its network sees.
        overlap: pixels that neighbouring tiles share at least; a quarter of the tile if None. 0 gives hard borders.
        batch: tiles per network call, at least 1; None: 65,536 pixels on a CPU, 262,144 elsewhere, at least one tile.

    Raises:
        ValueError: a tile that the prior does not take, an overlap that leaves no step from tile to tile, no batch.
    """

    def __init__(
        self, prior: Prior, tile: int | None = None, overlap: int | None = None, batch: int | None = None
    ) -> None:
        step, fixed = prior.multiple, prior.image_size
        if tile is None:
            tile = fixed or _up(USUAL_TILE * prior.enlarges, step)
        if fixed is not None and tile != fixed:
            raise ValueError(f"{prior.name} takes {fixed}x{fixed} images, so tiles of {fixed}, got {tile}")
        require(tile % step == 0 < tile, f"tiles of {prior.name}", f"positive multiples of {step}", tile)
        if overlap is None:
            overlap = min(tile // 4, tile - step)
        if not 0 <= overlap <= tile - step:
            raise ValueError(f"tiles of {tile} can share 0 to {tile - step} pixels, got an overlap of {overlap}")
        require(batch is None or batch >= 1, "batch", "at least 1 tile", batch)
        super().__init__(prior, f"{prior.name} in tiles of {tile}", multiple=1, image_size=None)
        self.prior, self.tile, self.overlap, self.batch = prior, tile, overlap, batch

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The blend of the denoised tiles (B, C, H, W)."""
        height, width = x.shape[-2:]
        wide = _mirrored(_mirrored(x, -2, self._whole(height)), -1, self._whole(width))
        pixels = CPU_PIXELS if x.device.type == "cpu" else ACCELERATOR_PIXELS
        limit = self.batch or max(1, pixels // self.tile**2)
        parts = zip(wide.split(limit), sigma.split(limit), strict=True)
        return torch.cat([self._blend(*part, limit) for part in parts])[..., :height, :width]

    def summary(self) -> str:
        """One line: that of the prior inside, and the tiles."""
        return f"{self.prior.summary()}, in tiles of {self.tile} that share {self.overlap} pixels: any size"

    def handovers(self, side: int) -> list[int]:
        """The pixels along a side of that many where neighbouring tiles count equally: where a seam would be."""
        strips = [pixels for pixels, _ in self._strips(self._whole(side))]
        return [(after.start + before.stop) // 2 for before, after in pairwise(strips)]

    def _blend(self, x: Tensor, sigma: Tensor, limit: int) -> Tensor:
        """``sum_i w_i D_i(x)`` for at most ``limit`` images whose sides tiles cover."""
        images, out = len(x), torch.zeros_like(x)
        places = list(product(*(self._strips(side) for side in x.shape[-2:])))
        count = max(1, limit // images)
        for first in range(0, len(places), count):
            group = places[first : first + count]
            tiles = torch.cat([x[..., rows, columns] for (rows, _), (columns, _) in group])
            levels = sigma.repeat(len(group))
            if torch.is_grad_enabled() and len(places) > count:
                clean = checkpoint(self.prior, tiles, levels, use_reentrant=False)
            else:
                clean = self.prior(tiles, levels)
            for ((rows, down), (columns, across)), part in zip(group, clean.split(images), strict=True):
                out[..., rows, columns] += torch.outer(down, across).to(x) * part
        return out

    def _whole(self, side: int) -> int:
        """The side that tiles cover: at least ``side``, a multiple of ``prior.multiple``, a tile if it must be one."""
        least = self.tile if self.prior.image_size is not None else 1
        return _up(max(side, least), self.prior.multiple)

    def _strips(self, side: int) -> list[tuple[slice, Tensor]]:
        """Tiles along one side, evenly spaced, sharing ``overlap`` pixels or more.

        Where each lies, and what its pixels count there: (tile,) float64, at every pixel of the side 1 in all.
        """
        step, tile = self.prior.multiple, min(self.tile, side)
        # In units of what the prior halves its images by: tiles then see the same grid as the whole image.
        room, stride = (side - tile) // step, (self.tile - self.overlap) // step
        moves = math.ceil(room / stride)
        starts = [step * (index * room // max(moves, 1)) for index in range(moves + 1)]
        windows = [(slice(start, start + tile), self._window(start, tile, side)) for start in starts]
        total = torch.zeros(side, dtype=torch.float64)
        for pixels, window in windows:
            total[pixels] += window
        return [(pixels, window / total[pixels]) for pixels, window in windows]

    def _window(self, start: int, tile: int, side: int) -> Tensor:
        """What a tile's pixels count along one side, (tile,) float64, before it is shared with the neighbours."""
        inside = torch.arange(tile, dtype=torch.float64) + 0.5
        margin = self.overlap // 4
        window = torch.ones(tile, dtype=torch.float64)
        for distance, inner in ((inside, start > 0), (tile - inside, start + tile < side)):
            if inner:
                share = ((distance - margin) / max(self.overlap - 2 * margin, 1)).clamp(0, 1)
                window = window * torch.sin(math.pi / 2 * share) ** 2
        return window


def whole_or_tiles(prior: Prior, height: int, width: int, pixels: float = WHOLE_PIXELS) -> Prior:
    """``prior`` itself if it takes images of that size and they have at most so many pixels, else in usual tiles."""
    if prior.image_size is not None:
        whole = height == width == prior.image_size
    else:
        whole = height % prior.multiple == width % prior.multiple == 0 and height * width <= pixels
    return prior if whole else TiledPrior(prior)


def _up(number: int, step: int) -> int:
    return step * math.ceil(number / step)


def _mirrored(x: Tensor, dim: int, side: int) -> Tensor:
    """``x`` continued along ``dim`` to ``side`` pixels, mirrored at the last and first pixel, as often as needed."""
    known = x.shape[dim]
    if side == known:
        return x
    period = max(2 * (known - 1), 1)
    index = torch.arange(side, device=x.device) % period
    return x.index_select(dim, torch.minimum(index, period - index) if known > 1 else torch.zeros_like(index))


class SplitPrior(Wrapped):
    """``prior`` on several ``devices``: each gets an equal share of every batch (B, C, H, W), at the same time.

    The answer is on the device of what was asked. No gradients.

    Raises:
        ValueError: no device, one that torch does not know, or one that this machine does not have.
    """

    def __init__(self, prior: Prior, devices: Sequence[str | torch.device]) -> None:
        known = [existing_device(device) for device in devices]
        if not known:
            raise ValueError("expected at least one device, got none")
        super().__init__(prior, f"{prior.name} on {', '.join(map(str, known))}")
        self.devices = known
        self.copies = nn.ModuleList([copy.deepcopy(prior).to(device) for device in known])

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """As ``prior``, a share on every device."""
        count = len(self.devices)
        shares = zip(self.copies, self.devices, x.tensor_split(count), sigma.tensor_split(count), strict=True)
        with ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(_ask, [share for share in shares if len(share[2])]))
        return torch.cat([answer.to(x.device) for answer in answers])


class SharedPrior(Wrapped):
    """``prior`` in every process of the default group of ``torch.distributed``; see the module. No gradients.

    Raises:
        RuntimeError: the group has not been started.
    """

    def __init__(self, prior: Prior) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("start torch.distributed first (init_process_group, or accelerate's PartialState)")
        super().__init__(prior, f"{prior.name} in {dist.get_world_size()} processes")
        self.prior = prior

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """As ``prior``: every process must ask about the same batch."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        size = -(-len(x) // ranks)
        mine = slice(rank * size, (rank + 1) * size)
        answer = torch.zeros_like(x[:1]).expand(size, *x.shape[1:]).clone()
        if len(x[mine]):
            answer[: len(x[mine])] = self.prior(x[mine], sigma[mine])
        parts = [torch.empty_like(answer) for _ in range(ranks)]
        dist.all_gather(parts, answer)
        return torch.cat(parts)[: len(x)]


@torch.no_grad()
def _ask(share: tuple[nn.Module, torch.device, Tensor, Tensor]) -> Tensor:
    network, device, x, sigma = share
    answer: Tensor = network(x.to(device, non_blocking=True), sigma.to(device, non_blocking=True))
    return answer


def existing_device(device: str | torch.device) -> torch.device:
    """``device``; ValueError if torch does not know it, this machine does not have it, or it has no float64 (MPS)."""
    try:
        known = torch.device(device)
        if known.type == "mps":  # priors, operators and metrics compute parts in float64
            raise RuntimeError("it has no float64")
        torch.zeros(1, device=known).item()  # of "meta" there are none
    except (RuntimeError, AssertionError) as error:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used ({reason}); there are {there}") from None
    return known
