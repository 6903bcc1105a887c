"""The posterior check itself: exact samples pass, wrong ones are seen; and what is known of each sampler.

Monte Carlo: with 1000 samples the bias is 1/sqrt(1000) = 0.032 by chance, and a variance ratio averaged over k
components varies by sqrt(2 / (1000 k)), 1.1 % for 16.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.solvers.solver_problems import gaussian_prior
from workbench.evaluation.posterior import Row, check_posterior, dense_matrix, exact_posterior, table
from workbench.models import GaussianPrior
from workbench.operators import JPEG, Blur, Identity, Inpainting, Operator, SuperResolution, gaussian_kernel
from workbench.operators.masks import random_mask
from workbench.random import generator
from workbench.solvers import DDNM, DDRM, DPS, PiGDM, Restoration
from workbench.solvers.schedules import sampling_sigmas

SIZE = 8


def white() -> GaussianPrior:
    return GaussianPrior(torch.full((1, SIZE, SIZE), 0.25**2), torch.tensor([0.5]))


def operators() -> dict[str, Operator]:
    return {
        "sr": SuperResolution(2, "average"),
        "blur": Blur(gaussian_kernel((1.0, 1.0))),
        "inpaint": Inpainting(random_mask((SIZE, SIZE), 0.5, generator(0))),
    }


def problem(name: str, sigma: float, prior: GaussianPrior) -> tuple[Operator, Tensor]:
    op = operators()[name]
    y = op(prior.sample(1, generator(1)))
    return op, y + sigma * torch.randn(y.shape, generator=generator(2), dtype=y.dtype)


class Exact:
    """Draws from the posterior; ``shift`` posterior standard deviations off, ``scale`` times as wide."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        self.shift, self.scale = shift, scale

    def __call__(self, y, op, prior, *, sigma_noise=0.0, generator=None, noise=None, callback=None) -> Restoration:
        exact = exact_posterior(op, prior, y[:1], sigma_noise)
        colour = torch.linalg.solve(exact.whiten, torch.diag(exact.variances.sqrt()))
        off = self.scale * (exact.sample(len(y), generator) - exact.mean) + self.shift * colour.sum(1)
        counts = torch.zeros(len(y), dtype=torch.int64)
        return Restoration((exact.mean + off).view(len(y), *prior.spectrum.shape), counts, counts)


def rows_of(solver, name: str, sigma: float, prior: GaussianPrior, count: int = 1000) -> dict[str, Row]:
    op, y = problem(name, sigma, prior)
    rows = check_posterior(solver, op, prior, y, sigma, count=count, generator=generator(3))
    return {row.group: row for row in rows}


