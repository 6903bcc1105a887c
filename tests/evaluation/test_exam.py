"""The exam itself: exact samples pass, wrong ones are seen in the figure that is meant to see them."""

import pytest
import torch

from workbench.exam import CONTROLS, TASKS, Candidate, Grade, make_candidate, make_task, sit, table
from workbench.exam.learned import learn

IMAGES = [name for name in TASKS if not name.startswith("laplace")]


def altered(shift: float = 0.0, scale: float = 1.0) -> Candidate:
    """Exact samples, ``shift`` posterior deviations off, ``scale`` times as wide."""

    def draw(task, prior, y, count, generator):
        exact = task.reference(y, count, generator)
        mean, deviation = exact.mean[:, None], exact.variance.sqrt()[:, None]
        return mean + scale * (exact.samples - mean) + shift * deviation, 0

    return Candidate("altered", draw)


def take(candidate: Candidate, name: str, repetitions: int = 200) -> Grade:
    return sit(candidate, make_task(name), repetitions=repetitions)


@pytest.mark.parametrize(
    ("name", "repetitions", "near"), [*((n, 200, 0.15) for n in IMAGES), ("laplace-blur", 60, 0.2)]
)
def test_the_exact_sampler_passes(name, repetitions, near):
    exact = take(CONTROLS["exact"], name, repetitions)
    assert exact.passed
    assert exact.distance < near
    assert exact.variance == pytest.approx(1, abs=0.1)
    for level, share in zip((0.5, 0.9), exact.pixels, strict=True):
        assert share.low < level < share.high


def test_a_point_fails():
    point = take(CONTROLS["point"], "mixture-blur")
    assert not point.passed
    assert point.variance == 0
    assert point.projection[1].share == 0
    assert point.wasserstein > 1.5 * point.wasserstein_by_chance


def test_each_figure_sees_what_it_is_for():
    wide, narrow, off = (take(altered(*how), "gaussian-inpaint") for how in ((0, 1.5), (0, 0.6), (1.0, 1)))
    assert wide.variance == pytest.approx(2.25, rel=0.1)
    assert wide.projection[1].share > 0.95
    assert wide.region[0].share > 0.9  # the truth is denser than nearly all samples
    assert narrow.variance == pytest.approx(0.36, rel=0.1)
    assert narrow.projection[1].share < 0.8
    assert sum(narrow.ranks[:2] + narrow.ranks[-2:]) > 0.3 * 200  # a valley
    assert off.distance == pytest.approx(1, abs=0.1)
    assert not any(grade.passed for grade in (wide, narrow, off))
    assert off.wasserstein > 1.5 * off.wasserstein_by_chance


def test_a_sampler_that_sees_one_mode_fails_on_mixtures_alone():
    """The Gaussian of the posterior's own moments: right means and variances, wrong region."""

    def draw(task, prior, y, count, generator):
        exact = task.reference(y, 400, generator)
        off = exact.samples - exact.samples.mean(1, keepdim=True)
        root = torch.linalg.cholesky(off.mT @ off / 400 + 1e-6 * torch.eye(off.shape[-1]).double())
        white = torch.randn(len(y), count, off.shape[-1], generator=generator, dtype=torch.float64)
        return exact.mean[:, None] + white @ root.mT, 0

    grade = take(Candidate("one mode", draw), "mixture-average", 100)
    assert grade.distance < 0.15
    assert grade.variance == pytest.approx(1, abs=0.1)
    assert not grade.passed


def test_solvers_take_it_by_name_and_seeds_repeat():
    task = make_task("mixture-average")
    first, second = (sit(make_candidate("ddrm", steps=3), task, repetitions=20) for _ in range(2))
    assert first == second
    assert (first.evaluations, first.sampler, first.prior) == (3, "ddrm", "exact")
    assert sum(first.ranks) == 20
    learned = learn(task.prior, steps=20)
    other = sit(make_candidate("ddrm", steps=3), task, repetitions=20, learned=learned)
    assert other.prior == "learned"
    assert other.variance != first.variance


def test_mmps_is_calibrated_on_a_gaussian():
    grade = take(make_candidate("mmps", steps=20, churn=0.0), "gaussian-blur", 60)
    assert grade.passed
    assert grade.distance < 0.2
    assert grade.variance == pytest.approx(1, abs=0.1)
    assert grade.evaluations == 4 * 39


def test_images_that_are_not_finite_fail():
    broken = Candidate("broken", lambda task, prior, y, count, g: (torch.full((len(y), count, 64), torch.nan), 1))
    grade = take(broken, "gaussian-inpaint", 20)
    assert not grade.passed
    assert grade.distance > 1e3


def test_bad_input_is_refused():
    exact, task = CONTROLS["exact"], make_task("gaussian-inpaint")
    for call, message in (
        (lambda: make_task("mixture-blurr"), "unknown task 'mixture-blurr', did you mean 'mixture-blur'"),
        (lambda: make_candidate("exact", steps=3), "the control exact has no settings, got steps"),
        (lambda: sit(exact, task, repetitions=5), "repetitions must be a whole number, at least 20, got 5"),
        (lambda: sit("exact", task), "candidate must be of type Candidate"),
        (lambda: table([]), "the table must be of one task at least, got none"),
        (lambda: sit(exact, task, repetitions=20, samples=20), r"must be 19, 39, 59, \.\.\., got 20"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
