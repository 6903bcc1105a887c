"""JPEG as a degradation: what a baseline decoder gives back from a compressed photo (ITU-T T.81, JFIF; 4:2:0)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from workbench.operators.base import Operator
from workbench.operators.checks import check_image

# ITU-T T.81, tables K.1 and K.2, at quality 50.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
# JFIF: RGB to Y, Cb, Cr (without the offset of 128).
TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


class JPEG(Operator):
    """Compress and decode at ``quality``, like libjpeg (Pillow) with its default 4:2:0 chroma. RGB images of any size.

    Not linear. The result is in [0, 1], as a decoder's is, but not rounded to 8 bits. Its gradient passes straight
    through rounding and clipping. In this sense ``adjoint`` and ``pinv`` return ``y`` itself: a decoded photo is
    its own best guess. ``prox`` descends from ``z``, and may stop above the minimum; its gradient is that of a minimum.

    Args:
        quality: 1 to 100, the scaling of the Independent JPEG Group.
        max_iterations: steps of ``prox``.

    Raises:
        ValueError: a quality that is not a whole number from 1 to 100; when called, images that are not RGB.
    """

    linear = False

    def __init__(self, quality: int, *, max_iterations: int = 50) -> None:
        super().__init__(max_iterations=max_iterations)
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality must be a whole number from 1 to 100, got {quality}")
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        """Decoded images (B, 3, H, W) in [0, 1] for ``x`` of that shape and range."""
        check_image(x, 3)
        height, width = x.shape[-2:]
        to_ycc = torch.tensor(TO_YCC, dtype=torch.float64)
        ycc = _rounded(torch.einsum("dc,bchw->bdhw", to_ycc.to(x, non_blocking=True), 255 * x))
        # Whole blocks of 16 x 16 (8 x 8 at half the resolution), the edge repeated as libjpeg does.
        ycc = pad(ycc, (0, -width % 16, 0, -height % 16), mode="replicate")
        luma = _code(ycc[:, :1] - 128, self._table(LUMA, x))[..., :height, :width]
        means = avg_pool2d(ycc[:, 1:], 2)
        # libjpeg rounds halves down and up in turn from column to column, so as not to drift.
        turn = (1 + torch.arange(means.shape[-1], device=x.device) % 2) / 4
        chroma = _code(_straight_through(means, (means + turn).floor()), self._table(CHROMA, x))
        # libjpeg's "fancy" upsampling: weights 3/4 and 1/4, over the chroma samples of the picture without its padding.
        chroma = chroma[..., : (height + 1) // 2, : (width + 1) // 2]
        chroma = interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        to_rgb = to_ycc.inverse().to(x, non_blocking=True)
        decoded = torch.einsum("cd,bdhw->bchw", to_rgb, torch.cat([luma + 128, chroma], 1)) / 255
        return _straight_through(decoded, decoded.clamp(0, 1))

    def adjoint(self, y: Tensor) -> Tensor:
        """``y``: the straight-through stand-in for an adjoint."""
        check_image(y, 3, "measurements")
        return y.clone()

    def pinv(self, y: Tensor) -> Tensor:
        """``y``: a decoded photo compresses to itself, but for rounding."""
        return self.adjoint(y)

    def _table(self, base: tuple[tuple[int, ...], ...], like: Tensor) -> Tensor:
        """Quantisation steps (8, 8) at this quality."""
        percent = 5000 // self.quality if self.quality < 50 else 200 - 2 * self.quality
        steps = (torch.tensor(base) * percent + 50).div(100, rounding_mode="floor")
        return steps.clamp(1, 255).to(like, non_blocking=True)


def _code(plane: Tensor, steps: Tensor) -> Tensor:
    """Cosine transform of 8 x 8 blocks, quantise, and back; samples (..., 8 m, 8 n) around 0, clipped to 8 bits."""
    frequency, sample = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    cosines = torch.cos((2 * sample + 1) * frequency * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    cosines = cosines.to(plane, non_blocking=True)
    blocks = plane.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    scaled = cosines @ blocks @ cosines.T / steps
    blocks = cosines.T @ (_rounded(scaled) * steps) @ cosines
    samples = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
    return _straight_through(samples, samples.clamp(-128, 127))


def _rounded(x: Tensor) -> Tensor:
    # Halves go away from zero, as in libjpeg's integers: means of blocks are often halves of a step, and one step is
    # 20 grey levels at quality 5. The hair on top is for halves that floating point put just below.
    return _straight_through(x, x.sign() * (x.abs() + 0.5 + 1e-5).floor())


def _straight_through(x: Tensor, changed: Tensor) -> Tensor:
    """``changed``, with the gradient of ``x``."""
    return x + (changed - x).detach()
