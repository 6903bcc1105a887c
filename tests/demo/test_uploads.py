"""What strangers upload: each file is read as it should be, or refused in a sentence. More kinds: test_photo_file."""

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import handle_file
from PIL import Image

from tests.demo.visitor import join, pixels, refusal

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (40, 48)).astype(np.uint16)
AS_IT_IS: dict[str, Any] = {"fit": "whole", "degradation": "denoise", "noise": 0}


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned
JPEG = encoded(RGB, "JPEG", quality=95)
OPACITY = np.broadcast_to(np.uint8(255) * (np.arange(48) >= 24)[:, None], (40, 48, 1))
ROUNDED = ((GREY16.astype(int) + 128) // 257).astype(np.uint8)

# Name, bytes, what the server reads: RGB. Gradio's own reading would lose bits and turns.
GOOD: dict[str, tuple[bytes, np.ndarray]] = {
    "wrong.txt": (encoded(RGB), RGB),
    "grey16.png": (encoded(GREY16), np.repeat(ROUNDED[..., None], 3, axis=-1)),
    "transparent.png": (encoded(np.dstack([RGB, OPACITY])), np.where(OPACITY > 0, RGB, 255)),
    "turned.jpg": (
        encoded(RGB, "JPEG", quality=95, exif=EXIF),
        np.rot90(np.asarray(Image.open(io.BytesIO(JPEG))), -1),
    ),
}
# What is uploaded as which control, its bytes, and what is said of it.
BAD: dict[str, tuple[str, bytes, str]] = {
    "cut.jpg": ("photo", JPEG[: len(JPEG) // 2], "truncated"),
    "text.png": ("photo", b"a text, no picture\n" * 10, "not an image"),
    "large.png": ("photo", encoded(Image.new("RGB", (6400, 6410)), compress_level=1), "the limit is 40,000,000"),
    "mask.png": ("mask", b"no picture", "not an image"),
    "large.npy": ("kernel", bytes(1_000_001), "at most 1 MB"),
}


def written(folder: Path, name: str, data: bytes) -> Any:
    (folder / name).write_bytes(data)
    return handle_file(str(folder / name))


def test_pictures_are_read_as_they_are(client, folder):
    for name, (data, expected) in GOOD.items():
        prepared, degraded = client.predict(photo=written(folder, name, data), **AS_IT_IS, api_name="/degrade")
        assert np.array_equal(pixels(prepared), expected), name
        assert np.array_equal(pixels(degraded), expected), name


def test_what_is_no_good_file_gets_a_sentence_with_its_name(client, folder):
    good = written(folder, "under.png", encoded(RGB))
    spec = {"photo": "denoise", "mask": "mask", "kernel": "blur:1"}
    for name, (control, data, words) in BAD.items():
        given = AS_IT_IS | {"photo": good, "degradation": spec[control], control: written(folder, name, data)}
        said = refusal(client, **given)
        assert words in said
        assert name in said
    wide = written(folder, "for nobody.png", encoded(Image.new("L", (600, 600))))
    assert "too many to restore" in refusal(client, photo=wide, **AS_IT_IS)


def test_what_is_larger_than_the_limit_is_refused_and_not_kept(server, client, folder):
    large = written(folder, "large.bmp", encoded(Image.new("RGB", (2700, 2700)), "BMP"))
    assert "exceeds the maximum file size" in refusal(client, photo=large)
    with open(folder / "large.bmp", "rb") as file:
        answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("large.bmp", file)})
    assert answer.status_code == 413
    assert not [path for path in server.leftovers() if path.stat().st_size > 15e6]


NAMES = {
    'a "quoted" name.png': "quoted",
    "<img src=x onerror=alert(1)>.png": "img src=x onerror=alert(1)",
    "two\nlines.png": "two",
    "a/../../up.png": "up.png",
    "/etc/passwd": "passwd",
    "%2e%2e%2fup.png": "up.png",
    "näme 😀.png": "näme 😀.png",
    "n" * 300 + ".png": "nnn",
}


def test_file_names_lead_nowhere_and_are_escaped_on_the_page(server):
    address = f"{server.url}/gradio_api/upload"
    for name, kept in NAMES.items():
        answer = httpx.post(address, files={"files": (name, b"no picture")})
        path = Path(answer.json()[0])
        assert server.files in path.parents
        assert path.is_file()
        assert kept in path.name
        photo = {"path": str(path), "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        html = "".join(filter(None, join(server.url, "names", "preview", {"photo": photo})["output"]["data"][:2]))
        assert "not an image" in html
        assert "<img" not in html
    for name in ("", ".."):
        assert httpx.post(address, files={"files": (name, b"no picture")}).status_code in (400, 422, 500)
