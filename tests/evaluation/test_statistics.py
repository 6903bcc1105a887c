"""Statistics of comparisons: intervals that hold what they promise, pairing that pays, verdicts with the right sign."""

import numpy as np
import pytest

from workbench.evaluation.statistics import (
    best_combinations,
    combinations,
    mean_interval,
    measured_metrics,
    missing_metrics,
    paired_difference,
    relative_change,
    summarise,
)

RNG = np.random.default_rng(0)
TRIALS = 1000
# Three standard errors of a share of 0.95 over that many trials.
SLACK = 3 * (0.95 * 0.05 / TRIALS) ** 0.5


def _covered(intervals, truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


def test_a_known_interval():
    """Student's own: t(0.975, 4 degrees) = 2.776445."""
    one = mean_interval([1, 2, 3, 4, 5])
    assert (one.mean, one.n) == (3, 5)
    assert one.half == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)
    assert one.sign == 1
    assert mean_interval([-1, 1]).sign == 0
    assert mean_interval([-1.0, -1.1]).sign == -1


def _pairs(n: int, change: float) -> tuple[np.ndarray, np.ndarray]:
    """LPIPS-like pairs: images differ by a factor of two, priors by a few per cent of the image's own value."""
    images = np.exp(RNG.normal(-1.5, 0.5, (TRIALS, n)))
    old = images * (1 + RNG.normal(0, 0.05, images.shape))
    new = images * (1 + change) * (1 + RNG.normal(0, 0.05, images.shape))
    return new, old


def test_the_interval_of_a_relative_change_covers_it():
    n = 10
    new, old = _pairs(n, -0.2)
    covered = _covered((relative_change(*pair) for pair in zip(new, old, strict=True)), -0.2)
    # A first-order interval: a little too narrow for few images of skewed values.
    assert 0.95 - SLACK - 0.25 / n <= covered <= 0.95 + SLACK


def test_pairing_cancels_what_differs_between_images():
    new, old = (values[0] for values in _pairs(30, -0.03))
    paired = paired_difference(new, old)
    alone = [mean_interval(values) for values in (new, old)]
    unpaired = (alone[0].half ** 2 + alone[1].half ** 2) ** 0.5
    assert paired.mean == pytest.approx(alone[0].mean - alone[1].mean)
    assert paired.half < unpaired / 5
    # Values that have nothing to do with one another gain nothing.
    shuffled = paired_difference(new, RNG.permutation(old))
    assert shuffled.half == pytest.approx(unpaired, rel=0.4)


@pytest.mark.parametrize("sizes", [(6,) * 5, (2, 4, 6, 8, 10)])
def test_tiles_of_one_photo_are_no_independent_images(sizes):
    """Photos differ as much as the tiles of one do: intervals over tiles are far too narrow, those over photos hold."""
    photos = np.repeat(np.arange(len(sizes)), sizes)
    data = RNG.normal(3.0, 1.0, (TRIALS, len(sizes)))[:, photos] + RNG.normal(0.0, 1.0, (TRIALS, len(photos)))
    names = [str(photo) for photo in photos]
    assert _covered(map(mean_interval, data), 3.0) < 0.8
    covered = _covered((mean_interval(values, names) for values in data), 3.0)
    # Photos of unequal weight: Student's t is then a little too narrow for few of them.
    assert covered == pytest.approx(0.95, abs=SLACK if len(set(sizes)) == 1 else 0.04)


def test_clusters_of_one_image_and_of_equal_size_are_student_s_own():
    values, alone = RNG.normal(0, 1, 12), [str(k) for k in range(12)]
    assert mean_interval(values, alone).half == pytest.approx(mean_interval(values).half)
    pairs = [str(k // 2) for k in range(12)]
    over = mean_interval(values.reshape(6, 2).mean(1))
    clustered = paired_difference(values, np.zeros(12), pairs)
    assert (clustered.mean, clustered.half, clustered.n) == (pytest.approx(over.mean), pytest.approx(over.half), 12)
    assert mean_interval(values, ["one"] * 12).low is None  # one photo tells nothing of others
    with pytest.raises(ValueError, match="a photo for each of 12 values, got 2"):
        mean_interval(values, ["one", "two"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1, float("nan")]), "finite numbers"),
        (lambda: paired_difference([1, 2], [1]), "equal numbers, got 2 and 1"),
        (lambda: relative_change([1, 2], [-1, 1]), "positive mean"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _rows(label: str, psnr: list[float], tiny: list[float]) -> list[dict]:
    lacking = {"prior": label, "lpips": None, "lpips_reason": "unavailable: X"}
    return [
        {"photo": str(k), "psnr": p, "effnet": t, **lacking} for k, (p, t) in enumerate(zip(psnr, tiny, strict=True))
    ]


def test_a_summary_judges_the_last_prior_by_what_better_means():
    rows = _rows("A", [20, 21, 22], [0.3, 0.4, 0.5]) + _rows("B", [21, 22.1, 23], [0.4, 0.49, 0.6])
    found = summarise(rows, ["A", "B"])
    assert found["means"]["A"]["psnr"]["mean"] == 21
    verdicts = {change["metric"]: change["verdict"] for change in found["changes"]}
    # More decibel is better, more distance is worse.
    assert verdicts == {"psnr": "better", "effnet": "worse"}
    (tiny,) = (change for change in found["changes"] if change["metric"] == "effnet")
    assert tiny["relative"]["mean"] == pytest.approx(1.49 / 1.2 - 1)
    assert found["changes"][0]["relative"] is None  # decibel have no per cent
    equal = summarise(_rows("A", [20, 21], [0.0, 0.0]) + _rows("B", [20, 21], [0.0, 0.0]), ["A", "B"])["changes"]
    assert [(change["verdict"], change["relative"]) for change in equal] == [("unclear", None)] * 2
    together = summarise(rows, ["A", "B"], ["x", "x", "x"])  # tiles of one photo
    assert {change["verdict"] for change in together["changes"]} == {"unclear"}
    assert together["means"]["A"]["psnr"]["high"] is None
    assert measured_metrics(rows) == ["psnr", "effnet"]
    assert missing_metrics(rows) == {"lpips": "unavailable: X"}


def test_other_photos_cannot_be_paired():
    rows = _rows("A", [20, 21], [0.1, 0.1]) + _rows("B", [20], [0.1])
    with pytest.raises(ValueError, match="A and B were not run on the same photos"):
        summarise(rows, ["A", "B"])


def test_grids_and_their_best():
    assert combinations({}) == [{}]
    assert combinations({"a": [1, 2], "b": [3]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    with pytest.raises(ValueError, match="no values for a"):
        combinations({"a": []})
    tried = [
        {"prior": "A", "settings": {"zeta": 0.1}, "psnr": 20.0, "effnet": 0.2},
        {"prior": "A", "settings": {"zeta": 0.3}, "psnr": 21.0, "effnet": 0.3},
    ]
    best = {row["metric"]: row["settings"]["zeta"] for row in best_combinations(tried, ["A"])}
    assert best == {"psnr": 0.3, "effnet": 0.1}
