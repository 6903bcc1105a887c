"""The demo's small parts, without a server."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.demo.compare import Stopped, follow
from workbench.demo.kernel import take_kernel
from workbench.demo.photo import frame
from workbench.demo.problem import Limits, Problem, Row, check_size, methods_of, read_noise, write_mask
from workbench.recipe import Method, Recipe, make_recipe


def test_closing_follow_stops_the_work_at_its_next_word_and_what_it_raises_arrives():
    stopped = threading.Event()

    def work(emit):
        try:
            while True:
                emit("on and on")
                time.sleep(0.01)
        except Stopped:
            stopped.set()
            raise

    told = follow(work, every=0.01)
    next(told)
    told.close()
    assert stopped.wait(5)

    def broken(emit):
        emit(1)
        raise ZeroDivisionError("by work")

    told = follow(broken, every=0.01)
    assert next(told) == 1
    with pytest.raises(ZeroDivisionError, match="by work"):
        next(told)


def striped(width: int, height: int) -> Image.Image:
    """Red says the column, green the row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_what_of_a_photo_is_restored():
    for across, down, place in ((0, 0, (0, 0)), (1, 1, (68, 28)), (0.5, 0.5, (34, 14)), (1, 0, (68, 0))):
        cut = frame(striped(100, 60), Problem(None, "crop", 32, across, down), 10**6)
        assert cut.shape == (1, 3, 32, 32)
        assert [round(255 * float(level)) for level in cut[0, :2, 0, 0]] == [*place]  # column and row, as they are
    for size, fit, side, shape in (
        ((20, 60), "crop", 32, (32, 20)),  # what there is
        ((100, 60), "square", 24, (24, 24)),
        ((100, 60), "resize", 50, (30, 50)),
        ((100, 60), "whole", 8, (60, 100)),
    ):
        assert frame(striped(*size), Problem(None, fit, side), 10**6).shape == (1, 3, *shape)
    for fit in ("square", "crop", "resize", "whole"):
        frame(striped(100, 100), Problem(None, fit, 100), 100 * 100)
        with pytest.raises(ValueError, match="too many to restore"):
            frame(striped(100, 100), Problem(None, fit, 100), 100 * 100 - 1)
    for fit in ("square", "resize"):
        with pytest.raises(ValueError, match=r"^1e\+300x1e\+300 pixels are too many"):  # not in 300 digits
            frame(striped(100, 100), Problem(None, fit, 1e300), 10**6)
    assert frame(striped(100, 10), Problem(None, "resize", 80), 10**6).shape == (1, 3, 8, 80)
    with pytest.raises(ValueError, match="the photo has 60x6 pixels, at least 8 a side"):  # and is not squeezed to 60x8
        frame(striped(100, 10), Problem(None, "resize", 60), 10**6)
    with pytest.raises(ValueError, match="expected one of"):
        frame(striped(100, 60), Problem(None, "stretch", 32), 10**6)


# Numbers


SIDE, SEED = "side in pixels must be a whole number of", "the seed must be a whole number from 0 to 2147483648, got"
SCALE = r"standard deviation on the \[0, 1\] scale, got"
WRONG = {  # of a problem: values, and what is said of each
    "side": [(value, SIDE) for value in (0, 7, 33.5, None, "64", [64], float("nan"), True)],
    "across": [(value, "left to right must be a number from 0 to 1, got") for value in (-0.1, 1.1, None, "0.5", True)],
    "down": [(1.1, "top to bottom must be a number from 0 to 1, got")],
    "seed": [(value, SEED) for value in (-7, 1.5, 10**12, 10**400, True)],
    "came": [(value, "came degraded must be true or false, got") for value in ("no", "False", 0, None, "x" * 1000)],
    "noise": [
        *((value, SCALE) for value in (-1, "1.5", "nan", float("inf"))),
        *((value, "noise is a standard deviation, poisson:PEAK or poisson-ga") for value in (None, "much", "0.1,0.2")),
        ("poisson:0", "at least 1"),
        ("poisson-gauss:2,0", r"gain must be in \[0, 1\], got 2"),
        *((value, r"noise is .*SIGMA, got '[^']+'$") for value in ("own.py:mine", "/etc/noise.py:NOISE")),
    ],
}


