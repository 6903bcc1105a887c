"""What the exam measures of samples of many posteriors, and its verdict.

Images are drawn from the prior, each is measured, and the sampler draws L samples for each measurement. If it samples
the posterior, then truth and samples cannot be told apart: the rank of the truth among the samples, by any one number,
is uniform on 0 ... L (simulation-based calibration, Talts et al. 2018). Three numbers are looked at:

``projection``  on a random direction, another one for each repetition. Intervals are central.
``pixels``      every pixel's value. Intervals are central.
``region``      the logarithm of the posterior density. The region is that of highest density.

An interval or region of 90 % leaves out one tenth of the L + 1 places, so that its coverage is 90 % exactly, however
few samples. Repetitions are independent, pixels of one image are not: all uncertainties count repetitions alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.exam.tasks import Task
from workbench.models.laplace import Draws
from workbench.random import stream
from workbench.text import columns, fits, require

BINS = 20
DIRECTIONS = 32
LEVELS = (0.5, 0.9)
# Below this a test has failed. With five tests, one sampler in 200 fails by chance.
SIGNIFICANCE = 0.001
NOT_FINITE = 1e6  # what NaN and infinity count as


@dataclass(frozen=True)
class Share:
    """How often the truth was inside: the share, its 95 % Wilson interval, and the p-value of the nominal share."""

    share: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Grade:
    """The figures of one sampler on one task.

    Attributes:
        task, sampler, prior: names; the prior is "exact" or "learned".
        repetitions, samples: measurements, and samples of each.
        evaluations: of the prior, per sample.
        distance: root mean square distance of the sampled mean to the true one over root mean square posterior
            standard deviation, freed of what L samples have by chance.
        variance: sampled over true variance, both summed over pixels and repetitions.
        wasserstein: sliced 2-Wasserstein distance of the samples to as many exact ones, in posterior standard
            deviations; ``wasserstein_by_chance`` is that of exact samples.
        projection, pixels, region: of the 50 and 90 % intervals or regions, see above.
        ranks: histogram of the ranks of the projections, 20 bins. ``p_ranks``: of the chi-square test of evenness.
    """

    task: str
    sampler: str
    prior: str
    repetitions: int
    samples: int
    evaluations: int
    distance: float
    variance: float
    wasserstein: float
    wasserstein_by_chance: float
    projection: tuple[Share, Share]
    pixels: tuple[Share, Share]
    region: tuple[Share, Share]
    ranks: list[int]
    p_ranks: float

    @property
    def passed(self) -> bool:
        """Whether none of the five tests (four coverages and the ranks) rejects."""
        tests = [share.p for share in (*self.projection, *self.region)]
        return min(*tests, self.p_ranks) >= SIGNIFICANCE


def check_samples(count: int) -> None:
    """Raise ValueError unless the ranks among so many samples fill all bins alike."""
    fine = fits(count, int) and count >= 1 and (count + 1) % BINS == 0
    require(fine, "the samples of each measurement", "19, 39, 59, ...", count)


def grade(
    task: Task,
    x: Tensor,
    y: Tensor,
    samples: Tensor,
    exact: Draws,
    *,
    sampler: str,
    prior: str = "exact",
    evaluations: int = 0,
    seed: int = 0,
) -> Grade:
    """The figures of ``samples`` (B, L, n) for measurements ``y`` (B, ...) of the images ``x`` (B, C, H, W).

    Args:
        exact: the true posteriors, with at least 2 L samples each.

    Raises:
        ValueError: as :func:`check_samples`, or there are fewer exact samples than 2 L.
    """
    from scipy.stats import chisquare  # slow to import

    count, taken = samples.shape[:2]
    check_samples(taken)
    if exact.samples.shape[1] < 2 * taken:
        raise ValueError(f"expected {2 * taken} exact samples of each posterior, got {exact.samples.shape[1]}")
    drawn = samples.double().nan_to_num(NOT_FINITE, NOT_FINITE, -NOT_FINITE).clamp(-NOT_FINITE, NOT_FINITE)
    truth = x.double().flatten(1)
    generator = stream(seed, "exam", "directions")
    directions = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    ranks = _ranks((drawn * directions[:, None]).sum(-1), (truth * directions).sum(-1))
    densities = task.log_posterior(torch.cat([truth[:, None], drawn], 1), y)
    region = _ranks(densities[:, 1:], densities[:, 0])
    pixels = _ranks(drawn, truth)
    spread = exact.variance.sum()
    by_chance = drawn.var(1).sum() / taken
    distance = ((drawn.mean(1) - exact.mean).square().sum() - by_chance).clamp(min=0)
    first, second = exact.samples[:, :taken], exact.samples[:, taken : 2 * taken]
    unit = (exact.variance.mean()).sqrt()
    histogram = torch.bincount(ranks * BINS // (taken + 1), minlength=BINS)
    return Grade(
        task=task.name,
        sampler=sampler,
        prior=prior,
        repetitions=count,
        samples=taken,
        evaluations=evaluations,
        distance=float((distance / spread).sqrt()),
        variance=float(drawn.var(1).sum() / spread),
        wasserstein=float(sliced_wasserstein(drawn, first, generator) / unit),
        wasserstein_by_chance=float(sliced_wasserstein(second, first, generator) / unit),
        projection=_shares(ranks[:, None], taken),
        pixels=_shares(pixels, taken),
        region=_shares(region[:, None], taken, central=False),
        ranks=histogram.tolist(),
        p_ranks=float(chisquare(histogram.numpy()).pvalue),
    )


def sliced_wasserstein(one: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Root mean square over repetitions and random unit directions of the 2-Wasserstein distance (Bonneel et al. 2015)
    of the projections of ``one`` and ``other``, both (B, L, n)."""
    directions = torch.randn(one.shape[-1], DIRECTIONS, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    return ((one @ directions).sort(1).values - (other @ directions).sort(1).values).square().mean().sqrt()


def share_of(inside: float, count: int, nominal: float) -> Share:
    """``inside`` of ``count`` independent trials, rounded, beside ``nominal`` (Wilson 1927; binomial test)."""
    from scipy.stats import binomtest  # slow to import

    test = binomtest(round(inside), count, nominal)
    interval = test.proportion_ci(method="wilson")
    return Share(inside / count, float(interval.low), float(interval.high), float(test.pvalue))


def table(grades: list[Grade]) -> str:
    """The grades as text: coverages in per cent, with the half width of their 95 % intervals at 90 %."""
    require(bool(grades), "the table", "of one task at least", "none")
    head = ("task", "distance", "variance", "SW (chance)", "directions", "pixels", "region", "p(ranks)", "evals", "")
    return "\n".join(columns([head, *map(_row, grades)], "<" + ">" * (len(head) - 1)))


def _row(each: Grade) -> tuple[str, ...]:
    shares = (
        f"{100 * half.share:.0f}, {100 * most.share:.1f} ± {50 * (most.high - most.low):.1f}"
        for half, most in (each.projection, each.pixels, each.region)
    )
    return (
        each.task + ("" if each.prior == "exact" else f" ({each.prior})"),
        f"{each.distance:.2f}",
        f"{each.variance:.2f}",
        f"{each.wasserstein:.2f} ({each.wasserstein_by_chance:.2f})",
        *shares,
        f"{each.p_ranks:.2g}",
        str(each.evaluations),
        "pass" if each.passed else "fail",
    )


def _ranks(samples: Tensor, truth: Tensor) -> Tensor:
    """How many of ``samples`` (B, L, ...) are below ``truth`` (B, ...)."""
    return (samples < truth[:, None]).sum(1)


def _shares(ranks: Tensor, taken: int, central: bool = True) -> tuple[Share, Share]:
    """Of the 50 and 90 % intervals for ``ranks`` (B, k) on 0 ... ``taken``; not central: what is above the rest."""
    count, found = len(ranks), []
    for level in LEVELS:
        out = round((taken + 1) * (1 - level) / (2 if central else 1))
        inside = (ranks >= out) & (ranks <= (taken - out if central else taken))
        found.append(share_of(float(inside.double().mean(1).sum()), count, level))
    return found[0], found[1]
