"""JPEG as a degradation: what a baseline decoder gives back from a compressed photo (ITU-T T.81, JFIF; 4:2:0)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from workbench.operators.base import Operator, column
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
    its own best guess.

    A compressed photo says in which quantisation step each coefficient lies, and no more. So :meth:`residual` is 0 in
    there, where ``y - A x`` would be the noise of ``y``, of which ``x`` knows nothing; and ``prox`` moves to its edge.

    Args:
        quality: 1 to 100, the scaling of the Independent JPEG Group.

    Raises:
        ValueError: a quality that is not a whole number from 1 to 100; when called, images that are not RGB.
    """

    linear = False

    def __init__(self, quality: int) -> None:
        super().__init__()
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality must be a whole number from 1 to 100, got {quality}")
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        """Decoded images (B, 3, H, W) in [0, 1] for ``x`` of that shape and range."""
        check_image(x, 3)
        height, width = x.shape[-2:]
        luma, means = _planes(x, _rounded)
        luma = _samples(_quantised(_cosines(luma), self._table(LUMA, x)))[..., :height, :width]
        # libjpeg rounds halves down and up in turn from column to column, so as not to drift.
        turn = (1 + torch.arange(means.shape[-1], device=x.device) % 2) / 4
        means = _straight_through(means, (means + turn).floor())
        chroma = _samples(_quantised(_cosines(means), self._table(CHROMA, x)))
        # Over the chroma samples of the picture without its padding.
        chroma = _enlarged(chroma[..., : (height + 1) // 2, : (width + 1) // 2])[..., :height, :width]
        decoded = _rgb(torch.cat([luma + 128, chroma], 1))
        return _straight_through(decoded, decoded.clamp(0, 1))

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """What to add to images ``x`` (B, 3, H, W) for them to be photos that compress to ``y``, the nearest: each
        coefficient goes as far as to the edge of its quantisation step. Where ``y`` is noisy, its steps are those
        nearest to it."""
        check_image(x, 3)
        height, width = x.shape[-2:]
        luma, chroma = _planes(y)
        wanted = chroma
        for _ in range(8):  # what the decoder enlarged and the mean brought back, undone: errors halve
            wanted = wanted + chroma - avg_pool2d(_enlarged(wanted), 2)
        moves = []
        for plane, own, table in zip((luma, wanted), _planes(x), (LUMA, CHROMA), strict=True):
            steps = self._table(table, x)
            gap = (_cosines(plane) / steps).round() * steps - _cosines(own)
            moves.append(_plane(gap - gap.clamp(-steps / 2, steps / 2)))
        chroma = moves[1].repeat_interleave(2, -2).repeat_interleave(2, -1)
        return _rgb(torch.cat([moves[0], chroma], 1)[..., :height, :width])

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``z + residual(z, y) / (1 + weight)``: for orthonormal colours the minimum of ``1/2 ||residual(x, y)||^2 +
        weight/2 ||x - z||^2``, up to the rounding of pixels to 8 bits."""
        checked = self.check_prox(z, y, weight)
        return z + self.residual(z, y) / (1 + column(checked, z))

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


def _planes(x: Tensor, rounded: Callable[[Tensor], Tensor] = lambda ycc: ycc) -> tuple[Tensor, Tensor]:
    """Luma (B, 1, ...) around 0 and chroma (B, 2, ...) at half the resolution, in grey levels, of whole blocks."""
    height, width = x.shape[-2:]
    to_ycc = torch.tensor(TO_YCC, dtype=torch.float64).to(x, non_blocking=True)
    ycc = rounded(torch.einsum("dc,bchw->bdhw", to_ycc, 255 * x))
    # Whole blocks of 16 x 16 (8 x 8 at half the resolution), the edge repeated as libjpeg does: columns before chroma
    # is halved, rows after it, but for the one that an odd height lacks.
    ycc = pad(ycc, (0, -width % 16, 0, height % 2), mode="replicate")
    below = -height % 16 // 2
    luma, chroma = ycc[:, :1] - 128, avg_pool2d(ycc[:, 1:], 2)
    return pad(luma, (0, 0, 0, 2 * below), mode="replicate"), pad(chroma, (0, 0, 0, below), mode="replicate")


def _rgb(ycc: Tensor) -> Tensor:
    """Images (B, 3, H, W), range [0, 1], of Y, Cb and Cr in grey levels."""
    to_rgb = torch.tensor(TO_YCC, dtype=torch.float64).inverse().to(ycc, non_blocking=True)
    return torch.einsum("cd,bdhw->bchw", to_rgb, ycc) / 255


def _enlarged(chroma: Tensor) -> Tensor:
    """Twice the size by libjpeg's "fancy" upsampling, with weights 3/4 and 1/4."""
    return interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)


def _basis(like: Tensor) -> Tensor:
    """Cosine transform of 8 samples, orthonormal, (8, 8)."""
    frequency, sample = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * sample + 1) * frequency * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.to(like, non_blocking=True)


def _cosines(plane: Tensor) -> Tensor:
    """Coefficients (..., m, n, 8, 8) of the 8 x 8 blocks of a plane (..., 8 m, 8 n)."""
    basis = _basis(plane)
    return basis @ plane.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2) @ basis.T


def _plane(blocks: Tensor) -> Tensor:
    """The plane with these coefficients."""
    basis = _basis(blocks)
    return (basis.T @ blocks @ basis).transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def _quantised(blocks: Tensor, steps: Tensor) -> Tensor:
    return _rounded(blocks / steps) * steps


def _samples(blocks: Tensor) -> Tensor:
    """The plane with these coefficients, clipped to 8 bits."""
    samples = _plane(blocks)
    return _straight_through(samples, samples.clamp(-128, 127))


def _rounded(x: Tensor) -> Tensor:
    # Halves go away from zero, as in libjpeg's integers: means of blocks are often halves of a step, and one step is
    # 20 grey levels at quality 5. The hair on top is for halves that floating point put just below.
    return _straight_through(x, x.sign() * (x.abs() + 0.5 + 1e-5).floor())


def _straight_through(x: Tensor, changed: Tensor) -> Tensor:
    """``changed``, with the gradient of ``x``."""
    return x + (changed - x).detach()
