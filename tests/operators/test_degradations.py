"""Degradations drawn at random: each is the plain operator it is named after, and they come as often as they should."""

import re
from collections import Counter

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import normal, seeded
from workbench.operators import (
    Blur,
    Identity,
    Inpainting,
    Operator,
    Separable,
    SuperResolution,
    decimation,
    gaussian_kernel,
)
from workbench.random import Draws, generator
from workbench.trainers import Degradation, Degradations
from workbench.trainers.degradations import KINDS, Kind

F64 = torch.float64
SIZES = [(32, 32), (12, 9)]


def sample(count: int, size: tuple[int, int], seed: int = 0, **settings: object) -> Degradation:
    return Degradations(**settings).sample(count, size, Draws(generator(seed)))


def plain(kind: Kind, mask: Tensor) -> Operator:
    """The operator of the package that ``kind`` names, for one image as large as ``mask`` (1, 1, H, W)."""
    name, *parameters = kind
    if name == "super-resolution":
        factor, size = int(parameters[0]), mask.shape[2:]
        divides = not any(n % factor for n in size)
        return SuperResolution(factor) if divides else Separable(*(decimation(n, factor) for n in size))
    if name == "deblurring":
        return Blur(gaussian_kernel(parameters[0], dtype=F64))
    return Identity() if name == "denoising" else Inpainting(mask)


def on_canvas(y: Tensor, size: tuple[int, int]) -> Tensor:
    """``y`` in the upper left corner of zeros."""
    canvas = y.new_zeros(*y.shape[:2], *size)
    canvas[..., : y.shape[2], : y.shape[3]] = y
    return canvas


@pytest.mark.parametrize("size", SIZES)
def test_each_is_the_plain_operator(size: tuple[int, int]) -> None:
    count, weight = 60, 0.02
    op = sample(count, size)
    assert {kind[0] for kind in op.kinds} == set(KINDS)
    x, z, junk = (normal((count, 3, *size), seed) for seed in (1, 2, 3))
    assert op.adjointness_error(x.shape, generator(1), F64) < 1e-14
    y, gram = op(x), op.adjoint(op(x))
    weights = torch.rand(count, generator=seeded(4), dtype=F64) + weight
    # The general least-squares problem: also what lies beyond a smaller picture may hold noise.
    prox = op.prox(z, y + junk, weights)
    for i, kind in enumerate(op.kinds):
        j, one = slice(i, i + 1), plain(kind, op.mask[i : i + 1])
        small = one(x[j])
        torch.testing.assert_close(y[j], on_canvas(small, size), rtol=0, atol=1e-13)
        torch.testing.assert_close(gram[j], one.adjoint(small), rtol=0, atol=1e-13)
        noisy = small + junk[j, :, : small.shape[2], : small.shape[3]]
        torch.testing.assert_close(op.take(torch.tensor([i])).adjoint((y + junk)[j]), one.adjoint(noisy))
        torch.testing.assert_close(prox[j], one.prox(z[j], noisy, weights[j]), rtol=0, atol=1e-11)


def test_taken_images_keep_their_degradation() -> None:
    op, x, z = sample(12, (32, 32)), normal((12, 3, 32, 32), 1), normal((12, 3, 32, 32), 2)
    y, weights = op(x) + 0.1, torch.rand(12, generator=seeded(), dtype=F64)
    left = torch.tensor([True, False, False, True, True, False] * 2)
    for rows in (left, torch.tensor([3, 0, 3, 11])):
        some = op.take(rows)
        index = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        assert some.kinds == [op.kinds[i] for i in index.tolist()]
        torch.testing.assert_close(some(x[rows]), op(x)[rows], rtol=0, atol=1e-14)
        torch.testing.assert_close(some.adjoint(y[rows]), op.adjoint(y)[rows], rtol=0, atol=1e-14)
        again = some.prox(z[rows], y[rows], weights[rows])
        torch.testing.assert_close(again, op.prox(z, y, weights)[rows], rtol=0, atol=1e-12)
    assert op.take(left).take(torch.tensor([1])).kinds == [op.kinds[3]]


