"""The page on a stage and on a phone: what it opens with, large pictures, the magnifier, the vote, two files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, expect

from tests.demo.browser import DEGRADED, Demo, decode, drop, needs_chromium, photo, pixels
from tests.demo.conftest import Server
from workbench.demo.record import OPENING
from workbench.demo.view import AMPLIFY

pytestmark = needs_chromium


@pytest.fixture
def stage(context: BrowserContext, server: Server) -> Iterator[Demo]:
    """The page on a small projector."""
    yield from opened(context, server, 1280, 800)


@pytest.fixture
def phone(context: BrowserContext, server: Server) -> Iterator[Demo]:
    yield from opened(context, server, 390, 844)


def opened(context: BrowserContext, server: Server, width: int, height: int) -> Iterator[Demo]:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    demo = Demo(page)
    with page.expect_response(lambda answer: "/run/predict" in answer.url):  # the page listens, and has said so
        demo.open(server.url)
    yield demo
    assert demo.complaints == []
    assert demo.elsewhere == []
    page.close()


def test_the_page_opens_with_a_finished_comparison_that_says_so(stage: Demo) -> None:
    """It fills the width, is what was shipped, and is greyed as soon as other methods are chosen."""
    stage.status("Computed beforehand")
    names = ["diffpir, photo-control", "diffpir, photo-mupet"]
    for number, name in enumerate(names, 1):
        assert (stage.picture(name) == pixels(OPENING / f"{number}.webp")).all()
        assert stage.picture(name).shape == (256, 256, 3)
        gap = abs(stage.picture(name).astype(float) - stage.picture("Original"))
        assert abs(stage.picture(name, nth=1) - (AMPLIFY * gap).clip(0, 255)).max() <= AMPLIFY
    frames = [frame.bounding_box() or {} for frame in stage.part("board", ".comparison .frame").all()]
    assert min(frame["width"] for frame in frames) >= 190
    assert min(frame["width"] for frame in frames[2:]) >= 256
    assert max(frame["x"] + frame["width"] for frame in frames) >= 1240
    stage.write("settings1", "steps=9")
    expect(stage.part("changed")).to_be_visible()


def test_four_methods_are_a_grid_of_large_pictures(stage: Demo) -> None:
    stage.small()
    stage.methods(*[("pinv", "photo", "")] * 4)
    stage.restore()
    boxes = [frame.bounding_box() or {} for frame in stage.part("board", ".comparison .frame").all()[2:]]
    assert len(boxes) == 4
    assert len({box["x"] for box in boxes}) == len({box["y"] for box in boxes}) == 2
    assert min(box["width"] for box in boxes) >= 256
    assert boxes[2]["y"] + boxes[2]["height"] - boxes[0]["y"] < 800  # together on one screen


def test_the_magnifier_shows_the_same_spot_of_all_pictures(stage: Demo) -> None:
    """...three times larger: what is in the middle of each lens is that picture's pixel under the pointer."""
    frames = stage.part("board", ".comparison .frame")
    box = frames.nth(3).bounding_box()
    assert box is not None
    share = (0.36, 0.44)
    stage.page.mouse.move(box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"])
    lenses = stage.part("board", ".comparison .lens")
    expect(lenses).to_have_count(4)
    for frame, lens in zip(frames.all(), lenses.all(), strict=True):
        expect(lens).to_be_visible()
        drawn = pixels(lens.screenshot()).astype(float)
        shown = decode(frame.locator("img").get_attribute("src") or "")
        height, width = shown.shape[:2]
        side = (frame.bounding_box() or {})["width"]
        # The colours around the middle of the lens are those of the pixels around the spot.
        x, y = share[0] * width, share[1] * height
        near = shown[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].reshape(-1, 3).astype(float)
        middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
        assert abs(near - middle).max(axis=1).min() <= 3
        assert drawn.shape[1] == pytest.approx(0.4 * side, abs=3)
    stage.part("board", "input.magnifier").uncheck()
    stage.page.mouse.move(box["x"] + 50, box["y"] + 50)
    expect(lenses.first).to_be_hidden()


def test_on_a_phone_pictures_restore_and_messages_are_in_reach(phone: Demo) -> None:
    inside = lambda name: 0 <= (b := phone.part(name).bounding_box() or {})["y"] <= 844 - b["height"]  # noqa: E731
    result = phone.part("board", ".comparison > div:last-child .frame").first.bounding_box() or {}
    bar = phone.part("bar").bounding_box() or {}
    assert result["y"] + result["height"] < bar["y"]  # which covers what is below
    assert inside("go")
    phone.part("count").scroll_into_view_if_needed()
    assert inside("go")
    assert inside("peek")
    phone.write("degradation", "sr:0")
    phone.says("needs a number from 1 to 256")
    assert inside("status")
    phone.write("degradation", "sr:4")
    phone.page.locator(DEGRADED).wait_for()
    phone.part("peek").click()
    phone.page.wait_for_function("document.querySelector('#board').getBoundingClientRect().top >= -1")


def test_a_file_that_is_no_picture_is_no_broken_icon(phone: Demo, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    phone.part("photo", "[aria-label='Remove Image']").click()
    phone.part("photo", "input[type=file]").set_input_files(tmp_path / "text.png")
    phone.says("text.png: not an image")
    expect(phone.part("photo", "img")).to_be_hidden()
    with phone.changes():
        drop(phone, "photo", photo(tmp_path / "good.png"))
    assert phone.part("status", "[role=alert]").count() == 0


def test_a_blind_vote(stage: Demo) -> None:
    """Names are nowhere until the end; then the votes are counted by name, and may be taken home."""
    stage.page.get_by_role("tab", name="Blind vote").click()
    stage.part("vote", "img").first.wait_for()
    expect(stage.part("votes")).to_have_text("Votes: 0. Pairs to come: 6.")
    for number, choice in enumerate(("left", "right", "none"), 1):
        assert stage.part("vote", "figcaption").all_inner_texts() == ["Left", "Right"]
        assert "photo" not in (stage.part("vote").text_content() or "")
        stage.part(f"vote-{choice}").click()
        expect(stage.part("votes")).to_have_text(f"Votes: {number}. Pairs to come: {6 - number}.")
    stage.part("reveal").click()
    stage.part("shares", "[data-index]").first.wait_for()
    (row,) = stage.part("shares", "[data-index]").all()
    first, second, one, other, none, share = (text.strip() for text in row.get_by_role("gridcell").all_inner_texts())
    assert (first, second, none) == ("admm, photo (DSM)", "ddnm, photo (DSM)", "1")
    assert int(one) + int(other) == 2
    assert share == {"0": "0% (0% to 66%)", "1": "50% (9% to 91%)", "2": "100% (34% to 100%)"}[one]
    with stage.page.expect_download() as download:
        stage.part("votes-json").click()
    record = json.loads(download.value.path().read_text())
    assert [vote["vote"] for vote in record["votes"]] == ["left", "right", "none"]
    assert record["shares"][0]["for first"] == int(one)


def test_what_is_restored_can_be_voted_on(stage: Demo) -> None:
    stage.small()
    stage.methods(("pinv", "photo", ""), ("ddnm", "photo", "steps=2"))
    stage.restore()
    stage.page.get_by_role("tab", name="Blind vote").click()
    expect(stage.part("votes")).to_have_text("Votes: 0. Pairs to come: 7.")


def test_two_files_are_compared(stage: Demo, tmp_path: Path) -> None:
    stage.page.get_by_role("tab", name="Two files").click()
    files = [photo(tmp_path / "a.png", seed=1), photo(tmp_path / "b.png", seed=2), photo(tmp_path / "c.png", 24, 24)]
    stage.part("first", "input[type=file]").set_input_files(files[0])
    stage.part("second", "input[type=file]").set_input_files(files[2])
    expect(stage.part("apart", "[role=alert]")).to_contain_text("one size, got 48×40 and 24×24 pixels")
    stage.part("second", "[aria-label='Remove Image']").click()
    stage.part("second", "input[type=file]").set_input_files(files[1])
    error = (pixels(files[0]) / 255 - pixels(files[1]) / 255) ** 2
    expect(stage.part("apart")).to_contain_text(f"{-10 * np.log10(error.mean()):.2f} dB")
    expect(stage.part("pair", "img")).to_have_count(3)
    expect(stage.part("slider2", "img")).to_have_count(2)
