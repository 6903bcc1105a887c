"""Restoring: what is shown on the way and at the end, cancelling, and looking at the results."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.demo.browser import Demo, needs_chromium, pixels

pytestmark = needs_chromium
PINV = ("pinv", "photo", "")


@pytest.fixture
def small(demo: Demo) -> Demo:
    """The page with a picture of 32 pixels a side."""
    demo.small()
    return demo


def test_two_methods_are_shown_while_they_run_and_then_with_all_that_is_known(small: Demo, tmp_path: Path) -> None:
    """Scores, curves, a zip file that says it all, and any two pictures with a handle between them."""
    names = ["diffpir, photo-control", "diffpir, photo-mupet"]  # then how the prior was trained, in brackets
    small.page.evaluate(
        """names => {
            window.seen = names.map(() => new Set());
            window.bars = new Set();
            new MutationObserver(() => {
                names.forEach((name, k) => {
                    const shown = document.querySelector(`#board img[alt^="${name}"]`);
                    if (shown) window.seen[k].add(shown.src);
                });
                const bar = document.querySelector("#board progress");
                if (bar) window.bars.add(bar.value / bar.max);
            }).observe(document.querySelector("#board"), { attributes: true, childList: true, subtree: true });
        }""",
        names,
    )
    small.methods(*[(*name.split(", "), "steps=150") for name in names])
    small.restore()
    seen, bars = small.page.evaluate("[window.seen.map(s => s.size), [...window.bars]]")
    assert min(seen) >= 3  # two on their way, and the result
    assert len(bars) >= 2
    assert all(0 <= bar <= 1 for bar in bars)
    assert small.part("board", "progress").count() == 0
    scores = small.scores()
    assert [row["Method"] for row in scores] == names
    assert all(5 < float(row["PSNR ↑"]) < 50 for row in scores)
    expect(small.part("curves", "svg")).to_be_visible()

    with small.page.expect_download() as download:
        small.part("download").click()
    archive = zipfile.ZipFile(download.value.path())
    archive.extractall(tmp_path)
    stems = {f"{k}-{name.replace(', ', '-')}": name for k, name in enumerate(names, 1)}
    stems |= {"original": "Original", "degraded": "Degraded"}
    assert len(archive.namelist()) == len(stems) + 1
    for stem, name in stems.items():
        (file,) = tmp_path.glob(f"{stem}*.png")
        assert (pixels(file) == small.picture(name)).all()
    small.page.get_by_text("run.json: the same run on your machine").click()
    expect(small.part("recipe", ".cm-content")).to_be_visible()
    begin = re.sub(r"\s", "", small.part("recipe", ".cm-content").inner_text())[:200]  # no more lines than fit
    assert re.sub(r"\s", "", (tmp_path / "run.json").read_text()).startswith(begin)

    assert [small.value("left"), small.value("right")] == [f"{k}. {name}" for k, name in enumerate(names, 1)]
    small.choose("left", "Original")
    before, after = small.part("slider", "img").all()
    expect(before).to_have_attribute("src", re.compile(r"/original[^/]*\.png$"))
    expect(small.part("gap", "figcaption")).to_contain_text("Difference: 2. diffpir, photo-mupet (MUPET) − Original")
    expect(after).to_have_css("clip-path", re.compile(r"50%\)$"))
    handle = small.part("slider", "[data-testid=slider] .icon-wrap")
    handle.scroll_into_view_if_needed()
    box, shown = handle.bounding_box() or {}, after.bounding_box() or {}
    small.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    small.page.mouse.down()
    small.page.mouse.move(shown["x"] + 0.25 * shown["width"], box["y"], steps=4)
    small.page.mouse.up()
    cut = float(re.findall(r"([\d.]+)%", after.evaluate("e => e.style.clipPath"))[-1])
    assert cut == pytest.approx(25, abs=5)


def test_a_run_can_be_cancelled_and_the_next_one_runs_four_methods_in_a_grid(small: Demo) -> None:
    small.write("settings1", "steps=1000")
    small.part("go").click()
    small.page.wait_for_function("document.querySelector('#board progress')?.value > 0")
    small.part("stop").click()
    small.status("Cancelled.")
    small.methods(*[PINV] * 4)
    small.restore()
    boxes = [frame.bounding_box() or {} for frame in small.part("board", ".comparison .frame").all()[2:]]
    assert len(boxes) == 4
    assert len({box["x"] for box in boxes}) == len({box["y"] for box in boxes}) == 2
    assert min(box["width"] for box in boxes) >= 256
    assert boxes[2]["y"] + boxes[2]["height"] - boxes[0]["y"] < 1000  # together on one screen


def test_all_pictures_are_zoomed_and_moved_together(small: Demo) -> None:
    """By the slider, by the wheel where the pointer is, by dragging; and back. Their pixels may be smooth."""
    shown = small.part("board", ".frame img")
    boxes = lambda: [image.bounding_box() or {} for image in shown.all()]  # noqa: E731
    frame = small.part("board", ".frame").first.bounding_box()
    assert frame is not None
    width = frame["width"]
    small.part("board", ".zoom").fill("4")
    assert [box["width"] for box in boxes()] == pytest.approx([4 * width] * 2, rel=0.01)
    before = boxes()
    small.page.mouse.move(frame["x"] + 50, frame["y"] + 50)
    small.page.mouse.down()
    small.page.mouse.move(frame["x"] + 80, frame["y"] + 70, steps=3)
    small.page.mouse.up()
    moved = [(now["x"] - box["x"], now["y"] - box["y"]) for now, box in zip(boxes(), before, strict=True)]
    assert moved == [pytest.approx((30, 20), abs=1)] * 2  # as far as the pointer

    small.part("board", ".whole").click()
    assert [box["width"] for box in boxes()] == pytest.approx([width] * 2, abs=1)
    small.page.mouse.move(frame["x"] + 0.25 * width, frame["y"] + 0.75 * width)
    small.page.mouse.wheel(0, -400)
    small.page.wait_for_function("Number(document.querySelector('#board .zoom').value) > 1")
    zoomed = boxes()[0]
    scale = zoomed["width"] / width
    assert scale == pytest.approx(np.e, rel=0.05)
    under = ((frame["x"] + 0.25 * width - zoomed["x"]) / scale, (frame["y"] + 0.75 * width - zoomed["y"]) / scale)
    assert under == pytest.approx((0.25 * width, 0.75 * width), abs=2)  # what was under the pointer stays there
    assert small.page.evaluate("scrollY") == 0
    for smooth in (True, False):
        small.part("board", "input.smooth").set_checked(smooth)
        expect(shown.first).to_have_css("image-rendering", "auto" if smooth else "pixelated")
