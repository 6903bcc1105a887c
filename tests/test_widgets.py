"""The tools for JupyterLab, without a browser: what a control says is what the figure shows."""

import base64
import io
import json
from functools import partial

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from tests.solvers.solver_problems import FunctionPrior
from workbench.evaluation.metrics import psnr
from workbench.images import sample_photo, to_uint8
from workbench.models import load_prior
from workbench.operators.controls import spec_with, values_in
from workbench.plots import strip
from workbench.random import stream
from workbench.restore import degrade, restore
from workbench.solvers import DDIM, DDNM, DeqIR
from workbench.widgets import comparison, operator_explorer, prior_inspector, restoration_player, training_monitor

matplotlib.use("Agg")
PHOTO = sample_photo("cat", 32)


def shown(tool):
    """Title -> the pixels of every picture in the figure."""
    return {axis.get_title(): np.asarray(axis.images[0].get_array()) for axis in tool.figure().axes if axis.images}


def lines(tool):
    """Name of the vertical axis -> x and y of its first line."""
    return {axis.get_ylabel(): axis.lines[0].get_data() for axis in tool.figure().axes if axis.lines}


def live(tool):
    """The pictures as JupyterLab has them."""
    return [Image.open(io.BytesIO(image.value)) for image in tool.children[-1].children]


def pixels(images):
    """The first of ``images`` as it is shown."""
    return to_uint8(images)[0].squeeze()


def prior():
    return FunctionPrior(lambda x, sigma: x / (1 + sigma.view(-1, 1, 1, 1)) + 0.1, sigma_max=1.0)


def recorded(solver, photos=PHOTO, spec="sr:2"):
    steps = []
    return restore(degrade(photos, spec, 0.02), solver, load_prior("photo"), callback=steps.append), steps


def test_sliders_of_an_operator_write_it_and_its_pictures_follow():
    tool = operator_explorer(PHOTO, "motion:5", noise=0)
    before = live(tool)
    length, angle = tool.controls["parameters"].children
    assert (length.description, length.value, angle.value) == ("Length, pixels", 5, 45)
    length.value = 9
    tool.controls["noise"].value = 0.1
    tool.controls["seed"].value = 3
    assert tool.controls["text"].value == "motion:9:45"
    expected = degrade(PHOTO, "motion:9", 0.1, seed=3)
    pictures = shown(tool)
    assert np.array_equal(pictures["y = A x + noise"], pixels(expected.y))
    assert np.array_equal(pictures["A†y"], pixels(expected.op.pinv(expected.y)))
    after = live(tool)
    assert [a.size for a in after] == [b.size for b in before]
    assert all(a.tobytes() != b.tobytes() for a, b in zip(after, before, strict=True))


