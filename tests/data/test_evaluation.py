"""Test photos: numbered once for all, cut without overlap, never too few without saying so."""

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.data.evaluation import NATURAL, evaluation_batches, evaluation_photos, photo_of


@pytest.fixture
def photos(tmp_path):
    """Four photos of 40x24 pixels in a folder; each pixel of photo k holds k, its row and its column."""
    for k in range(4):
        rows, columns = np.mgrid[0:24, 0:40]
        pixels = np.stack([np.full_like(rows, k), rows, columns], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return str(tmp_path)


def test_any_two_runs_of_numbers_are_parts_of_one_list_spread_over_the_photos(photos):
    whole, names = evaluation_photos([photos], count=20, size=8, short_side=0)
    part, some = evaluation_photos([photos], count=8, first=4, size=8, short_side=0)
    assert some == names[4:12]
    assert torch.equal(part, whole[4:12])
    assert sorted(map(photo_of, some)) == sorted([f"{k}.png" for k in range(4)] * 2)
    assert len(set(names)) == 20
    every, _ = evaluation_photos([photos], count=None, size=8, short_side=0)
    assert len(every) == 4 * 15
    assert torch.equal(every[:20], whole)
    assert names != evaluation_photos([photos], count=20, size=8, short_side=0, seed=1)[1]


def test_tiles_are_pieces_of_the_photo_and_do_not_overlap(photos):
    images, names = evaluation_photos([photos], count=None, size=8, short_side=0)
    corners = {tuple((image[:, 0, 0] * 255).round().int().tolist()) for image in images}
    assert corners == {(k, 8 * row, 8 * column) for k in range(4) for row in range(3) for column in range(5)}
    k, row, column = (images[0][:, 0, 0] * 255).round().int().tolist()
    assert names[0] == f"{k}.png {row // 8},{column // 8}"
    assert float(images[0][1, 7, 0] * 255) == pytest.approx(row + 7)


def test_several_sources_take_turns(photos, tmp_path):
    np.save(tmp_path / "grey.npy", np.full((3, 24, 24, 3), 200, np.uint8))
    few = evaluation_photos([photos, str(tmp_path / "grey.npy")], count=2, size=8)[1]
    more = evaluation_photos([photos, str(tmp_path / "grey.npy")], count=7, size=8)[1]
    assert more[:2] == few
    assert sum(name.startswith("grey.npy") for name in more[:6]) == 3


def test_halving_averages_two_by_two_and_fitting_takes_the_centre_square(photos, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    images, names = evaluation_photos([str(tmp_path / "a.npz")], count=3, size=8, cut="halve")
    index = int(photo_of(names[0]).split("[")[1].rstrip("]"))
    mean = pixels[index, 2:4, 4:6, 1].astype(float).mean()
    assert float(images[0, 1, 1, 2]) * 255 == pytest.approx(mean, abs=0.51)
    images, _ = evaluation_photos([photos], count=2, size=24, cut="fit")
    assert float(images[0, 2, 0, 0] * 255) == pytest.approx(8)


def test_the_sample_photos_need_no_file():
    images, names = evaluation_photos([], count=10, size=32)
    assert images.shape == (10, 3, 32, 32)
    assert sorted({name.split()[0] for name in names[:5]}) == sorted(NATURAL)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 61}, "asked for 61 images, but the photos give only 60 in all"),
        ({"count": 1, "cut": "tile"}, "cut must be one of tiles, halve, fit, got 'tile'"),
        ({"count": 0}, "at least 1"),
        ({"count": 1, "size": 64}, "hold no tile of 64x64"),
        ({"count": 1, "cut": "halve"}, "needs photos of 16x16 pixels, got 24x40"),
        ({"count": 1, "specs": ["published/nothing"]}, "no photos at 'published/nothing'"),
    ],
)
def test_what_the_photos_do_not_give_is_said(photos, given, message):
    with pytest.raises(ValueError, match=message):
        evaluation_photos(**({"specs": [photos], "size": 8, "short_side": 0} | given))


def test_a_broken_file_is_named_and_left_out_and_keeps_its_number(photos, tmp_path):
    def found() -> dict[int, int]:
        """Which photo each number is."""
        batches = evaluation_batches([photos], range(4), batch=2, size=12)
        pairs = (pair for numbers, images in batches for pair in zip(numbers, images, strict=True))
        return {number: round(float(image[0, 0, 0]) * 255) for number, image in pairs}

    before = found()
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    with pytest.warns(UserWarning, match=r"left out: .*2\.png: "):
        images, names = evaluation_photos([photos], count=None, size=8, short_side=0)
    assert len(images) == len(names) == 45
    assert {photo_of(name) for name in names} == {"0.png", "1.png", "3.png"}
    with pytest.warns(UserWarning, match=r"left out: .*2\.png"):
        assert found() == {number: photo for number, photo in before.items() if photo != 2}


def test_photos_of_one_name_in_two_folders_are_two(tmp_path):
    """Their tiles must not count as those of one photo; the same photo given twice must."""
    for folder, value in (("a", 50), ("b", 200)):
        (tmp_path / folder).mkdir()
        for name in ("1.png", f"{folder}.png"):
            Image.fromarray(np.full((8, 16, 3), value, dtype=np.uint8)).save(tmp_path / folder / name)
    names = evaluation_photos([str(tmp_path)], count=None, size=8, short_side=0)[1]
    one, other = (str(tmp_path / folder / "1.png") for folder in ("a", "b"))
    assert sorted(map(photo_of, names)) == sorted(2 * [one, other, "a.png", "b.png"])
    twice = evaluation_photos([str(tmp_path / "a")] * 2, count=None, size=8, short_side=0)[1]
    assert {photo_of(name) for name in twice} == {"1.png", "a.png"}


def test_batches_are_runs_of_the_list_of_whole_photos(photos, tmp_path):
    np.save(tmp_path / "grey.npy", np.full((3, 24, 24, 3), 200, np.uint8))
    sources = [photos, str(tmp_path / "grey.npy")]
    whole, _ = evaluation_photos(sources, count=7, size=12, cut="fit", seed=5)
    for ends in ((0, 7), (2, 7), (0, 3), (6, 7)):
        batches = list(evaluation_batches(sources, range(*ends), batch=2, size=12, seed=5))
        assert [number for numbers, _ in batches for number in numbers] == list(range(*ends))
        assert torch.equal(torch.cat([images for _, images in batches]), whole[slice(*ends)])
        assert max(len(images) for _, images in batches) <= 2


def test_batches_of_tiles_or_of_more_than_there_are_are_refused(photos):
    with pytest.raises(ValueError, match="cut must be halve or fit where one photo is one image, got 'tiles'"):
        list(evaluation_batches([photos], range(4), batch=2, size=12, cut="tiles"))
    with pytest.raises(ValueError, match="asked for 7 photos, but there are only 4"):
        list(evaluation_batches([photos], range(3, 7), batch=3, size=12))
