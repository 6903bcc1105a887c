"""Bringing a photo, every way the page offers, and what of it is restored."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage
from playwright.sync_api import expect

from tests.demo.browser import Demo, copy, drop, needs_chromium, photo, pixels
from workbench.images import SAMPLES, load_image

pytestmark = needs_chromium
REMOVE = "[aria-label='Remove Image']"
SAMPLE_FILES = {name: Path(skimage.__file__).parent / "data" / file for name, file in SAMPLES.items()}


@pytest.fixture
def whole(demo: Demo) -> Demo:
    """The page set to show every pixel of a photo as it is."""
    demo.choose("kind", "Noise alone")
    demo.number("noise", 0)
    demo.unfold("framing")
    demo.part("fit").get_by_label("Keep every pixel").check()
    demo.page.get_by_text("451×300 pixels").first.wait_for()
    return demo


def test_a_photo_is_uploaded_dropped_and_pasted(whole: Demo, tmp_path: Path) -> None:
    """Onto the empty place, which asks for one, and onto the photo that is there."""
    files = [photo(tmp_path / f"mine{seed}.png", seed=seed) for seed in range(4)]

    def empty() -> None:
        whole.part("photo", REMOVE).click()
        whole.says("choose a photo first")

    def paste() -> None:
        copy(whole, files[3])
        empty()
        whole.part("photo", "[aria-label='Paste from clipboard']").click()

    empty()
    whole.part("go").click()
    expect(whole.page.get_by_test_id("toast-text")).to_contain_text("choose a photo first")
    upload = whole.part("photo", "input[type=file]")
    ways = [
        lambda: upload.set_input_files(files[0]),
        *(partial(drop, whole, "photo", file) for file in files[1:3]),
        paste,
    ]
    for file, way in zip(files, ways, strict=True):
        with whole.changes():
            way()
        assert (whole.picture("Original") == pixels(file)).all()
        assert (whole.picture("Degraded") == pixels(file)).all()


def test_a_photo_is_taken_by_the_camera(demo: Demo) -> None:
    cat = demo.picture("Original")
    demo.part("photo", REMOVE).click()
    demo.part("photo", "[aria-label='Capture from camera']").click()
    demo.part("photo").get_by_text("Click to Access Webcam").click()
    demo.page.wait_for_function("document.querySelector('#photo video')?.currentTime > 0")
    with demo.changes():
        demo.part("photo", "[aria-label='capture photo']").click()
    taken = demo.picture("Original")
    assert taken.shape == cat.shape
    assert taken.mean(axis=(0, 1)).argmax() == 1  # the test picture is green


def test_samples_are_a_click_away(demo: Demo) -> None:
    samples = demo.part("samples", "button")
    assert samples.count() == len(SAMPLES)
    for number, name in enumerate(SAMPLES):
        if name == "cat":  # stands there already
            continue
        with demo.changes():
            samples.nth(number).click()
        expected = load_image(SAMPLE_FILES[name], 256)[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(demo.picture("Original") - expected).max() <= 1


def test_fit_says_what_is_restored(demo: Demo) -> None:
    demo.unfold("framing")
    with demo.changes():
        demo.choose("kind", "Noise alone")
    cat = pixels(SAMPLE_FILES["cat"])
    sizes = {"Cut out a square, as it is": (256, 256), "Crop a square, resize it": (256, 256)}
    sizes |= {"Resize the whole photo": (170, 256), "Keep every pixel": (300, 451)}
    for choice, (height, width) in sizes.items():
        with demo.changes():
            demo.part("fit").get_by_label(choice).check()
        assert demo.captions()[0] == f"Original {width}×{height} pixels"
        shown = demo.picture("Original")
        assert shown.shape == (height, width, 3)
        if choice == "Cut out a square, as it is":
            assert (shown == cat[22:278, 98:354]).all()
        if choice == "Keep every pixel":
            assert (shown == cat).all()


def test_side_and_crop_move_what_is_restored(demo: Demo) -> None:
    cat = pixels(SAMPLE_FILES["cat"])
    demo.unfold("framing")
    with demo.changes():
        demo.part("fit").get_by_label("Cut out a square, as it is").check()
    with demo.changes():
        demo.number("side", 48)
    assert demo.captions()[0] == "Original 48×48 pixels"
    with demo.changes():
        demo.number("across", 0)
    with demo.changes():
        demo.number("down", 1)
    assert (demo.picture("Original") == cat[-48:, :48]).all()
    with demo.changes():
        demo.number("across", 1)
    assert (demo.picture("Original") == cat[-48:, -48:]).all()
