"""Batches are the same whatever the workers, resume where they stopped, and survive broken files."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.data import Photos, loader, open_source


def picture(number: int, height: int = 20, width: int = 24) -> np.ndarray:
    """An image that tells which one it is (red), and where in it a pixel lies (green: row, blue: column)."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = number
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = np.arange(width)
    return pixels


def encode(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(params=["folder", "npz", "npy", "tar", "hf"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same twelve pictures in every format."""
    if request.param == "folder":
        for k in range(12):
            (tmp_path / f"{k:02}.png").write_bytes(encode(k))
        return str(tmp_path)
    if request.param in ("npz", "npy"):
        images = np.stack([picture(k) for k in range(12)])
        path = tmp_path / f"photos.{request.param}"
        if request.param == "npz":
            np.savez(path, images=images.transpose(0, 3, 1, 2))
        else:
            np.save(path, images)
        return str(path)
    if request.param == "tar":
        for shard in range(2):
            with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as tar:
                for k in range(6 * shard, 6 * shard + 6):
                    data = encode(k)
                    info = tarfile.TarInfo(f"{k:02}.png")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return str(tmp_path / "s-{0..1}.tar")
    (tmp_path / "train").mkdir()
    for k in range(12):
        (tmp_path / "train" / f"{k:02}.png").write_bytes(encode(k))
    return f"hf:{tmp_path}"


def batches(spec: str, count: int, workers: int = 0, **options) -> list[torch.Tensor]:
    photos = Photos(spec, **({"size": 8, "batch_size": 4, "seed": 3} | options))
    return [batch.images for batch in itertools.islice(loader(photos, workers=workers), count)]


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_an_epoch_shows_every_image_once_as_a_true_crop(spec: str) -> None:
    seen: list[int] = []
    for images in batches(spec, 3):
        assert images.shape == (4, 3, 8, 8)
        assert images.dtype == torch.float32
        seen += numbers(images)
        columns = (images[:, 2, 0] * 255).round()
        step = columns.diff(dim=1)
        assert bool(((step == 1).all(1) | (step == -1).all(1)).all())  # a crop or its mirror image
        assert bool(((images[:, 1, :, 0] * 255).round().diff(dim=1) == 1).all())
    assert sorted(seen) == list(range(12))


def test_order_is_fixed_by_the_seed_and_not_by_the_workers(spec: str) -> None:
    alone = batches(spec, 5)
    assert all(torch.equal(a, b) for a, b in zip(alone, batches(spec, 5, workers=2), strict=True))
    assert not torch.equal(alone[0], batches(spec, 1, seed=4)[0])
    assert not torch.equal(alone[0], alone[3])  # the next epoch has another order and other crops


def test_resumes_at_any_batch(spec: str) -> None:
    whole = batches(spec, 5)
    rest = batches(spec, 2, workers=2, start=3)
    assert torch.equal(rest[0], whole[3])
    assert torch.equal(rest[1], whole[4])


def test_ranks_share_the_global_batch(spec: str) -> None:
    whole = batches(spec, 2, batch_size=8)
    parts = [batches(spec, 2, batch_size=4, rank=rank, ranks=2) for rank in range(2)]
    for k in range(2):
        assert torch.equal(torch.cat([parts[0][k], parts[1][k]]), whole[k])


def test_broken_files_are_left_out_and_named(tmp_path: Path) -> None:
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(encode(k))
    (tmp_path / "2.png").write_bytes(b"not a picture")
    (tmp_path / "4.png").write_bytes(encode(4)[:60])
    photos = Photos(tmp_path, size=8, batch_size=6)
    batch = next(loader(photos, workers=0))
    assert len(batch.images) == 6
    assert not {2, 4} & set(numbers(batch.images))
    assert {Path(entry.split(":")[0]).name for entry in batch.skipped} == {"2.png", "4.png"}


def test_a_broken_file_in_a_shard_moves_nothing(tmp_path: Path) -> None:
    def write(broken: bool) -> list[torch.Tensor]:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for k in range(12):
                data = b"rubbish" if broken and k == 5 else encode(k)
                info = tarfile.TarInfo(f"{k:02}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return batches(str(tmp_path / "a.tar"), 3)

    for whole, holed in zip(write(False), write(True), strict=True):
        keep = [i for i, number in enumerate(numbers(whole)) if number != 5]
        kept = holed[[i for i, number in enumerate(numbers(holed)) if i in keep or number != 5][: len(keep)]]
        assert torch.equal(kept, whole[keep])


def test_nothing_decodable_is_an_error_and_not_a_loop(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"none of \d+ images could be decoded, the last: .*a\.png"):
        next(loader(Photos(tmp_path, size=8, batch_size=2), workers=0))


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    """A one-pixel checkerboard shrinks to grey; picking pixels would keep black or white."""
    board = ((np.arange(32)[:, None] + np.arange(32)) % 2 * 255).astype(np.uint8)
    np.save(tmp_path / "a.npy", np.repeat(board[None, ..., None], 3, 3))
    images = batches(str(tmp_path / "a.npy"), 1, resize=8, batch_size=1)[0]
    inside = images[:, :, 2:-2, 2:-2]
    assert float((inside - 0.5).abs().max()) < 0.1


def test_small_images_are_enlarged_and_zoom_stays_in_its_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(k, 6, 9) for k in range(3)]))
    assert batches(str(tmp_path / "a.npy"), 1, size=12)[0].shape == (4, 3, 12, 12)
    np.save(tmp_path / "b.npy", np.stack([picture(0, 64, 64)]))
    images = batches(str(tmp_path / "b.npy"), 8, scales=(0.5, 1.0), flip=False)
    slopes = [float((image[1, -1, 0] - image[1, 0, 0]) * 255 / 7) for batch in images for image in batch]
    assert 0.9 <= min(slopes) < 1.2 < 1.7 < max(slopes) <= 2.2  # rows per pixel: 1 at full size, 2 at half


def test_sources_are_drawn_by_weight(tmp_path: Path) -> None:
    for value in (10, 200):
        np.save(tmp_path / f"{value}.npy", np.stack([picture(value)] * 4))
    specs = [tmp_path / "10.npy", tmp_path / "200.npy"]
    photos = Photos(specs, size=8, batch_size=400, weights=[1, 3], preload=True)
    share = np.mean(np.asarray(numbers(next(loader(photos, workers=0)).images)) == 200)
    assert 0.68 < share < 0.82  # 0.75, standard deviation 0.022


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no photos at"),
        ("empty", "no images below"),
        ("gone.tar", "no tar shard"),
        ("float.npy", r"expected uint8 images .* found float64 \(2, 4, 4, 3\)"),
        ("two.npz", "expected a key 'images' or a single array, found a, b"),
    ],
)
def test_wrong_sources_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4, 3)))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / name)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([picture(0)]))
    with pytest.raises(ValueError, match="1 sources, 2 weights"):
        Photos(tmp_path / "a.npy", size=8, batch_size=1, weights=[1, 1])
    with pytest.raises(ValueError, match="size and batch_size"):
        Photos(tmp_path / "a.npy", size=0, batch_size=1)
    with pytest.raises(ValueError, match="scales must be"):
        Photos(tmp_path / "a.npy", size=8, batch_size=1, scales=(1.0, 0.5))


def test_a_zoomed_crop_is_the_crop_of_the_zoomed_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 40, 30, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    crop = batches(str(tmp_path / "a.npy"), 1, batch_size=1, scales=(0.5, 0.5), flip=False)[0][0]
    whole = np.asarray(Image.fromarray(pixels[0]).resize((15, 20), Image.Resampling.BICUBIC))
    found = (crop.permute(1, 2, 0) * 255).round().byte().numpy()
    places = [(y, x) for y in range(13) for x in range(8)]
    errors = [int(np.abs(whole[y : y + 8, x : x + 8].astype(int) - found).max()) for y, x in places]
    assert min(errors) <= 1  # one grey level: Pillow rounds between its two passes
