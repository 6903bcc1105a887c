"""Compressed sensing by Walsh-Hadamard patterns: a random part of an orthonormal transform of shuffled pixels."""

import torch
from torch import Tensor

from workbench.operators.base import Shape, SpectralOperator
from workbench.operators.checks import check_image


def walsh_hadamard(x: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform (natural order) over the last dimension, a power of two. Its own inverse."""
    shape, span = x.shape, x.shape[-1]
    while span > 1:
        span //= 2
        first, second = x.reshape(*shape[:-1], -1, 2, span).unbind(-2)
        x = torch.stack((first + second, first - second), -2)
    return x.reshape(shape) / shape[-1] ** 0.5


class WalshHadamard(SpectralOperator):
    """``y`` (B, C, M): the kept transform coefficients of each channel of images (B, C, H, W), pixels shuffled before.

    The rows of A are orthonormal: ``pinv`` is the adjoint. Shuffle and choice are the same for all images and channels;
    the coefficient of the mean is always kept.

    Args:
        image_size: (H, W), H * W a power of two.
        ratio: the share of coefficients kept, in (0, 1]; M is that share of H * W, at least 1.
        generator: draws the shuffle, then the choice.

    Raises:
        ValueError: H * W not a power of two, or a ratio outside (0, 1].
    """

    pixel_order: Tensor
    inverse_pixel_order: Tensor
    order: Tensor
    inverse_order: Tensor

    def __init__(self, image_size: tuple[int, int], ratio: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        pixels = image_size[0] * image_size[1]
        if pixels < 1 or pixels & (pixels - 1):
            raise ValueError(f"Walsh-Hadamard needs H x W to be a power of two, got {image_size[0]}x{image_size[1]}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}")
        self.image_size = tuple(image_size)
        self.measurements = max(1, round(ratio * pixels))
        device = generator.device if generator is not None else None
        self.register_buffer("pixel_order", torch.randperm(pixels, generator=generator, device=device))
        self.register_buffer("inverse_pixel_order", self.pixel_order.argsort())
        # Coefficients with the kept ones first, the mean (index 0) first of all.
        choice = 1 + torch.randperm(pixels - 1, generator=generator, device=device)
        self.register_buffer("order", torch.cat([choice.new_zeros(1), choice]))
        self.register_buffer("inverse_order", self.order.argsort())

    def forward(self, x: Tensor) -> Tensor:
        """The kept coefficients (B, C, M)."""
        return self.data_synthesis(self.analysis(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y`` = ``A^+ y``, images (B, C, H, W)."""
        return self.synthesis(self.data_analysis(y))

    def row_gram(self) -> float:
        """1."""
        return 1.0

    def analysis(self, x: Tensor) -> Tensor:
        """All coefficients (B, C, H W), the kept ones first."""
        self.measurement_shape(x.shape)
        check_image(x)
        return walsh_hadamard(x.flatten(2)[..., self.pixel_order])[..., self.order]

    def synthesis(self, c: Tensor) -> Tensor:
        """Images (B, C, H, W) from all coefficients."""
        pixels = walsh_hadamard(c[..., self.inverse_order])[..., self.inverse_pixel_order]
        return pixels.unflatten(-1, self.image_size)

    def data_analysis(self, y: Tensor) -> Tensor:
        """``y``, then zeros, (B, C, H W)."""
        self.image_shape(y.shape)
        return torch.nn.functional.pad(y, (0, len(self.order) - self.measurements))

    def data_synthesis(self, c: Tensor) -> Tensor:
        """The first M coefficients."""
        return c[..., : self.measurements].clone()

    def singular_values(self, x: Tensor) -> Tensor:
        """One M times, then zeros, (1, 1, H W)."""
        return (torch.arange(len(self.order), device=x.device) < self.measurements).to(x.dtype)[None, None]

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """(B, C, M). Raises ValueError for images of another size."""
        if len(image_shape) != 4 or tuple(image_shape[2:]) != self.image_size:
            raise ValueError(
                f"expected images (B, C, {self.image_size[0]}, {self.image_size[1]}), got {tuple(image_shape)}"
            )
        return (*image_shape[:2], self.measurements)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """(B, C, H, W). Raises ValueError for another number of measurements."""
        if len(measurement_shape) != 3 or measurement_shape[2] != self.measurements:
            raise ValueError(f"expected measurements (B, C, {self.measurements}), got {tuple(measurement_shape)}")
        return (*measurement_shape[:2], *self.image_size)
