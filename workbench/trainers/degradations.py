"""Degradations drawn at random, another one for each image: what MUPET's networks are trained on.

Willingham et al. (MUPET), section IV-A: equal chances of super-resolution, Gaussian blur, missing pixels, a missing
block, and nothing but noise. A batch mixes them, so all have one form, with measurements of the image's own size:

    Y = m * (L X R^T)

Either the mask m is all ones (super-resolution and blur are separable) or L and R are the identity (missing pixels).
Then the singular vectors are those of L and R, the singular values ``m * s_L s_R^T``, and whatever a solver asks is a
few batched products of small matrices. Super-resolution leaves the rows and columns beyond its ceil(H/s) x ceil(W/s)
pixels zero; A^T ignores what is there, so that A^T A and A^T y are those of the smaller picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from workbench.limits import Count, Limited, NotNegative, Whole, one_of
from workbench.operators.base import Shape
from workbench.operators.fourier import Memo
from workbench.operators.inpainting import fill_holes
from workbench.operators.separable import Side, TwoSided, decimation, decompose
from workbench.random import Draws

KINDS = ("super-resolution", "deblurring", "pixels", "block", "denoising")

Kind = tuple[str, *tuple[float, ...]]


class Degradation(TwoSided):
    """One degradation per image: images (B, C, H, W) to measurements of the same shape; it fixes B (unless 1), H and W.

    Args:
        kinds: per image its name, one of ``KINDS``, and its parameters: factor; standard deviation in pixels; share
            of pixels missing as asked for; height and width of the block; none.
        mask: (B, 1, H, W), 0 where pixels are missing.
        left, right: matrices (B, H, H) and (B, W, W) with their decompositions; the identity where a mask has zeros.
        rcond: see :class:`SpectralOperator`.

    Raises:
        ValueError: not as many kinds as masks and matrices; when called, images of another number or size.
    """

    mask: Tensor

    def __init__(
        self, kinds: Sequence[Kind], mask: Tensor, left: Side, right: Side, *, rcond: float | None = None
    ) -> None:
        super().__init__(rcond=rcond)
        counts = {len(kinds), mask.shape[0], *(part.shape[0] for part in (*left, *right))}
        if len(counts) > 1:
            raise ValueError(f"expected one kind, mask and pair of matrices per image, got {sorted(counts)} of them")
        self.kinds = list(kinds)
        self.register_buffer("mask", mask)
        for side, factors in (("left", left), ("right", right)):
            for part, tensor in zip(Side._fields, factors, strict=True):
                self.register_buffer(f"{side}_{part}", tensor)
        self._memo = Memo(limit=32)

    def forward(self, x: Tensor) -> Tensor:
        """``m * (L X R^T)`` for images (B, C, H, W)."""
        return super().forward(x).mul_(self._cast("mask", x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``L^T (m * Y) R``, images (B, C, H, W)."""
        self._check_measurements(y)
        return super().adjoint(y * self._cast("mask", y))

    def singular_values(self, x: Tensor) -> Tensor:
        """``m * s_L s_R^T``, (B, 1, H, W)."""
        return super().singular_values(x) * self._cast("mask", x)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """The same shape. Raises ValueError for images of another size or number; one degradation takes any number."""
        count, _, height, width = self.mask.shape
        if len(image_shape) != 4 or tuple(image_shape[2:]) != (height, width) or count not in (1, image_shape[0]):
            batch = "B" if count == 1 else count
            raise ValueError(f"takes images ({batch}, C, {height}, {width}), got shape {tuple(image_shape)}")
        return tuple(image_shape)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """The same shape, see :meth:`measurement_shape`."""
        return self.measurement_shape(measurement_shape)

    def take(self, rows: Tensor, count: int | None = None) -> Degradation:
        """The degradations of some images alone; nothing is decomposed again.

        Args:
            rows: indices (b,), in any order and as often as wanted, or bool (B,).

        Raises:
            ValueError: rows of another shape.
        """
        if rows.ndim != 1 or (rows.dtype == torch.bool and len(rows) != len(self.kinds)):
            raise ValueError(f"rows must be indices (b,) or bool ({len(self.kinds)},), got shape {tuple(rows.shape)}")
        index = (rows.nonzero().flatten() if rows.dtype == torch.bool else rows).to(self.mask.device)
        left, right = (
            Side(*(getattr(self, f"{side}_{part}")[index] for part in Side._fields)) for side in ("left", "right")
        )
        return Degradation([self.kinds[i] for i in index.tolist()], self.mask[index], left, right, rcond=self.rcond)

    def first_estimate(self, y: Tensor) -> Tensor:
        """``y`` at the size of the image: smaller pictures enlarged bilinearly (MTDEQ, section III-A), holes filled."""
        images, (height, width) = fill_holes(y, self._cast("mask", y)), y.shape[-2:]
        for row, (kind, *parameters) in enumerate(self.kinds):
            if kind == "super-resolution":
                small = y[row : row + 1, :, : math.ceil(height / parameters[0]), : math.ceil(width / parameters[0])]
                images[row] = interpolate(small, size=(height, width), mode="bilinear", align_corners=False)[0]
        return images

    def _part(self, side: str, part: str, like: Tensor) -> Tensor:
        return self._cast(f"{side}_{part}", like)

    def _cast(self, name: str, like: Tensor) -> Tensor:
        source: Tensor = getattr(self, name)
        return self._memo.get(source, (name, like.dtype, like.device), lambda: source.to(like))


