"""Kernels from files and arrays: read, normalised, placed, and refused where they are none."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from workbench.models import load_prior
from workbench.operators import Blur, SuperResolution
from workbench.operators.parse import parse_operator
from workbench.restore import degrade, restore, solver_of

# A motion as an estimator may write it: not normalised, not symmetric, even and odd sides.
MOTION = np.zeros((5, 6))
MOTION[4, 1:5], MOTION[1, 2] = 2.0, 1.0


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "k.npy", MOTION)
    np.savez(tmp_path / "one.npz", MOTION)
    np.savez(tmp_path / "two.npz", kernel1=MOTION, kernel2=np.ones((3, 3)) / 9)
    savemat(tmp_path / "k.mat", {"psf": MOTION})
    Image.fromarray((MOTION * 100).astype(np.uint8)).save(tmp_path / "a b,c:d.png")
    bands = Image.new("L", (6, 5), 255), Image.fromarray((MOTION * 100).astype(np.uint8))
    Image.merge("LA", bands).save(tmp_path / "layer.png")  # painted white where the kernel is
    return tmp_path


@pytest.mark.parametrize(
    "name", ["k.npy", "one.npz", "two.npz:kernel1", "k.mat", "k.mat:psf", "a b,c:d.png", "layer.png"]
)
def test_every_format_gives_the_same_blur(files, name):
    x = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    expected = torch.zeros_like(x)
    # A true convolution on the torus, the middle of the kernel being tap (kh // 2, kw // 2) = (2, 3).
    for row, column in np.argwhere(MOTION):
        expected += MOTION[row, column] / MOTION.sum() * x.roll((row - 2, column - 3), (-2, -1))
    blur = parse_operator(f"blur:{files}/{name}", (3, 12, 16))
    torch.testing.assert_close(blur(x), expected, rtol=0, atol=1e-12)
    assert "the kernel summed to" in blur.remark
    small = parse_operator(f"sr:2:{files}/{name}", (3, 12, 16))
    torch.testing.assert_close(small(x), SuperResolution(2, torch.from_numpy(MOTION / MOTION.sum()))(x))


def test_a_normalised_kernel_is_taken_as_it_is(files):
    blur = parse_operator(f"blur:{files}/two.npz:kernel2", (3, 12, 16))
    assert torch.equal(blur.kernel[0, 0], torch.ones(3, 3, dtype=torch.float64) / 9)
    assert blur.remark == ""


def test_the_remark_reaches_the_user(files):
    degraded = degrade(torch.rand(1, 3, 16, 16), f"blur:{files}/k.npy", 0.05)
    record = restore(degraded, solver_of("diffpir", {"steps": 5}), load_prior("photo")).records[0]
    assert record["message"] == "k.npy: the kernel summed to 9 and was divided by it"


def test_what_is_no_kernel_is_refused(files):
    Image.new("L", (5, 5)).save(files / "black.png")
    np.save(files / "cube.npy", np.ones((2, 3, 3)))
    np.save(files / "large.npy", np.ones((64, 64)))
    with zipfile.ZipFile(files / "text.npz", "w") as package:
        package.writestr("readme.txt", "no array")
    expected = {
        "blur:{}/black.png": "sum above 0, got 0",
        "blur:{}/cube.npy": r"kernel \(kh, kw\) of real numbers, got shape \(2, 3, 3\)",
        "blur:{}/text.npz": r"of real numbers, got shape \(\), ",
        "blur:{}/large.npy": "the kernel has 64x64 pixels, the image 12x16: is it a kernel",
        "blur:{}/two.npz": "which kernel. write two.npz:NAME with one of kernel1, kernel2, got none",
        "sr:5:{}/k.npy": "sides that are multiples of 5",
        "sr:4:{}/k.npy:kernel1": "nothing may follow the name of a file, got 'kernel1'",
    }
    for spec, message in expected.items():
        with pytest.raises(ValueError, match=message):
            parse_operator(spec.format(files), (3, 12, 16))


def test_arrays_and_lists_are_kernels():
    x = torch.rand(1, 1, 8, 8)
    rows = [[0.0, 0.25, 0.0], [0.25, 0.0, 0.25], [0.0, 0.25, 0.0]]
    expected = Blur(torch.tensor(rows))(x)
    assert torch.equal(Blur(rows)(x), expected)
    assert torch.equal(Blur(np.array(rows, dtype=np.float32)[::-1])(x), expected)
    assert torch.equal(Blur(np.array(rows, dtype=">f4"))(x), expected)  # as other machines wrote it
    small = SuperResolution(2, torch.tensor(rows))(x)
    assert torch.equal(SuperResolution(2, rows)(x), small)
    assert torch.equal(SuperResolution(2, np.array(rows, dtype=np.float32))(x), small)
    for kind in (Blur, lambda kernel: SuperResolution(2, kernel)):
        with pytest.raises(ValueError, match="kernel must be"):
            kind([[1.0, 2.0], [3.0]])


def test_a_kernel_of_8_bit_values_is_warned_of():
    kernel = np.zeros((9, 9), dtype=np.uint8)
    kernel[4, 1:8] = 255
    with pytest.warns(UserWarning, match="sums to 1785, not 1"):
        Blur(kernel)
