"""The same degraded photos for every prior: what a comparison of priors runs.

Image number k has its own streams of the seed, one for the operator (which pixels are missing), one for the noise of
the measurement, one for the solver. So every prior sees the same measurements and draws the same noise, images are
independent of one another, and neither batches nor what else is compared change a figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from workbench.evaluation.metrics import score
from workbench.evaluation.statistics import METRICS
from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.operators.inpainting import Inpainting
from workbench.operators.parse import parse_operator
from workbench.random import noise_source, stream
from workbench.solvers.base import Solver
from workbench.text import unknown

DIGITS = 5  # of metrics in results: beyond what batch sizes change


@dataclass(frozen=True)
class Measured:
    """A batch of degraded photos.

    Attributes:
        op, y, original: the operator, its noisy measurements, and the photos (B, 3, H, W) in [0, 1].
        names, numbers: of the photos; the numbers choose the streams.
        noise, seed: as given to :func:`measure`.
    """

    op: Operator
    y: Tensor
    original: Tensor
    names: list[str]
    numbers: list[int]
    noise: float
    seed: int

    @property
    def picture(self) -> Tensor:
        """The measurement as pictures (B, 1 or 3, h, w); its adjoint image where it is none."""
        return self.y if self.y.ndim == 4 and self.y.shape[1] in (1, 3) else self.op.adjoint(self.y)


def measure(
    photos: Tensor, names: Sequence[str], numbers: Sequence[int], spec: str, noise: float, seed: int
) -> Measured:
    """Degrade ``photos`` (B, 3, H, W) by the operator written ``spec``, then add noise of standard deviation ``noise``.

    Raises:
        ValueError: a bad ``spec`` or size, negative noise, or a batch of an operator that is drawn at random for each
            image and is no mask.
    """
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise is a standard deviation on the [0, 1] scale, so finite and at least 0, got {noise}")
    op = _operator(photos, numbers, spec, seed).to(photos.device)
    clean = op(photos)
    draw = noise_source([stream(seed, "noise", number) for number in numbers])
    return Measured(op, clean + noise * draw(clean), photos, list(names), list(numbers), noise, seed)


def restore_measured(measured: Measured, solver: Solver, prior: Prior) -> tuple[Tensor, list[dict[str, Any]]]:
    """The restored images (B, 3, H, W), not clipped, and a row per image: ``photo``, metrics, ``evaluations``,
    ``seconds`` (per image), ``message``.

    Raises:
        ValueError: the solver cannot treat this operator, noise or prior.
    """
    prior.check(measured.original)
    streams = [stream(measured.seed, "solver", number) for number in measured.numbers]
    started = time.perf_counter()
    restored = solver(measured.y, measured.op, prior, sigma_noise=measured.noise, generator=streams)
    image = restored.image
    scores = score(image, measured.original, judge=True)  # waits for the device
    seconds = (time.perf_counter() - started) / len(image)
    rows = []
    for name, figures, evaluations in zip(measured.names, scores, restored.evaluations, strict=True):
        rounded = {key: round(v, DIGITS) if isinstance(v, float) else v for key, v in figures.items()}
        cost = {"evaluations": int(evaluations), "seconds": round(seconds, 3), "message": restored.message}
        rows.append({"photo": name, **rounded, **cost})
    return image, rows


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
            choose: Callable[..., Any] = max if metric.larger_is_better else min
            best = choose(own, key=lambda row, key=metric.key: row[key])
            rows.append({**best, "metric": metric.key})
    return rows


def check_labels(settings: Mapping[str, Any], priors: Mapping[str, Any], what: str = "settings") -> None:
    """Raise ValueError unless there is a prior, and every label in ``settings`` is that of one.

    ``what`` names the parameter in the message.
    """
    if not priors:
        raise ValueError("priors is empty: give at least one, such as {MUPET: mini-mupet}")
    for label in settings:
        if label not in priors:
            raise ValueError(f"{what}: {unknown('prior', label, list(priors))}")


def check_methods(methods: Sequence[str], solvers: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``methods`` are some and distinct, and ``solvers`` and ``settings`` are of these only."""
    if not methods or len(set(methods)) != len(methods):
        raise ValueError(f"methods: expected at least one, each once, got {', '.join(methods) or 'none'}")
    for what, given in (("solvers", solvers), ("settings", settings)):
        for label in given:
            if label not in methods:
                raise ValueError(f"{what}: {unknown('method', label, list(methods))}")


def _operator(photos: Tensor, numbers: Sequence[int], spec: str, seed: int) -> Operator:
    shape = tuple(photos.shape[1:])
    draws = [stream(seed, "operator", number) for number in numbers]
    untouched = draws[0].get_state()
    first = parse_operator(spec, shape, draws[0])
    if torch.equal(untouched, draws[0].get_state()) or len(draws) == 1:
        return first
    if not isinstance(first, Inpainting):
        raise ValueError(f"{spec!r} is drawn anew for each image and cannot be batched: set batch to 1")
    others = [parse_operator(spec, shape, draw) for draw in draws[1:]]
    return Inpainting(torch.cat([op.mask for op in (first, *others) if isinstance(op, Inpainting)]))
