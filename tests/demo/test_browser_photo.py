"""Bringing a photo, every way the page offers, and what of it is restored."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import skimage
from playwright.sync_api import expect

from tests.demo.browser import Demo, copy, drop, needs_chromium, photo, pixels
from workbench.images import SAMPLES

pytestmark = needs_chromium
REMOVE = "[aria-label='Remove Image']"


def test_a_photo_is_uploaded_dropped_and_pasted(demo: Demo, tmp_path: Path) -> None:
    """Onto the empty place, which asks for one, and onto the photo that is there; every pixel is kept as it is."""
    demo.choose("kind", "Noise alone")
    demo.number("noise", 0)
    demo.unfold("framing")
    demo.part("fit").get_by_label("Keep every pixel").check()
    demo.page.get_by_text("451×300 pixels").first.wait_for()
    files = [photo(tmp_path / f"mine{seed}.png", seed=seed) for seed in range(4)]

    def empty() -> None:
        demo.part("photo", REMOVE).click()
        demo.says("choose a photo first")

    def paste() -> None:
        copy(demo, files[3])
        empty()
        demo.part("photo", "[aria-label='Paste from clipboard']").click()

    empty()
    demo.part("go").click()
    expect(demo.page.get_by_test_id("toast-text")).to_contain_text("choose a photo first")
    upload = demo.part("photo", "input[type=file]")
    ways = [
        lambda: upload.set_input_files(files[0]),
        *(partial(drop, demo, "photo", file) for file in files[1:3]),
        paste,
    ]
    for file, way in zip(files, ways, strict=True):
        with demo.changes():
            way()
        assert (demo.picture("Original") == pixels(file)).all()
        assert (demo.picture("Degraded") == pixels(file)).all()


def test_a_sample_is_a_click_away_and_is_framed_and_so_is_a_picture_of_the_camera(demo: Demo) -> None:
    place = list(SAMPLES).index("coffee")
    coffee = pixels(Path(skimage.__file__).parent / "data" / SAMPLES["coffee"])
    assert demo.part("samples", "button").count() == len(SAMPLES)
    with demo.changes():
        demo.part("samples", "button").nth(place).click()
    demo.unfold("framing")
    with demo.changes():
        demo.part("fit").get_by_label("Cut out a square, as it is").check()
    for name, value in (("side", 48), ("across", 0), ("down", 1)):
        with demo.changes():
            demo.number(name, value)
    assert demo.captions()[0] == "Original 48×48 pixels"
    assert (demo.picture("Original") == coffee[-48:, :48]).all()

    demo.part("photo", REMOVE).click()
    demo.part("photo", "[aria-label='Capture from camera']").click()
    demo.part("photo").get_by_text("Click to Access Webcam").click()
    demo.page.wait_for_function("document.querySelector('#photo video')?.currentTime > 0")
    with demo.changes():
        demo.part("photo", "[aria-label='capture photo']").click()
    assert demo.picture("Original").mean(axis=(0, 1)).argmax() == 1  # the test picture is green