def test_numbers_that_are_none_are_said_and_neither_rounded_nor_cut():
    for name, cases in WRONG.items():
        for value, message in cases:
            with pytest.raises(ValueError, match=message) as said:
                Problem(None, **{name: value})
            assert "FILE" not in str(said.value)
            assert "\n" not in str(said.value)
            assert len(str(said.value)) < 200
    models = ["poisson:50", "poisson-gauss:0.01,0.02"]
    assert [read_noise(given) for given in (0, " 0.02 ", 1, *models)] == [0.0, 0.02, 1.0, *models]


def test_a_list_among_the_settings_may_have_spaces():
    for settings in (
        "steps=2 schedule=[1.0, 0.5, 0]",
        " steps=2  schedule=( 1.0, 0.5,0 ) ",
        "schedule=1.0,0.5,0 steps=2",
    ):
        (method,) = methods_of([Row("ddnm", "photo", settings)], {"photo": "photo"}, Limits())
        assert (method.settings["steps"], [*method.settings["schedule"]]) == (2, [1.0, 0.5, 0])


def test_methods_that_cannot_be_are_said_by_their_number():
    for row, message in (
        (Row("magic", "photo"), "method 1: unknown solver 'magic'"),
        (Row("ddnm", "/etc/passwd"), "unknown prior"),
        (Row("none", "photo"), "at least one method"),
        (Row("ddnm", "photo", f"steps={10**9}"), "up to 1000"),
        (Row("ddnm", "photo", "steps=!!python/object:os.system"), "must be int"),
        (Row("ddnm", "photo", "x" * 10_000), "300 characters"),
        # Without order: the sampler would fail with an error of Python.
        (
            Row("ddnm", "photo", "steps=2 schedule={1.0,0.5,0}"),
            r"schedule of ddnm must be str \| Sequence\[float\], got {",
        ),
        (Row("latino", "photo", "delta={0.1}"), "delta of latino must be float"),
        (Row("ddnm", "photo", "steps = 2"), "settings expects NAME=VALUE, got 'steps = 2'"),
        (Row("ddnm", "photo", "steps=2 eta"), "steps of ddnm must be int, got '2 eta'"),
    ):
        with pytest.raises(ValueError, match=message):
            methods_of([row], {"photo": "photo"}, Limits())


# Masks


def layer(box: tuple[int, int, int, int], opacity: int = 255, size: int = 64) -> np.ndarray:
    """A layer of the editor, painted in ``box``: left, top, right, bottom."""
    painted = np.zeros((size, size, 4), dtype=np.uint8)
    painted[box[1] : box[3], box[0] : box[2]] = (255, 45, 85, opacity)
    return painted


def test_layers_become_one_mask_of_the_picture_s_size(tmp_path):
    layers = [layer((8, 16, 24, 32)), layer((0, 0, 8, 8)), layer((40, 40, 60, 60), opacity=100)]
    path = tmp_path / "mask.png"
    for nothing in ([], [layer((0, 0, 0, 0))]):
        assert write_mask(nothing, (32, 32), path) is None
    assert not path.exists()
    with pytest.raises(ValueError, match="everything is painted over"):
        write_mask([layer((0, 0, 64, 64))], (32, 32), path)
    assert write_mask(layers, (32, 16), path) == path
    expected = np.zeros((16, 32), dtype=np.uint8)
    expected[4:8, 4:12] = expected[0:2, 0:4] = 255  # the third is too faint
    assert np.array_equal(np.asarray(Image.open(path)), expected)


