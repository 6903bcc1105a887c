"""Operators from short texts."""

from __future__ import annotations

import pytest
import torch
from operator_cases import normal, seeded

from workbench.operators import (
    JPEG,
    Blur,
    Compose,
    Grayscale,
    Identity,
    Inpainting,
    Operator,
    Separable,
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

SIZE = (64, 48)
SHAPE = (3, *SIZE)
EXPECTED = {
    "sr:4": lambda: SuperResolution(4),
    "sr:4:average": lambda: SuperResolution(4, "average"),
    "sr:2:gaussian": lambda: SuperResolution(2, "gaussian"),
    "sr:5": lambda: Separable(decimation(64, 5), decimation(48, 5)),
    "sr:32:average": lambda: Separable(decimation(64, 32, "average"), decimation(48, 32, "average")),
    "sr:1": lambda: SuperResolution(1),
    "blur:2": lambda: Blur(gaussian_kernel(2.0)),
    "blur:20,1": lambda: Blur(gaussian_kernel((20.0, 1.0))),
    "motion:9": lambda: Blur(motion_kernel(9, 45)),
    "motion:9,30": lambda: Blur(motion_kernel(9, 30)),
    "inpaint:0.8": lambda: Inpainting(random_mask(SIZE, 0.8, seeded())),
    "inpaint:0": lambda: Inpainting(torch.ones(SIZE)),
    "block:24": lambda: Inpainting(block_mask(SIZE, 24)),
    "text": lambda: Inpainting(text_mask(SIZE)),
    "stripes": lambda: Inpainting(stripes_mask(SIZE)),
    "gray": lambda: Grayscale(),
    "oldphoto": lambda: Compose(Inpainting(scratches_mask(SIZE, generator=seeded())), Grayscale()),
    "jpeg:10": lambda: JPEG(10),
    "denoise": lambda: Identity(),
    "none": lambda: Identity(),
    " blur:2 ": lambda: Blur(gaussian_kernel(2.0)),
}


@pytest.mark.parametrize("spec", EXPECTED)
def test_is_the_operator_it_says(spec: str) -> None:
    op, expected = parse_operator(spec, SHAPE, seeded()), EXPECTED[spec]()
    x = normal((2, *SHAPE), 1, torch.float32)
    assert type(op) is type(expected)
    assert torch.equal(op(x), expected(x))


def test_hadamard_and_grey_images() -> None:
    op = parse_operator("hadamard:0.5", (3, 64, 32), seeded())
    x = normal((1, 3, 64, 32), 1)
    assert torch.equal(op(x), WalshHadamard((64, 32), 0.5, seeded())(x))
    assert parse_operator("gray", (1, 8, 8))(normal((1, 1, 8, 8), 1)).shape == (1, 1, 8, 8)


BAD = {
    "": r"unknown operator ''; there are sr, blur, .*, none",
    "blurr:2": r"unknown operator 'blurr', did you mean 'blur'\?; there are sr, blur",
    "inpaiting:0.5": r"did you mean 'inpaint'\?",
    "xyz": "unknown operator 'xyz'; there are",
    "sr": r"'sr' \(sr:FACTOR\[:KERNEL\]\): needs a number from 1 to 48, got ''",
    "sr:": "needs a number from 1 to 48, got ''",
    "sr:0": "from 1 to 48, got '0'",
    "sr:-2": "from 1 to 48, got '-2'",
    "sr:2.5": "needs a whole number, got '2.5'",
    "sr:nan": "from 1 to 48, got 'nan'",
    "sr:inf": "from 1 to 48, got 'inf'",
    "sr:five": "from 1 to 48, got 'five'",
    "sr:4:bicubik": r"knows the kernels bicubic, average, gaussian, got 'bicubik', did you mean 'bicubic'\?",
    "sr:4:bicubic:1": "takes at most 2 arguments, got 3",
    "blur:0": "from 0.01 to 1000, got '0'",
    "blur:-1": "got '-1'",
    "blur:2,nan": "got 'nan'",
    "blur:1e9": "got '1e9'",
    "blur:2,": "got ''",
    "motion:0": "from 1 to 1000, got '0'",
    "motion:9,inf": "from -360 to 360, got 'inf'",
    "inpaint:1.5": "from 0 to 1, got '1.5'",
    "inpaint:80%": "got '80%'",
    "block:49": "from 1 to 48, got '49'",
    "text:2": "takes at most 0 arguments, got 1",
    "hadamard:0.5": "Walsh-Hadamard needs H x W to be a power of two, got 64x48",
    "hadamard:0": "from 1e-06 to 1, got '0'",
    "jpeg:0": "from 1 to 100, got '0'",
    "jpeg:101": "got '101'",
    "jpeg:10.5": "needs a whole number",
    "denoise:3": "takes at most 0 arguments",
}


@pytest.mark.parametrize("spec", BAD)
def test_says_in_one_line_what_is_wrong(spec: str) -> None:
    with pytest.raises(ValueError, match=BAD[spec]) as caught:
        parse_operator(spec, SHAPE, seeded())
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"image_shape must be \(C, H, W\), got \(64, 48\)"):
        parse_operator("sr:4", SIZE)
    with pytest.raises(ValueError, match="needs an RGB image, got 1 channels"):
        parse_operator("jpeg:10", (1, 8, 8))


def test_one_table_lists_them_all() -> None:
    listed = describe_operators()
    assert {syntax.split(":")[0] for syntax, _ in listed} == {spec.strip().split(":")[0] for spec in EXPECTED} | {
        "hadamard"
    }
    assert all(text and "\n" not in text for _, text in listed)
    for name in ("sr:4", "denoise"):
        assert isinstance(parse_operator(name, SHAPE), Operator)


def test_same_seed_same_operator() -> None:
    x = normal((1, 3, 64, 64), 1)
    for spec in ("inpaint:0.8", "oldphoto", "hadamard:0.5"):
        first, again, other = (parse_operator(spec, (3, 64, 64), seeded(s))(x) for s in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
