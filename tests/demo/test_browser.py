"""The page as a whole: the comparison it opens with, its colours, a phone, the vote, and two files side by side."""

import json
import time

import pytest
from playwright.sync_api import expect

from tests.demo.browser import DEGRADED, Demo, decode, needs_chromium, pixels
from tests.demo.conftest import Server
from workbench.demo.record import OPENING

pytestmark = needs_chromium


def test_the_page_opens_within_seconds_with_a_finished_comparison_that_says_so(fresh: Demo, server: Server) -> None:
    """On a small projector its pictures, those that were shipped, fill the width; a magnifier is over them."""
    demo, tab, started = fresh, fresh.page, time.monotonic()
    tab.set_viewport_size({"width": 1280, "height": 800})
    demo.open(server.url)
    assert time.monotonic() - started < 15
    expect(demo.part("go")).to_be_enabled()
    demo.status("Computed beforehand")
    assert demo.captions()[:2] == ["Original 256×256 pixels", "Degraded 64×64 pixels"]
    for number, name in enumerate(["diffpir, photo-control", "diffpir, photo-mupet"], 1):
        assert (demo.picture(name) == pixels(OPENING / f"{number}.webp")).all()
    frames = demo.part("board", ".comparison .frame")
    boxes = [frame.bounding_box() or {} for frame in frames.all()]
    assert min(box["width"] for box in boxes) >= 190
    assert min(box["width"] for box in boxes[2:]) >= 256
    assert max(box["x"] + box["width"] for box in boxes) >= 1240

    across, down = 0.36, 0.44  # the spot of the pointer
    tab.mouse.move(boxes[3]["x"] + across * boxes[3]["width"], boxes[3]["y"] + down * boxes[3]["height"])
    lenses = demo.part("board", ".comparison .lens")
    expect(lenses).to_have_count(4)
    for frame, box, lens in zip(frames.all(), boxes, lenses.all(), strict=True):
        expect(lens).to_be_visible()
        drawn, shown = pixels(lens.screenshot()).astype(float), decode(frame.locator("img").get_attribute("src") or "")
        x, y = int(across * shown.shape[1]), int(down * shown.shape[0])
        near = shown[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(float)
        middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
        assert abs(near - middle).max(axis=1).min() <= 3
        assert drawn.shape[1] == pytest.approx(0.4 * box["width"], abs=3)
    demo.part("board", "input.magnifier").uncheck()
    tab.mouse.move(boxes[3]["x"] + 50, boxes[3]["y"] + 50)
    expect(lenses.first).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_visitors_scheme_and_text_stands_out(fresh: Demo, server: Server, scheme: str) -> None:
    fresh.page.emulate_media(color_scheme=scheme)
    fresh.open(server.url)
    behind, *texts = fresh.page.evaluate(
        """() => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
            const paint = canvas.getContext("2d", { willReadFrequently: true });
            const light = (colour, behind) => {
                paint.fillStyle = behind; paint.fillRect(0, 0, 1, 1);
                paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map(
                    (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const behind = getComputedStyle(document.querySelector("gradio-app")).backgroundColor;
            const texts = [...document.querySelectorAll("#board figcaption span, #board .tools, #status .prose, h1")];
            return [light(behind, "white"), ...texts.map((text) => light(getComputedStyle(text).color, behind))];
        }"""
    )
    assert behind < 0.1 if scheme == "dark" else behind > 0.8
    assert all((max(text, behind) + 0.05) / (min(text, behind) + 0.05) >= 4.5 for text in texts)  # WCAG 2, AA


@pytest.fixture
def phone(demo: Demo) -> Demo:
    demo.page.set_viewport_size({"width": 390, "height": 844})
    return demo


def test_on_a_phone_nothing_is_cut_off_and_what_matters_is_in_reach(phone: Demo) -> None:
    document, window = phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert document <= window
    ids = "preset photo samples fit side across down came kind first word degradation kernel noise estimate seed count"
    ids += " go stop board reference"
    phone.unfold("framing")
    for name in [*ids.split(), *(f"{what}{k}" for what in ("solver", "prior", "settings") for k in range(1, 5))]:
        box = phone.part(name).bounding_box()
        assert box is not None, name
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= window, name
        assert min(box["width"], box["height"]) >= 30, name
    phone.unfold("framing")

    phone.page.evaluate("scrollTo(0, 0)")
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


def test_a_blind_vote(demo: Demo) -> None:
    """Names are nowhere until the end; then the votes are counted by name, and may be taken home."""
    demo.small()
    demo.methods(("pinv", "photo", ""), ("ddnm", "photo", "steps=2"))
    demo.restore()
    demo.page.get_by_role("tab", name="Blind vote").click()
    demo.part("vote", "img").first.wait_for()
    expect(demo.part("votes")).to_have_text("Votes: 0. Pairs to come: 7.")  # six that were shipped, and this one
    for number, choice in enumerate(("left", "right", "none"), 1):
        assert demo.part("vote", "figcaption").all_inner_texts() == ["Left", "Right"]
        assert "photo" not in (demo.part("vote").text_content() or "")
        demo.part(f"vote-{choice}").click()
        expect(demo.part("votes")).to_have_text(f"Votes: {number}. Pairs to come: {7 - number}.")
    demo.part("reveal").click()
    demo.part("shares", "[data-index]").first.wait_for()
    rows = [row.get_by_role("gridcell").all_inner_texts() for row in demo.part("shares", "[data-index]").all()]
    assert sum(int(count) for row in rows for count in row[2:5]) == 3
    assert {row[0].strip() for row in rows} <= {"admm, photo (DSM)", "ddnm, photo (DSM)"}
    with demo.page.expect_download() as download:
        demo.part("votes-json").click()
    record = json.loads(download.value.path().read_text())
    assert [vote["vote"] for vote in record["votes"]] == ["left", "right", "none"]
    demo.part("vote-left").click()  # the next votes are not those of the result
    demo.part("shares").wait_for(state="hidden")
