"""Poisson noise, and noise of another strength in each pixel: how it is drawn, written and weighed."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import GaussianPrior, gaussian_prior
from workbench.evaluation.posterior import dense_matrix
from workbench.images import sample_photo, save_image
from workbench.models import load_prior
from workbench.noise import Noise
from workbench.operators import Blur, Identity, Inpainting, gaussian_kernel, random_mask
from workbench.random import generator
from workbench.restore import degrade, measured, observe, restore
from workbench.solvers import DDRM, MapByProx, make_solver
from workbench.solvers.zero_shot.mmps import moment_guidance

DOUBLE = torch.float64


def levels(shape: tuple[int, ...]) -> Tensor:
    return 0.02 + 0.2 * torch.rand(shape, generator=generator(7), dtype=DOUBLE)


OPERATORS = {
    "pixels": lambda: Inpainting(random_mask((6, 6), 0.4, generator(1)).double()),
    "identity": Identity,
    "blur": lambda: Blur(gaussian_kernel(1.0).double()),
}


@pytest.mark.parametrize(("name", "weight"), [("pixels", 0.01), ("identity", 3.0), ("blur", 0.01)])
def test_a_weighted_data_step_is_that_of_the_likelihood(name: str, weight: float) -> None:
    """argmin of 1/2 sum (A x - y)^2 / s^2 + weight/2 ||x - z||^2, by a dense solve."""
    op, s = OPERATORS[name](), levels((2, 1, 6, 6))
    a, (y, z) = dense_matrix(op, (1, 6, 6)), torch.rand(2, 2, 1, 6, 6, generator=generator(5), dtype=DOUBLE)
    noise = Noise(sigma=s[0])
    white, data, sigma, asked = noise.whitened(op, y, gaussian_prior())
    assert asked == 0
    assert torch.equal(sigma, s[0].min().expand(2))
    white.tolerance = 1e-12
    found = white.prox(z, data, sigma**2 * weight)
    precision = a.T @ torch.diag(s[0].flatten() ** -2) @ a + weight * torch.eye(36, dtype=DOUBLE)
    expected = torch.linalg.solve(precision, (a.T @ (y / s[0] ** 2).flatten(1).T) + weight * z.flatten(1).T).T
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-8)  # of conjugate gradients


@pytest.mark.parametrize("name", OPERATORS)
def test_the_posterior_of_a_gaussian_is_exact(name: str) -> None:
    """Its mode by MAP, and its mean given a state by MMPS, with a variance of each pixel."""
    op, prior, s = OPERATORS[name](), gaussian_prior(6), levels((1, 6, 6))
    a, y = dense_matrix(op, (1, 6, 6)), 0.5 + 0.25 * torch.randn(1, 1, 6, 6, generator=generator(2), dtype=DOUBLE)
    y = op(op.adjoint(y))
    white, data, sigma, _ = Noise(sigma=s).whitened(op, y, prior)
    white.tolerance = 1e-12
    inverse = torch.diag(s.flatten() ** -2)
    half = torch.full((36,), 0.5, dtype=DOUBLE)

    def posterior(prior: GaussianPrior, pull: Tensor, extra: float) -> Tensor:
        precision = torch.linalg.inv(prior.covariance())
        right = a.T @ inverse @ y.flatten() + precision @ half + pull
        return torch.linalg.solve(a.T @ inverse @ a + precision + extra * torch.eye(36, dtype=DOUBLE), right)

    smoothed = GaussianPrior(prior.spectrum + sigma**2, torch.full((1,), 0.5))
    found = MapByProx(tolerance=1e-10, memory=20, max_steps=400)(data, white, prior, sigma_noise=sigma)
    torch.testing.assert_close(
        found.image.flatten(), posterior(smoothed, 0 * half, 0.0), rtol=0, atol=5e-5
    )  # noisy pixels pull least
    state = 0.5 + 0.5 * torch.randn(1, 1, 6, 6, generator=generator(3), dtype=DOUBLE)
    clean, correction = moment_guidance(prior, white, state, data, 0.5, sigma, 36)
    expected = posterior(prior, state.flatten() / 0.25, 4.0)
    torch.testing.assert_close((clean + correction).flatten(), expected, rtol=0, atol=5e-5)


def test_ddrm_on_even_weights_is_ddrm() -> None:
    """A deviation that is the same everywhere changes nothing but the order of roundings."""
    photo, prior = sample_photo("cat", 32), load_prior("photo")
    plain = restore(degrade(photo, "inpaint:0.5", 0.1), DDRM(5), prior)
    even = restore(degrade(photo, "inpaint:0.5", torch.full((3, 32, 32), 0.1)), DDRM(5), prior)
    torch.testing.assert_close(even.image, plain.image, rtol=0, atol=1e-4)
    assert even.records[0]["evaluations"] == plain.records[0]["evaluations"]


def test_counts_have_the_mean_and_variance_that_they_should() -> None:
    clean = torch.full((2, 1, 100, 100), 0.3, dtype=DOUBLE)
    noise = Noise(gain=1 / 50, sigma=0.05)
    y = noise.add(clean, [generator(0), generator(1)])
    assert float(y.mean()) == pytest.approx(0.3, abs=0.003)
    assert float(y.var()) == pytest.approx(0.3 / 50 + 0.05**2, rel=0.05)
    torch.testing.assert_close(noise.deviation(clean), torch.full_like(clean, (0.3 / 50 + 0.05**2) ** 0.5))
    # An image is drawn alone as in a batch; whole counts without Gaussian noise.
    assert torch.equal(noise.add(clean[:1], [generator(0)]), y[:1])
    counts = 50 * Noise(gain=1 / 50).add(clean, [generator(0), generator(1)])
    torch.testing.assert_close(counts, counts.round())


def test_weights_help() -> None:
    """Beside white noise of the same mean square, 30 counts."""
    photo, prior = sample_photo("cat", 64), load_prior("photo")
    given = degrade(photo, "denoise", "poisson:30")
    known = restore(given, make_solver("diffpir", steps=20), prior).records[0]
    level = float(Noise(gain=1 / 30).level(given.y))
    white = restore(measured(given.op, given.y, level, original=photo), make_solver("diffpir", steps=20), prior)
    assert known["psnr"] > white.records[0]["psnr"] + 0.25
    assert known["noise"] == "poisson:30"


def test_bad_noise() -> None:
    for text, says in (
        ("poisson:0", "at least 1"),
        ("poisson-gauss:0.1", "noise is SIGMA, poisson:PEAK"),
        ("poisson-gauss:2,0", "gain must be in .0, 1., got 2"),
        (torch.tensor(1j), "on the .0, 1. scale, got sigma up to 1"),
        ("25", "25/255 = 0.098"),
    ):
        with pytest.raises(ValueError, match=says):
            degrade(torch.zeros(1, 3, 16, 16), "denoise", text)
    for settings in ({"gain": "a"}, {"gain": torch.ones(2)}, {"sigma": "a"}, {"sigma": None}):
        with pytest.raises(ValueError, match=rf"{next(iter(settings))} must be .*, got "):
            Noise(**settings)
    for shape in ((64, 64), (2, 1, 1), (1, 3, 16, 16)):
        for make in (degrade, observe):
            with pytest.raises(ValueError, match=r"sigma of shape .* does not broadcast to a measurement \(3, 16, 16"):
                make(torch.zeros(1, 3, 16, 16), "denoise", torch.full(shape, 0.1))
    with pytest.raises(ValueError, match="above 0 everywhere"):
        Noise(sigma=torch.tensor([0.1, 0.0]))
    with pytest.raises(ValueError, match="counts cannot be negative"):
        Noise(gain=0.1).add(torch.full((1, 1, 2, 2), -1.0), [generator(0)])


def test_a_photo_in_a_batch_is_restored_as_alone() -> None:
    """Bright and dark photos have different noise; that of one must not weigh the other's data."""
    photos, prior = torch.cat([sample_photo("cat", 32), 0.1 * sample_photo("coffee", 32)]), load_prior("photo")
    for spec in ("denoise", "blur:1"):
        both = restore(degrade(photos, spec, "poisson:30"), make_solver("hqs"), prior).image
        alone = restore(degrade(photos[1:], spec, "poisson:30", numbers=[1]), make_solver("hqs"), prior).image
        torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_by_name_from_the_command_line(tmp_path: Path, run) -> None:
    photo, code, out = tmp_path / "cat.png", tmp_path / "camera.py", tmp_path / "out"
    save_image(sample_photo("cat", 32), photo)
    code.write_text(
        "import torch\nfrom workbench.noise import Noise\n"
        "sensor = Noise(gain=0.01, sigma=torch.linspace(0.01, 0.1, 32).expand(3, 32, 32))\n"
    )
    noise = f"{code}:sensor"
    ended, _, errors = run("restore", photo, "--degrade", "denoise", "--noise", noise, "--solver", "hqs", "--out", out)
    assert ended == 0, errors
    record = json.loads((out / "metrics.json").read_text())
    assert record["noise"] == noise
    assert record["psnr"] > 22
    assert record["noise_source"]["file"] == "camera.py"
