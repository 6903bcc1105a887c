"""Reading hostile and unusual image files, and writing what was read."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from workbench import images


def _gradient(height: int = 12, width: int = 20) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 12, (rows + columns) * 8], axis=-1).astype(np.uint8)


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header claims any size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_saving_clips_once_and_rounds(tmp_path):
    """...so that what has 8 bits comes back as it was."""
    whole = torch.from_numpy(_gradient()).permute(2, 0, 1)[None].float() / 255
    images.save_image(whole, tmp_path / "a.png")
    assert torch.equal(images.load_image(tmp_path / "a.png"), whole)
    image = torch.tensor([-0.5, 0.0, 0.4999, 1.0, 7.0]).view(1, 1, 1, 5)
    images.save_image(image, tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as file:
        assert file.mode == "L"
        assert list(file.tobytes()) == [0, 0, 127, 255, 255]


def test_what_is_no_picture_is_not_saved(tmp_path):
    for image, message in (
        (torch.full((1, 3, 4, 4), torch.nan), "NaN"),
        (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\)"),
        (torch.zeros(1, 2, 4, 4), r"\(1, 2, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            images.save_image(image, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    images.save_image(torch.zeros(1, 3, 4, 4), target)
    before = target.read_bytes()
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        images.save_image(torch.ones(1, 3, 4, 4), target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_hostile_files_are_refused_in_one_line_with_their_name(tmp_path, recwarn):
    Image.fromarray(_gradient(200, 300)).save(tmp_path / "whole.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 1000, np.int32)).save(tmp_path / "32-bit.tif")
    (tmp_path / "folder").mkdir()
    for name, data in {
        "empty": b"",
        "text": b"not an image at all",
        "truncated.png": (tmp_path / "whole.png").read_bytes()[:-200],
        "zero-sided.png": _png(0, 5, b""),
        "bomb.png": _png(60_000, 60_000, b"\0" * 1000),
        "large.png": _png(10_000, 8_000, b"\0" * 1000),
    }.items():
        (tmp_path / name).write_bytes(data)
    for name, message in {
        "missing": "no such file",
        "folder": "is a folder",
        "empty": "the file is empty",
        "text": "not an image",
        "truncated.png": "damaged or truncated",
        "zero-sided.png": "not an image|damaged",
        "bomb.png": "limit of 50,000,000",
        "large.png": "10000x8000 pixels, the limit is 50,000,000",
        "float.tif": "floating-point pixels",
        "32-bit.tif": "signed or 32-bit integers have no agreed white level",
        "/dev/null": "not a regular file",
    }.items():
        path = tmp_path / name
        with pytest.raises(ValueError, match=message) as caught:
            images.load_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pictures_lie_on_white(tmp_path, mode):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255  # upper half black, lower half transparent, but for a row
    rgba[2, :, 3] = 51
    picture = Image.fromarray(rgba)
    picture = (picture.quantize(4) if mode == "P" else picture).convert(mode)
    picture.save(tmp_path / "a.png")
    image = images.load_image(tmp_path / "a.png")
    assert float(image[:, :, :2].max()) == 0
    assert torch.equal(image[:, :, 2], torch.full((1, 3, 4), 204 / 255))
    assert float(image[:, :, 3].min()) == 1


def test_size_takes_the_centre_square(tmp_path):
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert torch.equal(images.load_image(tmp_path / "a.png", size=10), torch.ones(1, 3, 10, 10))
    assert images.load_image(tmp_path / "a.png", size=7).shape == (1, 3, 7, 7)
    with pytest.raises(ValueError, match="at least 1"):
        images.load_image(tmp_path / "a.png", size=0)


def test_shrinking_is_antialiased(tmp_path):
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).save(tmp_path / "a.png")
    # Without the filter, sampling every fourth pixel would see one colour only.
    image = images.load_image(tmp_path / "a.png", size=16)
    torch.testing.assert_close(image, torch.full((1, 3, 16, 16), 0.5), atol=0.02, rtol=0)


def test_sample_photos_come_without_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail(f"tried to connect to {args}"))
    photos = images.sample_photos(24, tuple(images.SAMPLES))
    assert photos.shape == (len(images.SAMPLES), 3, 24, 24)
    assert float(photos.flatten(1).std(dim=1).min()) > 0.04
    with pytest.raises(ValueError, match=r"unknown sample photo 'dog'\. There are: astronaut, coffee"):
        images.sample_photo("dog", 24)
