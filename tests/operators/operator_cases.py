"""The one list of operators, small and odd on purpose, that every invariant runs over."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from workbench.operators import (
    Blur,
    Compose,
    FunctionOperator,
    Grayscale,
    Identity,
    Inpainting,
    MaskedFourier,
    MultiCoil,
    Operator,
    Separable,
    SpectralOperator,
    SuperResolution,
    WalshHadamard,
    decimation,
    gaussian_kernel,
    random_mask,
    scratches_mask,
    uniform_kernel,
)
from workbench.random import Draws
from workbench.trainers import Degradation, Degradations

Shape = tuple[int, int, int, int]

# Conjugate gradients take a hundred times as long as a closed form.
ITERATED: Shape = (2, 3, 17, 12)

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype).to(device)


@dataclass(frozen=True)
class Case:
    """``make(shape)`` gives the operator for images of that shape.

    Attributes:
        shape: of the batch that the invariants use; ``tiny``: of the one that explicit matrices use.
        exact: closed form; otherwise conjugate gradients to the default tolerance (float64 4e-11, float32 2e-5).
        truncated: has singular values below the cut-off of ``pinv``.
        larger: y can have parts that A reaches for no image, so that U^T y is not all of y.
        conditioning: about ||A^+|| ||A|| (truncated), by which rounding and residuals are magnified.
    """

    name: str
    make: Callable[[Shape], Operator]
    shape: Shape = (2, 3, 33, 23)
    tiny: Shape = (2, 3, 5, 7)
    exact: bool = True
    truncated: bool = False
    larger: bool = False
    conditioning: float = 1.0

    def operator(self, device: str = "cpu") -> Operator:
        return self.make(self.shape).to(device)

    def data(self, dtype: torch.dtype, device: str) -> tuple[Operator, Tensor, Tensor, Tensor]:
        """The operator, normal images x and z, and normal measurements y (not in the range of A)."""
        op = self.operator(device)
        x, z = (normal(self.shape, seed, dtype, device) for seed in (1, 2))
        return op, x, z, normal(op.measurement_shape(self.shape), 3, dtype, device)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Relative error that rounding (and, if iterative, the residual) may cause in A A^+ A x or A^+ y."""
        if dtype == torch.float64:
            return 1e-12 * self.conditioning if self.exact else 2e-10 * self.conditioning
        return 2e-6 * self.conditioning if self.exact else 1e-4 * self.conditioning


def single(op: Operator, index: int) -> Operator:
    """``op`` with the parameters of image ``index`` alone."""
    if isinstance(op, Degradation):
        return op.take(torch.tensor([index]))
    alone = copy.deepcopy(op)
    for module in alone.modules():
        for name, value in list(module.named_buffers(recurse=False)):
            if value.ndim in (3, 4) and value.shape[0] > 1:
                setattr(module, name, value[index : index + 1].clone())
    return alone


def coil_maps(count: int, size: tuple[int, int]) -> Tensor:
    """Smooth complex maps (count, H, W), as of coils in a ring around the image; their squared moduli sum to 1."""
    down, right = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in size)
    places = 1.5 * torch.exp(2j * torch.pi * torch.arange(count, dtype=torch.float64) / count)
    maps = 1 / (down[:, None] + 1j * right - places[:, None, None])
    return maps / maps.abs().square().sum(0).sqrt()


def _rough_kernel(batch: int = 1, channels: int = 1, impulse: tuple[int, int] = (1, 3)) -> Tensor:
    """(batch, channels, 4, 5), asymmetric, well conditioned: an impulse plus noise whose sum cannot cancel it.

    The impulse is off the middle (2, 2), which is a shift: harmless on the torus, a loss of pixels at a border.
    """
    kernel = torch.rand((batch, channels, 4, 5), generator=seeded(5), dtype=torch.float64) * 2 - 1
    kernel = 0.4 * kernel / kernel.abs().sum((-2, -1), keepdim=True)
    kernel[..., impulse[0], impulse[1]] += 1
    return kernel


def _real_mask(shape: Shape) -> Tensor:
    """Per image and channel; a third lost, signs both ways, sizes from 1/2 to 3/2."""
    size = 0.5 + torch.rand(shape, generator=seeded(6))
    sign = torch.randint(0, 3, shape, generator=seeded(7)) - 1
    return size * sign


def matrices(count: int, rows: int, columns: int, rank: int | None = None) -> Tensor:
    """(count, rows, columns) with singular values from 0.5 to 1.2, ``rank`` of them if given."""
    bases = [torch.linalg.qr(normal((count, n, n), seed)).Q for n, seed in ((rows, 9), (columns, 10))]
    values = 0.5 + 0.7 * torch.rand(min(rows, columns), generator=seeded(11), dtype=torch.float64)
    values[len(values) if rank is None else rank :] = 0
    return bases[0][:, :, : len(values)] * values @ bases[1][:, :, : len(values)].mT


def _degradations(shape: Shape, *kinds: str) -> Degradation:
    """The first of two images has the first kind (of factor 4 and standard deviation 2.5), the second the second."""
    return Degradations(kinds).sample(shape[0], shape[2:], Draws(seeded(10)))


