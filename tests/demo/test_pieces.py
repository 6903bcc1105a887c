"""The demo's small parts, without a server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from workbench.demo.compare import Stopped, follow
from workbench.demo.kernel import take_kernel
from workbench.demo.photo import frame
from workbench.demo.problem import Limits, Problem, check_size, read_noise, write_mask
from workbench.recipe import Method, Recipe, make_recipe

# follow


def test_follow_yields_the_newest_and_the_last():
    go = threading.Event()

    def work(emit):
        for number in range(100):
            emit(number)
        go.wait(5)
        emit("last")

    told = follow(work, every=0.05)
    first = next(told)
    time.sleep(0.1)
    go.set()
    rest = list(told)
    assert rest[-1] == "last"
    assert len(rest) < 10
    assert first == 99 or first in range(100)
    assert [value for value in [first, *rest] if value != "last"] == sorted(v for v in [first, *rest] if v != "last")


def test_closing_follow_stops_the_work_at_its_next_word():
    ended: list[str] = []
    over = threading.Event()

    def work(emit):
        try:
            while True:
                emit("on and on")
                time.sleep(0.01)
        except Stopped:
            ended.append("stopped")
            raise
        finally:
            over.set()

    told = follow(work, every=0.01)
    next(told)
    begun = time.monotonic()
    told.close()
    assert time.monotonic() - begun < 0.5
    assert over.wait(5)
    assert ended == ["stopped"]


def test_what_the_work_raises_arrives_after_what_it_said():
    def work(emit):
        emit(1)
        raise ZeroDivisionError("by work")

    told = follow(work, every=0.01)
    assert next(told) == 1
    with pytest.raises(ZeroDivisionError, match="by work"):
        next(told)


def test_work_that_says_nothing_yields_nothing():
    assert list(follow(lambda emit: None, every=0.01)) == []


# frame


def striped(width: int, height: int) -> Image.Image:
    """Red says the column, green the row."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def corner(image: torch.Tensor) -> tuple[int, int]:
    """Column and row of the photo at the upper left."""
    return round(float(image[0, 0, 0, 0]) * 255), round(float(image[0, 1, 0, 0]) * 255)


@pytest.mark.parametrize(
    ("across", "down", "place"), [(0, 0, (0, 0)), (1, 1, (68, 28)), (0.5, 0.5, (34, 14)), (1, 0, (68, 0))]
)
def test_crop_cuts_out_pixels_as_they_are(across, down, place):
    cut = frame(striped(100, 60), Problem(None, "crop", 32, across, down), 10**6)
    assert cut.shape == (1, 3, 32, 32)
    assert corner(cut) == place


def test_crop_takes_what_there_is():
    assert frame(striped(20, 60), Problem(None, "crop", 32), 10**6).shape == (1, 3, 32, 20)


def test_square_resize_and_whole():
    assert frame(striped(100, 60), Problem(None, "square", 24), 10**6).shape == (1, 3, 24, 24)
    assert frame(striped(100, 60), Problem(None, "resize", 50), 10**6).shape == (1, 3, 30, 50)
    assert frame(striped(250, 9), Problem(None, "resize", 50), 10**6).shape == (1, 3, 8, 50)  # no side of less than 8
    assert frame(striped(100, 60), Problem(None, "whole", 8), 10**6).shape == (1, 3, 60, 100)


@pytest.mark.parametrize("fit", ["square", "crop", "resize", "whole"])
def test_too_many_pixels_are_said(fit):
    with pytest.raises(ValueError, match="too many to restore"):
        frame(striped(100, 100), Problem(None, fit, 100), 100 * 100 - 1)
    frame(striped(100, 100), Problem(None, fit, 100), 100 * 100)


def test_a_fit_that_is_none():
    with pytest.raises(ValueError, match="expected one of"):
        frame(striped(100, 60), Problem(None, "stretch", 32), 10**6)