@dataclass(frozen=True)
class Degradations(Limited):
    """The distribution that degradations are drawn from.

    "pixels" loses each pixel (all its channels) with a probability uniform in [0, 1].

    Attributes:
        kinds: some of ``KINDS``, with equal chances.
        largest_factor: of super-resolution (bicubic), uniform in 1 ... ``largest_factor``; also factors that do not
            divide the size, see :func:`decimation`.
        largest_blur: standard deviation in pixels, uniform in [0, ``largest_blur``]; 0 is the identity. On the torus.
        factors, blurs, rates: of super-resolution, blur and missing pixels, if they are drawn from these values with
            equal chances instead of from the ranges above (MTDEQ, section III-A).
        largest_block: height and width of the block, independent, each uniform in 0 ... ``largest_block`` pixels or
            the side of the image if that is less; it lies anywhere inside.
        per: "image": one degradation for each image. "batch": one for all, as published, also the same missing pixels.

    Raises:
        ValueError: no kinds, unknown or repeated ones, a negative or infinite limit, an unknown ``per``.
    """

    kinds: tuple[str, ...] = KINDS
    largest_factor: Count = 8
    largest_blur: NotNegative = 8.0
    largest_block: Whole = 32
    per: Annotated[str, one_of(("image", "batch"))] = "image"
    factors: tuple[int, ...] = ()
    blurs: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds must be different ones of {', '.join(KINDS)}, at least one, got {self.kinds}")
        if self.factors:
            object.__setattr__(self, "largest_factor", max(self.factors))
        if self.blurs:
            object.__setattr__(self, "largest_blur", max(self.blurs))
        values = (*(f - 1 for f in self.factors), *self.blurs, *(r for rate in self.rates for r in (rate, 1 - rate)))
        if not all(0 <= value < math.inf for value in values):
            given = f"{self.factors}, {self.blurs} and {self.rates}"
            raise ValueError(f"expected factors from 1, blurs from 0 and rates between 0 and 1, got {given}")

    def sample(self, count: int, size: tuple[int, int], draws: Draws) -> Degradation:
        """Degradations of ``count`` images (this process' share) of ``size`` (H, W), on the generator's device.

        How many random numbers are drawn depends on the arguments alone, so that processes stay in step.

        Raises:
            ValueError: count or a side below 1.
        """
        if count < 1 or min(size) < 1:
            raise ValueError(f"expected at least one image of at least one pixel, got {count} of size {size}")
        if self.per == "batch":
            one = self._assemble(draws.shared(1, _CHOICES), draws.shared(1, 1, *size))
            return one.take(torch.zeros(count, dtype=torch.long))
        return self._assemble(draws.uniform(count, _CHOICES), draws.uniform(count, 1, *size))

    def _assemble(self, choices: Tensor, pixels: Tensor) -> Degradation:
        """From uniform numbers (B, ``_CHOICES``) and (B, 1, H, W)."""
        # In float64, where a number below 1 times a count stays below the count.
        kind, factor, sigma, rate, *block = choices.double().unbind(1)
        size = (pixels.shape[2], pixels.shape[3])
        position = torch.tensor([KINDS.index(name) for name in self.kinds], device=kind.device)
        kind = position[_whole(kind, len(self.kinds))]
        factor = _among(factor, self.factors) if self.factors else _whole(factor, self.largest_factor) + 1
        sigma = _among(sigma, self.blurs) if self.blurs else sigma * self.largest_blur
        rate = _among(rate, self.rates) if self.rates else rate
        shrinks, blurs, loses, covers = (kind == number for number in range(4))

        hole, sides = _block(block, size, self.largest_block)
        missing = (loses[:, None, None, None] & (pixels < rate[:, None, None, None])) | (
            covers[:, None, None, None] & hole
        )
        left, right = (_side(n, shrinks, factor, blurs, sigma, self) for n in size)
        parameters = torch.stack([factor.double(), sigma, rate, *(side.double() for side in sides)], 1)
        names = [_name(k, row) for k, row in zip(kind.tolist(), parameters.tolist(), strict=True)]
        return Degradation(names, (~missing).double(), left, right)


