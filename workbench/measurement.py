"""Measurements of photos: degraded by a forward operator and noise, or taken as they came.

    photos -> degrade (forward operator, noise) or observe -> Degraded

One seed fixes everything, see ``restore.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from workbench.fitting import operator_behind, operator_for
from workbench.images import PLAUSIBLE, check_range
from workbench.models.prior import Prior
from workbench.models.wrappers import whole_or_tiles
from workbench.noise import Noise, NoiseLike, noise_from
from workbench.noise_level import noise_of
from workbench.operators.base import Operator
from workbench.operators.border import Frame, frame_of
from workbench.operators.compose import MaskedGrayscale
from workbench.operators.contract import check_measurement
from workbench.operators.inpainting import Inpainting
from workbench.operators.mri import MultiCoil
from workbench.operators.own import measure_own, spec_of
from workbench.operators.parse import is_own
from workbench.random import noise_source, stream_of
from workbench.text import fits, require

KERNEL_ERROR = 0.01  # noise that covers the error of an estimated kernel, by Köhler's photos


@dataclass(frozen=True)
class Degraded:
    """The measurements of B images, and what is known about them.

    Attributes:
        op: the forward model, for images of the original's size.
        y: the measurements ``op(original) + noise * eps``.
        original: (B, 3, H, W), or None for photos that came degraded.
        spec, noise, seed: how they were made; ``spec`` is the operator's text, or a short name of an object, and
            ``noise`` a standard deviation, or what is not the same everywhere.
        numbers: of the images, B of them; they choose the random streams.
        remark: what should be known of them, a line for messages; often empty.
        solver_seeds: seed of the solver's stream of each image, B of them; None: ``seed`` for all.

    Raises:
        ValueError: ``numbers`` or ``solver_seeds`` are not one per image; noise of another shape than ``y``.
    """

    op: Operator
    y: Tensor
    original: Tensor | None
    spec: str
    noise: float | Noise
    seed: int
    numbers: tuple[int, ...]
    solver_seeds: tuple[int, ...] | None = None
    remark: str = ""

    def __post_init__(self) -> None:
        for what, given in (("number", self.numbers), ("solver seed", self.solver_seeds)):
            if given is not None and len(given) != len(self.y):
                raise ValueError(f"expected one {what} per image ({len(self.y)}), got {len(given)}")
        if isinstance(self.noise, Noise):
            self.noise.check(self.y)

    def frame(self, multiple: int = 1) -> Frame | None:
        """The frame in which photos that came degraded are restored, see ``workbench.operators.border``; else None."""
        if self.original is not None or self.y.ndim != 4:
            return None
        return frame_of(self.op, (self.y.shape[-2], self.y.shape[-1]), multiple)

    def predicted(self, image: Tensor) -> Tensor:
        """The measurement of an ``image`` (B, 3, H, W), like ``y``; what is beyond an unknown border is its border."""
        frame = self.frame()
        return self.op(image) if frame is None else frame.cut(self.op(frame.put(image, frame.factor)))

    @property
    def picture(self) -> Tensor:
        """The measurements as pictures (B, 1 or 3, h, w): ``y`` where it is one, else its adjoint image."""
        return self.y if self.y.ndim == 4 and self.y.shape[1] in (1, 3) else self.op.adjoint(self.y)


@torch.no_grad()
def degrade(
    photos: Tensor,
    spec: Any,
    noise: NoiseLike = 0.0,
    seed: int = 0,
    prior: Prior | None = None,
    numbers: Sequence[int] | None = None,
) -> Degraded:
    """Degrade ``photos`` (B, 3, H, W) in [0, 1] by the operator written ``spec`` ("sr:4"), then add noise.

    Missing pixels are drawn for every image by itself; a Hadamard or Fourier pattern is the instrument's, one for all.

    Args:
        spec: or an operator of one's own, an object or its name, see ``workbench.operators.own.operator_from``.
        noise: standard deviation, in units of the [0, 1] range; if complex, of real and imaginary part each. Or what is
            not the same everywhere, see ``workbench.noise``: "poisson:30", a tensor that broadcasts to one measurement.
        prior: if given, also check that it takes pictures with so many channels.
        numbers: of the images, for batches of a longer list; 0, 1, ... if not given.

    Raises:
        ValueError: bad ``spec``, ``noise`` or ``seed``, values beyond [0, 1], not one number per image, or a size that
            the operator cannot take; the message names one that it can.
    """
    check_range(photos, "photos")
    noise = noise_from(noise)
    check_numbers(noise, seed)
    numbers = tuple(range(len(photos)) if numbers is None else numbers)
    if len(numbers) != len(photos):
        raise ValueError(f"expected one number per image ({len(photos)}), got {len(numbers)}")
    op = operator_for(spec, photos, seed, numbers)
    if prior is not None:
        whole_or_tiles(prior, *photos.shape[-2:]).check(photos)
    clean = measure_own(op, photos, spec_of(spec)) if is_own(spec) else op(photos)
    streams = [stream_of(seed, "noise", number) for number in numbers]
    if isinstance(noise, Noise):
        y = noise.add(clean, streams)
    else:
        y = clean + noise * noise_source(streams)(clean) if noise else clean
    y = op.blank(y) if isinstance(op, MultiCoil) else y
    return Degraded(op, y, photos, spec_of(spec), noise, seed, numbers)


def observe(photos: Tensor, spec: Any, noise: NoiseLike = 0.0, seed: int = 0, prior: Prior | None = None) -> Degraded:
    """Take ``photos`` (B, 3, h, w) as they are for measurements of operator ``spec``; ``noise`` is what they contain,
    or "auto" for what :func:`estimate_noise` finds in the measurement, of one photo at a time.

    Grey operators take the mean over channels, and what a mask says is lost is blanked. Each photo is number 0.

    Raises:
        ValueError: as :func:`degrade`, though noise may leave [0, 1]; or the operator's measurement is not a picture of
            that shape, or depends on chance (which pixels are missing?) and cannot be that of an existing photo.
    """
    remark, auto = "", isinstance(noise, str) and noise == "auto"
    if auto:
        if len(photos) != 1:
            raise ValueError(f"noise auto is for one photo at a time, got {len(photos)} photos")
        noise, remark = noise_of(photos)
    noise = noise_from(noise)
    check_numbers(noise, seed)
    more = 6 * (float(noise.level(photos).max()) if isinstance(noise, Noise) else noise)
    check_range(photos, "photos", PLAUSIBLE[0] - more, PLAUSIBLE[1] + more)
    op, blank = operator_behind(spec, photos, seed)
    if prior is not None:
        whole_or_tiles(prior, *blank.shape[-2:]).check(blank)
    y = photos if op.measurement_shape(blank.shape)[1] == photos.shape[1] else photos.mean(dim=1, keepdim=True)
    mask = op.outer if isinstance(op, MaskedGrayscale) else op
    lost = (mask.mask == 0).any(1)[0] if isinstance(mask, Inpainting) else None
    if auto and (lost is not None or y is not photos):  # a mean of channels has less noise than they
        noise, remark = noise_of(y, lost)
    if auto and isinstance(noise, float) and noise < KERNEL_ERROR and frame_of(op, (y.shape[-2], y.shape[-1])):
        remark += f"; if the kernel is an estimate, noise {KERNEL_ERROR} covers its error, else there may be grain"
    if isinstance(mask, Inpainting):
        y = mask(y)  # what is under the scratches of a photo is no measurement
    return Degraded(op, y, None, spec_of(spec), noise, seed, (0,) * len(y), remark=remark)


def measured(
    op: Operator, y: Tensor, noise: NoiseLike = 0.0, seed: int = 0, original: Tensor | None = None
) -> Degraded:
    """Measurements ``y`` (B, ...) of your own that are no photos, such as k-space, with all that operator ``op`` knows.

    Complex ones may come as they are. Divide ``y`` by a number that brings images into [0, 1]; for a prior of colour
    photos, give what is grey three equal channels: ``y.expand(-1, 3, ...)``. ``original`` is to compare with, if known.
    ValueError for bad ``noise`` or ``seed``, and for ``y`` that is not of the shape of ``op`` or not finite.
    """
    noise = noise_from(noise)
    check_numbers(noise, seed)
    y = torch.view_as_real(y.resolve_conj()) if isinstance(y, Tensor) and y.is_complex() else y
    shape = check_measurement(op, y)
    got = getattr(original, "shape", type(original).__name__)
    require(original is None or got == shape, "original", f"images of shape {shape}", got)
    y = op.blank(y) if isinstance(op, MultiCoil) else y
    return Degraded(op, y, original, spec_of(op), noise, seed, (0,) * len(y))


def samples(degraded: Degraded, count: int) -> Degraded:
    """One measurement ``count`` times, with solver seeds ``seed``, ``seed + 1``, ...: :func:`restore` samples them.

    Missing pixels and noise stay those of ``seed``, so image 0 is that of a restoration without this.

    Raises:
        ValueError: not one image, or a ``count`` below 1.
    """
    if len(degraded.y) != 1:
        raise ValueError(f"samples are of one measurement, got a batch of {len(degraded.y)}")
    require(fits(count, int) and count >= 1, "the number of samples", "a whole number, at least 1", repr(count))
    seeds = tuple(range(degraded.seed, degraded.seed + count))
    if count == 1:  # a copy may lie otherwise in memory, on which the last bit of a convolution depends
        return replace(degraded, solver_seeds=seeds)
    original = degraded.original
    return replace(
        degraded,
        y=torch.cat([degraded.y] * count),
        original=None if original is None else torch.cat([original] * count),
        numbers=degraded.numbers * count,
        solver_seeds=seeds,
    )


def check_numbers(noise: float | Noise, seed: int) -> None:
    """Raise ValueError unless ``noise`` is a standard deviation for pictures in [0, 1] and ``seed`` a seed."""
    require(isinstance(noise, Real | Noise), "noise", "a number, text, a tensor or a Noise", repr(noise))
    if not isinstance(noise, Noise) and not 0 <= noise <= 1:
        hint = f"; {noise:g}/255 = {noise / 255:.3g}?" if 1 < noise <= 255 else ""
        raise ValueError(f"noise is a standard deviation on the [0, 1] scale, got {noise}{hint}")
    require(fits(seed, int) and seed >= 0, "seed", "0 or more, a whole number", repr(seed))