# Numbers


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "side",
            [0, -5, 7, 33.5, None, "", "64", [64], float("nan"), True],
            "the side in pixels must be a whole number of at",
        ),
        ("across", [-0.1, 1.1, None, "0.5"], "the crop from left to right must be a number from 0 to 1, got"),
        ("down", [-0.1, 1.1, None], "the crop from top to bottom must be a number from 0 to 1, got"),
        ("seed", [-7, 1.5, None, "1", 10**12, 10**400], "the seed must be a whole number from 0 to 2147483648, got"),
        ("noise", [-1, 1e9, "1.5", "nan", float("inf")], r"standard deviation on the \[0, 1\] scale, got"),
        (
            "noise",
            [None, "", "much", "poisson", "0.1,0.2"],
            "noise is a standard deviation, poisson:PEAK or poisson-gauss",
        ),
        ("noise", ["poisson:0", "poisson:-5"], "at least 1"),
        ("noise", ["poisson-gauss:2,0", "poisson-gauss:0.1,7"], r"on the \[0, 1\] scale: gain"),
        ("noise", ["own.py:mine", "os:path", "/etc/noise.py:NOISE"], r"noise is .*SIGMA, got '[^']+'$"),
    ],
)
def test_numbers_that_are_none_are_said_and_neither_rounded_nor_cut(name, values, message):
    for value in values:
        with pytest.raises(ValueError, match=message) as said:
            Problem(None, **{name: value})
        assert "FILE" not in str(said.value)
        assert "\n" not in str(said.value)
        assert len(str(said.value)) < 200


def test_noise_is_a_number_or_a_model():
    assert [read_noise(given) for given in (0, " 0.02 ", 1)] == [0.0, 0.02, 1.0]
    assert [read_noise(text) for text in ("poisson:50", "poisson-gauss:0.01,0.02")] == [
        "poisson:50",
        "poisson-gauss:0.01,0.02",
    ]


# Masks


def layer(box: tuple[int, int, int, int], opacity: int = 255, size: int = 64) -> np.ndarray:
    """A layer of the editor, painted in ``box``: left, top, right, bottom."""
    painted = np.zeros((size, size, 4), dtype=np.uint8)
    painted[box[1] : box[3], box[0] : box[2]] = (255, 45, 85, opacity)
    return painted


def test_layers_become_one_mask_of_the_picture_s_size(tmp_path):
    layers = [layer((8, 16, 24, 32)), layer((0, 0, 8, 8)), layer((40, 40, 60, 60), opacity=100)]
    path = write_mask(layers, (32, 16), tmp_path / "mask.png")
    assert path == tmp_path / "mask.png"
    expected = np.zeros((16, 32), dtype=np.uint8)
    expected[4:8, 4:12] = expected[0:2, 0:4] = 255  # the third is too faint
    assert np.array_equal(np.asarray(Image.open(path)), expected)


def test_nothing_and_everything_painted(tmp_path):
    assert write_mask([], (32, 32), tmp_path / "mask.png") is None
    assert write_mask([layer((0, 0, 0, 0))], (32, 32), tmp_path / "mask.png") is None
    assert not (tmp_path / "mask.png").exists()
    with pytest.raises(ValueError, match="everything is painted over"):
        write_mask([layer((0, 0, 64, 64))], (32, 32), tmp_path / "mask.png")


def spec(text: str, mask: Path | None) -> str:
    return Problem(None, degradation=text).spec(mask)


def test_operators_take_the_painted_mask_and_no_file_of_the_server():
    mask = Path("/folder/mask.png")
    assert spec(" sr:4 ", None) == spec("sr:4", mask) == "sr:4"
    assert spec("mask", mask) == "mask:/folder/mask.png"
    assert spec("oldphoto", mask) == "oldphoto:/folder/mask.png"
    assert spec("oldphoto", None) == "oldphoto"  # scratches of its own
    with pytest.raises(ValueError, match="paint over"):
        spec("mask", None)
    for text in ("mask:/etc/passwd", " mask:x", "oldphoto:/etc/passwd", "mask:"):
        for given in (None, mask):
            with pytest.raises(ValueError, match="no file name"):
                spec(text, given)


