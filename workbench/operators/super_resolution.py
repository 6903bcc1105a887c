"""Blur and decimation, ``y = (k * x) at every s-th pixel`` on the torus: super-resolution by an integer factor.

Polyphase form. The s^2 images made of every s-th pixel of x have Fourier transforms ``P_j(m)``, j < s^2, and

    Y(m) = sum_j K_j(m) P_j(m)

for the transforms ``K_j`` of the kernel's own polyphase parts: per low-resolution frequency m a single row of s^2
numbers. So there is one singular value ``sigma(m) = (sum_j |K_j|^2)^(1/2)``, and

    prox: P = Z + conj(K) (Y - K Z)/(sigma^2 + weight)        pinv: P = conj(K) Y / sigma^2

This is UD2M's eq. (16) in its corrected form (errata 8) without the aliases: the mean over aliases there is the sum
over phases here, and the transforms are s^2 times smaller.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad, pixel_shuffle, pixel_unshuffle

from workbench.operators.base import Shape, SpectralOperator, damped_gain, kept, square
from workbench.operators.blur import Kernel, check_kernel, check_kernel_fits
from workbench.operators.checks import check_image
from workbench.operators.fourier import Memo, from_hartley, hartley, transform, wrap_kernel
from workbench.operators.kernels import bicubic_kernel, gaussian_kernel, uniform_kernel

KERNELS = ("bicubic", "average", "gaussian")


class SuperResolution(SpectralOperator):
    """Images (B, C, H, W) to (B, C, H/s, W/s); H and W must be multiples of the factor s.

    Each low-resolution pixel sits in the middle of its block of s x s pixels, as in average pooling and in antialiased
    resizing: the middle of the kernel falls there, exactly if kernel and factor are both even or both odd, else half a
    pixel further down and right. Kernels larger than the image wrap around.

    Args:
        factor: s, at least 1.
        kernel: "bicubic" (antialiasing, as Pillow and torch resize, but on the torus), "average" (s x s pooling),
            "gaussian" (standard deviation s/2, reaching 4 of them), or (kh, kw) or (1 or B, 1 or C, kh, kw): a tensor,
            array or lists.
        rcond: see :class:`SpectralOperator`.

    Raises:
        ValueError: factor below 1, an unknown or bad kernel; when called, a size that s does not divide.
    """

    kernel: Tensor

    def __init__(self, factor: int, kernel: str | Kernel = "bicubic", *, rcond: float | None = None) -> None:
        super().__init__(rcond=rcond)
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"factor must be a whole number from 1, got {factor}")
        self.factor = factor
        self.averages = isinstance(kernel, str) and kernel == "average"
        if isinstance(kernel, str):
            # Known to float64 and not a parameter of the user's: no buffer, which .to(float32) would round.
            self.kernel = named_kernel(kernel, factor)[None, None]
        else:
            self.register_buffer("kernel", check_kernel(kernel))
        self._memo = Memo()

    def forward(self, x: Tensor) -> Tensor:
        """Low-resolution images (B, C, H/s, W/s)."""
        check_kernel_fits(self.kernel, x)
        self.measurement_shape(x.shape)
        if self.averages:
            return avg_pool2d(x, self.factor)
        rows = self._rows(x)
        seen = torch.fft.rfft2(self._split(x)).mul_(rows).sum(2)
        return torch.fft.irfft2(seen, s=(x.shape[-2] // self.factor, x.shape[-1] // self.factor))

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        check_kernel_fits(self.kernel, y, "measurements")
        if self.averages:
            # As a product, because interpolate returns its input for factor 1.
            return interpolate(y, scale_factor=self.factor) * (1 / self.factor**2)
        return self._spread(y, self._rows(self._image_like(y)).conj())

    def row_gram(self) -> float | None:
        """1/s^2 for average pooling."""
        return 1 / self.factor**2 if self.averages else None

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """``conj(K)/(sigma^2 + weight)`` applied to ``r``, images (B, C, H, W); cut off by ``rcond`` at weight 0."""
        check_kernel_fits(self.kernel, r, "measurements")
        if self.averages:
            return super().damped_pinv(r, weight)
        axis, sigma = self._axis(self._rows(self._image_like(r)))
        return self._spread(r, axis * damped_gain(sigma, weight, self.rcond))

    def project_null(self, x: Tensor) -> Tensor:
        """``(I - A^+ A) x``, images (B, C, H, W)."""
        if self.averages:
            return super().project_null(x)
        axis, sigma = self._axis(self._rows(x))
        axis = torch.where(kept(sigma, self.rcond), axis, 0.0)
        phases = torch.fft.rfft2(self._split(x))
        return self._join(torch.fft.irfft2(phases - axis * (axis.conj() * phases).sum(2, keepdim=True), s=self._low(x)))

    def analysis(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, s^2, H/s, W/s): entry 0 is seen, the others are null.

        Per frequency, a Householder reflection takes the seen direction ``conj(K)/sigma`` of the s^2 phases to entry
        0. It commutes with complex conjugation, so that the Hartley coefficients of its result are real numbers.
        """
        phases = torch.fft.fft2(self._split(x), norm="ortho")
        axis, _ = self._axis(self._rows(x, full=True))
        sign, mirror, scale = _reflection(axis)
        phases = phases - mirror * ((mirror.conj() * phases).sum(2, keepdim=True) * scale)
        return hartley(torch.cat([-sign.conj() * phases[:, :, :1], phases[:, :, 1:]], 2))

    def synthesis(self, c: Tensor) -> Tensor:
        """Images (B, C, H, W) from coefficients."""
        phases = from_hartley(c)
        like = c.new_empty(()).expand(*c.shape[:2], c.shape[-2] * self.factor, c.shape[-1] * self.factor)
        axis, _ = self._axis(self._rows(like, full=True))
        sign, mirror, scale = _reflection(axis)
        phases = torch.cat([-sign * phases[:, :, :1], phases[:, :, 1:]], 2)
        phases = phases - mirror * ((mirror.conj() * phases).sum(2, keepdim=True) * scale)
        return self._join(torch.fft.ifft2(phases, norm="ortho").real)

    def data_analysis(self, y: Tensor) -> Tensor:
        """Hartley coefficients of ``y`` as entry 0, zeros elsewhere, (B, C, s^2, H/s, W/s)."""
        seen = hartley(torch.fft.fft2(y, norm="ortho"))
        return pad(seen[:, :, None], (0, 0, 0, 0, 0, self.factor**2 - 1))

    def data_synthesis(self, c: Tensor) -> Tensor:
        """Measurements from entry 0."""
        return hartley(torch.fft.fft2(c[:, :, 0], norm="ortho"))

    def singular_values(self, x: Tensor) -> Tensor:
        """``sigma`` as entry 0 and zeros, (1 or B, 1 or C, s^2, H/s, W/s)."""
        _, sigma = self._axis(self._rows(x, full=True))
        return pad(sigma, (0, 0, 0, 0, 0, self.factor**2 - 1))

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, C, H/s, W/s). Raises ValueError if s does not divide H and W."""
        sides = image_shape[2:]
        if any(side % self.factor for side in sides):
            raise ValueError(f"the factor {self.factor} does not divide the image size {'x'.join(map(str, sides))}")
        return (*image_shape[:2], *(side // self.factor for side in sides))

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, s h, s w)."""
        return (*measurement_shape[:2], *(side * self.factor for side in measurement_shape[2:]))

    def _low(self, x: Tensor) -> tuple[int, int]:
        return x.shape[-2] // self.factor, x.shape[-1] // self.factor

    def _split(self, x: Tensor) -> Tensor:
        """The phases (B, C, s^2, H/s, W/s) of ``x``."""
        check_image(x)
        return pixel_unshuffle(x, self.factor).unflatten(1, (x.shape[1], self.factor**2))

    def _join(self, phases: Tensor) -> Tensor:
        return pixel_shuffle(phases.flatten(1, 2), self.factor)

    def _spread(self, y: Tensor, columns: Tensor) -> Tensor:
        """Images whose phases are ``columns`` (1 or B, 1 or C, s^2, ...) times the transform of ``y``."""
        phases = columns * torch.fft.rfft2(y)[:, :, None]
        return self._join(torch.fft.irfft2(phases, s=y.shape[-2:]))

    def _rows(self, x: Tensor, full: bool = False) -> Tensor:
        """``K`` (1 or B, 1 or C, s^2, H/s, W/s, of which the last halved for rfft2) for images like ``x``."""
        size = (x.shape[-2], x.shape[-1])

        def compute(kernel: Tensor) -> Tensor:
            # Pixel (0, 0) of y is sum_j k(j) x(origin - j): as weights on x, the kernel flipped.
            origin = [(self.factor + k - 1) // 2 for k in kernel.shape[-2:]]
            last = (kernel.shape[-2] - 1 - origin[0], kernel.shape[-1] - 1 - origin[1])
            weights = wrap_kernel(kernel.flip((-2, -1)), size, last)
            return transform(self._split(weights), half=not full).conj().resolve_conj()

        return self._memo.spectrum(self.kernel, x, (size, full), compute)

    @staticmethod
    def _axis(rows: Tensor) -> tuple[Tensor, Tensor]:
        """The seen direction ``conj(K)/sigma`` (entry 0 where sigma = 0) and ``sigma``; entries along dimension 2."""
        sigma = square(rows).sum(2, keepdim=True).sqrt()
        first = torch.zeros_like(rows)
        first[:, :, 0] = 1
        return torch.where(sigma > 0, rows.conj() / torch.where(sigma > 0, sigma, 1.0), first), sigma


def _reflection(axis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(sign, mirror, scale)``: ``I - scale mirror mirror^H`` takes the unit ``axis`` to -sign times entry 0.

    The sign is that of the axis' own entry 0, so that nothing cancels.
    """
    first = axis[:, :, :1]
    size = first.abs()
    sign = torch.where(size > 0, first / torch.where(size > 0, size, 1.0), 1.0)
    mirror = torch.cat([first + sign, axis[:, :, 1:]], 2)
    return sign, mirror, 1 / (1 + size)


def named_kernel(name: str, factor: int, sigma: float | None = None) -> Tensor:
    """The kernel of :class:`SuperResolution` called ``name``, (k, k), float64: an outer product of its row sums.

    ``sigma`` is the standard deviation of "gaussian" in pixels, s/2 if not given; the kernel reaches 4 of either.
    """
    if name == "bicubic":
        return bicubic_kernel(factor, torch.float64)
    if name == "average":
        return uniform_kernel(factor, torch.float64)
    if name == "gaussian":
        sigma = sigma or factor / 2
        # Even for even factors, so that it has its middle where the block has.
        taps = 2 * math.ceil(4 * max(sigma, factor / 2)) + factor % 2
        return gaussian_kernel(sigma, size=taps, dtype=torch.float64)
    raise ValueError(f"kernel must be numbers or one of {', '.join(KERNELS)}, got {name!r}")
