"""Small exact problems for the solver tests: priors with a closed form, explicit-matrix operators, stored vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, silu

from workbench.models.gaussian import GaussianPrior
from workbench.models.prior import Prior
from workbench.operators.base import Operator, SpectralOperator


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

    def __init__(self, op: MatrixOperator) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.op.adjoint(y)

    def measurement_shape(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        return self.op.measurement_shape(image_shape)

    def image_shape(self, measurement_shape: Sequence[int]) -> tuple[int, ...]:
        return self.op.image_shape(measurement_shape)


def matrices(size: int, seed: int = 0) -> dict[str, Tensor]:
    """Explicit matrices on 1-channel size x size images: dense, mask, blocks' means, circular blur."""
    g = torch.Generator().manual_seed(seed)
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


class Case:
    """A stored reference case: ``case["name"]`` is a tensor, ``case.info`` the JSON."""

    def __init__(self, shared: Path, name: str) -> None:
        folder = shared / "reference" / "samplers"
        self.info = json.loads((folder / f"{name}.json").read_text())
        self.tensors = load_file(folder / f"{name}.safetensors")
        self.atol = self.info["suggested_atol_outputs"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def ve_prior(self, **options: Any) -> Prior:
        """The case's denoiser, which takes [0, 1] images plus noise."""
        if "prior/spectrum" in self:
            return GaussianPrior(self["prior/spectrum"], self["prior/mean"], **options)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            level = sigma.view(-1, 1, 1, 1)
            hidden = conv2d(x / (1 + level), self["net/conv1.weight"], self["net/conv1.bias"], padding=1)
            hidden = silu(hidden + self["net/emb"].view(1, -1, 1, 1) * 0.25 * level.log())
            raw = conv2d(hidden, self["net/conv2.weight"], self["net/conv2.bias"], padding=1)
            return x + level**2 * (raw + 0.5 - x) / (level**2 + 0.25)

        return FunctionPrior(denoise, **options)

    def vp_prior(self) -> Prior:
        """The case's noise predictor on [-1, 1] images at times t, as a VE denoiser on [0, 1]."""
        alpha_bar = self["schedule/alphas_cumprod"].double()
        levels = ((1 - alpha_bar) / alpha_bar).sqrt() / 2

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            t = (levels[None] - sigma.double()[:, None]).abs().argmin(1)
            s = 2 * sigma.view(-1, 1, 1, 1)
            state = (2 * x - 1) * alpha_bar[t].sqrt().to(x.dtype).view(-1, 1, 1, 1)
            return (2 * x - 1 - s * self.vp_noise(state, t) + 1) / 2

        return FunctionPrior(denoise)

    def vp_noise(self, x: Tensor, t: Tensor) -> Tensor:
        """The case's noise prediction for VP states x (B, C, H, W) in [-1, 1] at times t (B,)."""
        alpha_bar = self["schedule/alphas_cumprod"][t].view(-1, 1, 1, 1)
        if "prior/spectrum" in self:
            a = alpha_bar.double()
            s = self["prior/spectrum"].double()
            mean = self["prior/mean"].double().view(1, -1, 1, 1)
            centred = torch.fft.fft2(x.double() - a.sqrt() * mean)
            clean = mean + torch.fft.ifft2(a.sqrt() * s / (a * s + 1 - a) * centred).real
            return ((x - a.sqrt() * clean) / (1 - a).sqrt()).to(x.dtype)
        time = (t / 1000).to(x.dtype).view(-1, 1, 1, 1)
        hidden = conv2d(x, self["net/conv1.weight"], self["net/conv1.bias"], padding=1)
        hidden = silu(hidden + self["net/emb"].view(1, -1, 1, 1) * time)
        return conv2d(hidden, self["net/conv2.weight"], self["net/conv2.bias"], padding=1) + 0.9 * x * time.sqrt()


class Factors(MatrixOperator):
    """``y = U diag(s) V^T x`` with the factors as given, in their order; every singular value counts."""

    def __init__(self, u: Tensor, values: Tensor, v: Tensor, shape: Iterable[int]) -> None:
        SpectralOperator.__init__(self, rcond=0.0)
        self.u, self.v, self.shape = u.double(), v.double(), tuple(shape)
        self.values = torch.cat([values, values.new_zeros(len(v) - len(values))]).double()
        self.matrix = self.u * self.values[: self.u.shape[1]] @ self.v.T[: self.u.shape[1]]


class Rows(SpectralOperator):
    """A matrix A (m, k) with orthogonal rows, on groups of k numbers that ``split`` and ``join`` make of an image."""

    def __init__(self, matrix: Tensor, split, join) -> None:
        super().__init__()
        u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=True)
        self.matrix, self.split, self.join = matrix.double(), split, join
        self.u, self.v = u, vh.T
        self.values = torch.cat([values, values.new_zeros(matrix.shape[1] - len(values))])

    def singular_values(self, x: Tensor) -> Tensor:
        return self.values.to(x).view(*[1] * (self.split(x).ndim - 1), -1)

    def image_shape(self, measurement_shape: Sequence[int]) -> tuple[int, ...]:
        return (measurement_shape[0], 3, 16, 16)

    def measurement_shape(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(self(torch.zeros(image_shape)).shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.split(x) @ self.matrix.T.to(x)

    def analysis(self, x: Tensor) -> Tensor:
        return self.split(x) @ self.v.to(x)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        return self.join(coefficients @ self.v.T.to(coefficients))

    def data_analysis(self, y: Tensor) -> Tensor:
        seen = y @ self.u.to(y)
        return torch.nn.functional.pad(seen, (0, len(self.values) - seen.shape[-1]))

    def data_synthesis(self, coefficients: Tensor) -> Tensor:
        return coefficients[..., : self.u.shape[1]] @ self.u.T.to(coefficients)


def ddnm_operator(case: Case) -> tuple[SpectralOperator, Tensor]:
    """The case's operator and its y as that operator takes it, on [0, 1] images."""
    y = (case["y"] + 1) / 2
    if case.info["task"] == "inpaint":
        eye = torch.eye(768)[case["op/kept_indices_hwc"]]
        return (
            Rows(
                eye,
                lambda x: x.permute(0, 2, 3, 1).reshape(-1, 1, 768),
                lambda v: v.reshape(-1, 16, 16, 3).permute(0, 3, 1, 2),
            ),
            y[:, None],
        )
    if case.info["task"] == "denoise":
        return Rows(torch.eye(768), lambda x: x.reshape(-1, 1, 768), lambda v: v.reshape(-1, 3, 16, 16)), y[:, None]
    if case.info["task"] == "color":
        weights = torch.tensor([[0.3333, 0.3334, 0.3333]])
        return (
            Rows(weights, lambda x: x.permute(0, 2, 3, 1), lambda v: v.permute(0, 3, 1, 2)),
            y.view(-1, 16, 16, 1),
        )
    blocks = torch.full((1, 16), 1 / 16)
    return (
        Rows(
            blocks,
            lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4),
            lambda v: v.unflatten(4, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(-1, 3, 16, 16),
        ),
        y.view(-1, 3, 4, 4, 1),
    )


def ddnm_levels(case: Case) -> list[float]:
    """The published steps as levels of [0, 1] images: t = (T - 1) s, ..., s, 0 and then 0."""
    alpha_bar = case["schedule/alphas_cumprod"].double()
    t = torch.arange(case.info["T_sampling"] - 1, -1, -1) * case.info["skip"]
    return [*(((1 - alpha_bar[t]) / alpha_bar[t]).sqrt() / 2).tolist(), 0.0]


def replay(noises: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
    """A noise source that returns stored draws one after the other."""
    stored = iter(noises)

    def draw(like: Tensor) -> Tensor:
        return next(stored).to(like)

    return draw