@pytest.mark.parametrize(
    ("text", "alone", "with_files"),
    [
        (" sr:4 ", "sr:4", "sr:4:/f/kernel.npy"),
        ("sr:4:bicubic", "sr:4:bicubic", "sr:4:/f/kernel.npy"),
        ("motion:9:45", "motion:9:45", "motion:9:45"),
        ("oldphoto", "oldphoto", "oldphoto:/f/mask.png"),  # alone: scratches of its own
        ("mask", ValueError("paint over"), "mask:/f/mask.png"),
        *[(text, *[ValueError("no file name")] * 2) for text in ("mask:/etc/passwd", " mask:x", "oldphoto:x", "mask:")],
        *[(text, *[ValueError("name no file of the server")] * 2) for text in ("blur:/etc/k.npy", "sr:4:k.npz:b")],
        ("mri:4:k.npy", *[ValueError("of the server here$")] * 2),  # no coils can be uploaded
    ],
)
def test_operators_take_what_was_painted_or_uploaded_and_no_file_of_the_server(text, alone, with_files):
    for files, written in (((None, None), alone), ((Path("/f/mask.png"), Path("/f/kernel.npy")), with_files)):
        asked = Problem(None, degradation=text)
        if isinstance(written, str):
            assert asked.spec(*files) == written
            continue
        with pytest.raises(ValueError, match=str(written)):
            asked.spec(*files)


# Kernels


def test_a_kernel_is_copied_under_a_name_of_its_own_and_what_is_none_is_said_by_its_name_alone(tmp_path):
    np.save(tmp_path / "mine.npy", np.eye(3))
    (tmp_path / "mine.npy").rename(tmp_path / "MINE.NPY")
    assert take_kernel(tmp_path / "MINE.NPY", tmp_path, 100) == tmp_path / "kernel.npy"
    assert np.array_equal(np.load(tmp_path / "kernel.npy"), np.eye(3))
    np.savez(tmp_path / "two.npz", first=np.eye(3), second=np.eye(5))
    np.savez_compressed(tmp_path / "packed.npz", np.ones((400, 400)))  # a small file, 1.28 MB in memory
    Image.new("L", (11, 11), 255).save(tmp_path / "wide.png")
    Image.new("L", (3, 3), 255).save(tmp_path / "drawn.png", "EPS")
    (tmp_path / "broken.npz").write_bytes(b"PK" + bytes(30))
    expected = {
        "two.npz": "upload a file that holds one kernel: two.npz: which kernel.*one of first, second",
        "packed.npz": "packed.npz: 1.3 MB, a kernel has at most 1 MB",
        "wide.png": "wide.png: 11x11 pixels, the limit is 100",
        "drawn.png": "drawn.png: not an image",  # Pillow would have Ghostscript read it
        "broken.npz": "one kernel: broken.npz: no kernel can be read from it",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message) as said:
            take_kernel(tmp_path / name, tmp_path, 100)
        assert str(tmp_path) not in str(said.value)
        assert "\n" not in str(said.value)
    assert [file.name for file in tmp_path.glob("kernel.*")] == ["kernel.npy"]


def recipe(solver: str = "pinv", came: bool = False, degrade: str = "sr:4", **settings: object) -> Recipe:
    methods = (Method(solver=solver, prior="photo", settings=settings),)
    degradation = {"degrade": "none", "operator": degrade} if came else {"degrade": degrade}
    return make_recipe(photo="x.png", methods=methods, **degradation)


def test_results_may_have_so_many_pixels():
    limits = Limits(pixels=64 * 64)
    small, large = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 65)
    check_size(recipe(), small, limits)
    with pytest.raises(ValueError, match="65x64 pixels, the limit is 4,096"):
        check_size(recipe(), large, limits)
    check_size(recipe(came=True), torch.zeros(1, 3, 16, 16), limits)  # what comes out of it counts
    with pytest.raises(ValueError, match="68x64"):
        check_size(recipe(came=True), torch.zeros(1, 3, 16, 17), limits)
    check_size(recipe(came=True, degrade="gray"), torch.zeros(1, 3, 64, 64), limits)


def test_a_solver_of_all_levels_at_once_needs_memory():
    photo, limits = torch.zeros(1, 3, 128, 128), Limits(memory_gigabytes=1)
    check_size(recipe("deqir", steps=20), photo, limits)
    with pytest.raises(ValueError, match="GB of states, the limit is 1"):
        check_size(recipe("deqir", steps=500), photo, limits)
    check_size(recipe("deqir", steps=500, window=10), photo, limits)
    check_size(recipe("ddnm", steps=500), photo, limits)
