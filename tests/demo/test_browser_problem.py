"""The photo that is brought, and what was done to it: degradations, masks, noise, presets, and what came degraded."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from playwright.sync_api import expect

from tests.demo.browser import Demo, drop, needs_chromium, photo, pixels
from workbench.demo.controls import CONTROLS, takes_kernel, takes_mask
from workbench.demo.presets import PRESETS
from workbench.images import SAMPLES
from workbench.operators.controls import Parameter, spec_with, values_in

pytestmark = needs_chromium
TEXT = ("degradation", "input")
REMOVE = "[aria-label='Remove Image']"


def test_a_photo_is_uploaded_and_dropped(demo: Demo, tmp_path: Path) -> None:
    """Onto the empty place, which asks for one, and onto the photo that is there; every pixel is kept as it is."""
    demo.choose("kind", "Noise alone")
    demo.number("noise", 0)
    demo.unfold("framing")
    demo.part("fit").get_by_label("Keep every pixel").check()
    demo.page.get_by_text("451×300 pixels").first.wait_for()
    files = [photo(tmp_path / f"mine{seed}.png", seed=seed) for seed in range(3)]

    def empty() -> None:
        demo.part("photo", REMOVE).click()
        demo.says("choose a photo first")

    empty()
    demo.part("go").click()
    expect(demo.page.get_by_test_id("toast-text")).to_contain_text("choose a photo first")
    upload = demo.part("photo", "input[type=file]")
    ways = [lambda: upload.set_input_files(files[0]), *(partial(drop, demo, "photo", file) for file in files[1:])]
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


def test_a_degradation_is_written_by_its_controls_and_they_follow_what_is_typed(demo: Demo) -> None:
    """...and the preview shows what it does."""
    text = demo.part(*TEXT)
    demo.unfold("framing")
    with demo.changes():
        demo.number("side", 60)
    with demo.changes():
        demo.choose("kind", "Compressed sensing")
    expect(demo.part("side", "input")).to_have_value("64")  # the nearest that it takes
    title, *parameters = CONTROLS["sr"]
    with demo.changes():
        demo.choose("kind", title)
    values = values_in("sr")
    expect(text).to_have_value(spec_with("sr", values))
    expect(demo.part("second")).to_have_count(0)
    for number, (control, parameter) in enumerate(zip(["first", "word"], parameters, strict=True)):
        expect(demo.part(control, "[data-testid=block-info]")).to_have_text(parameter.label)
        with demo.changes():
            values[number] = _turn(demo, control, parameter)
        expect(text).to_have_value(spec_with("sr", values))
    with demo.changes():
        text.clear()
        text.press_sequentially("sr:2:gaussian,0.7")
    expect(demo.part("word", "input")).to_have_value("gaussian")
    expect(demo.part("kind", "input")).to_have_value("Super-resolution")
    demo.part("first", "input[type=range]").press("ArrowRight")
    expect(text).to_have_value("sr:3:gaussian:0.7")  # what has no slider stays


def _turn(demo: Demo, control: str, parameter: Parameter) -> float | str:
    """Another value than the default: by the word, or by a key on the slider."""
    if parameter.choices:
        word = next(choice for choice in parameter.choices if choice != parameter.default)
        demo.choose(control, word)
        return word
    slider, start = demo.part(control, "input[type=range]"), float(parameter.default)
    for name, value in (("min", parameter.low), ("max", parameter.high)):
        expect(slider).to_have_attribute(name, f"{value:g}")
    slider.press("ArrowRight")
    return round(start + parameter.step, 6)


def test_on_a_slow_line_the_last_choice_counts(demo: Demo) -> None:
    """Two choices, the second before the first was answered."""
    network = demo.page.context.new_cdp_session(demo.page)
    network.send("Network.enable")
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)
    demo.choose("kind", "JPEG")
    demo.choose("kind", "Blur")
    expect(demo.part(*TEXT)).to_have_value("blur:1.5:1.5")
    _, first, second, *_ = PRESETS
    demo.choose("preset", first)
    demo.choose("preset", second)
    expect(demo.part(*TEXT)).to_have_value(PRESETS[second].degradation)
    expect(demo.part("about")).to_contain_text(PRESETS[second].about)
    network.detach()


def test_mistakes_are_said_as_they_were_typed_and_the_page_goes_on(demo: Demo) -> None:
    demo.small()
    said = demo.part("status", "p.error[role=alert]")
    for name, text, answer in (("degradation", "sr:0", "'sr:0'"), ("side", "", "got nothing")):
        right = demo.part(name, "input").input_value()
        demo.write(name, text)
        demo.part(name, "input").press("Tab")
        expect(said).to_contain_text(answer)
        expect(demo.part("board", "img")).to_have_count(0)
        assert demo.part(name, "input").input_value() == text
        with demo.changes():
            demo.write(name, right)
        expect(said).to_have_count(0)
    demo.methods(("pinv", "photo", "zteps=3"))
    demo.part("go").click()
    expect(said).to_contain_text("method 1: unknown setting of pinv 'zteps'")
    demo.methods(("pinv", "photo", ""))
    demo.restore()
    assert [row["Method"] for row in demo.scores()] == ["pinv, photo"]


def test_a_preset_sets_everything(demo: Demo) -> None:
    demo.unfold("framing")
    for name in ("UD2M: nine evaluations against a hundred", "Old photo: colours and scratches"):
        preset = PRESETS[name]
        demo.choose("preset", name)
        expect(demo.part("about")).to_contain_text(preset.about)
        expect(demo.part(*TEXT)).to_have_value(preset.degradation)
        kind = preset.degradation.partition(":")[0]
        assert demo.value("kind") == CONTROLS[kind][0]
        expect(demo.part("painting")).to_have_count(int(takes_mask(kind)))
        expect(demo.part("kernel")).to_have_count(int(takes_kernel(kind)))
        numbers = [float(demo.value(control)) for control in ("noise", "side", "count")]
        assert numbers == [preset.noise, preset.side, preset.samples]
        for number, row in enumerate(preset.rows, 1):
            assert [demo.value(f"{what}{number}") for what in ("solver", "settings")] == [row.solver, row.settings]
            assert demo.value(f"prior{number}") == row.prior or row.solver == "none"


def test_a_mask_is_painted(demo: Demo) -> None:
    """Missing where the brush went and nowhere else, also after another change."""
    with demo.page.expect_response(lambda answer: "/upload" in answer.url):  # the editor has its picture
        demo.choose("kind", "Painted mask")
        demo.says("paint over what is to be filled")
        canvas = demo.part("painting", "canvas").first
        canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    with demo.changes():
        demo.page.mouse.move(x - 40, y)
        demo.page.mouse.down()
        demo.page.mouse.move(x + 40, y, steps=2)
        demo.page.mouse.up()
    lost = np.abs(demo.picture("Degraded").astype(int) - demo.picture("Original")).max(axis=2) > 30
    rows, columns = np.nonzero(lost)
    assert 0.005 < lost.mean() < 0.2
    assert abs(rows.mean() - 128) < 22
    assert np.ptp(columns) > np.ptp(rows)
    with demo.changes():
        demo.number("noise", 0)
    held = np.abs(demo.picture("Degraded").astype(int) - demo.picture("Original")).max(axis=2) > 0
    assert (held[lost]).all()  # what was painted stays


def test_a_photo_that_came_degraded_is_cut_out_its_noise_estimated_and_its_kernel_taken(
    demo: Demo, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(128, 0.08 * 255, (64, 64, 3))
    Image.fromarray(noise.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "noise.png")
    Image.fromarray(np.diag([51, 102, 153, 204, 255]).astype(np.uint8)).save(tmp_path / "motion.png")
    demo.unfold("framing")
    with demo.changes():
        demo.part("came", "input").check()
    expect(demo.part("fit").get_by_label("Cut out a square, as it is")).to_be_checked()
    with demo.changes():
        drop(demo, "photo", tmp_path / "noise.png")
    assert demo.captions() == ["The photo as it came 64×64 pixels"]

    demo.part("estimate").click()
    demo.status("Noise estimated: 0.0")
    expect(demo.part("noise", "input")).not_to_have_value("0.01")
    level = float(demo.value("noise"))
    assert level == pytest.approx(0.08, rel=0.06)
    demo.choose("kind", "Blur")
    expect(demo.part(*TEXT)).to_have_value("blur:1.5:1.5")
    demo.part("kernel", "input[type=file]").set_input_files(tmp_path / "motion.png")
    expect(demo.part("board", ".kernel")).to_contain_text("Kernel 5×5")
    demo.choose("preset", "MTDEQ: Gaussian against equilibrium prior")
    expect(demo.part("kernel", "input[type=file]")).to_have_count(1)  # empty again
    demo.page.locator("#board img[alt=Degraded]").wait_for()
    assert demo.page.locator("#board img[alt=Kernel]").count() == 0
