"""Is one prior better than another? Means and paired differences over the same images, with 95 % confidence intervals.

Intervals are Student's t over the images, so they speak about images like these and not about other seeds of training.
Images cut from one photo resemble one another: with ``clusters``, whole photos are what is independent. The sums of the
deviations over each photo then give the variance, with as many degrees of freedom as there are photos, less one.

The relative change of a mean, ``mean(new) / mean(old) - 1``, has the interval of the delta method: a ratio of means is,
to first order, the mean of ``(new_i - ratio * old_i) / mean(old)``, whose spread gives the interval. No interval is
corrected for the number of comparisons: of twenty true "no difference", one is expected to look like one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from operator import itemgetter
from typing import Any

import numpy as np

from workbench.evaluation.metrics import METRICS, Metric
from workbench.text import require

CONFIDENCE = 0.95
Clusters = Sequence[str] | None  # the photo that each value is from


@dataclass(frozen=True)
class Interval:
    """An estimate from ``n`` images and its 95 % confidence interval, None where one image tells nothing of spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width, for "mean ± half"."""
        return None if self.high is None else self.high - self.mean

    @property
    def sign(self) -> int:
        """+1 or -1 where the whole interval lies above or below zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def mean_interval(values: Sequence[float], clusters: Clusters = None) -> Interval:
    """Mean of ``values`` (n,) with its Student t interval. They are independent, or those of different ``clusters``.

    Raises:
        ValueError: no values, one that is not finite, or another number of ``clusters``.
    """
    data = _vector(values)
    return _interval(float(data.mean()), data, clusters)


def paired_difference(new: Sequence[float], old: Sequence[float], clusters: Clusters = None) -> Interval:
    """Mean of ``new - old`` (n,), image by image, with its Student t interval: what differs between images cancels.

    Raises:
        ValueError: different lengths, no values, or one that is not finite.
    """
    first, second = _pair(new, old)
    return mean_interval(first - second, clusters)


def relative_change(new: Sequence[float], old: Sequence[float], clusters: Clusters = None) -> Interval:
    """``mean(new) / mean(old) - 1`` over paired values (n,) with the interval of the delta method.

    Raises:
        ValueError: different lengths, no values, one that is not finite, or a mean of ``old`` that is not positive.
    """
    first, second = _pair(new, old)
    base = float(second.mean())
    if not base > 0:
        raise ValueError(f"a relative change needs a positive mean to refer to, got {base:g}")
    ratio = float(first.mean()) / base
    return _interval(ratio - 1, (first - ratio * second) / base, clusters)


def measured_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that every row has a figure for, in the order in which reports show them."""
    return [key for key in METRICS if rows and all(row.get(key) is not None for row in rows)]


def missing_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The metrics some row has no figure for, with the reason that the row gives."""
    found = {}
    for key in METRICS:
        lacking = [row for row in rows if row.get(key, 0) is None]
        if lacking:
            found[key] = str(lacking[0].get(f"{key}_reason", "not measured"))
    return found


def summarise(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], clusters: Clusters = None) -> dict[str, Any]:
    """Means per prior, and paired changes of the last prior against each other one.

    Args:
        rows: one per image and prior, with ``prior``, ``photo`` and metrics as ``metrics.score`` gives them.
        labels: the priors, in order; the last one is the one to be judged.
        clusters: the photo that each image is cut from, see the module; by default images are independent.

    Returns:
        ``means``: label -> metric -> interval; ``changes``: one entry per other prior and metric, with ``prior``,
        ``against``, ``metric``, ``difference`` and (where it means something) ``relative`` as intervals, and
        ``verdict``: better, worse or unclear. Ready for JSON.

    Raises:
        ValueError: the priors were not run on the same photos in the same order.
    """
    by_prior = {label: [row for row in rows if row["prior"] == label] for label in labels}
    photos = [row["photo"] for row in by_prior[labels[-1]]]
    for label, own in by_prior.items():
        if [row["photo"] for row in own] != photos:
            raise ValueError(f"{label} and {labels[-1]} were not run on the same photos, so nothing can be paired")
    metrics = measured_metrics(rows)
    values = {label: {key: [row[key] for row in own] for key in metrics} for label, own in by_prior.items()}
    return summarise_values(values, clusters)


def summarise_values(values: Mapping[str, Mapping[str, Sequence[float]]], clusters: Clusters = None) -> dict[str, Any]:
    """As :func:`summarise`, of ``values``: label -> metric -> one figure per image, in the same order for all."""
    means = {label: {key: asdict(mean_interval(own[key], clusters)) for key in own} for label, own in values.items()}
    *others, last = values
    changes = [_change(last, other, METRICS[key], values, clusters) for other in others for key in values[last]]
    return {"means": means, "changes": changes}


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid of solver settings, ``[{}]`` for none. Raises ValueError for an empty list."""
    for name, values in grid.items():
        if not values:
            raise ValueError(f"the grid has no values for {name}")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def best_combinations(averages: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """For each prior, the combination with the best mean of each metric.

    Args:
        averages: one per prior and combination: ``prior``, ``settings`` and the mean of each metric.

    Returns:
        One row per prior and metric that was measured: ``prior``, ``metric``, ``settings``, and the means there.
    """
    rows = []
    for label, metric in product(labels, METRICS.values()):
        own = [row for row in averages if row["prior"] == label and row.get(metric.key) is not None]
        if own:
            rows.append({**metric.best(own, key=itemgetter(metric.key)), "metric": metric.key})
    return rows


def _change(
    new: str, old: str, metric: Metric, values: Mapping[str, Mapping[str, Sequence[float]]], clusters: Clusters
) -> dict[str, Any]:
    pair = values[new][metric.key], values[old][metric.key]
    difference = paired_difference(*pair, clusters)
    good = difference.sign if metric.larger_is_better else -difference.sign
    # A mean of 0 (a perfect restoration in every image) has no per cent.
    relative = relative_change(*pair, clusters) if metric.relative and float(np.mean(pair[1])) > 0 else None
    return {
        "prior": new,
        "against": old,
        "metric": metric.key,
        "difference": asdict(difference),
        "relative": None if relative is None else asdict(relative),
        "verdict": {1: "better", -1: "worse", 0: "unclear"}[good],
    }


def _interval(centre: float, spread: np.ndarray, clusters: Clusters) -> Interval:
    from scipy.stats import t  # comes with scikit-image; slow to import

    n = len(spread)
    if clusters is not None:
        require(len(clusters) == n, "clusters", f"a photo for each of {n} values", len(clusters))
        _, photo = np.unique(clusters, return_inverse=True)
        # One value per photo, whose mean is that of all: photos that gave more images weigh more.
        spread = np.bincount(photo, spread - spread.mean()) * (photo.max() + 1) / n
    if len(spread) < 2:
        return Interval(centre, None, None, n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(spread) - 1)) * float(spread.std(ddof=1)) / math.sqrt(len(spread))
    return Interval(centre, centre - half, centre + half, n)


def _vector(values: Sequence[float] | np.ndarray) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise ValueError(f"expected a list of finite numbers, got shape {data.shape}")
    return data


def _pair(new: Sequence[float], old: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    first, second = _vector(new), _vector(old)
    if first.shape != second.shape:
        raise ValueError(f"paired values come in equal numbers, got {len(first)} and {len(second)}")
    return first, second
