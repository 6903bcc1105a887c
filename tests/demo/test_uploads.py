"""What strangers upload: each file is read as it should be, or refused in a sentence."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.colour_profiles import ADOBE_RGB, in_srgb, rgb_profile
from tests.demo.visitor import join, pixels, refusal, until, visit

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (40, 48)).astype(np.uint16)
RGB16 = RNG.integers(0, 65536, (40, 48, 3)).astype(np.uint16)
AS_IT_IS: dict[str, Any] = {"fit": "whole", "degradation": "denoise", "noise": 0}


def encoded(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG with this header, whatever its ``rows`` are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated(kind: str, **options: Any) -> bytes:
    others = [Image.fromarray(255 - RGB), Image.fromarray(RGB // 2)]
    return encoded(RGB, kind, save_all=True, append_images=others, **options)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RGB, "JPEG", quality=95, exif=exif)


def half_transparent() -> Image.Image:
    opacity = np.zeros((40, 48), dtype=np.uint8)
    opacity[:, 24:] = 255
    return Image.fromarray(np.dstack([RGB, opacity]))


def rgb_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


ADOBE = rgb_profile("Adobe RGB (1998)", ADOBE_RGB, 563 / 256)
JPEG = encoded(RGB, "JPEG", quality=95)
CMYK = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
ON_WHITE = np.where(np.arange(48)[None, :, None] < 24, 255, RGB)
ROUNDED = ((GREY16.astype(int) + 128) // 257).astype(np.uint8)
GIF = animated("GIF")
NARROW = RNG.integers(0, 256, (200, 9, 3)).astype(np.uint8)

# Name, bytes, what the server reads: RGB, and how far it may be off.
GOOD: dict[str, tuple[bytes, np.ndarray, int]] = {
    "photo.png": (encoded(RGB, "PNG"), RGB, 0),
    "wrong.txt": (encoded(RGB, "PNG"), RGB, 0),
    "photo.webp": (encoded(RGB, "WEBP", lossless=True), RGB, 0),
    "animated.gif": (GIF, rgb_of(GIF), 0),
    "animated.webp": (animated("WEBP", lossless=True), RGB, 0),
    "grey16.png": (encoded(GREY16, "PNG"), np.repeat(ROUNDED[..., None], 3, axis=-1), 0),
    "rgb16.png": (
        png(48, 40, 16, 2, b"".join(b"\0" + r.astype(">u2").tobytes() for r in RGB16)),
        np.round(RGB16 / 257),
        0,
    ),
    "adobe.png": (encoded(RGB, "PNG", icc_profile=ADOBE), np.round(in_srgb(RGB, ADOBE_RGB, 563 / 256)), 1),
    "cmyk.jpg": (CMYK, rgb_of(CMYK), 0),
    "transparent.png": (encoded(half_transparent(), "PNG"), ON_WHITE, 0),
    "turned.jpg": (turned(), np.rot90(rgb_of(JPEG), -1), 0),
    "8x8.png": (encoded(RGB[:8, :8], "PNG"), RGB[:8, :8], 0),
    "narrow.png": (encoded(NARROW, "PNG"), NARROW, 0),
}

BAD: dict[str, tuple[bytes, str]] = {
    "broken.png": (encoded(RGB, "PNG")[:60] + bytes(100) + encoded(RGB, "PNG")[160:], "damaged"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "text.png": (b"a text, no picture\n" * 10, "not an image"),
    "empty.png": (b"", "empty"),
    "1x1.png": (encoded(RGB[:1, :1], "PNG"), "too few"),
    "7x7.png": (encoded(RGB[:7, :7], "PNG"), "too few"),
    "claims.png": (png(60000, 60000, 8, 2, b""), "far larger"),
    "claims less.png": (png(6000, 6000, 8, 2, b""), "truncated"),
    "41 megapixels.png": (encoded(Image.new("RGB", (6400, 6410)), "PNG", compress_level=1), "the limit is 40,000,000"),
    "for nobody.png": (encoded(Image.new("L", (600, 600)), "PNG"), "too many to restore"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50"/>', "not an image"),
    "numbers.tiff": (encoded(RGB[..., 0].astype(np.float32), "TIFF"), "floating-point"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(server, folder) -> Client:
    return visit(server.url, folder)


def written(folder: Path, name: str, data: bytes) -> Any:
    (folder / name).write_bytes(data)
    return handle_file(str(folder / name))


@pytest.mark.parametrize("name", GOOD)
def test_pictures_of_all_kinds_are_read_as_they_are(name, client, folder):
    data, expected, tolerance = GOOD[name]
    prepared, degraded = client.predict(photo=written(folder, name, data), **AS_IT_IS, api_name="/degrade")
    assert pixels(prepared).shape == expected.shape
    assert np.abs(pixels(prepared).astype(int) - expected).max() <= tolerance
    assert np.array_equal(pixels(degraded), pixels(prepared))


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_good_picture_gets_a_sentence(name, client, folder):
    data, words = BAD[name]
    said = refusal(client, photo=written(folder, name, data), **AS_IT_IS)
    assert words in said
    if name != "for nobody.png":  # its size is the matter, not its file
        assert said.startswith(f"Please check: {name}")
    assert str(folder) not in said


def test_a_mask_that_is_no_picture_gets_a_sentence(client, folder):
    photo = written(folder, "under.png", encoded(RGB, "PNG"))
    masked = AS_IT_IS | {"degradation": "mask"}
    said = refusal(client, photo=photo, mask=written(folder, "mask.png", b"no picture"), **masked)
    assert said.startswith("Please check: mask.png: not an image")
    black = written(folder, "black.png", encoded(np.zeros((40, 48), dtype=np.uint8), "PNG"))
    assert "the mask fills nothing" in refusal(client, photo=photo, mask=black, **masked)


def test_what_is_no_kernel_gets_a_sentence(client, folder):
    np.savez(folder / "two.npz", first=np.eye(3), second=np.eye(5))
    kernels = {
        "two.npz": ((folder / "two.npz").read_bytes(), "which kernel? write two.npz:NAME with one of first, second"),
        "text.npy": (b"1 2 1\n2 4 2\n1 2 1\n", "no kernel can be read from it"),
        "text.mat": (b"1 2 1\n2 4 2\n1 2 1\n", "no kernel can be read from it"),
        "kernel.txt": (b"1 2 1", "expected a kernel as .png"),
        "large.npy": (bytes(1_000_001), "at most 1 MB"),
        "empty.png": (b"", "empty"),
    }
    for name, (data, words) in kernels.items():
        said = refusal(client, kernel=written(folder, name, data), degradation="blur:1")
        assert words in said
        assert name in said


def test_what_is_larger_than_the_limit_is_refused_and_not_kept(server, client, folder):
    large = written(folder, "large.bmp", encoded(Image.new("RGB", (2700, 2700)), "BMP"))
    assert (folder / "large.bmp").stat().st_size > 20e6
    assert "exceeds the maximum file size" in refusal(client, photo=large)
    with open(folder / "large.bmp", "rb") as file:
        answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("large.bmp", file)})
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text
    assert not [path for path in server.leftovers() if path.stat().st_size > 15e6]


NAMES = {
    'a "quoted" name.png': "quoted",
    "<img src=x onerror=alert(1)>.png": "img src=x onerror=alert(1)",
    "two\nlines.png": "two",
    "../../up.png": "up.png",
    "/etc/passwd": "passwd",
    "a/../../b.png": "b.png",
    "%2e%2e%2fup.png": "up.png",
    "näme 😀.png": "näme 😀.png",
    "n" * 300 + ".png": "nnn",
}


@pytest.mark.parametrize("name", NAMES)
def test_file_names_lead_nowhere_and_are_escaped_on_the_page(name, server):
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, b"no picture")})
    assert answer.status_code == 200
    path = Path(answer.json()[0])
    assert server.files in path.parents
    assert path.is_file()
    assert NAMES[name] in path.name
    photo = {"path": str(path), "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    html = "".join(filter(None, join(server.url, "names", "preview", {"photo": photo})["output"]["data"][:2]))
    assert "not an image" in html
    assert "<img" not in html


def test_an_upload_that_is_broken_off_leaves_no_traceback(server):
    address = httpx.URL(server.url)
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    with socket.create_connection((address.host, address.port)) as line:
        line.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        time.sleep(0.5)
    assert not until(lambda: "ClientDisconnect" in (server.files.parent / "log").read_text(), 1)


@pytest.mark.parametrize("name", ["", ".."])
def test_names_that_are_none_are_refused(name, server):
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, b"no picture")})
    assert answer.status_code in (400, 422, 500)
