"""What lies beyond the border of a photo that came degraded: not known, estimated, and cut off again.

Near its border a blurred photo depends on scenery outside the picture. A circular blur takes the opposite border for
that scenery, and deblurring turns the difference into waves. Here the measurement is continued beyond its border until
the scenery on opposite sides no longer meets; on that larger torus the circular operator is right and keeps its closed
forms, for every solver.

The continuation is the conditional mean of a stationary Gaussian field given the measurement (kriging): photos are
taken to have the power spectrum ``1/|f|^2`` (Field 1987), so their measurement has ``P = A diag(1/|f|^2) A^T``, which
is diagonal in Fourier space too, scaled to the variance that is seen. With ``M`` the choice of the seen pixels,

    y' = mean + P M^T (M P M^T + sigma^2)^-1 (y - mean)     outside,   y' = y    inside.

The system is solved by conjugate gradients with ``M (P + sigma^2)^-1 M^T`` as preconditioner.
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
FAINTEST = 0.01  # of the noise here: with less it takes up to three times as long, and borders are no better
TOLERANCE, LIMIT = 0.01, 500  # of conjugate gradients: at 0.01 deblurred borders are within 0.1 dB of the limit


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
        (top, left), (height, width) = self._corner(factor), (factor * side for side in self.size)
        return y[..., top : top + height, left : left + width]

    def put(self, y: Tensor, factor: int = 1, name: str = "") -> Tensor:
        """``y`` (B, C, h, w) inside the frame, its border repeated. ValueError, ``name`` first, for another size."""
        expected = tuple(factor * side for side in self.size)
        if tuple(y.shape[-2:]) != expected:
            raise ValueError(f"{name}expected {expected[0]}x{expected[1]} pixels, got {y.shape[-2]}x{y.shape[-1]}")
        (top, left), room = self._corner(factor), [factor * (a - b) for a, b in zip(self.wide, self.size, strict=True)]
        return torch.nn.functional.pad(y, (left, room[1] - left, top, room[0] - top), mode="replicate")

    def _corner(self, factor: int) -> tuple[int, int]:
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
    from scipy.sparse.linalg import LinearOperator, cg

    seen = y.detach().cpu().float()
    mean, sides = seen.mean((2, 3), keepdim=True), frame.wide
    centred, noise = seen - mean, max(sigma, FAINTEST) ** 2
    spectrum = _measured_spectrum(op, frame, seen.shape[1]).float() * seen.var((2, 3), correction=0, keepdim=True)

    def masked(values: Any, gain: Tensor) -> Tensor:
        planes = torch.zeros(*seen.shape[:2], *sides, dtype=torch.float32)
        frame.cut(planes).copy_(torch.as_tensor(values, dtype=torch.float32).view(seen.shape))
        return torch.fft.irfft2(torch.fft.rfft2(planes) * gain, s=sides)

    def inside(gain: Tensor, ridge: float = 0.0) -> Any:
        def product(v: Any) -> Any:
            return frame.cut(masked(v, gain)).reshape(-1).numpy() + ridge * v

        return LinearOperator((seen.numel(),) * 2, matvec=product, dtype=np.float32)

    right, ready = centred.reshape(-1).numpy(), inside(1 / (spectrum + noise))
    solved, _ = cg(inside(spectrum, noise), right, M=ready, rtol=TOLERANCE, maxiter=LIMIT)
    continued = masked(solved, spectrum)
    frame.cut(continued).copy_(centred)
    return (continued + mean).to(y)


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
