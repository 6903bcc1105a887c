"""Restoring: methods and their settings, samples, cancelling, and looking at the results."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.demo.browser import DEGRADED, Demo, needs_chromium
from workbench.models import available_priors
from workbench.models.load import shipped_kind
from workbench.restore import steps_of
from workbench.solvers import SOLVERS

pytestmark = needs_chromium
PINV = ("pinv", "photo", "")
QUICK = ("ddnm", "photo-mupet", "steps=2")


def few_steps(solver: str) -> str:
    """Settings with which ``solver`` takes three steps at most."""
    return next((f"{name}={steps}" for name, steps in steps_of(solver, 3).items()), "")


@pytest.fixture
def small(demo: Demo) -> Demo:
    """The page with a picture of 32 pixels a side."""
    demo.small()
    return demo


def test_every_solver_and_every_prior_can_be_chosen_and_run(small: Demo) -> None:
    """Four methods at a time; what a method cannot do is said under its picture, and the others go on."""
    solvers, priors = [name for name in SOLVERS if name != "network"], available_priors()  # for which none is shipped
    assert small.options("solver4") == [*solvers, "none"]
    assert small.options("prior4") == priors
    ran: set[str] = set()
    for begin in range(0, len(solvers), 4):
        rows = [
            (solver, fitting[(begin + k) % len(fitting)], few_steps(solver))
            for k, solver in enumerate(solvers[begin : begin + 4])
            for fitting in [[name for name in priors if shipped_kind(name) == SOLVERS[solver].prior_kind]]
        ]
        small.methods(*rows)
        small.restore()
        table = small.scores()
        assert [row["Method"].partition(",")[0] for row in table] == [solver for solver, _, _ in rows]
        for row in table:
            if row["PSNR ↑"] == "–":
                assert small.part("board", ".error").get_by_text(row["Note"][:30]).count() == 1
            else:
                assert 5 < float(row["PSNR ↑"]) < 50
                ran.add(row["Method"].partition(",")[0])
    assert ran >= {*solvers} - {"repaint"}  # which fills in missing pixels, and says so


def test_wrong_settings_are_said(small: Demo) -> None:
    """...by number of the method, and the page goes on."""
    for settings, sentence in {
        "zteps=3": "method 1: unknown setting of diffpir 'zteps', did you mean 'steps'?",
        "steps=-1": "method 1: steps must be at least 1",
        "steps=1000000": "method 1: steps=1000000: numbers up to",
    }.items():
        small.methods(("diffpir", "photo-mupet", settings))
        small.part("go").click()
        small.status(f"Please check: {sentence}")
    small.methods()
    small.part("go").click()
    small.status("choose at least one method")
    small.methods(PINV)
    small.restore()
    assert [row["Method"] for row in small.scores()] == ["pinv, photo"]


def test_samples_stand_side_by_side_with_their_spread(small: Demo) -> None:
    small.methods(QUICK)
    small.number("count", 3)
    small.restore()
    expect(small.part("board").get_by_text("Samples of ddnm, photo-mupet")).to_be_visible()
    strip = small.part("board", ".pictures").last
    names = [image.get_attribute("alt") or "" for image in strip.locator("img").all()]
    assert [name.partition(" ")[0] for name in names] == [*["seed"] * 3, "Spread"]
    pictures = np.stack([small.picture(name).astype(float) for name in names[:3]])
    assert len({picture.tobytes() for picture in pictures}) == 3
    deviation = (4 * pictures.std(axis=0, ddof=1)).clip(0, 255)
    assert abs(small.picture("Spread") - deviation).max() <= 8  # of rounding
    assert (pictures[0] == small.picture("ddnm, photo-mupet")).all()  # the one that is scored


def test_what_is_shown_belongs_together(small: Demo) -> None:
    """Other methods grey the results, another problem hides them; what was changed during a run does so at its end."""
    pictures, details, changed = (small.part(*at) for at in (("board", ".rows"), ("details",), ("changed",)))
    small.methods(PINV)
    small.restore()
    expect(changed).to_have_count(0)
    for settings, grey in (("steps=2", True), ("", False)):
        small.write("settings1", settings)
        expect(changed).to_have_count(int(grey))
        for part in (pictures, details):
            expect(part).to_have_css("opacity", "0.45" if grey else "1")
    small.write("settings1", "stepz=2")
    small.part("go").click()
    expect(small.part("status", "p.error[role=alert]")).to_contain_text("unknown setting")
    expect(changed).to_be_visible()

    small.methods(("ddnm", "photo", "steps=200"))
    small.part("go").click()
    small.page.wait_for_function("document.querySelector('#board progress')?.value > 0")
    small.write("settings1", "steps=2")
    small.status("Done.", 60_000)
    expect(changed).to_be_visible()
    with small.changes():
        small.write("noise", "poisson:30")
    for part in (details, changed):
        expect(part).to_have_count(0)
    assert len(small.captions()) == 2


def test_silly_numbers_are_said_and_stay_as_they_were_typed(small: Demo) -> None:
    said = small.part("status", "p.error[role=alert]")
    silly = {
        "noise": {"-1": "got -1.0", "": "got ''", "1e9": "got 1000000000.0"},
        "side": {"0": "got 0", "-5": "got -5", "": "got nothing"},
        "seed": {"-7": "got -7", "1.5": "got 1.5", "": "got nothing"},
    }
    for name, answers in silly.items():
        right = small.part(name, "input").input_value()
        for text, answer in answers.items():
            small.write(name, text)
            small.part(name, "input").press("Tab")
            expect(said).to_contain_text(answer)
            expect(small.part("board", "img")).to_have_count(0)
            assert small.part(name, "input").input_value() == text
        small.write(name, right)
        small.page.locator(DEGRADED).wait_for()
        expect(said).to_have_count(0)
    small.write("count", "0")
    small.part("go").click()
    expect(said).to_contain_text("samples must be a whole number from 1 to 8, got 0")


def test_a_run_can_be_cancelled_and_the_next_one_runs(demo: Demo) -> None:
    demo.small()
    demo.write("settings1", "steps=1000")
    demo.part("go").click()
    demo.page.wait_for_function("document.querySelector('#board progress')?.value > 0")
    demo.part("stop").click()
    demo.status("Cancelled.")
    demo.methods(PINV)
    demo.restore()
    assert [row["Method"] for row in demo.scores()] == ["pinv, photo"]


def test_all_pictures_are_zoomed_and_moved_together(demo: Demo) -> None:
    """By the slider, by the wheel where the pointer is, by dragging; and back. Their pixels may be smooth."""
    demo.small()
    shown = demo.part("board", ".frame img")
    boxes = lambda: [image.bounding_box() or {} for image in shown.all()]  # noqa: E731
    frame = demo.part("board", ".frame").first.bounding_box()
    assert frame is not None
    width = frame["width"]
    assert [box["width"] for box in boxes()] == pytest.approx([width] * 2, abs=1)

    demo.part("board", ".zoom").fill("4")
    assert [box["width"] for box in boxes()] == pytest.approx([4 * width] * 2, rel=0.01)
    before = boxes()
    demo.page.mouse.move(frame["x"] + 50, frame["y"] + 50)
    demo.page.mouse.down()
    demo.page.mouse.move(frame["x"] + 80, frame["y"] + 70, steps=3)
    demo.page.mouse.up()
    moved = [(now["x"] - box["x"], now["y"] - box["y"]) for now, box in zip(boxes(), before, strict=True)]
    assert moved == [pytest.approx((30, 20), abs=1)] * 2  # as far as the pointer

    demo.part("board", ".whole").click()
    assert [box["width"] for box in boxes()] == pytest.approx([width] * 2, abs=1)
    demo.page.mouse.move(frame["x"] + 0.25 * width, frame["y"] + 0.75 * width)
    demo.page.mouse.wheel(0, -400)
    demo.page.wait_for_function("Number(document.querySelector('#board .zoom').value) > 1")
    zoomed = boxes()[0]
    scale = zoomed["width"] / width
    assert scale == pytest.approx(np.e, rel=0.05)
    under = ((frame["x"] + 0.25 * width - zoomed["x"]) / scale, (frame["y"] + 0.75 * width - zoomed["y"]) / scale)
    assert under == pytest.approx((0.25 * width, 0.75 * width), abs=2)  # what was under the pointer stays there
    assert demo.page.evaluate("scrollY") == 0

    drawn = shown.first
    for smooth in (True, False):
        demo.part("board", "input.smooth").set_checked(smooth)
        expect(drawn).to_have_css("image-rendering", "auto" if smooth else "pixelated")


def test_before_and_after(small: Demo) -> None:
    """Any two pictures of the comparison, and a handle between them."""
    small.methods(PINV, QUICK)
    small.restore()
    names = ["Degraded", "Original", "1. pinv, photo", "2. ddnm, photo-mupet"]
    assert small.options("left") == names
    assert small.options("right") == names
    assert [small.value("left"), small.value("right")] == names[2:]
    for nth, (side, name, file) in enumerate((("left", "Original", "original"), ("right", names[2], "1-pinv-photo"))):
        small.choose(side, name)
        address = re.compile(rf"/{file}[^/]*\.png$")
        expect(small.part("slider", "img").nth(nth)).to_have_attribute("src", address)
    expect(small.part("gap", "figcaption")).to_contain_text("Difference: 1. pinv, photo (DSM) − Original")

    after = small.part("slider", "img").nth(1)
    expect(after).to_have_css("clip-path", re.compile(r"50%\)$"))
    handle = small.part("slider", "[data-testid=slider] .icon-wrap")
    handle.scroll_into_view_if_needed()
    box, shown = handle.bounding_box(), after.bounding_box()
    assert box is not None
    assert shown is not None
    small.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    small.page.mouse.down()
    small.page.mouse.move(shown["x"] + 0.25 * shown["width"], box["y"], steps=4)
    small.page.mouse.up()
    cut = float(re.findall(r"([\d.]+)%", after.evaluate("e => e.style.clipPath"))[-1])
    assert cut == pytest.approx(25, abs=5)
