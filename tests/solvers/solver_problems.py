"""Small exact problems for the solver tests: priors with a closed form, explicit-matrix operators, recorders."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.models.gaussian import GaussianPrior
from workbench.models.prior import Prior, Wrapped
from workbench.operators.base import Operator, SpectralOperator
from workbench.random import generator


def gaussian_prior(size: int = 6, channels: int = 1, **options: Any) -> GaussianPrior:
    """A smooth prior: standard deviation about 0.25 around 0.5, power falling with frequency."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    power = 1 / (0.02 + f[:, None] ** 2 + f[None, :] ** 2)
    power = 0.25**2 * power / power.mean()
    return GaussianPrior(power.expand(channels, size, size), torch.full((channels,), 0.5), **options)


class FunctionPrior(Prior):
    """Any denoiser ``f(x, sigma (B,))``."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], channels: int = 3, **options: Any) -> None:
        super().__init__(**{"sigma_min": 1e-4, "sigma_max": 500.0, "channels": channels, **options})
        self.f = f

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.f(x, sigma)


def curved_prior(**options: Any) -> FunctionPrior:
    """A non-linear denoiser on any number of channels: a soft pull towards two grey values, local smoothing."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        smooth = (x + x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2) + x.roll(-1, -2)) / 5
        gain = 0.06 / (0.06 + level**2)
        return 0.5 + 0.25 * torch.tanh(4 * gain * (smooth - 0.5)) + 0.5 * gain * (x - smooth)

    return FunctionPrior(denoise, **{"channels": 1, **options})


class Recorder(Wrapped):
    """``prior``, and what it was asked: ``calls`` holds (x, sigma (B,), answer), ``told`` the levels, one per call."""

    def __init__(self, prior: Prior, **changes: Any) -> None:
        super().__init__(prior, "recorder", **changes)
        self.prior, self.calls = prior, []

    @property
    def told(self) -> list[float]:
        return [float(sigma.max()) for _, sigma, _ in self.calls]

    @property
    def images(self) -> int:
        return sum(len(x) for x, _, _ in self.calls)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        answer = self.prior.denoise(x, sigma)
        self.calls.append((x.clone(), sigma, answer))
        return answer


