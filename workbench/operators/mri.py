"""Magnetic resonance: a part of the Fourier transform of an image (k-space), seen by one coil or by several.

Measurements are complex and held as their real view, (..., 2), as of ``torch.view_as_real``. Noise is s in real and
imaginary part each, as in deepinv; where others mean s for both together, it is s / sqrt(2) here.

The transform is orthonormal and centred, as in fastMRI and deepinv: frequency 0 is at [H // 2, W // 2] of mask and
measurement, and phases count from that pixel of the image. :class:`FunctionOperator` takes others, such as
``lambda x: mask * torch.fft.fft2(x, norm="ortho")``. Images are real, and channels are measured one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape, SpectralOperator, damped_gain
from workbench.operators.checks import check_image, check_real
from workbench.operators.fourier import from_hartley, hartley, opposite
from workbench.operators.inpainting import check_fits


class MultiCoil(Operator):
    """Several coils: ``y_j = M F (c_j x)``, real images (B, C, H, W) to (B, C, J, H, W, 2), by conjugate gradients.

    Args:
        mask: (H, W) or (1 or B, 1 or C, H, W), 1 where measured, else 0; other real numbers weigh.
        coils: sensitivity of each coil, complex (J, H, W), the same for all images; ||A|| <= 1 if sum_j |c_j|^2 = 1.
        options: ``tolerance`` and ``max_iterations`` of :class:`Operator`.

    Raises:
        ValueError: mask or maps of another shape, or not finite; maps that are not complex.
    """

    mask: Tensor
    coils: Tensor | None

    def __init__(self, mask: Tensor, coils: Tensor, **options: Any) -> None:
        Operator.__init__(self, **options)
        self.register_buffer("mask", check_real("mask", mask, "(1 or B, 1 or C, H, W)"))
        expected = (*coils.shape[:1], *self.mask.shape[2:])
        if not coils.is_complex() or tuple(coils.shape) != expected or not bool(coils.isfinite().all()):
            raise ValueError(f"coil maps must be complex, finite, {expected}, got {tuple(coils.shape)}, {coils.dtype}")
        # Their real view, as .to(dtype) would drop the imaginary part.
        self.register_buffer("coils", torch.view_as_real(coils.resolve_conj()).clone()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """``M F (c_j x)`` of images (B, C, H, W)."""
        check_image(x)
        mask = self._mask(x, x.shape)
        seen = x if self.coils is None else torch.view_as_complex(self.coils.to(x)) * x[:, :, None]
        return torch.view_as_real(mask * centred(torch.fft.fft2, seen))

    def adjoint(self, y: Tensor) -> Tensor:
        """The real part of ``sum_j conj(c_j) F^-1 M y_j``, images (B, C, H, W): the zero-filled reconstruction."""
        images = centred(torch.fft.ifft2, self._seen(y))
        seen = images if self.coils is None else (torch.view_as_complex(self.coils.to(y)).conj() * images).sum(2)
        return seen.real.contiguous()

    def blank(self, y: Tensor) -> Tensor:
        """``y`` with 0 where nothing is measured."""
        return y * (self._mask(y, self.image_shape(y.shape)) != 0)[..., None]

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, C, J, H, W, 2), without J for one coil. Raises ValueError for images that the mask does not fit."""
        check_fits(self.mask.shape, image_shape)
        return (*image_shape[:2], *(self.mask[..., None] if self.coils is None else self.coils).shape[2:-1], 2)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W). Raises ValueError for measurements of another shape."""
        shape = (*measurement_shape[:2], *self.mask.shape[2:])
        if tuple(measurement_shape) != (expected := self.measurement_shape(shape)):
            raise ValueError(f"expected measurements {expected}, got {tuple(measurement_shape)}")
        return shape

    def _mask(self, like: Tensor, image_shape: Shape) -> Tensor:
        check_fits(self.mask.shape, image_shape)
        return self.mask.to(like) if self.coils is None else self.mask[:, :, None].to(like)

    def _seen(self, y: Tensor) -> Tensor:
        return self._mask(y, self.image_shape(y.shape)) * torch.complex(y[..., 0], y[..., 1])


class MaskedFourier(MultiCoil, SpectralOperator):
    """One coil that sees all alike: ``y = M F x``, real images (B, C, H, W) to (B, C, H, W, 2), in closed form.

    A real image has conjugate coefficients at opposite frequencies: where one of two is measured, both are known, and
    ``A^T A = F^-1 (m(k)^2 + m(-k)^2)/2 F``. The coefficients are Hartley's, frequency 0 at [0, 0]. Arguments: as for
    :class:`MultiCoil` and :class:`SpectralOperator`.
    """

    def __init__(self, mask: Tensor, *, rcond: float | None = None) -> None:
        SpectralOperator.__init__(self, rcond=rcond)
        self.register_buffer("mask", check_real("mask", mask, "(1 or B, 1 or C, H, W)"))
        self.register_buffer("coils", None)

    def analysis(self, x: Tensor) -> Tensor:
        """Hartley coefficients (B, C, H, W)."""
        return hartley(torch.fft.fft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"))

    def synthesis(self, c: Tensor) -> Tensor:
        """Images from Hartley coefficients: the transform is its own inverse."""
        return torch.fft.fftshift(hartley(torch.fft.fft2(c, norm="ortho")), (-2, -1))

    def data_analysis(self, y: Tensor) -> Tensor:
        """``U^T y``, (B, C, H, W): what of ``y`` belongs to a real image, and 0 where neither frequency is measured."""
        seen = torch.fft.ifftshift(self._seen(y), (-2, -1))
        inverse = damped_gain(self.singular_values(self._image_like(y)), torch.zeros(()), 0.0)
        return hartley(seen + opposite(seen).conj()) / 2 * inverse

    def data_synthesis(self, c: Tensor) -> Tensor:
        """``U c``, (B, C, H, W, 2)."""
        inverse = damped_gain(self.singular_values(c), torch.zeros(()), 0.0)
        return torch.view_as_real(self._mask(c, c.shape) * torch.fft.fftshift(from_hartley(c * inverse), (-2, -1)))

    def singular_values(self, x: Tensor) -> Tensor:
        """``sqrt((m(k)^2 + m(-k)^2)/2)``, the shape of the mask: 1, sqrt(1/2) and 0 where the mask is 0 and 1."""
        squares = torch.fft.ifftshift(self._mask(x, x.shape), (-2, -1)) ** 2
        return ((squares + opposite(squares)) / 2).sqrt()


def centred(transform: Callable[..., Tensor], x: Tensor) -> Tensor:
    """``fft2`` or ``ifft2`` of ``x`` (..., H, W), orthonormal, with [H // 2, W // 2] for the origin of both sides."""
    return torch.fft.fftshift(transform(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def cartesian_mask(
    size: tuple[int, int], acceleration: float, centre: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """One of ``acceleration`` columns of k-space measured, (1, 1, H, W), frequency 0 at [H // 2, W // 2].

    A share ``centre`` of all columns, and the one of frequency 0, is in the middle; the others are drawn. None: 0.32 /
    acceleration, as fastMRI. ValueError unless acceleration is from 1 to W and centre from 0 to 1 / acceleration.
    """
    width, share = size[1], 0.32 / acceleration if centre is None else centre
    if not (1 <= acceleration <= width and 0 <= share <= 1 / acceleration):
        raise ValueError(f"acceleration must be 1 to {width}, centre 0 to its inverse, got {acceleration:g}, {share:g}")
    kept = round(width / acceleration)
    middle = min(kept, max(1, round(share * width)))
    order = torch.rand(width, generator=generator, device=generator.device if generator is not None else None)
    order[width // 2 - middle // 2 :][:middle] = -1
    return (order.argsort().argsort() < kept).float().expand(1, 1, *size).clone()
