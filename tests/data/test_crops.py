"""Crops cut on the device."""

import itertools

import numpy as np
import pytest
import torch

from workbench.data import CropPool, InTurn, Stock
from workbench.random import Draws
from workbench.trainers import DSM

RNG = np.random.default_rng(0)


def _numbered(height: int, width: int) -> np.ndarray:
    """A photo whose pixels tell where they are."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, np.full_like(rows, height)], axis=2).astype(np.uint8)


def test_crops_are_squares_of_the_photos_turned_and_mirrored() -> None:
    pool = CropPool([Stock([_numbered(20, 30), _numbered(9, 8)])], size=8, batch_size=64)
    images = (pool.batch(0).images * 255).round()
    assert images.shape == (64, 3, 8, 8)
    ways = set()
    for image in images:
        assert set(image[2].flatten().tolist()) in ({20.0}, {9.0})  # of one photo
        along_rows, along_columns = image[0, 1, 0] - image[0, 0, 0], image[0, 0, 1] - image[0, 0, 0]
        ways.add((float(along_rows), float(along_columns), float(image[1, 0, 1] - image[1, 0, 0])))
        assert image[0].max() - image[0].min() == image[1].max() - image[1].min() == 7
    assert len(ways) == 6  # (+-1, 0, +-1) and (0, +-1, 0): rows along rows, or turned


def test_a_batch_depends_on_seed_and_number_alone_also_of_pools_in_turn() -> None:
    pool = CropPool([Stock([_numbered(20, 30)])], size=8, batch_size=4, seed=3)
    stream = [batch.images for batch in itertools.islice(pool, 4)]
    later = [batch.images for batch in itertools.islice(pool.from_batch(2, 0, 1), 2)]
    assert all(torch.equal(a, b) for a, b in zip(stream[2:], later, strict=True))
    assert not torch.equal(stream[0], stream[1])
    assert not torch.equal(pool.from_batch(0, 1, 2).batch(0).images, pool.from_batch(0, 0, 2).batch(0).images)
    small, large = (CropPool([Stock([_numbered(40, 40)])], size=size, batch_size=2, seed=size) for size in (8, 16))
    turns = InTurn([small, large])
    assert [batch.images.shape[-1] for batch in itertools.islice(turns, 4)] == [8, 16, 8, 16]
    assert torch.equal(next(iter(turns.from_batch(3, 0, 1))).images, large.batch(1).images)


def test_stocks_are_drawn_by_weight_with_their_floors() -> None:
    dark, light = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    pool = CropPool([Stock([dark, dark], 3.0), Stock([light], 1.0, floor=0.1)], size=8, batch_size=4000)
    batch = pool.batch(0)
    bright = batch.images.mean(dim=(1, 2, 3)) == 1
    assert float(bright.float().mean()) == pytest.approx(0.25, abs=0.03)  # four standard deviations
    assert batch.floor is not None
    torch.testing.assert_close(batch.floor, torch.where(bright, 0.1, 0.0))


def test_photos_smaller_than_the_crop_are_left_out() -> None:
    pool = CropPool([Stock([_numbered(20, 20), _numbered(6, 20)], zooms=(1.0, 0.5))], size=8, batch_size=1)
    assert pool.entries[:, 1:].tolist() == [[20, 20], [10, 10]]


@pytest.mark.parametrize(
    ("stocks", "size", "message"),
    [
        ([Stock([_numbered(20, 20)])], 32, "none of its 1 photos is at least 32x32"),
        ([Stock([np.zeros((20, 20, 3))])], 8, "uint8"),
        ([Stock([_numbered(20, 20)], weight=-1.0)], 8, "weights must be at least 0, not all 0"),
    ],
)
def test_pools_of_nothing_are_refused(stocks, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CropPool(stocks, size=size, batch_size=1)


def test_levels_below_the_floor_are_mirrored_at_it() -> None:
    levels = []

    class Recording(torch.nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            levels.append(sigma)
            return x

    from tests.trainers.small_run import small_prior

    prior = small_prior()
    prior.net = Recording()
    images = torch.rand(64, 3, 8, 8)
    for floor in (None, torch.full((64,), 0.1)):
        DSM()(prior, images, Draws(torch.Generator().manual_seed(0)), **({} if floor is None else {"floor": floor}))
    free, floored = (level / 2 for level in levels)  # the network is told 2 sigma
    assert float(free.min()) < 0.1 <= float(floored.min())
    torch.testing.assert_close(floored, torch.where(free < 0.1, 0.01 / free, free).clamp(max=prior.sigma_max))