def test_what_is_written_moves_the_sliders_and_what_cannot_be_is_said(tmp_path):
    tool = operator_explorer(PHOTO)
    tool.controls["text"].value = "blur:2,0.5,7"
    assert tool.controls["operator"].value == "blur"
    assert [control.value for control in tool.controls["parameters"].children] == [2, 0.5]
    assert np.array_equal(shown(tool)["y = A x + noise"], pixels(degrade(PHOTO, "blur:2,0.5,7", 0.01).y))
    tool.controls["parameters"].children[1].value = 0.6
    assert tool.controls["text"].value == "blur:2:0.6:7"
    tool.controls["text"].value = "blr:2"
    assert "did you mean 'blur'" in tool.note.value
    assert live(tool) == []
    assert "image/png" not in tool._repr_mimebundle_()
    with pytest.raises(ValueError, match="Operator explorer: nothing is shown"):
        tool.figure()
    own = tmp_path / "own.py"
    own.write_text("def half(shape):\n    return lambda x: x / 2\n")
    tool.controls["text"].value = f"{own}:half"
    assert tool.controls["operator"].value is None
    assert np.array_equal(shown(tool)["photo x"], pixels(PHOTO))
    assert operator_explorer(PHOTO, "block:8", "poisson:50").controls["noise"].value == "poisson:50"
    for arguments, message in (
        ((PHOTO, "nothing"), "unknown operator 'nothing'"),
        ((PHOTO, degrade(PHOTO, "gray", 0).op), "operator must be written"),
        ((torch.cat([PHOTO, PHOTO]),), r"one picture \(1, C, H, W\), got \(2, 3, 32, 32\)"),
        ((PHOTO[:, :2],), "photo x must be pictures of 1 or 3 channels, got 2 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            operator_explorer(*arguments)


def test_noise_that_no_slider_has_is_that_of_the_measurement():
    levels = torch.tensor([0.05, 0.1, 0.2]).view(3, 1, 1)
    tool = operator_explorer(PHOTO, "blur:1", levels)
    assert tool.controls["noise"].value == "sigma 0.05..0.2"
    tool.controls["seed"].value = 2
    assert np.array_equal(shown(tool)["y = A x + noise"], pixels(degrade(PHOTO, "blur:1", levels, seed=2).y))


def test_a_slider_changes_its_own_number_alone():
    for spec, values, changed, written in (
        ("blur:2", [2, 2], [2, 3], "blur:2:3"),  # one σ is that of both directions
        ("blur:20,1,9", [8, 1], [8, 2], "blur:20:2:9"),  # beyond the slider, and without one
        ("sr:4:gaussian,2", [4, "gaussian"], [3, "gaussian"], "sr:3:gaussian:2"),
        ("sr:4:gaussian,2", [4, "gaussian"], [4, "average"], "sr:4:average"),
        ("sr:4:k.npz:b", [4, "bicubic"], [2, "bicubic"], "sr:2:k.npz:b"),
        ("sr:nan", [4, "bicubic"], [2, "bicubic"], "sr:2:bicubic"),  # no place on a slider
        ("blur:k.npz:b", [1.5, 1.5], [2, 1.5], "blur:2:1.5"),
    ):
        assert values_in(spec) == values
        assert spec_with(spec.partition(":")[0], changed, spec) == written


def test_spectra_have_their_closed_form_and_their_units():
    tool = operator_explorer(PHOTO, "blur:2")
    assert tool.figure().axes[-1].get_xlabel() == "frequency, cycles per pixel"
    frequency, gain = lines(tool)["transfer function"]
    np.testing.assert_allclose(gain, np.exp(-2 * np.pi**2 * 4 * frequency**2), atol=0.01)  # the kernel is cut off
    share, values = lines(operator_explorer(PHOTO, "block:16"))["singular value"]
    assert np.array_equal(values, share < 75)  # a quarter of the pixels is missing
    assert lines(operator_explorer(PHOTO, "jpeg:10")) == {}


def test_the_player_goes_through_the_iterations_of_each_photo():
    photos = torch.cat([PHOTO, sample_photo("rocket", 32)])
    result, steps = recorded(DeqIR(4, iterations=3), photos)
    tool = restoration_player(result, iter(steps))
    tool.controls["iteration"].value = 2
    tool.controls["photo"].value = 2
    given = {"before": result.degraded.y, "iteration 2": steps[1].image, "after": result.image, "original": photos}
    pictures = shown(tool)
    assert list(pictures) == list(given)
    for title, images in given.items():
        assert np.array_equal(pictures[title], pixels(images[1:])), title
    scores = [float(psnr(step.image, photos, clip=True)[1]) for step in steps]
    np.testing.assert_allclose(lines(tool)["PSNR, dB"][1], scores)
    assert len(lines(tool)["residual"][1]) == len(steps)
    assert f"{int(steps[1].evaluations[1])} evaluations" in tool.note.value
    marked = live(tool)[1].tobytes()
    tool.controls["iteration"].value = 3
    assert live(tool)[1].tobytes() != marked
    assert [list(axis.lines[-1].get_xdata()) for axis in tool.figure().axes if axis.lines] == [[3] * 2] * 2


def test_tools_refuse_what_does_not_belong_together():
    two = torch.cat([PHOTO] * 2)
    mixed, (_, smaller) = recorded(DDNM(2)), recorded(DDNM(2), sample_photo("cat", 16))
    mixed = (mixed[0], [mixed[1][0], smaller[1]])
    for tool, arguments, message in (
        (restoration_player, (recorded(DDNM(2))[0], recorded(DDNM(2), two)[1]), r"steps: expected 1 images, .* got 2"),
        (partial(restoration_player, original=PHOTO[:, :1]), (recorded(DDNM(2))[0],), "expected pictures of 3x32x32"),
        (
            partial(restoration_player, before=PHOTO.numpy()),
            recorded(DDNM(2)),
            "before must be of type Tensor: .*ndarray",
        ),
        (restoration_player, mixed, "steps: expected pictures of 3x32x32, as in the restoration, got 3x16x16"),
        (comparison, ({"one": PHOTO[:0], "two": PHOTO[:0]},), "expected two or more pictures"),
        (comparison, ({"original": PHOTO, "two": PHOTO}, PHOTO), "named otherwise"),  # it would be covered
        (comparison, ({"one": PHOTO, "two": "two.png"},), "two must be of type Tensor: .*; got str"),
        (
            partial(prior_inspector, samples=1.5),
            (prior(), PHOTO),
            "samples must be a whole number, at least 1, got 1.5",
        ),
        (prior_inspector, ("photo",), "prior must be of type Prior: .*; got str"),
        (prior_inspector, (load_prior("photo-ud2m"),), r"the prior inspector needs a denoiser.*photo-ud2m"),
    ):
        with pytest.raises(ValueError, match=message):
            tool(*arguments)


def test_results_may_be_named_by_their_settings():
    assert list(shown(comparison({10: PHOTO, 20: PHOTO.flip(3)}))) == ["10", "20"]


def test_pictures_of_any_size_are_zoomed_to_the_same_place():
    result, _ = recorded(DDNM(2))
    tool = comparison({"degraded": result.degraded.picture, "DDNM": result}, original=PHOTO)
    tool.controls["zoom"].value = 4
    tool.controls["across"].value, tool.controls["down"].value = 100, 0
    axes = tool.figure().axes
    assert [axis.get_title() for axis in axes] == ["degraded", "DDNM", "original"]
    for axis, side in zip(axes, (16, 32, 32), strict=True):
        assert axis.get_xlim() == (0.75 * side - 0.5, side - 0.5)
        assert axis.get_ylim() == (0.25 * side - 0.5, -0.5)
    assert axes[1].get_xlabel() == f"{result.records[0]['psnr']:.2f} dB"
    assert axes[0].get_xlabel() == ""


def test_a_prior_denoises_at_the_level_of_the_slider_and_draws_samples():
    known = prior()
    tool = prior_inspector(known, PHOTO, sampler=DDIM(3), samples=2)
    tool.controls["sigma"].value = 0.5
    tool.controls["seed"].value = 7
    noisy = PHOTO + 0.5 * torch.randn(PHOTO.shape, generator=stream(7, "noise"))
    assert np.array_equal(shown(tool)["denoised"], pixels(known(noisy, 0.5)))
    assert 10 ** tool.controls["sigma"].max == pytest.approx(known.sigma_max)
    assert len(live(tool)) == 1
    tool.controls["samples"].click()
    streams = [stream(7, "sample", number) for number in range(2)]
    expected = DDIM(3)(known, (2, 3, 32, 32), generator=streams).image
    assert np.array_equal(shown(tool)["samples by DDIM"], pixels(strip(expected)))
    tool.controls["samples"].click()
    assert len(live(tool)) == 3


def test_samples_that_cannot_be_drawn_are_said_and_the_tool_goes_on():
    class Broken(DDIM):
        def __call__(self, *arguments, **options):
            raise MemoryError("no room for the samples")

    tool = prior_inspector(prior(), PHOTO, sampler=Broken(2), samples=2)
    tool.controls["samples"].click()
    assert "no room for the samples" in tool.note.value
    tool.controls["sigma"].value = 0.5
    assert list(shown(tool)) == ["photo", "with noise, σ = 0.5", "denoised"]


def run_folder(folder, steps):
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"settings.steps": 400}))
    with (folder / "log.jsonl").open("a") as file:
        for step in steps:
            line = {"step": step, "images": 8 * step, "seconds": step / 10, "loss": 1 / step, "waiting": 0.0}
            file.write(json.dumps(line) + "\n")


def test_every_tool_leaves_a_still_where_widgets_do_not_run(tmp_path):
    run_folder(tmp_path, [100, 200])
    result, steps = recorded(DDNM(2))
    tools = {
        "Operator explorer": operator_explorer(PHOTO),
        "Restoration player": restoration_player(result, steps),
        "Prior inspector": prior_inspector(prior(), PHOTO),
        "Comparison": comparison({"a": PHOTO, "b": result}),
        "Training monitor": training_monitor(tmp_path),
    }
    for title, tool in tools.items():
        bundle = tool._repr_mimebundle_()
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == tool.model_id
        assert bundle["text/plain"] == title  # the same in every run: nbval compares it
        still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
        assert still.size[0] == 850
        assert still.size[1] == pytest.approx(sum(picture.size[1] for picture in live(tool)), abs=2)
        assert len(np.unique(np.asarray(still.convert("L")))) > 10