# Kernels


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("blur:1.5:1.5", "blur:/f/kernel.npy"),
        ("blur", "blur:/f/kernel.npy"),
        (" blur:20,1,9 ", "blur:/f/kernel.npy"),
        ("sr:4:bicubic", "sr:4:/f/kernel.npy"),
        ("sr:2", "sr:2:/f/kernel.npy"),
        ("motion:9:45", "motion:9:45"),
        ("mask", "mask:/f/mask.png"),
    ],
)
def test_operators_with_a_kernel_take_the_uploaded_one_and_the_others_stay(text, written):
    assert Problem(None, degradation=text).spec(Path("/f/mask.png"), Path("/f/kernel.npy")) == written


@pytest.mark.parametrize("text", ["blur:/etc/k.npy", "sr:4:k.npz:kernel1", "blur:kernel.png"])
def test_an_uploaded_kernel_lets_nobody_name_a_file(text):
    for kernel in (None, Path("/f/kernel.npy")):
        with pytest.raises(ValueError, match="name no file of the server"):
            Problem(None, degradation=text).spec(None, kernel)


def test_a_kernel_is_copied_under_a_name_of_its_own(tmp_path):
    np.save(tmp_path / "mine.npy", np.eye(3))
    (tmp_path / "MINE.NPY").write_bytes((tmp_path / "mine.npy").read_bytes())
    (tmp_path / "to").mkdir()
    path = take_kernel(tmp_path / "MINE.NPY", tmp_path / "to", 100)
    assert path == tmp_path / "to" / "kernel.npy"
    assert path.read_bytes() == (tmp_path / "mine.npy").read_bytes()


def test_what_is_no_kernel_is_said_by_its_name_alone(tmp_path):
    np.savez(tmp_path / "two.npz", first=np.eye(3), second=np.eye(5))
    np.savez_compressed(tmp_path / "packed.npz", np.ones((400, 400)))  # a small file, 1.28 MB in memory
    savemat(tmp_path / "packed.mat", {"k": np.ones((400, 400))}, do_compression=True)
    np.save(tmp_path / "large.npy", np.ones((400, 400)))
    Image.new("L", (11, 11), 255).save(tmp_path / "wide.png")
    Image.new("L", (3, 3), 255).save(tmp_path / "drawn.png", "EPS")
    (tmp_path / "kernel.txt").write_text("1 2 1")
    (tmp_path / "words.npy").write_text("1 2 1")
    (tmp_path / "broken.npz").write_bytes(b"PK" + bytes(30))
    expected = {
        "two.npz": "upload a file that holds one kernel: two.npz: which kernel.*one of first, second",
        "packed.npz": "packed.npz: 1.3 MB, a kernel has at most 1 MB",
        "packed.mat": "packed.mat: 1.3 MB, a kernel has at most 1 MB",
        "large.npy": "large.npy: 1.3 MB, a kernel has at most 1 MB",
        "wide.png": "wide.png: 11x11 pixels, the limit is 100",
        "drawn.png": "drawn.png: not an image",  # Pillow would have Ghostscript read it
        "kernel.txt": "kernel.txt: expected a kernel as .png, .npy, .npz, .mat",
        "words.npy": "one kernel: words.npy: no kernel can be read from it",
        "broken.npz": "one kernel: broken.npz: no kernel can be read from it",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message) as said:
            take_kernel(tmp_path / name, tmp_path, 100)
        assert str(tmp_path) not in str(said.value)
        assert "\n" not in str(said.value)
    assert not list(tmp_path.glob("kernel.[!t]*"))


# check_size


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


def test_of_a_photo_that_came_small_the_result_counts():
    limits = Limits(pixels=64 * 64)
    check_size(recipe(came=True), torch.zeros(1, 3, 16, 16), limits)
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
