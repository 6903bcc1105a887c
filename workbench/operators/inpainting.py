"""Denoising and inpainting: ``y = m x``, pixel by pixel."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from workbench.operators.base import Shape, SpectralOperator, column, damped_gain
from workbench.operators.checks import check_image, check_real
from workbench.operators.fourier import Memo


class _Pixels(SpectralOperator):
    """Operators whose coefficients are the pixels."""

    def analysis(self, x: Tensor) -> Tensor:
        """The pixels themselves."""
        return x.clone()

    def synthesis(self, c: Tensor) -> Tensor:
        """The pixels themselves."""
        return c.clone()


class Identity(_Pixels):
    """``y = x``: denoising. Any size."""

    def forward(self, x: Tensor) -> Tensor:
        """A copy of ``x`` (B, C, H, W)."""
        check_image(x)
        return x.clone()

    def adjoint(self, y: Tensor) -> Tensor:
        """A copy of ``y`` (B, C, H, W)."""
        return self(y)

    def data_analysis(self, y: Tensor) -> Tensor:
        """The pixels themselves."""
        return y.clone()

    def data_synthesis(self, c: Tensor) -> Tensor:
        """The pixels themselves."""
        return c.clone()

    def singular_values(self, x: Tensor) -> Tensor:
        """One, (1, 1, 1, 1)."""
        return x.new_ones(1, 1, 1, 1)

    def row_gram(self) -> float | None:
        """1."""
        return 1.0


class Inpainting(_Pixels):
    """``y = m x``: pixels are kept (1), lost (0) or scaled (any finite number). ``y`` has the size of ``x``.

    ``workbench.operators.masks`` makes masks: random pixels, a block, text, stripes, scratches.

    Args:
        mask: (H, W) or (1 or B, 1 or C, H, W), bool, integer or real; fixes the size of the images.
        rcond: see :class:`SpectralOperator`; matters only for masks with small values.

    Raises:
        ValueError: a mask of another shape, or not finite.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, rcond: float | None = None) -> None:
        super().__init__(rcond=rcond)
        self.register_buffer("mask", check_real("mask", mask, "(1 or B, 1 or C, H, W)"))
        self._memo = Memo()

    def forward(self, x: Tensor) -> Tensor:
        """``m x`` for images (B, C, H, W)."""
        return x * self._mask(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``m y``, images (B, C, H, W)."""
        return y * self._mask(y)

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """``m/(m^2 + weight) r``, images (B, C, H, W)."""
        return r * damped_gain(self._mask(r), weight, self.rcond)

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``(m y + weight z)/(m^2 + weight)``, images (B, C, H, W); see :meth:`Operator.prox`."""
        weight, mask = self.check_prox(z, y, weight), self._mask(z)
        binary = self._memo.get(self.mask, "binary", lambda: bool(((self.mask == 0) | (self.mask == 1)).all()))
        if binary and not self.mask.requires_grad:
            # One pass over the images instead of the two below; z + gain (y - m z) would take three. It is the step at
            # 0 and 1, but not its slope there, which a mask that is learned needs.
            return torch.lerp(z, y, mask / (1 + column(weight, mask)))
        gain = damped_gain(mask, weight, self.rcond)
        return (y * gain).addcmul_(z, 1 - mask * gain)

    def data_analysis(self, y: Tensor) -> Tensor:
        """The pixels, with the sign of the mask."""
        return torch.where(self._mask(y) < 0, -y, y)

    def data_synthesis(self, c: Tensor) -> Tensor:
        """The pixels, with the sign of the mask."""
        return self.data_analysis(c)

    def singular_values(self, x: Tensor) -> Tensor:
        """``|m|``, the shape of the mask."""
        return self._mask(x).abs()

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """The same shape."""
        check_fits(self.mask.shape, image_shape)
        return tuple(image_shape)

    def _mask(self, x: Tensor) -> Tensor:
        check_image(x)
        mask = self.mask
        check_fits(mask.shape, x.shape)
        return mask.to(x)


def check_fits(mask: Shape, image: Shape) -> None:
    """Raise ValueError unless a mask (1 or B, 1 or C, H, W) is for images (B, C, H, W)."""
    if len(image) != 4 or mask[2:] != tuple(image[2:]) or mask[0] not in (1, image[0]) or mask[1] not in (1, image[1]):
        raise ValueError(f"a mask of shape {tuple(mask)} does not fit images {tuple(image)}")


def inverse_distance_kernel(radius: int = 5, power: float = 2.0) -> Tensor:
    """``1 / (|dy|^power + |dx|^power)`` up to ``radius`` pixels away, 0 in the middle; float64, odd sides."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64).abs() ** power
    distance = offsets[:, None] + offsets
    return torch.where(distance > 0, 1 / distance.clamp(min=1), 0.0)


def fill_holes(y: Tensor, mask: Tensor, kernel: Tensor | None = None) -> Tensor:
    """``y / m`` where ``mask`` is not 0, and in the holes a weighted mean of what is known nearby.

    A start for iterations. Where nothing is known that near it is mid-grey, 1/2.

    Args:
        y: (B, C, H, W), range [0, 1].
        mask: (1 or B, 1 or C, H, W).
        kernel: weights of the neighbours, odd sides; by default inverse distances (Shepard 1968).
    """
    weights = (inverse_distance_kernel() if kernel is None else kernel).to(y)
    known = (mask != 0).expand_as(y)
    values = torch.where(known, y / torch.where(known, mask.to(y), 1.0), 0.0)

    def gathered(x: Tensor) -> Tensor:
        middle = (len(weights) // 2, weights.shape[1] // 2)
        return conv2d(x.flatten(0, 1)[:, None], weights[None, None], padding=middle).view_as(x)

    total = gathered(known.to(y.dtype))
    near = total > 0
    mean = torch.where(near, gathered(values) / torch.where(near, total, 1.0), 0.5)
    return torch.where(known, values, mean)
