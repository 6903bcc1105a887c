"""Operators from short texts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.operators.operator_cases import normal, seeded
from workbench.operators import (
    JPEG,
    Blur,
    Compose,
    Grayscale,
    Identity,
    Inpainting,
    Separable,
    SpectralOperator,
    SuperResolution,
    WalshHadamard,
    block_mask,
    decimation,
    describe_operators,
    gaussian_kernel,
    motion_kernel,
    parse_operator,
    random_mask,
    scratches_mask,
    stripes_mask,
    text_mask,
)
from workbench.operators.masks import file_mask

SIZE = (64, 32)
SHAPE = (3, *SIZE)
EXPECTED = {
    "sr:4": lambda: SuperResolution(4),
    "sr:2:gaussian": lambda: SuperResolution(2, "gaussian"),
    "sr:5": lambda: Separable(decimation(64, 5), decimation(32, 5)),
    "blur:2": lambda: Blur(gaussian_kernel(2.0)),
    "blur:20,1": lambda: Blur(gaussian_kernel((20.0, 1.0))),
    "blur:20,1,9": lambda: Blur(gaussian_kernel((20.0, 1.0), size=9)),
    "motion:9": lambda: Blur(motion_kernel(9, 45)),
    "inpaint:0.8": lambda: Inpainting(random_mask(SIZE, 0.8, seeded())),
    "block:24": lambda: Inpainting(block_mask(SIZE, 24)),
    "text": lambda: Inpainting(text_mask(SIZE)),
    "stripes": lambda: Inpainting(stripes_mask(SIZE)),
    "gray": lambda: Grayscale(),
    "oldphoto": lambda: Compose(Inpainting(scratches_mask(SIZE, generator=seeded())), Grayscale()),
    "jpeg:10": lambda: JPEG(10),
    "denoise": lambda: Identity(),
    "hadamard:0.5": lambda: WalshHadamard((64, 32), 0.5, seeded()),
}


@pytest.mark.parametrize("spec", EXPECTED)
def test_is_the_operator_it_says(spec: str) -> None:
    op, expected = parse_operator(spec, SHAPE, seeded()), EXPECTED[spec]()
    x = normal((2, *SHAPE), 1, torch.float32)
    assert type(op) is type(expected)
    assert torch.equal(op(x), expected(x))


BAD = {
    "": r"unknown operator ''\. There are: sr, blur, .*, none",
    "blurr:2": r"unknown operator 'blurr', did you mean 'blur'\? There are: sr, blur",
    "sr": r"'sr' \(sr:FACTOR\[:KERNEL\[,SIGMA\]\]\): needs a number from 1 to 32 at this size, got ''",
    "sr:0": "from 1 to 32 at this size, got '0'",
    "sr:4:bicubik": r"unknown kernel 'bicubik', did you mean 'bicubic'\? There are: bicubic, average, gaussian",
    "sr:4:bicubic:1": "only a gaussian kernel takes a standard deviation, got bicubic",
    "blur:2,": "got ''",
    "mask": r"'mask' \(mask:FILE\): needs the file of a mask: white is filled, black is kept",
    "oldphoto:none.png": r"'oldphoto:none.png' \(oldphoto\[:FILE\]\): none.png: no such file",
    "motion:9,nan": "from -360 to 360, got 'nan'",
    "inpaint:1.5": "from 0 to 1, got '1.5'",
    "inpaint:0.9999": "all pixels are lost",
    "blur:kernel.tif": r"got 'kernel.tif'; a file there ends with .png, .npy, .npz or .mat",
}


@pytest.mark.parametrize("spec", BAD)
def test_says_in_one_line_what_is_wrong(spec: str) -> None:
    with pytest.raises(ValueError, match=BAD[spec]) as caught:
        parse_operator(spec, SHAPE, seeded())
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_old_photo_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(ValueError, match="all pixels are lost"):
        parse_operator("oldphoto", (3, 1, 16), seeded())


def test_the_published_blur_in_closed_form() -> None:
    """DDRM, DDNM and DeqIR: exp(-x^2 / (2 sigma^2)) over 9 taps, sigma 20 along rows and 1 along columns."""
    impulse = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    impulse[..., 10, 10] = 1
    taps = torch.arange(-4, 5, dtype=torch.float64)
    row, column = (torch.exp(-(taps**2) / (2 * sigma**2)) for sigma in (20, 1))
    expected = torch.zeros(21, 21, dtype=torch.float64)
    expected[6:15, 6:15] = torch.outer(column / column.sum(), row / row.sum())
    # The kernel is stored in float32.
    torch.testing.assert_close(parse_operator("blur:20,1,9", (1, 21, 21))(impulse)[0, 0], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("spec", ["sr:32", "blur:10,10,5", "text", "gray"])
def test_the_tasks_of_deqir_are_one_word_for_any_size(spec: str) -> None:
    size = (63, 90)
    op = parse_operator(spec, (3, *size))
    x = normal((1, 3, *size), 1)
    y = op(x)
    torch.testing.assert_close(op(op.pinv(y)), y, rtol=0, atol=2e-3)
    assert tuple(y.shape[2:]) == ((2, 3) if spec == "sr:32" else size)


def painted(path: Path, mask: torch.Tensor, mode: str = "L") -> Path:
    """A picture with the levels (H, W) or (H, W, 3), 0 to 255."""
    Image.fromarray(mask.to(torch.uint8).numpy()).convert(mode).save(path)
    return path


@pytest.mark.parametrize("name", ["mask.png", "mask:sr:4, d.png"])
def test_a_painted_mask_loses_what_is_white(tmp_path: Path, name: str) -> None:
    levels = torch.zeros(SIZE)
    levels[:, 10:14], levels[:5] = 255, 255
    levels[20, :4] = torch.tensor([1, 127, 128, 254])  # of a soft brush
    file = painted(tmp_path / name, levels)
    keep = (levels < 127.5).float()
    x = normal((2, *SHAPE), 1, torch.float32)
    op = parse_operator(f"mask:{file}", SHAPE)
    assert torch.equal(op(x), x * keep)
    assert keep[20, :4].tolist() == [1, 1, 0, 0]
    old = parse_operator(f" oldphoto:{file} ", SHAPE)
    torch.testing.assert_close(old(x), x.mean(1, keepdim=True) * keep, rtol=0, atol=1e-6)
    assert isinstance(old, SpectralOperator)
    for other in (painted(tmp_path / "binary.png", levels, "1"), painted(tmp_path / "red.png", levels, "RGB")):
        assert torch.equal(file_mask(other, SIZE)[0, 0, :20], keep[:20])


def test_a_layer_counts_by_what_is_painted_on_it(tmp_path: Path) -> None:
    """Also in black, where what is transparent is white."""
    layer = np.full((*SIZE, 4), 255, np.uint8)
    layer[..., 3] = 0
    layer[3] = (0, 0, 0, 255)
    layer[5, :2, 3] = (127, 128)
    Image.fromarray(layer).save(tmp_path / "layer.png")
    expected = torch.ones(1, 1, *SIZE)
    expected[..., 3, :] = expected[..., 5, 1] = 0
    assert torch.equal(file_mask(tmp_path / "layer.png", SIZE), expected)
    layer[..., 3] = 255  # an alpha channel that hides nothing: an ordinary picture
    layer[..., :3] = 0
    layer[3] = 255
    Image.fromarray(layer).save(tmp_path / "layer.png")
    assert file_mask(tmp_path / "layer.png", SIZE).sum() == (SIZE[0] - 1) * SIZE[1]


def test_masks_that_change_nothing_are_refused(tmp_path: Path) -> None:
    rule = r"white \(255\) is filled, black \(0\) is kept"
    file = painted(tmp_path / "ones.png", torch.full(SIZE, 127))
    with pytest.raises(ValueError, match=rf"fills nothing, its brightest value is 127 of 255: {rule}"):
        parse_operator(f"mask:{file}", SHAPE)
    Image.new("RGBA", (SIZE[1], SIZE[0]), (255, 255, 255, 0)).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"fills nothing, its most opaque value is 0 of 255: opaque \(255\) is filled"):
        parse_operator(f"mask:{tmp_path / 'empty.png'}", SHAPE)


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    painted(tmp_path / "other.png", torch.zeros(32, 64))
    painted(tmp_path / "white.png", torch.full(SIZE, 255))
    (tmp_path / "text.png").write_text("no picture")
    for file, message in (
        ("other.png", r"other.png: the mask has 64x32 pixels \(width x height\), the image has 32x64"),
        ("white.png", r"white.png: the mask is white everywhere: white \(255\) is filled"),
        ("text.png", r"text.png: not an image"),
        ("", "is a folder, expected an image"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_operator(f"mask:{tmp_path}/{file}", SHAPE)


def test_shapes_count() -> None:
    assert parse_operator("gray", (1, 8, 8))(normal((1, 1, 8, 8), 1)).shape == (1, 1, 8, 8)
    for spec, shape, message in (
        ("sr:4", SIZE, r"image_shape must be \(C, H, W\), got \(64, 32\)"),
        ("jpeg:10", (1, 8, 8), "needs an RGB image, got 1 channels"),
        ("hadamard:0.5", (3, 64, 48), "Walsh-Hadamard needs H x W to be a power of two, got 64x48"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_operator(spec, shape)


def test_one_table_lists_them_all() -> None:
    listed = describe_operators()
    names = {spec.strip().split(":")[0] for spec in EXPECTED} | {"mask", "mri", "none"}
    assert {syntax.split(":")[0].split("[")[0] for syntax, _ in listed} == names
    assert all(text and "\n" not in text for _, text in listed)
