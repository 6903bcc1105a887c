"""Bringing a photo, every way the page offers, and what of it is restored."""

from __future__ import annotations

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


def test_a_photo_is_uploaded(whole: Demo, tmp_path: Path) -> None:
    file = photo(tmp_path / "mine.png")
    with whole.changes():
        whole.part("photo", REMOVE).click()
        whole.says("choose a photo first")
        whole.part("photo", "input[type=file]").set_input_files(file)
    assert (whole.picture("Original") == pixels(file)).all()
    assert (whole.picture("Degraded") == pixels(file)).all()


def test_a_photo_is_dropped(whole: Demo, tmp_path: Path) -> None:
    """Onto the empty place, and onto the photo that is there."""
    for seed in (1, 2):
        file = photo(tmp_path / f"dropped{seed}.png", seed=seed)
        with whole.changes():
            drop(whole, "photo", file)
        assert (whole.picture("Original") == pixels(file)).all()


def test_a_photo_is_pasted(whole: Demo, tmp_path: Path) -> None:
    file = photo(tmp_path / "pasted.png", seed=3)
    copy(whole, file)
    with whole.changes():
        whole.part("photo", REMOVE).click()
        whole.part("photo", "[aria-label='Paste from clipboard']").click()
    assert (whole.picture("Original") == pixels(file)).all()


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


def test_without_a_photo_the_page_asks_for_one(demo: Demo) -> None:
    demo.part("photo", REMOVE).click()
    demo.says("choose a photo first")
    demo.part("go").click()
    expect(demo.page.get_by_test_id("toast-text")).to_contain_text("choose a photo first")


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


def test_what_is_no_picture_is_said(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"not a picture at all")
    demo.part("photo", "input[type=file]").set_input_files(tmp_path / "holiday.png")
    demo.says("holiday.png: not an image")
    good = photo(tmp_path / "good.png")
    with demo.changes():
        drop(demo, "photo", good)
    assert demo.part("status", "[role=alert]").count() == 0