class MatrixOperator(SpectralOperator):
    """``y = A x`` for an explicit matrix on flattened images, by its singular value decomposition."""

    def __init__(self, matrix: Tensor, shape: Iterable[int]) -> None:
        super().__init__()
        self.matrix, self.shape = matrix.double(), tuple(shape)
        u, values, vh = torch.linalg.svd(self.matrix, full_matrices=True)
        pad = self.matrix.shape[1] - values.shape[0]
        self.u, self.v = u[:, : values.shape[0]], vh.T
        self.values = torch.cat([values, values.new_zeros(pad)])

    def singular_values(self, x: Tensor) -> Tensor:
        return self.values.to(x)[None]

    def image_shape(self, measurement_shape: Sequence[int]) -> tuple[int, ...]:
        return (measurement_shape[0], *self.shape)

    def analysis(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.v.to(x.dtype)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        return (coefficients @ self.v.T.to(coefficients.dtype)).view(-1, *self.shape)

    def data_analysis(self, y: Tensor) -> Tensor:
        seen = y @ self.u.to(y.dtype)
        return torch.cat([seen, seen.new_zeros(len(seen), len(self.values) - seen.shape[1])], 1)

    def data_synthesis(self, coefficients: Tensor) -> Tensor:
        return coefficients[:, : self.u.shape[1]] @ self.u.T.to(coefficients.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T.to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y.dtype)).view(-1, *self.shape)

    def measurement_shape(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        return (image_shape[0], len(self.matrix))


class Unspectral(Operator):
    """The same operator without its spectral form."""

    def __init__(self, op: Operator) -> None:
        super().__init__()
        self.op = op
        self.forward, self.adjoint = op.forward, op.adjoint
        self.measurement_shape, self.image_shape = op.measurement_shape, op.image_shape


SIZE = 6
SHAPE = (1, SIZE, SIZE)


def matrices(size: int = SIZE, seed: int = 0) -> dict[str, Tensor]:
    """Explicit matrices on 1-channel size x size images: dense, mask, blocks' means, circular blur."""
    g = generator(seed)
    n = size * size
    eye = torch.eye(n, dtype=torch.float64)
    image = eye.view(n, 1, size, size)
    blur = (image + 0.9 * image.roll(1, -1) + 0.8 * image.roll(1, -2)) / 2.7
    means = torch.nn.functional.avg_pool2d(image, 2)
    return {
        "dense": torch.randn(n // 2, n, generator=g, dtype=torch.float64) / size,
        "mask": eye[torch.randperm(n, generator=g)[: n // 2]],
        "means": means.flatten(1).T.contiguous(),
        "blur": blur.flatten(1).T.contiguous(),
    }


def explicit(name: str = "dense") -> MatrixOperator:
    """One of the matrices above on images (B, 1, 6, 6)."""
    return MatrixOperator(matrices()[name], SHAPE)


def problem(name: str = "dense", batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[MatrixOperator, Tensor]:
    """An explicit operator and what it measures of images of white noise."""
    op = explicit(name)
    x = torch.rand(batch, *SHAPE, generator=generator(1), dtype=torch.float64)
    return op, op(x).to(dtype)


def blurred(size: int = 12, batch: int = 16) -> tuple[MatrixOperator, Tensor, Tensor, Tensor]:
    """A blur with singular values down to 1e-3, images of the prior, their noisy data, the mean posterior variance."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    response = torch.exp(-2 * (torch.pi * 1.2) ** 2 * (f[:, None] ** 2 + f[None, :] ** 2)).clamp(min=1e-3)
    basis = torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size)
    op = MatrixOperator(torch.fft.ifft2(response * torch.fft.fft2(basis)).real.flatten(1).T, (1, size, size))
    spectrum = gaussian_prior(size).spectrum
    white = torch.randn(batch, 1, size, size, generator=generator(0), dtype=torch.float64)
    x = 0.5 + torch.fft.ifft2(spectrum.sqrt() * torch.fft.fft2(white)).real
    y = op(x) + 0.01 * torch.randn(batch, size * size, generator=generator(1), dtype=torch.float64)
    return op, x, y, (spectrum * 1e-4 / (response**2 * spectrum + 1e-4)).mean()


def stored(count: int, batch: int = 2, size: int = SIZE, seed: int = 0) -> Tensor:
    """(count, batch, 1, size, size) draws to be replayed."""
    return torch.randn(count, batch, 1, size, size, generator=generator(seed), dtype=torch.float64)


class Factors(MatrixOperator):
    """``y = U diag(s) V^T x`` with the factors as given, in their order; every singular value counts."""

    def __init__(self, u: Tensor, values: Tensor, v: Tensor, shape: Iterable[int]) -> None:
        SpectralOperator.__init__(self, rcond=0.0)
        self.u, self.v, self.shape = u.double(), v.double(), tuple(shape)
        self.values = torch.cat([values, values.new_zeros(len(v) - len(values))]).double()
        self.matrix = self.u * self.values[: self.u.shape[1]] @ self.v.T[: self.u.shape[1]]


def replay(noises: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
    """A noise source that returns stored draws one after the other."""
    stored = iter(noises)

    def draw(like: Tensor) -> Tensor:
        return next(stored).to(like)

    return draw


def linear_problem(n: int = 6, batch: int = 3, radius: float = 0.9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (batch, n, n) of the given spectral norm, right sides (batch, n) and the fixed points of M x + b."""
    g = torch.Generator().manual_seed(seed)
    m = torch.randn(batch, n, n, generator=g, dtype=torch.float64)
    m = radius * m / torch.linalg.matrix_norm(m, 2)[:, None, None]
    b = torch.randn(batch, n, generator=g, dtype=torch.float64)
    return m, b, torch.linalg.solve(torch.eye(n, dtype=torch.float64) - m, b)


def affine(m: Tensor, b: Tensor):
    return lambda x, rows: (torch.bmm(m[rows], x.unsqueeze(2)).squeeze(2) + b[rows]).view_as(x)
