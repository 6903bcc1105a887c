"""What lies beyond the border of a photo that came degraded: not known, estimated, and cut off again.

Near its border a blurred photo depends on scenery outside the picture. A circular blur takes the opposite border for
that scenery, and deblurring turns the difference into waves. Here the measurement is continued beyond its border until
the scenery on opposite sides no longer meets; on that larger torus the circular operator is right and keeps its closed
forms, for every solver.

The continuation is the conditional mean of a stationary Gaussian field given the measurement (kriging): photos are
taken to have the power spectrum ``1/|f|^2`` (Field 1987), so their measurement has ``P = A diag(1/|f|^2) A^T``, which
is diagonal in Fourier space too, scaled to the variance that is seen. With ``Q = (P + sigma^2)^-1``, ``i`` the pixels
inside and ``o`` those outside (Rue and Held 2005, Theorem 2.5),

    y'_o = mean - Q_oo^-1 Q_oi (y_i - mean),   y'_i = y_i.

The system is solved by conjugate gradients. Outside are a band of rows and a band of columns that cross; for each alone
``Q`` is inverted exactly, since Fourier along the band leaves one small matrix per frequency. The sum of both inverses
is the preconditioner (additive Schwarz): some ten iterations at any size, kernel and noise.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.operators.base import Operator
from workbench.operators.blur import CircularBlur
from workbench.operators.super_resolution import SuperResolution

LEAKS = 0.005  # share of a kernel that may reach around the torus
FAINTEST = 0.01  # of the noise here: with less, borders are no better
TOLERANCE, LIMIT = 1e-4, 500  # of conjugate gradients


@dataclass(frozen=True)
class Frame:
    """Where a measurement lies in a larger one, in pixels of the measurement; images are ``factor`` times larger."""

    size: tuple[int, int]
    wide: tuple[int, int]
    factor: int

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the larger image."""
        return self.wide[0] * self.factor, self.wide[1] * self.factor

    def cut(self, y: Tensor, factor: int = 1) -> Tensor:
        """The part of ``y`` (B, C, H, W) inside the frame; of an image with its ``factor``."""
        (top, left), (height, width) = self.corner(factor), (factor * side for side in self.size)
        return y[..., top : top + height, left : left + width]

    def put(self, y: Tensor, factor: int = 1, name: str = "") -> Tensor:
        """``y`` (B, C, h, w) inside the frame, its border repeated. ValueError, ``name`` first, for another size."""
        expected = tuple(factor * side for side in self.size)
        if tuple(y.shape[-2:]) != expected:
            raise ValueError(f"{name}expected {expected[0]}x{expected[1]} pixels, got {y.shape[-2]}x{y.shape[-1]}")
        (top, left), room = self.corner(factor), [factor * (a - b) for a, b in zip(self.wide, self.size, strict=True)]
        return torch.nn.functional.pad(y, (left, room[1] - left, top, room[0] - top), mode="replicate")

    def corner(self, factor: int = 1) -> tuple[int, int]:
        """The first row and column inside."""
        top, left = ((wide - side) // 2 for wide, side in zip(self.wide, self.size, strict=True))
        return factor * top, factor * left


def frame_of(op: Operator, size: tuple[int, int], multiple: int = 1) -> Frame | None:
    """The frame that measurements of ``size`` need; None where none of their pixels depends on what is beyond them.

    ``multiple``: sides of the larger image are multiples of this.
    """
    if not isinstance(op, CircularBlur | SuperResolution):
        return None
    factor = op.factor if isinstance(op, SuperResolution) else 1
    around = [math.ceil(max(0, reach - factor // 2) / factor) for reach in _reach(op.kernel)]
    if not any(around):
        return None
    step = math.lcm(multiple, factor) // factor
    wide = [_fast(side + 2 * more, step) for side, more in zip(size, around, strict=True)]
    return Frame(size, (wide[0], wide[1]), factor)


def continue_beyond(y: Tensor, op: Operator, frame: Frame, sigma: float | Tensor) -> Tensor:
    """Measurements ``y`` (B, C, h, w) with noise ``sigma``, () or (B,), continued to the size ``frame.wide``; see the
    module."""
    # One by one: when conjugate gradients stop must not depend on the others.
    levels = torch.as_tensor(sigma, dtype=torch.float64).expand(len(y)).tolist()
    return torch.cat([_continued(one, op, frame, level) for one, level in zip(y.split(1), levels, strict=True)])


@torch.no_grad()
def _continued(y: Tensor, op: Operator, frame: Frame, sigma: float) -> Tensor:
    seen = y.detach().cpu().double()
    mean, variance = seen.mean((2, 3), keepdim=True), seen.var((2, 3), correction=0, keepdim=True)
    precision = 1 / (_measured_spectrum(op, frame, seen.shape[1]) * variance + max(sigma, FAINTEST) ** 2)
    planes = [_filled(*parts, frame.wide) for parts in zip((seen - mean)[0], precision[0], strict=True)]
    filled = torch.stack(planes)[None].roll(frame.corner(), (2, 3)) + mean
    frame.cut(filled).copy_(seen)  # to the bit
    return filled.to(y)


def _filled(seen: Tensor, precision: Tensor, wide: tuple[int, int]) -> Tensor:
    """``seen`` (h, w) in the first corner of a plane of size ``wide``, conditional means beyond it; no mean.

    ``precision``: the spectrum of ``Q``, (rows, columns / 2 + 1).
    """
    from scipy.sparse.linalg import LinearOperator, cg

    (height, width), plane = seen.shape, torch.zeros(wide, dtype=seen.dtype)
    beyond = torch.ones(wide, dtype=torch.bool)
    beyond[:height, :width] = False
    spectrum = torch.fft.fft2(torch.fft.irfft2(precision, s=wide))
    rows, columns = _Band(spectrum, wide[0] - height), _Band(spectrum.T, wide[1] - width)

    def placed(values: Any) -> Tensor:
        return torch.zeros_like(plane).masked_scatter_(beyond, torch.as_tensor(values, dtype=plane.dtype))

    def product(image: Tensor) -> Any:
        return torch.fft.irfft2(torch.fft.rfft2(image) * precision, s=wide)[beyond].numpy()

    def prepared(values: Any) -> Any:
        image, solved = placed(values), torch.zeros_like(plane)
        solved[height:] += rows.solve(image[height:])
        solved[:, width:] += columns.solve(image[:, width:].T).T
        return solved[beyond].numpy()

    plane[:height, :width] = seen
    shape = (int(beyond.sum()),) * 2
    matrix, ready = (
        LinearOperator(shape, matvec=function, dtype=np.float64)
        for function in (lambda v: product(placed(v)), prepared)
    )
    solved, _ = cg(matrix, -product(plane), M=ready, rtol=TOLERANCE, maxiter=LIMIT)
    return plane + placed(solved)


class _Band:
    """``count`` adjacent rows of a torus, for which the part of a circulant ``Q`` that joins them is inverted.

    ``spectrum``: of ``Q``, (rows, columns).
    """

    def __init__(self, spectrum: Tensor, count: int) -> None:
        lines = torch.fft.ifft(spectrum[:, : spectrum.shape[1] // 2 + 1], dim=0).T  # one per frequency along the rows
        lags = (torch.arange(count)[:, None] - torch.arange(count)) % len(spectrum)
        parts = [torch.linalg.inv(part[:, lags]).to(torch.complex64) for part in lines.split(64)]  # little memory
        self.inverse = torch.cat(parts)

    def solve(self, values: Tensor) -> Tensor:
        """``Q^-1`` of values (count, columns) within the band."""
        if not len(values):
            return values
        waves = torch.fft.rfft(values, dim=1).T[..., None].to(torch.complex64)
        return torch.fft.irfft((self.inverse @ waves)[..., 0].T, n=values.shape[1], dim=1)


def _measured_spectrum(op: Operator, frame: Frame, channels: int) -> Tensor:
    """``P`` (1, C, h, w/2 + 1) on the larger torus, float64, for a measurement of variance 1."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in frame.image_size)
    squared = rows[:, None] ** 2 + columns[: frame.image_size[1] // 2 + 1] ** 2
    squared[0, 0] = squared[squared > 0].min()
    impulse = torch.zeros(1, channels, *frame.wide, dtype=torch.float64)
    impulse[..., 0, 0] = 1
    spread = torch.fft.rfft2(op.adjoint(impulse)) / squared
    spectrum = torch.fft.rfft2(op(torch.fft.irfft2(spread, s=frame.image_size))).real.clamp(min=0)
    variance = torch.fft.irfft2(spectrum, s=frame.wide)[..., :1, :1]
    return spectrum / variance


def _fast(least: int, step: int) -> int:
    """A multiple of ``step``; a long one without large factors, which would slow Fourier transforms down."""
    from scipy.fft import next_fast_len

    count = math.ceil(least / step)
    return step * (count if count < 64 else next_fast_len(count))


def _reach(kernel: Tensor) -> list[int]:
    """How many pixels from its middle a kernel (..., kh, kw) has all but :data:`LEAKS` of its size, down and across."""
    reaches = []
    for dim, other in ((-2, -1), (-1, -2)):
        line = kernel.detach().abs().double().sum(other).flatten(0, -2).sum(0)
        distance = (torch.arange(len(line), device=line.device) - kernel.shape[dim] // 2).abs()
        beyond = [float(line[distance > reach].sum() / line.sum()) for reach in range(int(distance.max()) + 1)]
        reaches.append(next(reach for reach, share in enumerate(beyond) if share <= LEAKS))
    return reaches