@pytest.mark.parametrize("sigma", [0.0, 0.1])
@pytest.mark.parametrize("name", operators())
def test_the_exact_posterior_is_that_of_dense_algebra(name, sigma):
    """By conditioning the joint covariance, another formula than the module's; blur has data of full rank."""
    prior = gaussian_prior(SIZE)
    op, y = problem(name, sigma, prior)
    exact = exact_posterior(op, prior, y, sigma)
    a = op(torch.eye(SIZE**2, dtype=torch.float64).view(-1, 1, SIZE, SIZE)).flatten(1).T
    covariance = prior.covariance()
    gram = a @ covariance @ a.T + sigma**2 * torch.eye(len(a)).double()
    gain = covariance @ a.T @ torch.linalg.pinv(gram, hermitian=True)
    residual = y.flatten() - a @ torch.full((SIZE**2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(exact.mean, 0.5 + gain @ residual, atol=1e-8, rtol=0)
    torch.testing.assert_close(exact.covariance, covariance - gain @ a @ covariance, atol=1e-8, rtol=0)
    unit = exact.whiten @ covariance @ exact.whiten.T
    torch.testing.assert_close(unit, torch.eye(SIZE**2, dtype=torch.float64), atol=1e-9, rtol=0)
    inside = exact.whiten @ exact.covariance @ exact.whiten.T
    torch.testing.assert_close(inside, torch.diag(exact.variances), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("name", "sigma", "known"), [("sr", 0.0, 16), ("blur", 0.0, 64), ("inpaint", 0.1, 0)])
def test_exact_samples_pass(name, sigma, known):
    """Without noise the data fix 16 means, or everything behind a blur of full rank."""
    rows = rows_of(Exact(), name, sigma, gaussian_prior(SIZE))
    assert sum(row.components for group, row in rows.items() if group != "all") == SIZE**2
    if known:
        assert rows["known"].components == known
        assert rows["known"].bias < 1e-6
    for group in rows.keys() - {"known"}:
        assert rows[group].bias_by_chance == pytest.approx(1000**-0.5)
        assert rows[group].bias < 2 * rows[group].bias_by_chance
        assert rows[group].variance_ratio == pytest.approx(1, abs=0.05)


def test_wrong_samples_are_seen_and_the_table_can_be_read():
    rows = rows_of(Exact(shift=0.5, scale=2.0), "sr", 0.1, gaussian_prior(SIZE))
    for group in ("seen", "unseen"):
        assert rows[group].bias == pytest.approx(0.5, abs=0.05)
        assert rows[group].variance_ratio == pytest.approx(4, rel=0.05)
    lines = table(list(rows.values())).splitlines()
    assert [line.split()[0] for line in lines] == ["group", *rows]
    assert len({len(line) for line in lines}) == 1


def test_bad_input_is_refused():
    prior, y = gaussian_prior(SIZE), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    flat = GaussianPrior(torch.zeros(1, 8, 8), torch.zeros(1))
    for call, message in (
        (lambda: exact_posterior(JPEG(30), prior, y, 0.1), "JPEG is not"),
        (lambda: exact_posterior(Identity(), prior, torch.cat([y, y]), 0.1), r"one measurement .* \(2, 1, 8, 8\)"),
        (lambda: exact_posterior(Identity(), prior, y, -0.1), "sigma_noise must be finite"),
        (lambda: exact_posterior(Identity(), flat, y, 0.1), "spectrum must be positive"),
        (lambda: check_posterior(DDNM(3), Identity(), prior, y, count=1), "count must be at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# What is known of the samplers.


def spread_after(levels: Tensor, variance: Tensor, eta: float) -> Tensor:
    """Variance that a DDIM chain gives components whose denoiser is that of N(m, variance), by recursion, over it.

    ``u' = g u + (s/s_before) sqrt(...) (u - g u) + noise`` with the slope ``g = variance / (variance + s_before^2)``.
    """
    total = levels[0] ** 2 * torch.ones_like(variance)
    for above, below in pairwise(levels):
        slope = variance / (variance + above**2)
        fresh = (eta * below) ** 2 * (1 - (below / above) ** 2)
        total = (slope + (1 - slope) * (below**2 - fresh).sqrt() / above) ** 2 * total + fresh
    return total / variance


@pytest.mark.parametrize(("name", "sigma"), [("blur", 0.1), ("inpaint", 0.0)])
def test_pigdm_is_exact_on_white_images(name, sigma):
    """Its r_t is that of white images: its chain is DDIM on the posterior, and only what the steps cost is left. Told
    that images vary twice as much, it trusts the data more, and the mean of what they see is off."""
    solver = PiGDM(100, eta=0.0, spread=0.25, adaptive=False, schedule="karras")
    rows = rows_of(solver, name, sigma, white())
    op, y = problem(name, sigma, white())
    shares = exact_posterior(op, white(), y, sigma).variances
    groups = {"seen": shares[(shares > 1e-9) & (shares < 0.5)], "unseen": shares[shares >= 0.5]}
    for group in rows.keys() - {"known", "all"}:
        levels = sampling_sigmas("karras", 100, 1e-4, 500)
        expected = float(spread_after(levels, 0.25**2 * groups[group], 0.0).mean())
        assert expected > 0.85
        assert rows[group].bias < 3 * rows[group].bias_by_chance
        assert rows[group].variance_ratio == pytest.approx(expected, abs=0.04)
    if sigma:
        wide = replace(solver, spread=0.5)
        assert rows_of(wide, name, sigma, white())["seen"].bias > 3 * rows["seen"].bias


@pytest.mark.parametrize(("kind", "eta"), [(DDRM, 0.0), (DDNM, 0.85)])
def test_where_nothing_is_seen_a_white_prior_is_sampled_by_ddim(kind, eta):
    """White coefficients do not know of each other."""
    unseen = rows_of(kind(100, eta, schedule="karras"), "inpaint", 0.1, white())["unseen"]
    levels = sampling_sigmas("karras", 100, 1e-4, 500)
    # DDNM's eta mixes seen and fresh noise as sqrt(1 - eta^2) and eta, not as DDIM's eta does.
    total = levels[0] ** 2
    for above, below in pairwise(levels):
        slope = 0.25**2 / (0.25**2 + above**2)
        carried = slope + (1 - slope) * below / above * (1 - eta**2) ** 0.5
        total = carried**2 * total + (eta * below) ** 2
    assert unseen.bias < 2 * unseen.bias_by_chance
    assert unseen.variance_ratio == pytest.approx(float(total) / 0.25**2, abs=0.04)


def test_dps_without_guidance_samples_the_prior_and_with_it_comes_near_the_data():
    """zeta 0 is DDPM. On white images and a mask, guidance leaves the unseen pixels alone."""
    none, some = (rows_of(DPS(100, zeta, "karras"), "inpaint", 0.0, white()) for zeta in (0.0, 0.3))
    expected = spread_after(sampling_sigmas("karras", 100, 1e-4, 500), torch.tensor([0.25**2]).double(), 1.0)
    assert none["known"].bias > 1
    assert some["known"].bias < 0.3
    for rows in (none, some):
        assert rows["unseen"].bias < 2 * rows["unseen"].bias_by_chance
        assert rows["unseen"].variance_ratio == pytest.approx(float(expected), abs=0.04)


def test_the_posterior_is_where_its_prior_is():
    """With another default device than that of prior and measurement: nothing is made on the default one."""
    prior = gaussian_prior(SIZE)
    op, y = problem("inpaint", 0.05, prior)
    expected = exact_posterior(op, prior, y, 0.05)
    draws = expected.sample(3, generator(0))
    with torch.device("meta"):
        found = exact_posterior(op, prior, y, 0.05)
        assert torch.equal(found.sample(3, generator(0)), draws)
    assert torch.equal(found.mean, expected.mean)
    assert dense_matrix(Identity(), (1, 2, 2), "meta").device.type == "meta"
