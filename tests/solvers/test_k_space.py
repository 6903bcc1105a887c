"""Solvers on masked Fourier transforms, of one coil and of several; photos and k-space of one's own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.operators.operator_cases import coil_maps
from tests.solvers.solver_problems import GaussianPrior, curved_prior, gaussian_prior
from workbench.images import is_grey, sample_photos
from workbench.operators import MaskedFourier, MultiCoil, Operator, cartesian_mask, random_mask
from workbench.random import generator
from workbench.restore import degrade, measured, restore
from workbench.solvers import DiffPIR, MapByProx, PseudoInverse

SIZE, NOISE = 8, 0.05
MASK = random_mask((SIZE, SIZE), 0.7, generator(0))
OPERATORS = {
    "one coil": lambda: MaskedFourier(MASK),
    "columns": lambda: MaskedFourier(cartesian_mask((SIZE, SIZE), 2, None, generator(0))),
    "coils": lambda: MultiCoil(MASK, coil_maps(3, (SIZE, SIZE))),
}


def problem(op: Operator, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """Noisy data of two images of the prior, and the posterior means."""
    x = prior.sample(2, generator(3))
    clean = op(x)
    y = clean + NOISE * torch.randn(clean.shape, generator=generator(4), dtype=x.dtype)
    unit = torch.eye(SIZE * SIZE, dtype=x.dtype).view(-1, 1, SIZE, SIZE)
    a = op(unit).flatten(1).T
    covariance = torch.linalg.inv(torch.linalg.inv(prior.covariance()) + a.T @ a / NOISE**2)
    residual = (y - op(torch.full_like(x, 0.5))).flatten(1)
    mean = 0.5 + residual @ a @ covariance / NOISE**2
    return y, mean.view_as(x)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_mode_and_the_mean_of_a_gaussian_posterior(name: str) -> None:
    """The posterior of the prior at the level of the noise is what MAP looks for: C + sigma^2 in place of C."""
    op, prior = OPERATORS[name](), gaussian_prior(SIZE)
    smoothed = GaussianPrior(prior.spectrum + NOISE**2, torch.full((1,), 0.5))
    y, mean = problem(op, smoothed)
    found = MapByProx(tolerance=1e-10, memory=20, max_steps=400)(y, op, prior, sigma_noise=NOISE)
    torch.testing.assert_close(found.image, mean, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """One in colour and one without."""
    cat, coffee = sample_photos(16, ("cat", "coffee")).split(1)
    return torch.cat([cat, coffee.mean(1, keepdim=True).expand_as(coffee)])


@pytest.fixture(scope="module")
def coils(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("coils") / "maps.npz"
    np.savez(path, maps=coil_maps(2, (16, 16)).to(torch.complex64).numpy())
    return f"{path}:maps"


def test_what_is_not_measured_is_no_data_and_the_picture_is_zero_filled(photos: Tensor, coils: str) -> None:
    for spec in ("mri:4", f"mri:4:{coils}"):
        degraded = degrade(photos, spec, 0.1, seed=1)
        op, clean = degraded.op, degraded.op(photos)
        lost = (op.mask == 0)[..., None].expand(clean.shape)
        assert float(lost.float().mean()) == 0.75
        assert bool((degraded.y[lost] == 0).all())
        assert bool((clean[lost] == 0).all())
        noise = (degraded.y - clean)[~lost]
        assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
        assert degraded.picture.shape == photos.shape
        torch.testing.assert_close(degraded.picture, op.adjoint(degraded.y))
        # Of one coil the brightness is measured; of several, which see different parts, it needs the lines around it.
        brightness = float(degraded.picture.mean() / photos.mean())
        assert (0.98 if op.coils is None else 0.7) < brightness < 1.02


def test_own_k_space_is_restored_with_and_without_an_original(photos: Tensor) -> None:
    grey = photos[1:, :1]
    op = MultiCoil(cartesian_mask((16, 16), 2, None, generator(0)), coil_maps(4, (16, 16)))
    y = torch.view_as_complex(op(grey)).expand(-1, 3, -1, -1, -1)
    own, known = measured(op, y, 0.01), measured(op, y, 0.01, original=photos[1:])
    prior = curved_prior(channels=3)
    results = [restore(each, DiffPIR(5), prior) for each in (own, known)]
    assert torch.equal(*(result.image for result in results))
    assert bool(is_grey(results[0].image).all())
    assert (results[0].records[0]["psnr"], results[0].records[0]["operator"]) == (None, "MultiCoil")
    assert results[1].records[0]["psnr"] > 20
    # Without noise and with enough lines, exactly.
    full = MaskedFourier(cartesian_mask((16, 16), 1))
    exact = restore(measured(full, torch.view_as_complex(full(photos))), PseudoInverse(), prior)
    torch.testing.assert_close(exact.image, photos, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected measurements \(1, 1, 4, 16, 16, 2\), got \(1, 1, 16, 16, 2\)"):
        measured(op, full(grey))
    with pytest.raises(ValueError, match="a measurement has values that are NaN or infinite"):
        measured(op, op(grey) / 0)
    with pytest.raises(ValueError, match="noise is a standard deviation"):
        measured(op, op(grey), 10)
