"""What was done to the photo: every degradation with its controls, masks, noise, and photos that came degraded."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.demo.browser import Demo, drop, needs_chromium, photo, pixels
from workbench.demo.controls import CONTROLS, TITLES, takes_kernel, takes_mask
from workbench.demo.presets import PRESETS, Preset
from workbench.operators.controls import Parameter, spec_with, values_in

pytestmark = needs_chromium
SLOW = ("mask", "oldphoto")  # they open the editor, which takes seconds
KINDS = {name: kind for name, kind in CONTROLS.items() if name not in SLOW}


def test_every_degradation_shows_its_sliders_and_writes_its_text(demo: Demo) -> None:
    """...and the preview shows what it does, for the default and for other values."""
    demo.unfold("framing")
    with demo.changes():
        demo.number("side", 60)
    assert demo.options("kind") == [*TITLES]
    with demo.changes():
        demo.choose("kind", "Compressed sensing")
    expect(demo.part("side", "input")).to_have_value("64")  # the nearest that it takes
    text = demo.part("degradation", "input")
    for name, (title, *parameters) in KINDS.items():
        with demo.changes():
            demo.choose("kind", title)
        values, numbers = values_in(name), iter(("first", "second"))
        expect(text).to_have_value(spec_with(name, values))
        controls = ["word" if parameter.choices else next(numbers) for parameter in parameters]
        for control in {"first", "second", "word"} - {*controls}:
            expect(demo.part(control)).to_have_count(0)
        for number, (control, parameter) in enumerate(zip(controls, parameters, strict=True)):
            expect(demo.part(control, "[data-testid=block-info]")).to_have_text(parameter.label)
            with demo.changes():
                values[number] = _turn(demo, control, parameter)
            expect(text).to_have_value(spec_with(name, values))


def _turn(demo: Demo, control: str, parameter: Parameter) -> float | str:
    """Another value than the default: by the word, or by a key on the slider."""
    if parameter.choices:
        word = next(choice for choice in parameter.choices if choice != parameter.default)
        demo.choose(control, word)
        return word
    slider, start = demo.part(control, "input[type=range]"), float(parameter.default)
    for name, value in (("min", parameter.low), ("max", parameter.high)):
        expect(slider).to_have_attribute(name, f"{value:g}")
    expect(slider).to_have_value(f"{start:g}")
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
    expect(demo.part("degradation", "input")).to_have_value("blur:1.5:1.5")
    first, second, *_ = [name for name, preset in PRESETS.items() if preset is not next(iter(PRESETS.values()))]
    demo.choose("preset", first)
    demo.choose("preset", second)
    expect(demo.part("degradation", "input")).to_have_value(PRESETS[second].degradation)
    expect(demo.part("about")).to_contain_text(PRESETS[second].about)
    network.detach()


def test_a_degradation_typed_by_hand_counts(demo: Demo) -> None:
    with demo.changes():
        demo.number("noise", 0)
    with demo.changes():
        demo.write("degradation", "blur:0.1:6")
    across, down = (np.abs(np.diff(demo.picture("Degraded").astype(float), axis=axis)).mean() for axis in (1, 0))
    assert min(across, down) < 0.6 * max(across, down)  # blurred along one direction only
    demo.part("degradation", "input").blur()
    for control, value in (("first", "0.1"), ("second", "6")):
        expect(demo.part(control, "input[type=range]")).to_have_value(value)
    with demo.changes():
        demo.part("degradation", "input").clear()
        demo.part("degradation", "input").press_sequentially("sr:2:gaussian,0.7")
    expect(demo.page.get_by_text("128×128 pixels").first).to_be_visible()
    expect(demo.part("word", "input")).to_have_value("gaussian")
    expect(demo.part("kind", "input")).to_have_value("Super-resolution")
    demo.part("first", "input[type=range]").press("ArrowRight")
    expect(demo.part("degradation", "input")).to_have_value("sr:3:gaussian:0.7")  # what has no slider stays


def test_what_is_no_degradation_is_said(demo: Demo) -> None:
    """While it is typed, and when Restore is pressed; the page goes on with the next one that is."""
    for text, sentence in {
        "sr:0": "'sr:0'",
        "mask:/etc/passwd": "'mask' takes the mask that you paint or upload here",
        "": "unknown operator",
    }.items():
        demo.write("degradation", text)
        demo.says(sentence)
        demo.part("go").click()
        demo.status(f"Please check: {sentence}")
    with demo.changes():
        demo.write("degradation", "sr:2")
    expect(demo.part("status", "p[role=alert]")).to_have_count(0)


def test_noise_and_seed(demo: Demo) -> None:
    """More noise, more of it; another seed, other noise; the same seed, the same picture."""
    with demo.changes():
        demo.choose("kind", "Noise alone")
    deviations = []
    for noise in (0.05, 0.1):
        with demo.changes():
            demo.number("noise", noise)
        gap = (demo.picture("Degraded").astype(float) - demo.picture("Original")) / 255
        deviations.append(gap.std())
    assert deviations == pytest.approx([0.05, 0.1], rel=0.05)
    first = demo.picture("Degraded")
    with demo.changes():
        demo.number("seed", 5)
    assert (demo.picture("Degraded") != first).mean() > 0.9
    with demo.changes():
        demo.number("seed", 0)
    assert (demo.picture("Degraded") == first).all()


def test_a_photo_that_came_degraded_is_taken_as_it_is(demo: Demo) -> None:
    """Cut out, not resized; no original is shown, and what comes out is larger by the factor."""
    demo.methods(("pinv", "photo", ""))
    demo.unfold("framing")
    with demo.changes():
        demo.number("side", 24)
    with demo.changes():
        demo.part("came", "input").check()
    expect(demo.part("fit").get_by_label("Cut out a square, as it is")).to_be_checked()
    assert demo.captions() == ["The photo as it came 24×24 pixels"]
    demo.restore()
    assert demo.picture("pinv, photo").shape == (96, 96, 3)
    assert "PSNR ↑" not in demo.scores()[0]  # nothing to compare with


def test_a_preset_sets_everything(demo: Demo) -> None:
    demo.unfold("framing")
    first, *others = PRESETS
    for name in (*others, first):
        demo.choose("preset", name)
        _shows(demo, PRESETS[name])


def _shows(demo: Demo, preset: Preset) -> None:
    expect(demo.part("about")).to_contain_text(preset.about)
    expect(demo.part("degradation", "input")).to_have_value(preset.degradation)
    kind = preset.degradation.partition(":")[0]
    assert demo.value("kind") == CONTROLS[kind][0]
    expect(demo.part("painting")).to_have_count(int(takes_mask(kind)))
    expect(demo.part("kernel")).to_have_count(int(takes_kernel(kind)))
    assert float(demo.value("noise")) == preset.noise
    assert int(demo.value("side")) == preset.side
    assert int(demo.value("count")) == preset.samples
    for number in range(1, 5):
        row = preset.methods[number - 1] if number <= len(preset.methods) else None
        assert demo.value(f"solver{number}") == (row.solver if row else "none")
        assert demo.value(f"settings{number}") == (row.settings if row else "")
        if row:
            assert demo.value(f"prior{number}") == row.prior


def test_a_mask_is_painted(demo: Demo) -> None:
    """Missing where the brush went and nowhere else; a run fills it."""
    demo.methods(("ddnm", "photo-mupet", "steps=2"))
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
    demo.restore()
    assert demo.scores()[0]["Method"] == "ddnm, photo-mupet"


def test_a_mask_is_uploaded(demo: Demo, tmp_path: Path) -> None:
    """White is lost; one of another size is refused."""
    drawn = np.zeros((256, 256), dtype=np.uint8)
    drawn[20:40, 60:80] = 255
    for name, rows in (("mask", drawn), ("half", drawn[:50])):
        Image.fromarray(rows).save(tmp_path / f"{name}.png")
    demo.choose("kind", "Painted mask")
    demo.says("paint over what is to be filled")
    with demo.changes():
        demo.part("mask", "input[type=file]").set_input_files(tmp_path / "mask.png")
    lost = np.abs(demo.picture("Degraded").astype(int) - demo.picture("Original")).max(axis=2) > 30
    assert lost[drawn > 0].mean() > 0.5  # the photo has black places itself
    assert lost[drawn == 0].mean() < 0.01
    drop(demo, "mask", tmp_path / "half.png")
    demo.says("the mask has 256x50 pixels")


def test_a_kernel_is_uploaded_seen_and_taken_home(demo: Demo, tmp_path: Path) -> None:
    """Of a photo that came degraded; it counts until it is removed, or a preset is chosen."""
    drawn = np.diag([51, 102, 153, 204, 255]).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "motion.png")
    np.savez(tmp_path / "two.npz", first=drawn, second=drawn)
    demo.methods(("pinv", "photo-control", ""))
    demo.unfold("framing")
    with demo.changes():
        demo.part("came", "input").check()
    with demo.changes():
        demo.number("side", 32)
    with demo.changes():
        drop(demo, "photo", photo(tmp_path / "mine.png", 64, 64))
    demo.choose("kind", "Blur")
    expect(demo.part("degradation", "input")).to_have_value("blur:1.5:1.5")
    demo.part("kernel", "input[type=file]").set_input_files(tmp_path / "motion.png")
    demo.page.locator("#board img[alt=Kernel]").wait_for()
    expect(demo.part("board", ".kernel")).to_contain_text("Kernel 5×5")
    expect(demo.part("board", ".kernel")).to_contain_text("kernel.png: the kernel summed to 3 and was divided by it")
    assert (demo.picture("Kernel")[..., 0] == np.kron(drawn, np.ones((19, 19)))).all()
    demo.restore()
    assert [row["Method"] for row in demo.scores()] == ["pinv, photo-control"]
    assert (demo.picture("Kernel")[..., 0] == np.kron(drawn, np.ones((19, 19)))).all()
    with demo.page.expect_download() as download:
        demo.part("download").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    assert {"photo.png", "kernel.png", "run.json"} <= {*archive.namelist()}
    assert json.loads(archive.read("run.json"))["operator"] == "blur:kernel.png"
    assert (pixels(archive.read("kernel.png"))[..., 0] == drawn).all()
    demo.part("kernel", "[aria-label=Clear]").click()
    expect(demo.page.locator("#board img[alt=Kernel]")).to_have_count(0)
    demo.part("kernel", "input[type=file]").set_input_files(tmp_path / "two.npz")
    demo.says("one of first, second")
    demo.choose("preset", "MTDEQ: Gaussian against equilibrium prior")
    expect(demo.part("kernel", "input[type=file]")).to_have_count(1)  # empty again
    demo.page.locator("#board img[alt=Degraded]").wait_for()
    assert demo.page.locator("#board img[alt=Kernel]").count() == 0


def test_the_noise_of_the_photo_is_estimated(demo: Demo, tmp_path: Path) -> None:
    """The field and its slider take it, and the line stands until the noise is another."""
    noise = np.random.default_rng(0).normal(128, 0.08 * 255, (64, 64, 3))
    Image.fromarray(noise.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "noise.png")
    demo.unfold("framing")
    with demo.changes():
        demo.part("came", "input").check()
    with demo.changes():
        drop(demo, "photo", tmp_path / "noise.png")
    demo.part("estimate").click()
    demo.status("Noise estimated: 0.0")
    expect(demo.part("noise", "input")).not_to_have_value("0.01")
    level = float(demo.value("noise"))
    assert level == pytest.approx(0.08, rel=0.06)
    expect(demo.part("level", "input[type=range]")).to_have_value(f"{level:g}")
    demo.status(f"Noise estimated: {level:.3f}")
    demo.number("noise", 0.2)
    expect(demo.page.locator("#status .prose", has_text="estimated")).to_have_count(0)
