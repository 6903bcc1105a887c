"""The page as a whole: when it is usable, the comparison it opens with, what it sends where, and small screens."""

from __future__ import annotations

import re
import time
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.demo.browser import DEGRADED, Demo, needs_chromium, pixels
from tests.demo.conftest import Server
from workbench.demo.presets import PRESETS
from workbench.models import available_priors
from workbench.operators.parse import describe_operators
from workbench.recipe import load_recipe
from workbench.solvers import SOLVERS

pytestmark = needs_chromium
FEW = [("diffpir", "photo-control", "steps=3"), ("diffpir", "photo-mupet", "steps=3")]


def test_the_page_is_usable_within_seconds(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    demo = Demo(page)
    started = time.monotonic()
    demo.open(server.url)
    seconds = time.monotonic() - started
    print(f"\nserver up after {server.seconds:.1f} s, page usable {seconds:.1f} s later")
    expect(demo.part("go")).to_be_enabled()
    assert demo.captions()[:2] == ["Original 256×256 pixels", "Degraded 64×64 pixels"]
    assert demo.picture("Degraded").shape == (64, 64, 3)
    assert seconds < 15
    page.close()


def test_restore_runs_the_preset_it_opens_with(demo: Demo, tmp_path: Path) -> None:
    """Two methods, shown while they run; then scores, differences, curves, slider, and a zip file that says it all."""
    preset = next(iter(PRESETS.values()))
    names = [f"{row.solver}, {row.prior}" for row in preset.methods]  # then how the prior was trained, in brackets
    demo.page.evaluate(
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
    started = time.monotonic()
    demo.restore()
    print(f"\nthe preset took {time.monotonic() - started:.1f} s")
    seen, bars = demo.page.evaluate("[window.seen.map(s => s.size), [...window.bars]]")
    assert min(seen) >= 3  # two on their way, and the result
    assert len(bars) >= 2
    assert all(0 <= bar <= 1 for bar in bars)
    assert demo.part("board", "progress").count() == 0

    scores = demo.scores()[:2]  # then what the second has more than the first
    assert [row["Method"] for row in scores] == names
    assert all(5 < float(row["PSNR ↑"]) < 50 for row in scores)
    for name in names:  # the differences are four times |result - original|
        gap = abs(demo.picture(name).astype(float) - demo.picture("Original"))
        assert abs(demo.picture(name, nth=1) - (4 * gap).clip(0, 255)).max() <= 6  # of rounding
    expect(demo.part("curves", "svg")).to_be_visible()
    assert all(name in demo.part("curves", "svg").text_content() for name in names)
    assert demo.part("slider", "img").count() == 2

    with demo.page.expect_download() as download:
        demo.part("download").click()
    archive = zipfile.ZipFile(download.value.path())
    assert archive.testzip() is None
    archive.extractall(tmp_path)
    recipe = load_recipe(tmp_path / "run.json")
    assert [(m.solver, m.prior) for m in recipe.methods] == [(row.solver, row.prior) for row in preset.methods]
    stems = {f"{k}-{name.replace(', ', '-')}": name for k, name in enumerate(names, 1)}
    stems |= {"original": "Original", "degraded": "Degraded"}
    assert len(archive.namelist()) == len(stems) + 1
    for stem, name in stems.items():
        (file,) = tmp_path.glob(f"{stem}*.png")
        assert (pixels(file) == demo.picture(name)).all()

    demo.page.get_by_text("run.json: the same run on your machine").click()
    expect(demo.part("recipe", ".cm-content")).to_be_visible()
    shown = demo.part("recipe", ".cm-content").inner_text()
    begin = re.sub(r"\s", "", shown)[:200]  # the editor draws no more lines than fit
    assert re.sub(r"\s", "", (tmp_path / "run.json").read_text()).startswith(begin)


def test_the_reference_lists_every_solver_prior_and_degradation(demo: Demo) -> None:
    demo.unfold("reference")
    listed = demo.part("reference", "td code")
    listed.first.wait_for()
    names = {text.partition(":")[0] for text in listed.all_inner_texts()}
    operators = {syntax.partition(":")[0] for syntax, _ in describe_operators()}
    assert {*SOLVERS, *available_priors(), *operators} - {"network"} <= names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_the_page_follow_the_visitors_scheme(context: BrowserContext, server: Server, scheme: str) -> None:
    """In either: nothing from elsewhere, no complaints, and text stands out from what is behind."""
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)
    demo = Demo(page)
    demo.open(server.url)
    light = page.evaluate(
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
    behind, *texts = light
    assert behind < 0.1 if scheme == "dark" else behind > 0.8
    assert all((max(text, behind) + 0.05) / (min(text, behind) + 0.05) >= 4.5 for text in texts)  # WCAG 2, AA
    page.close()
    assert demo.complaints == []
    assert demo.elsewhere == []


def test_nothing_is_cut_off_on_small_screens(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    width = 400
    page.set_viewport_size({"width": width, "height": 800})
    demo = Demo(page)
    demo.open(server.url)
    demo.small()
    demo.methods(*FEW)
    demo.restore()
    demo.page.locator(DEGRADED).wait_for()
    document, window = demo.width()
    assert document <= window
    ids = "preset photo samples fit side across down came kind first word degradation kernel noise estimate seed count"
    ids += " go stop board slider left right download scores curves reference"
    for name in [*ids.split(), *(f"{what}{k}" for what in ("solver", "prior", "settings") for k in range(1, 5))]:
        box = demo.part(name).bounding_box()
        assert box is not None, name
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= width, name
        assert min(box["width"], box["height"]) >= 30, name
    page.close()


def test_two_visitors_see_their_own_results(context: BrowserContext, demo: Demo, server: Server) -> None:
    browser = context.browser
    assert isinstance(browser, Browser)
    other = Demo(browser.new_page())
    other.open(server.url)
    for visitor, steps in ((demo, 2), (other, 4)):
        visitor.small()
        visitor.methods(("diffpir", "photo-control", f"steps={steps}"))
        visitor.part("go").click()
    for visitor, steps in ((demo, 2), (other, 4)):
        visitor.status("Done.")
        visitor.part("scores", "[data-index]").first.wait_for()
        assert [row["Evaluations"] for row in visitor.scores()] == [str(steps)]
    other.page.close()