def _function(shape: Shape) -> Operator:
    weights = 1 + torch.rand(shape[1:], generator=seeded(8))

    def shear(x: Tensor) -> Tensor:
        return (weights.to(x) * x + 0.3 * x.roll(1, -1) + 0.2 * x.flip(1))[..., 1:, :]

    return FunctionOperator(shear, shape[1:])


CASES = [
    Case("identity", lambda s: Identity()),
    Case("inpainting random, each its own", lambda s: Inpainting(random_mask(s[2:], 0.6, seeded(), batch=s[0]))),
    Case("inpainting real", lambda s: Inpainting(_real_mask(s)), conditioning=3),
    Case("blur gaussian", lambda s: Blur(gaussian_kernel(2.0)), truncated=True),
    Case("blur uniform", lambda s: Blur(uniform_kernel((4, 3))), (2, 3, 32, 24), (2, 3, 4, 6), truncated=True),
    Case("blur rough", lambda s: Blur(_rough_kernel()), conditioning=3),
    Case("blur, each its own, wraps", lambda s: Blur(_rough_kernel(s[0], 3)), shape=(2, 3, 3, 4), conditioning=3),
    *(
        Case(
            f"blur {b}",
            lambda s, b=b: Blur(_rough_kernel(impulse=(2, 2)), boundary=b),
            ITERATED,
            exact=False,
            conditioning=5,
        )
        for b in ("reflect", "replicate", "zeros", "valid")
    ),
    Case("sr 4 bicubic", lambda s: SuperResolution(4), (2, 3, 32, 24), (2, 3, 8, 4), conditioning=3),
    Case("sr 3 average", lambda s: SuperResolution(3, "average"), (2, 3, 33, 21), (2, 3, 6, 3), conditioning=3),
    Case(
        "sr 2 blurred",
        lambda s: SuperResolution(2, gaussian_kernel(5.0)),
        (2, 3, 34, 26),
        (2, 1, 12, 10),
        truncated=True,
    ),
    Case(
        "sr 3, each its own",
        lambda s: SuperResolution(3, _rough_kernel(s[0], 3)),
        (2, 3, 33, 21),
        (2, 3, 3, 6),
        conditioning=3,
    ),
    Case("sr 3, ragged", lambda s: Separable(*(decimation(n, 3) for n in s[2:])), conditioning=10),
    Case(
        "separable, smaller, each its own",
        lambda s: Separable(matrices(s[0], s[2] - 2, s[2]), matrices(1, s[3] - 3, s[3])),
        conditioning=4,
    ),
    Case(
        "separable, larger",
        lambda s: Separable(matrices(1, s[2] + 2, s[2]), matrices(s[0], s[3] + 1, s[3])),
        larger=True,
        conditioning=4,
    ),
    Case(
        "separable, rank-deficient",
        lambda s: Separable(matrices(s[0], s[2] + 2, s[2], s[2] - 2), matrices(s[0], s[3] - 1, s[3], s[3] - 2)),
        larger=True,
        conditioning=4,
    ),
    Case("degradations, lost", lambda s: _degradations(s, "pixels", "block")),
    Case("degradations, shrunk", lambda s: _degradations(s, "super-resolution", "denoising"), conditioning=11),
    Case(
        "degradations, blurred",
        lambda s: _degradations(s, "deblurring", "block"),
        truncated=True,
        # Matrix products, unlike Fourier transforms, round what the blur nearly wipes out as coarsely as the rest.
        conditioning=200,
    ),
    Case("grey 4 channels", lambda s: Grayscale([-0.5, 0.2, 0.0, 1.5]), (2, 4, 33, 23), (2, 4, 2, 3)),
    Case("hadamard", lambda s: WalshHadamard(s[2:], 0.3, seeded()), (2, 3, 32, 16), (2, 2, 2, 8)),
    Case("fourier, each its own", lambda s: MaskedFourier(random_mask(s[2:], 0.6, seeded(), batch=s[0])), larger=True),
    Case(
        "fourier, coils",
        lambda s: MultiCoil(random_mask(s[2:], 0.3, seeded(), batch=s[0]), coil_maps(3, s[2:])),
        ITERATED,
        exact=False,
        conditioning=5,
    ),
    Case("old photo", lambda s: Compose(Inpainting(scratches_mask(s[2:], generator=seeded())), Grayscale())),
    Case(
        "mask after average",
        lambda s: Compose(
            Inpainting(random_mask((s[2] // 2, s[3] // 2), 0.5, seeded())), SuperResolution(2, "average")
        ),
        (2, 3, 34, 22),
        (2, 3, 4, 6),
        conditioning=2,
    ),
    Case("blur after grey", lambda s: Compose(Blur(_rough_kernel()), Grayscale()), conditioning=3),
    Case(
        "mask after blur",
        lambda s: Compose(Inpainting(random_mask(s[2:], 0.5, seeded())), Blur(_rough_kernel())),
        ITERATED,
        exact=False,
        conditioning=5,
    ),
    Case("function", _function, ITERATED, exact=False, conditioning=5),
]

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SPECTRAL = pytest.mark.parametrize(
    "case", [c for c in CASES if isinstance(c.operator(), SpectralOperator)], ids=lambda case: case.name
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
ON = pytest.mark.parametrize("device", DEVICES)
