"""Batches are the same whatever the workers, resume where they stopped, and survive broken files."""

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from workbench.data import Photos, loader
from workbench.data.sources import decode_image


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


def write_tar(path: Path, numbers: range, broken: int = -1) -> None:
    with tarfile.open(path, "w") as tar:
        for k in numbers:
            data = b"rubbish" if k == broken else encode(k)
            info = tarfile.TarInfo(f"{k:02}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(params=["folder", "npz", "npy", "tar", "hf"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same twelve pictures in every format."""
    if request.param in ("npz", "npy"):
        images, path = np.stack([picture(k) for k in range(12)]), tmp_path / f"photos.{request.param}"
        if request.param == "npz":
            np.savez(path, images=images.transpose(0, 3, 1, 2))
        else:
            np.save(path, images)
        return str(path)
    if request.param == "tar":
        for shard in range(2):
            write_tar(tmp_path / f"s-{shard}.tar", range(6 * shard, 6 * shard + 6))
        return str(tmp_path / "s-{0..1}.tar")
    (tmp_path / "train").mkdir()
    for k in range(12):
        (tmp_path / "train" / f"{k:02}.png").write_bytes(encode(k))
    return f"hf:{tmp_path}" if request.param == "hf" else str(tmp_path)


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


def test_order_is_fixed_by_the_seed_alone(spec: str) -> None:
    """Neither by the workers, nor by where a run resumes or how many ranks share the global batch."""
    alone = batches(spec, 5)
    assert all(torch.equal(a, b) for a, b in zip(alone, batches(spec, 5, workers=2), strict=True))
    assert not torch.equal(alone[0], batches(spec, 1, seed=4)[0])
    assert not torch.equal(alone[0], alone[3])  # the next epoch has another order and other crops
    rest = batches(spec, 2, workers=2, start=3)
    assert all(torch.equal(a, b) for a, b in zip(rest, alone[3:], strict=True))
    parts = [batches(spec, 2, batch_size=2, rank=rank, ranks=2) for rank in range(2)]
    for k in range(2):
        assert torch.equal(torch.cat([parts[0][k], parts[1][k]]), alone[k])


def test_broken_files_are_left_out_and_named(tmp_path: Path) -> None:
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(encode(k))
    (tmp_path / "2.png").write_bytes(b"not a picture")
    (tmp_path / "4.png").write_bytes(encode(4)[:60])
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves: hidden files are none of the photos")
    batch = next(loader(Photos(tmp_path, size=8, batch_size=6), workers=0))
    assert len(batch.images) == 6
    assert not {2, 4} & set(numbers(batch.images))
    assert {Path(entry.split(":")[0]).name for entry in batch.skipped} == {"2.png", "4.png"}
    for file in tmp_path.iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"none of \d+ images could be decoded, the last: .*\.png"):
        next(loader(Photos(tmp_path, size=8, batch_size=2), workers=0))


def test_pictures_are_read_as_everywhere(tmp_path: Path) -> None:
    """16 bits were cut off at 255, transparent parts showed hidden colours, and photos of phones lay on their side."""
    Image.fromarray(np.full((4, 6), 128 * 257, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((4, 6, 4), [9, 9, 9, 0], np.uint8)).save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(picture(0, 4, 6)).save(tmp_path / "turned.png", exif=exif)
    for file in tmp_path.iterdir():
        assert np.array_equal(decode_image(file), decode_image(file.read_bytes()))
    assert set(decode_image(tmp_path / "deep.png").flat) == {128}
    assert set(decode_image(tmp_path / "clear.png").flat) == {255}
    assert decode_image(tmp_path / "turned.png").shape == (6, 4, 3)


def test_a_broken_file_in_a_shard_moves_nothing(tmp_path: Path) -> None:
    def read(broken: int) -> list[torch.Tensor]:
        write_tar(tmp_path / "a.tar", range(12), broken)
        return batches(str(tmp_path / "a.tar"), 3)

    for whole, holed in zip(read(-1), read(5), strict=True):
        keep = [i for i, number in enumerate(numbers(whole)) if number != 5]
        kept = holed[[i for i, number in enumerate(numbers(holed)) if i in keep or number != 5][: len(keep)]]
        assert torch.equal(kept, whole[keep])


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
    ("name", "options", "message"),
    [
        ("nowhere", {}, "no photos at"),
        ("empty", {}, "no images below"),
        ("gone.tar", {}, "no tar shard"),
        ("cut.tar", {}, r"cut.tar \(900 bytes\) is not a whole tar file"),
        ("float.npy", {}, r"expected uint8 images .* found float64 \(2, 4, 4, 3\)"),
        ("two.npz", {}, "expected a key 'images' or a single array, found a, b"),
        ("cut.npz", {}, "cut.npz: not a whole file of numbers"),
        ("a.npy", {"weights": [1, 1]}, "1 sources, 2 weights"),
        ("a.npy", {"size": 0}, "size and batch_size"),
        ("a.npy", {"resize": "a"}, "setting resize of Photos must be int"),
        ("a.npy", {"scales": (1.0, 0.5)}, "scales must be pairs"),
        ("a.npy", {"resize": -4}, "resize must be at least 1 or None"),
    ],
)
def test_wrong_sources_and_options_are_refused(tmp_path: Path, name: str, options: dict, message: str) -> None:
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "a.npy", np.stack([picture(0)]))
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4, 3)))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:50])
    with tarfile.open(tmp_path / "cut.tar", "w") as tar:
        tar.add(tmp_path / "float.npy", "float.npy")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:900])
    with pytest.raises(ValueError, match=message):
        Photos(tmp_path / name, **{"size": 8, "batch_size": 1} | options)


def test_a_zoomed_crop_is_the_crop_of_the_zoomed_image(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 40, 30, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    monkeypatch.setenv("HOME", str(tmp_path))
    whole = np.asarray(Image.fromarray(pixels[0]).resize((15, 20), Image.Resampling.BICUBIC))  # antialiased
    for options in ({"scales": (0.5, 0.5)}, {"resize": 15}):
        crop = batches("~/a.npy", 1, batch_size=1, flip=False, **options)[0][0]
        found = (crop.permute(1, 2, 0) * 255).round().byte().numpy()
        places = [(y, x) for y in range(13) for x in range(8)]
        errors = [int(np.abs(whole[y : y + 8, x : x + 8].astype(int) - found).max()) for y, x in places]
        assert min(errors) <= 1  # one grey level: Pillow rounds between its two passes
