"""How well a sampler samples: its restorations of one measurement beside the exact posterior of a Gaussian prior.

For ``x ~ N(m, C)`` and ``y = A x + sigma eps`` the posterior is normal. In the coordinates ``a = W^T C^(-1/2) (x -
m)``, with
``C^(1/2) A^T A C^(1/2) = W diag(l) W^T``, its components are independent, with variances ``sigma^2/(sigma^2 + l)``
where the prior has 1. So they fall into three groups:

``known``   variance 0: what noise-free data fix
``seen``    variance below 1/2: the data say more than the prior
``unseen``  the rest

``all`` compares whole images, in pixels: large structures count most there, while in the groups all components count
alike. Everything is dense and in float64: for small images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.models.gaussian import GaussianPrior
from workbench.operators.base import Operator
from workbench.random import noise_source
from workbench.text import require

if TYPE_CHECKING:
    from workbench.solvers.base import Solver

# Shares of the largest eigenvalue that are rounding.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Row:
    """One group of components.

    Attributes:
        group: "known", "seen", "unseen" or "all".
        components: how many.
        bias: root mean square distance of the sampled mean to the exact one, in units of the posterior standard
            deviation; for "known" that of the samples, in units of the prior's.
        bias_by_chance: what as many exact samples have on average, ``1/sqrt(count)``; 0 for "known".
        variance_ratio: sampled over exact variance, averaged over the components ("all": ratio of the sums); None for
            "known".
    """

    group: str
    components: int
    bias: float
    bias_by_chance: float
    variance_ratio: float | None


@dataclass(frozen=True)
class GaussianPosterior:
    """``N(mean, covariance)`` of flattened images, float64, and the coordinates of the groups.

    Attributes:
        mean: (n,).
        covariance: (n, n).
        whiten: (n, n), rows are ``W^T C^(-1/2)``.
        variances: (n,), of the whitened components.
    """

    mean: Tensor
    covariance: Tensor
    whiten: Tensor
    variances: Tensor

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact samples (count, n)."""
        white = noise_source(generator)(self.mean.expand(count, -1))
        colour = torch.linalg.solve(self.whiten, torch.diag(self.variances.sqrt()))
        return self.mean + white @ colour.T


def dense_matrix(op: Operator, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """``op`` on flattened images of ``shape`` (C, H, W), float64 (m, n), computed on ``device``.

    One image at a time: operators may hold parameters of the one image.
    """
    n = math.prod(shape)
    basis = torch.eye(n, dtype=torch.float64, device=device).view(n, 1, *shape)
    return torch.cat([op(column).flatten(1) for column in basis]).T


def exact_posterior(op: Operator, prior: GaussianPrior, y: Tensor, sigma_noise: float) -> GaussianPosterior:
    """The posterior of one measurement ``y`` (1, ...).

    Raises:
        ValueError: an operator that is not linear; a prior that knows some component for certain; more than one ``y``;
            a noise level that is negative or not finite.
    """
    if not op.linear:
        raise ValueError(f"the posterior is Gaussian for linear operators, {type(op).__name__} is not linear")
    if y.shape[0] != 1:
        raise ValueError(f"expected one measurement (1, ...), got shape {tuple(y.shape)}")
    require(0 <= sigma_noise < math.inf, "sigma_noise", "finite and not negative", sigma_noise)
    if not bool((prior.spectrum > 0).all()):
        raise ValueError("the prior's spectrum must be positive everywhere")
    shape, n = prior.spectrum.shape, prior.spectrum.numel()
    matrix = dense_matrix(op, shape, prior.spectrum.device)
    powers, vectors = torch.linalg.eigh(prior.covariance())
    root = (vectors * powers.sqrt()) @ vectors.T
    _, singular, wt = torch.linalg.svd(matrix @ root, full_matrices=True)
    gains = torch.cat([singular, singular.new_zeros(n - len(singular))]) ** 2
    gains = torch.where(gains > _NOTHING * gains.max(), gains, 0.0)
    seen = gains > 0
    variances = torch.where(seen, sigma_noise**2 / torch.where(seen, sigma_noise**2 + gains, 1.0), 1.0)
    centre = prior.mean.expand(1, *shape).double()
    residual = (y.double() - op(centre)).flatten()
    pulled = wt @ (root @ (matrix.T @ residual))
    pulled = torch.where(seen, pulled / torch.where(seen, gains + sigma_noise**2, 1.0), 0.0)
    mean = centre.flatten() + root @ (wt.T @ pulled)
    covariance = root @ (wt.T * variances) @ wt @ root
    return GaussianPosterior(mean, covariance, wt @ torch.linalg.inv(root), variances)


def check_posterior(
    solver: Solver,
    op: Operator,
    prior: GaussianPrior,
    y: Tensor,
    sigma_noise: float = 0.0,
    *,
    count: int = 500,
    generator: torch.Generator | None = None,
) -> list[Row]:
    """Restore ``y`` (1, ...) ``count`` times and compare with the exact posterior; one row per group that is not empty.

    Args:
        op: takes a batch of ``count`` measurements as well as one.

    Raises:
        ValueError: as :func:`exact_posterior` and ``solver``; ``count`` below 2.
    """
    require(count >= 2, "count", "at least 2", count)
    exact = exact_posterior(op, prior, y, sigma_noise)
    copies = y.expand(count, *y.shape[1:]).contiguous()
    samples = solver(copies, op, prior, sigma_noise=sigma_noise, generator=generator).image
    return compare_samples(samples, exact)


def compare_samples(samples: Tensor, exact: GaussianPosterior) -> list[Row]:
    """The rows for ``samples`` (count, ...) of whole images."""
    pixels = samples.double().flatten(1)
    off = pixels - exact.mean
    components = off @ exact.whiten.T
    variances, chance = exact.variances, 1 / math.sqrt(len(samples))
    known, rows = variances < _NOTHING, []
    if bool(known.any()):
        rows.append(Row("known", int(known.sum()), _rms(components[:, known]), 0.0, None))
    for name, group in (("seen", ~known & (variances < 0.5)), ("unseen", variances >= 0.5)):
        if bool(group.any()):
            bias = _rms(components[:, group].mean(0) / variances[group].sqrt())
            ratio = float((components[:, group].var(0) / variances[group]).mean())
            rows.append(Row(name, int(group.sum()), bias, chance, ratio))
    total = exact.covariance.diagonal().sum()
    if float(total) > _NOTHING:
        bias, ratio = float((off.mean(0).square().sum() / total).sqrt()), float(off.var(0).sum() / total)
        rows.append(Row("all", pixels.shape[1], bias, chance, ratio))
    return rows


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'group':8}{'components':>11}{'bias':>10}{'by chance':>11}{'variance ratio':>16}"]
    for row in rows:
        ratio = "" if row.variance_ratio is None else f"{row.variance_ratio:.3f}"
        lines.append(f"{row.group:8}{row.components:11}{row.bias:10.3g}{row.bias_by_chance:11.3g}{ratio:>16}")
    return "\n".join(lines)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
