"""From photos to restored photos and their scores: what the command line, notebooks, pipelines and the demo share.

    photos -> degrade (forward operator, noise) or observe -> Degraded -> restore (solver, prior) -> Result

One seed fixes everything. Every image has a number, by default its place in the batch, and the seed gives it a random
stream of its own for each purpose: its operator (which pixels are missing), the noise of its measurement, its solver.
So a batch gives what single images give, every prior and solver sees the same measurements, and figures do not depend
on the batch size. Image 0 has the streams of a single photo. Posterior samples of one measurement differ in the seed
of the solver's stream alone.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor

from workbench.evaluation.metrics import NOT_FINITE, consistency, score
from workbench.evaluation.statistics import METRICS
from workbench.fitting import filled_share
from workbench.images import PLAUSIBLE, check_range, finite_images, is_grey
from workbench.measurement import Degraded as Degraded  # re-exported, with the four below
from workbench.measurement import degrade as degrade
from workbench.measurement import measured as measured
from workbench.measurement import observe as observe
from workbench.measurement import samples as samples
from workbench.models.load import DEFAULTS
from workbench.models.prior import KINDS, Prior
from workbench.models.wrappers import whole_or_tiles
from workbench.noise import Noise
from workbench.operators.border import Frame, continue_beyond
from workbench.own import source_of
from workbench.random import stream_of
from workbench.records import NO_ORIGINAL, environment, solver_settings, tiles_of
from workbench.solvers import make_solver, solver_class
from workbench.solvers.base import Callback, Restoration, Solver
from workbench.text import check_types, require_kind

ROW_DIGITS = 5  # of the scores of ``Result.rows``: what changes beyond them changes with the batch size


@dataclass(frozen=True)
class Result:
    """A restoration and its scores.

    Attributes:
        degraded: what was restored.
        restoration: what the solver returned.
        records: per image, ready for JSON: ``psnr``, ``ssim``, ``lpips``, ``effnet`` (None with a
            ``*_reason`` where not defined; all of them where the solver left values that are not finite),
            ``consistency`` with the measurement, ``evaluations``, ``iterations``,
            ``seconds``, ``converged``, ``message``, ``solver_seed``, all settings and versions.
    """

    degraded: Degraded
    restoration: Restoration
    records: list[dict[str, Any]]

    @property
    def image(self) -> Tensor:
        """The restored images (B, 3, H, W), nominal range [0, 1], not clipped."""
        return self.restoration.image

    def rows(self, photos: Sequence[str]) -> list[dict[str, Any]]:
        """What a comparison of priors needs of each record: ``photo`` (its name), scores with reasons, and cost."""
        kept = {"evaluations", "seconds", "message", *METRICS, *(f"{key}_reason" for key in METRICS)}
        return [
            {"photo": photo}
            | {k: round(v, ROW_DIGITS) if isinstance(v, float) else v for k, v in record.items() if k in kept}
            for photo, record in zip(photos, self.records, strict=True)
        ]


def solver_of(name: str, settings: dict[str, Any]) -> Solver:
    """The solver ``name`` with ``settings`` from a command line or a file, whose types are checked too.

    Raises:
        ValueError: unknown solver or setting, with the nearest name; or a value of the wrong type or out of range.
    """
    check_types(settings, get_type_hints(solver_class(name)), name)
    return make_solver(name, **settings)


def usual_prior(name: str) -> str:
    """The shipped prior to start with for solver ``name``: of the kind that it needs.

    Raises:
        ValueError: an unknown solver, or none of that kind is shipped; the message says which prior to give.
    """
    kind = solver_class(name).prior_kind
    if kind not in DEFAULTS:
        raise ValueError(f"{name} needs {KINDS[kind][0]}, and none is shipped: give the prior")
    return DEFAULTS[kind]


def steps_of(name: str, steps: int) -> dict[str, int]:
    """The settings with which solver ``name`` takes ``steps`` steps, or that many at most; empty where it has none."""
    known = [field.name for field in fields(solver_class(name))]
    return {setting: steps for setting in ("max_steps", "steps") if setting in known}


def restore(
    degraded: Degraded,
    solver: Solver,
    prior: Prior,
    *,
    name: str = "",
    callback: Callback | None = None,
    initial: Tensor | None = None,
    judge: bool = False,
) -> Result:
    """Run ``solver`` on a degraded batch and score what comes out.

    Photos have any size: a prior that does not take it whole is asked in overlapping tiles (``TiledPrior``; the message
    says so). What photos that came degraded show at their border depends on what is beyond it, which is estimated and
    cut off again (``workbench.operators.border``). Photos without colours come back without, by the mean of the
    channels, unless the operator takes colours away.

    Args:
        name: what to call the solver in the records.
        initial: (B, 3, H, W) in [0, 1], a restoration by other means to start from, for solvers that take one.
        judge: also measure what no prior was trained on, see :func:`workbench.evaluation.metrics.score`.

    Raises:
        ValueError: an argument of another kind; the solver cannot treat this operator, noise or prior, or takes no
            ``initial``; or that, or the original, is no image in [0, 1].
    """
    require_kind(degraded, Degraded, "degraded", "what degrade, observe and measured return")
    require_kind(solver, Solver, "solver", 'make_solver("ddnm")')
    require_kind(prior, Prior, "prior", 'load_prior("photo")')
    if degraded.original is not None:
        check_range(degraded.original, "the original")
    if initial is not None:
        check_range(initial, "initial", *PLAUSIBLE)
    y, started = degraded.y, time.perf_counter()
    seeds = degraded.solver_seeds or (degraded.seed,) * len(y)
    restoration, misfit, fitted = _solve(degraded, solver, prior, seeds, callback, initial)
    if y.is_cuda:
        torch.cuda.synchronize(y.device)
    seconds = (time.perf_counter() - started) / len(y)
    common = {
        "seconds": seconds,
        "message": restoration.message,
        "solver": name or type(solver).__name__.lower(),
        "solver_settings": solver_settings(solver),
        "solver_source": source_of(solver),
        "prior": prior.name,
        "prior_source": prior.source,
        **tiles_of(fitted),
        "operator": degraded.spec,
        "operator_source": dict(degraded.op.source),
        "noise_source": dict(degraded.noise.source) if isinstance(degraded.noise, Noise) else {},
        "mask_fills": filled_share(degraded.op),
        "noise": str(degraded.noise) if isinstance(degraded.noise, Noise) else float(degraded.noise),
        "seed": degraded.seed,
        "size": list(restoration.image.shape[-2:]),
        "batch": len(y),
        "environment": environment(y.device),
    }
    converged, finite = restoration.converged, finite_images(restoration.image).tolist()
    records = [
        scores
        | {
            "solver_seed": seeds[index],
            "consistency": float(misfit[index]) if finite[index] else None,
            "evaluations": int(restoration.evaluations[index]),
            "iterations": int(restoration.iterations[index]),
            "converged": None if converged is None else bool(converged[index]),
        }
        | common
        for index, scores in enumerate(_scores(restoration.image, degraded.original, judge))
    ]
    return Result(degraded, restoration, records)


def _solve(
    degraded: Degraded,
    solver: Solver,
    prior: Prior,
    seeds: Sequence[int],
    callback: Callback | None,
    initial: Tensor | None,
) -> tuple[Restoration, Tensor, Prior]:
    """The restoration, its consistency with the measurement (B,), and the prior as it was asked."""
    y, op, noise = degraded.y, degraded.op, degraded.noise
    # A feed-forward network sees the photo alone.
    frame = None if prior.kind == "network" else degraded.frame(prior.multiple)
    if frame is not None:
        level = noise.level(y) if isinstance(noise, Noise) else noise
        noise = noise.framed(frame, y) if isinstance(noise, Noise) else noise
        y = continue_beyond(y, op, frame, level)
        initial = None if initial is None else frame.put(initial, frame.factor, "initial: ")
        callback = None if callback is None else _cutting(callback, frame)
    height, width = op.image_shape(y.shape)[-2:]
    fitted = whole_or_tiles(prior, height, width, pixels=math.inf)
    streams = [stream_of(seed, "solver", number) for seed, number in zip(seeds, degraded.numbers, strict=True)]
    given: dict[str, Any] = {"callback": callback} | ({} if initial is None else {"initial": initial})
    with torch.no_grad():
        sigma: float | Tensor
        if isinstance(noise, Noise):
            # A feed-forward network sees the measurement as it is, and is told nothing of its noise.
            seen = (op, y, torch.zeros(()), 0) if prior.kind == "network" else noise.whitened(op, y, fitted)
            white, y, sigma, asked = seen
        else:
            white, sigma, asked = op, noise, 0
        found = solver(y, white, fitted, sigma_noise=sigma, generator=streams, **given)
    image = found.image
    if degraded.y.shape[1:2] == (3,):
        grey = is_grey(degraded.y if degraded.original is None else degraded.original).view(-1, 1, 1, 1)
        image = torch.where(grey, image.mean(dim=1, keepdim=True), image) if bool(grey.any()) else image
    misfit = consistency(image, degraded.y, op if frame is None else lambda x: frame.cut(op(x)))
    tiles = f"{prior.name} does not take {height} x {width} pixels: asked in tiles" if fitted is not prior else ""
    message = "; ".join(filter(None, (found.message, degraded.remark, op.remark, tiles)))
    image = image if frame is None else frame.cut(image, frame.factor)
    return replace(found, image=image, message=message, evaluations=found.evaluations + asked), misfit, fitted


def _cutting(callback: Callback, frame: Frame) -> Callback:
    return lambda step: callback(replace(step, image=frame.cut(step.image, frame.factor)))


def _scores(restored: Tensor, original: Tensor | None, judge: bool) -> list[dict[str, Any]]:
    """One that diverged has a record, its message says so; where it is not finite it has no score."""
    none: dict[str, Any] = dict.fromkeys(key for key, metric in METRICS.items() if judge or not metric.judge)
    if original is None:
        reasons = dict.fromkeys(("lpips_reason", "effnet_reason"), NO_ORIGINAL)
        return [none | reasons for _ in restored]
    finite = finite_images(restored)
    scores = iter(score(restored[finite], original[finite], judge, clip=True) if bool(finite.any()) else ())
    broken = none | {f"{key}_reason": NOT_FINITE for key in none}
    return [next(scores) if fine else dict(broken) for fine in finite.tolist()]