_CHOICES = 8  # per image: kind, factor, blur, rate, and of the block height, width, top, left


def _name(kind: int, parameters: list[float]) -> Kind:
    chosen = {0: parameters[:1], 1: parameters[1:2], 2: parameters[2:3], 3: parameters[3:]}.get(kind, [])
    return (KINDS[kind], *chosen)


def _whole(uniform: Tensor, count: int | Tensor) -> Tensor:
    """Whole numbers 0 ... count - 1 from numbers in [0, 1)."""
    return (uniform * count).floor().long()


def _among(uniform: Tensor, values: Sequence[float]) -> Tensor:
    """Each of ``values`` with the same chance, from numbers in [0, 1)."""
    table = torch.tensor(values, dtype=torch.int64 if isinstance(values[0], int) else uniform.dtype)
    return table.to(uniform.device)[_whole(uniform, len(values))]


def _block(uniform: Sequence[Tensor], size: tuple[int, int], largest: int) -> tuple[Tensor, list[Tensor]]:
    """Where the block is, bool (B, 1, H, W), and its height and width (B,)."""
    sides = [_whole(u, min(largest, n) + 1) for u, n in zip(uniform[:2], size, strict=True)]
    starts = [_whole(u, n - side + 1) for u, n, side in zip(uniform[2:], size, sides, strict=True)]
    inside = []
    for n, start, side in zip(size, starts, sides, strict=True):
        place = torch.arange(n, device=start.device)
        inside.append((place >= start[:, None]) & (place < (start + side)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None], sides


def _side(n: int, shrinks: Tensor, factor: Tensor, blurs: Tensor, sigma: Tensor, limits: Degradations) -> Side:
    """The matrices (B, n, n) of one side, float64: decimation where ``shrinks``, circulant where ``blurs``, else 1.

    Nothing is decomposed here: decimations were once for all, circulants all have the same singular vectors.
    """
    tables = _decimations(n, limits.largest_factor, sigma.device)
    blurred = _gaussian(n, torch.where(blurs, sigma, 0.0), math.ceil(4 * limits.largest_blur))
    eye = torch.eye(n, dtype=torch.float64, device=sigma.device)
    plain = Side(eye, eye, eye.new_ones(n), eye)
    parts = []
    for table, circular, other in zip(tables, blurred, plain, strict=True):
        where = (-1, *[1] * other.ndim)
        chosen = torch.where(blurs.view(where), circular, other)
        parts.append(torch.where(shrinks.view(where), table[factor - 1], chosen))
    return Side(*parts)


@lru_cache(maxsize=16)
def _decimations(n: int, largest: int, device: torch.device) -> Side:
    """Decimations by 1 ... ``largest`` on the canvas of ``n`` pixels, (``largest``, n, n)."""
    with torch.inference_mode(False), torch.no_grad():
        matrices = [decimation(n, factor) for factor in range(1, largest + 1)]
        sides = decompose(torch.stack([pad(matrix, (0, 0, 0, n - len(matrix))) for matrix in matrices]))
    return Side(*(part.to(device) for part in sides))


def _gaussian(n: int, sigma: Tensor, reach: int) -> Side:
    """Circulants (B, n, n) of the kernels ``gaussian_kernel(sigma)``, the identity for 0, float64.

    They are symmetric, so that the Hartley basis (orthogonal and symmetric too) diagonalises them all.
    """
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    # Half a millionth of a pixel is an impulse like 0, to the last bit, and leaves no 0/0.
    taps = torch.exp(-((offsets / sigma.clamp(min=5e-7)[:, None]) ** 2) / 2)
    taps = taps * (offsets.abs() <= (4 * sigma).ceil()[:, None])
    taps = taps / taps.sum(1, keepdim=True)
    place = torch.arange(n, device=sigma.device)
    line = taps @ (offsets[:, None] % n == place).double()
    angle = ((place[:, None] * place) % n).double() * (2 * math.pi / n)
    hartley = (angle.cos() + angle.sin()) / n**0.5
    gains = torch.fft.fft(line).real
    # Where the cut-off kernel lets next to nothing through, its gain may be below zero.
    u = hartley * torch.where(gains < 0, -1.0, 1.0).to(gains)[:, None, :]
    return Side(line[:, (place[:, None] - place) % n], u, gains.abs(), hartley.expand_as(u))