def test_parameters_cover_their_ranges() -> None:
    """Kinds are equally likely, and so are their parameters."""
    parameters: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for seed in range(3):
        for name, *values in sample(1000, (32, 40), seed).kinds:
            parameters[name].append(values)
    even = 3000 / len(KINDS)
    # Chi-square with 4 degrees of freedom exceeds 18.5 once in a thousand times.
    assert sum((len(values) - even) ** 2 / even for values in parameters.values()) < 18.5
    factors = Counter(value for (value,) in parameters["super-resolution"])
    assert set(factors) == set(range(1, 9))
    expected = factors.total() / 8
    assert sum((n - expected) ** 2 / expected for n in factors.values()) < 24.3  # 7 degrees of freedom, 1 in 1000
    for name, largest in (("deblurring", 8), ("pixels", 1)):
        values = torch.tensor(parameters[name]).flatten()
        assert 0 <= float(values.min()) < 0.02 * largest
        assert 0.98 * largest < float(values.max()) <= largest
        # The standard error of the mean is the range / sqrt(12 n).
        assert float(values.mean()) == pytest.approx(largest / 2, abs=4 * largest / (12 * len(values)) ** 0.5)
    sides = torch.tensor(parameters["block"])
    for each in sides.T:
        assert set(each.tolist()) == set(range(33))


def test_missing_pixels_are_those_asked_for() -> None:
    op = sample(300, (32, 32), kinds=("pixels",))
    assert op.mask.shape == (300, 1, 32, 32)
    assert set(op.mask.unique().tolist()) == {0.0, 1.0}
    rates = torch.tensor([kind[1] for kind in op.kinds])
    missing = 1 - op.mask.flatten(1).mean(1)
    deviation = (rates * (1 - rates) / 1024).sqrt() + 1e-3
    assert float(((missing - rates) / deviation).abs().max()) < 4.5
    assert len({tuple(mask.flatten().tolist()) for mask in op.mask}) == 300


@pytest.mark.parametrize(("size", "largest"), [((12, 48), 32), ((16, 16), 5)])
def test_blocks_are_rectangles_inside(size: tuple[int, int], largest: int) -> None:
    op = sample(300, size, kinds=("block",), largest_block=largest)
    tops, lefts = set(), set()
    for (_, height, width), mask in zip(op.kinds, op.mask[:, 0], strict=True):
        assert height <= min(largest, size[0])
        assert width <= min(largest, size[1])
        hole = (mask == 0).nonzero()
        assert len(hole) == height * width
        if len(hole):
            assert (hole.amax(0) - hole.amin(0) + 1).tolist() == [height, width]
            tops.add(int(hole[:, 0].min()))
            lefts.add(int(hole[:, 1].min()))
    assert len(tops) > size[0] // 2
    assert len(lefts) > size[1] // 4


@pytest.mark.parametrize("per", ["image", "batch"])
def test_processes_share_the_degradations_of_a_global_batch(per: str) -> None:
    """Two processes with 4 images each have those of one with 8, and are in step afterwards."""
    distribution, size = Degradations(per=per), (32, 24)
    for seed in range(2):
        streams = [Draws(generator(seed)), Draws(generator(seed), 0, 2), Draws(generator(seed), 1, 2)]
        whole = distribution.sample(8, size, streams[0])
        halves = [distribution.sample(4, size, draws) for draws in streams[1:]]
        assert halves[0].kinds + halves[1].kinds == whole.kinds
        for name, value in whole.named_buffers():
            assert torch.equal(torch.cat([half.get_buffer(name) for half in halves]), value)
        states = [draws.generator.get_state() for draws in streams]
        assert all(torch.equal(states[0], state) for state in states)


def test_one_for_the_batch_is_the_same_for_all_images() -> None:
    seen = set()
    for seed in range(30):
        op = sample(4, (32, 32), seed, per="batch")
        assert len(set(op.kinds)) == 1
        assert all(torch.equal(value, value[:1].expand_as(value)) for value in op.buffers())
        seen.add(op.kinds[0][0])
    assert seen == set(KINDS)


BAD = {
    "unknown kind": (lambda: Degradations(("deblurr",)), "kinds must be different ones of super-resolution, debl"),
    "count": (lambda: sample(0, (8, 8)), "at least one image of at least one pixel, got 0 of size (8, 8)"),
    "image": (lambda: sample(2, (8, 8))(torch.ones(2, 3, 8, 9)), "takes images (2, C, 8, 8), got shape (2, 3, 8, 9)"),
    "rows": (lambda: sample(2, (8, 8)).take(torch.ones(3, dtype=torch.bool)), "(b,) or bool (2,), got shape (3,)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_refused(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
