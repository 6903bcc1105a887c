"""Against explicit matrices: tiny operators column by column, inverted by LAPACK. And the errata of the papers."""

import math

import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import EACH, Case, normal, single
from workbench.operators import Inpainting, SuperResolution, gaussian_kernel, random_mask

pytestmark = pytest.mark.filterwarnings("error")


def basis(shape: tuple[int, ...]) -> Tensor:
    """All unit images (N, C, H, W)."""
    pixels = math.prod(shape)
    return torch.eye(pixels, dtype=torch.float64).view(pixels, *shape)


@EACH
def test_pinv_and_null_space_are_lapacks(case: Case) -> None:
    op = single(case.make(case.tiny), 0)
    a = op(basis(case.tiny[1:])).flatten(1).T
    measurement = op.measurement_shape((1, *case.tiny[1:]))[1:]
    # The cut-off of the package, 1.5e-8 of the largest singular value; conjugate gradients stop at 4e-11.
    inverse = torch.linalg.pinv(a, rtol=1.5e-8)
    tolerance = {"rtol": 0, "atol": 1e-14 * float(torch.linalg.matrix_norm(inverse, 2)) ** 2 * 10}
    if not case.exact:
        tolerance["atol"] = 1e-8
    torch.testing.assert_close(op.pinv(basis(measurement)).flatten(1).T, inverse, **tolerance)
    null = torch.eye(a.shape[1], dtype=a.dtype) - inverse @ a
    # Where a cut-off lies between two close singular values, LAPACK's rounding decides; there is none such here.
    torch.testing.assert_close(op.project_null(basis(case.tiny[1:])).flatten(1).T, null, **tolerance)


def test_ud2m_data_step_for_inpainting() -> None:
    """Errata 7: in UD2M's eq. (15) the denominator is sigma^2 + kappa."""
    mask = random_mask((6, 5), 0.4, torch.Generator().manual_seed(0)).double()
    y, mean_t, guess = mask * normal((1, 3, 6, 5), 1), normal((1, 3, 6, 5), 2), normal((1, 3, 6, 5), 3)
    sigma, sigma_t, delta = 0.3, 0.7, 1.9
    kappa = 1 / (1 / sigma_t**2 + 1 / delta)
    centre = kappa * (mean_t / sigma_t**2 + guess / delta)
    paper = centre + mask * kappa / (sigma**2 + kappa) * (y - centre)
    # Errata 9: the quadratic of both centres is one prox, with their weighted mean.
    ours = Inpainting(mask).prox(centre, y, sigma**2 / kappa)
    torch.testing.assert_close(ours, paper, rtol=0, atol=1e-14)
    objective_gradient = (mask * ours - y) * mask / sigma**2 + (ours - mean_t) / sigma_t**2 + (ours - guess) / delta
    assert float(objective_gradient.abs().max()) < 1e-13


def test_ud2m_data_step_for_super_resolution() -> None:
    """Errata 8: UD2M's eq. (16) with kappa and r corrected, by full transforms and the mean over aliases."""
    s, shape = 2, (1, 1, 8, 12)
    op = SuperResolution(s, gaussian_kernel(1.2, size=6, dtype=torch.float64))
    y, mean_t, guess = normal((1, 1, 4, 6), 1), normal(shape, 2), normal(shape, 3)
    sigma, sigma_t, delta = 0.01, 0.7, 1.9
    kappa = sigma**2 * (1 / sigma_t**2 + 1 / delta)
    r = op.adjoint(y) + sigma**2 * (mean_t / sigma_t**2 + guess / delta)
    first = torch.zeros_like(y)
    first[..., 0, 0] = 1
    # The weights of y's first pixel are the kernel mirrored.
    blur = torch.fft.fft2(op.adjoint(first)).conj()

    def alias_mean(spectrum: Tensor) -> Tensor:
        return spectrum.unflatten(-1, (s, -1)).unflatten(-3, (s, -1)).mean((-4, -2))

    spectrum = torch.fft.fft2(r)
    ratio = alias_mean(blur * spectrum) / (alias_mean(blur.abs() ** 2) + kappa)
    paper = torch.fft.ifft2((spectrum - blur.conj() * ratio.repeat(1, 1, s, s)) / kappa).real
    centre = (mean_t / sigma_t**2 + guess / delta) / (1 / sigma_t**2 + 1 / delta)
    # The paper's form cancels: it loses 1/kappa of its digits.
    torch.testing.assert_close(op.prox(centre, y, kappa), paper, rtol=0, atol=1e-14 / min(1, kappa) * 100)
