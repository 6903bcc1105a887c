"""Blur: ``y = k * x``, a true convolution (the kernel is flipped) of every channel.

The middle of a kernel is its tap (kh // 2, kw // 2): the central one where sides are odd, the lower right of the four
central ones where they are even, as in ``scipy.ndimage`` and the published deblurring codes (which roll by -int(k/2)).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.operators.base import Operator, Shape, SpectralOperator, damped_gain, kept
from workbench.operators.checks import check_image, check_rcond, check_real
from workbench.operators.fourier import Memo, from_hartley, hartley, transform, wrap_kernel
from workbench.operators.least_squares import vjp

Kernel = Tensor | np.ndarray | list[Any]
BOUNDARIES = ("circular", "reflect", "replicate", "zeros", "valid")


class Blur(Operator):
    """Convolution with any kernel, one for all images or one each, any image size. Linear.

    ``Blur(kernel)`` is a :class:`CircularBlur`: everything in closed form by fast Fourier transforms, and a spectral
    form. Other boundary rules take conjugate gradients for ``pinv`` and ``prox``.

    Args:
        kernel: (kh, kw) or (1 or B, 1 or C, kh, kw), real, any size, a tensor, an array or lists; see ``kernels.py``.
            Kernels without negative taps that do not sum to 1 are warned of: they darken or brighten pictures.
        boundary: what lies outside the image: "circular", "reflect" (without repeating the edge pixel), "replicate",
            "zeros"; or "valid": y has only the pixels that need nothing from outside, (H - kh + 1, W - kw + 1).
        rcond: for "circular", see :class:`SpectralOperator`.
        tolerance, max_iterations: for the others, see :class:`Operator`.

    Raises:
        ValueError: a kernel of another shape or not finite, an unknown boundary; when called, an image that "reflect"
            or "valid" finds too small.

    >>> impulse = torch.zeros(1, 1, 3, 3)
    >>> impulse[..., 1, 1] = 1
    >>> Blur(torch.tensor([[1.0, 2.0, 3.0]]))(impulse)[0, 0].round().long()
    tensor([[0, 0, 0],
            [1, 2, 3],
            [0, 0, 0]])
    """

    kernel: Tensor

    def __new__(cls, kernel: Kernel | None = None, *, boundary: str = "circular", **options: Any) -> Blur:
        # Without a kernel it is copy or pickle that calls, with the right class.
        closed = cls is Blur and kernel is not None and boundary == "circular"
        return super().__new__(CircularBlur if closed else cls)

    def __init__(
        self,
        kernel: Kernel,
        *,
        boundary: str = "circular",
        rcond: float | None = None,
        tolerance: float | None = None,
        max_iterations: int = 500,
    ) -> None:
        Operator.__init__(self, tolerance=tolerance, max_iterations=max_iterations)
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
        self.boundary = boundary
        self.rcond = check_rcond(rcond)
        self.register_buffer("kernel", check_kernel(kernel))
        self._memo = Memo()

    def forward(self, x: Tensor) -> Tensor:
        """Blurred images, (B, C, H, W) of the same size, or smaller for "valid"."""
        check_kernel_fits(self.kernel, x)
        height, width = self.measurement_shape(x.shape)[2:]
        padded = self._extend(x)
        size = padded.shape[-2:]
        blurred = torch.fft.irfft2(torch.fft.rfft2(padded).mul_(self._transfer(size, x)), s=size)
        # The first pixels are those whose kernel did not reach around the padded image.
        return blurred[..., :height, :width].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        check_kernel_fits(self.kernel, y, "measurements")
        image_shape = self.image_shape(y.shape)
        height, width = (n + k - 1 if self.boundary != "valid" else n for n, k in self._sides(image_shape))
        placed = pad(y, (0, width - y.shape[-1], 0, height - y.shape[-2]))
        transfer = self._transfer((height, width), y).conj()
        spread = torch.fft.irfft2(torch.fft.rfft2(placed).mul_(transfer), s=(height, width))
        if self.boundary == "valid":
            return spread
        return vjp(self._extend, y.new_zeros(image_shape), spread)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """The same shape, but (B, C, H - kh + 1, W - kw + 1) for "valid"."""
        if self.boundary == "valid":
            return (*image_shape[:2], *(n - k + 1 for n, k in self._sides(image_shape)))
        return tuple(image_shape)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """The same shape, but (B, C, h + kh - 1, w + kw - 1) for "valid"."""
        if self.boundary == "valid":
            return (*measurement_shape[:2], *(n + k - 1 for n, k in self._sides(measurement_shape)))
        return tuple(measurement_shape)

    def _sides(self, shape: Shape) -> list[tuple[int, int]]:
        return list(zip(shape[2:], self.kernel.shape[2:], strict=True))

    def _extend(self, x: Tensor) -> Tensor:
        """``x`` with what the kernel sees around it, (H + kh - 1, W + kw - 1)."""
        for n, k in self._sides(x.shape):
            if self.boundary == "valid" and k > n:
                raise ValueError(f"boundary 'valid' needs images at least as large as the kernel ({k}), got {n} pixels")
            if self.boundary == "reflect" and k // 2 >= n:
                raise ValueError(f"boundary 'reflect' needs images larger than half the kernel ({k}), got {n} pixels")
        if self.boundary == "valid":
            return x
        kh, kw = self.kernel.shape[2:]
        # Taps before the middle one meet pixels after it: k // 2 of them, and k - 1 - k // 2 the other way.
        around = ((kw - 1) - kw // 2, kw // 2, (kh - 1) - kh // 2, kh // 2)
        return pad(x, around, mode="constant" if self.boundary == "zeros" else self.boundary)

    def _transfer(self, size: Shape, like: Tensor) -> Tensor:
        """Multiplies ``rfft2`` of a padded image so that pixel (0, 0) of the result is the first of y."""
        side = (size[0], size[1])
        origin = (self.kernel.shape[-2] - 1, self.kernel.shape[-1] - 1)
        return self._memo.spectrum(
            self.kernel, like, side, lambda k: transform(wrap_kernel(k, side, origin), half=True)
        )


class CircularBlur(Blur, SpectralOperator):
    """Blur on the torus (the image repeats): what :class:`Blur` makes for ``boundary="circular"``.

    Kernels larger than the image wrap around. Singular values are the moduli of the kernel's Fourier transform.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Blurred images (B, C, H, W)."""
        check_kernel_fits(self.kernel, x)
        return self._filter(x, self._transfer(x.shape[-2:], x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        check_kernel_fits(self.kernel, y, "measurements")
        return self._filter(y, self._transfer(y.shape[-2:], y).conj())

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """The Wiener filter ``conj(h)/(|h|^2 + weight)`` of ``r``; at weight 0 the inverse filter with its cut-off."""
        check_kernel_fits(self.kernel, r, "measurements")
        return self._filter(r, damped_gain(self._transfer(r.shape[-2:], r), weight, self.rcond))

    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """Closed form, see :meth:`Operator.prox`."""
        weight = self.check_prox(z, y, weight)
        check_kernel_fits(self.kernel, z)
        transfer = self._transfer(z.shape[-2:], z)
        # The residual is formed among frequencies: three transforms instead of four.
        residual = torch.fft.rfft2(y).addcmul_(torch.fft.rfft2(z), transfer, value=-1)
        residual = residual.mul_(damped_gain(transfer, weight, self.rcond))
        return torch.fft.irfft2(residual, s=z.shape[-2:]).add_(z)

    def project_null(self, x: Tensor) -> Tensor:
        """The frequencies of ``x`` (B, C, H, W) that the blur wipes out."""
        check_kernel_fits(self.kernel, x)
        transfer = self._transfer(x.shape[-2:], x)
        return self._filter(x, (~kept(transfer, self.rcond)).to(x.dtype))

    def analysis(self, x: Tensor) -> Tensor:
        """Hartley coefficients (B, C, H, W)."""
        return hartley(torch.fft.fft2(x, norm="ortho"))

    def synthesis(self, c: Tensor) -> Tensor:
        """Images from Hartley coefficients: the transform is its own inverse."""
        return self.analysis(c)

    def data_analysis(self, y: Tensor) -> Tensor:
        """Hartley coefficients of ``y`` with the kernel's phase taken back."""
        return hartley(torch.fft.fft2(y, norm="ortho") * self._phase(y).conj())

    def data_synthesis(self, c: Tensor) -> Tensor:
        """Measurements from coefficients."""
        return torch.fft.ifft2(from_hartley(c) * self._phase(c), norm="ortho").real.contiguous()

    def singular_values(self, x: Tensor) -> Tensor:
        """``|h|``, (1 or B, 1 or C, H, W)."""
        return self._transfer(x.shape[-2:], x, half=False).abs()

    def _filter(self, x: Tensor, gain: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x).mul_(gain), s=x.shape[-2:])

    def _phase(self, like: Tensor) -> Tensor:
        transfer = self._transfer(like.shape[-2:], like, half=False)
        size = transfer.abs()
        return torch.where(size > 0, transfer / torch.where(size > 0, size, 1.0), 1.0)

    def _transfer(self, size: Shape, like: Tensor, half: bool = True) -> Tensor:
        side = (size[0], size[1])
        middle = (self.kernel.shape[-2] // 2, self.kernel.shape[-1] // 2)
        return self._memo.spectrum(
            self.kernel, like, (side, half), lambda k: transform(wrap_kernel(k, side, middle), half)
        )


def check_kernel(kernel: Kernel) -> Tensor:
    """``kernel`` as (1 or B, 1 or C, kh, kw), see :func:`check_real`; ValueError if it is zero.

    A UserWarning names the sum of one without negative taps that changes the brightness by more than 1 %.
    """
    try:
        if not isinstance(kernel, Tensor):
            array = np.array(kernel, order="C")
            kernel = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"kernel must be (1 or B, 1 or C, kh, kw) numbers ({error})") from None
    kernel = check_real("kernel", kernel, "(1 or B, 1 or C, kh, kw)")
    if not bool(kernel.any()):
        raise ValueError("kernel must not be all zero")
    sums = kernel.detach().double().sum((-2, -1))
    if bool((kernel >= 0).all()) and bool(((sums - 1).abs() > 0.01).any()):
        warnings.warn(
            f"the kernel sums to {float(sums.flatten()[0]):.4g}, not 1, and changes the brightness of pictures: "
            "divide it by its sum",
            UserWarning,
            stacklevel=3,
        )
    return kernel


def check_kernel_fits(kernel: Tensor, x: Tensor, name: str = "images") -> None:
    """Raise ValueError unless ``x`` is (B, C, H, W) and ``kernel`` has 1 or B by 1 or C kernels."""
    check_image(x, name=name)
    if kernel.shape[0] not in (1, x.shape[0]) or kernel.shape[1] not in (1, x.shape[1]):
        raise ValueError(f"a kernel of shape {tuple(kernel.shape)} does not fit {name} {tuple(x.shape)}")
