"""From photos to restored photos and their scores: what the command line, notebooks, pipelines and the demo share.

    photos -> degrade (forward operator, noise) or observe -> Degraded -> restore (solver, prior) -> Result

One seed fixes everything. Every image has a number, by default its place in the batch, and the seed gives it a random
stream of its own for each purpose: its operator (which pixels are missing), the noise of its measurement, its solver.
So a batch gives what single images give, every prior and solver sees the same measurements, and figures do not depend
on the batch size. Image 0 has the streams of a single photo. Posterior samples of one measurement differ in the seed
of the solver's stream alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor

from workbench.evaluation.metrics import consistency, score
from workbench.evaluation.statistics import METRICS
from workbench.fitting import filled_share, operator_behind, operator_for
from workbench.images import is_grey
from workbench.models.load import DEFAULTS
from workbench.models.prior import KINDS, Prior
from workbench.models.wrappers import whole_or_tiles
from workbench.noise_level import noise_of
from workbench.operators.base import Operator
from workbench.operators.border import Frame, continue_beyond, frame_of
from workbench.operators.compose import MaskedGrayscale
from workbench.operators.inpainting import Inpainting
from workbench.random import noise_source, stream_of
from workbench.records import environment, solver_settings, tiles_of
from workbench.solvers import SOLVERS, make_solver
from workbench.solvers.base import Callback, Restoration, Solver
from workbench.text import check_types

ROW_DIGITS = 5  # of the scores of ``Result.rows``: what changes beyond them changes with the batch size


@dataclass(frozen=True)
class Degraded:
    """The measurements of B images, and what is known about them.

    Attributes:
        op: the forward model, for images of the original's size.
        y: the measurements ``op(original) + noise * eps``.
        original: (B, 3, H, W), or None for photos that came degraded.
        spec, noise, seed: how they were made.
        numbers: of the images, B of them; they choose the random streams.
        remark: what should be known of them, a line for messages; often empty.
        solver_seeds: seed of the solver's stream of each image, B of them; None: ``seed`` for all.

    Raises:
        ValueError: ``numbers`` or ``solver_seeds`` are not one per image.
    """

    op: Operator
    y: Tensor
    original: Tensor | None
    spec: str
    noise: float
    seed: int
    numbers: tuple[int, ...]
    solver_seeds: tuple[int, ...] | None = None
    remark: str = ""

    def __post_init__(self) -> None:
        for what, given in (("number", self.numbers), ("solver seed", self.solver_seeds)):
            if given is not None and len(given) != len(self.y):
                raise ValueError(f"expected one {what} per image ({len(self.y)}), got {len(given)}")

    def frame(self, multiple: int = 1) -> Frame | None:
        """The frame in which photos that came degraded are restored, see ``workbench.operators.border``; else None."""
        if self.original is not None or self.y.ndim != 4:
            return None
        return frame_of(self.op, (self.y.shape[-2], self.y.shape[-1]), multiple)

    def predicted(self, image: Tensor) -> Tensor:
        """The measurement of an ``image`` (B, 3, H, W), like ``y``; what is beyond an unknown border is its border."""
        frame = self.frame()
        return self.op(image) if frame is None else frame.cut(self.op(frame.put(image, frame.factor)))

    @property
    def picture(self) -> Tensor:
        """The measurements as pictures (B, 1 or 3, h, w): ``y`` where it is one, else its adjoint image."""
        return self.y if self.y.ndim == 4 and self.y.shape[1] in (1, 3) else self.op.adjoint(self.y)


@dataclass(frozen=True)
class Result:
    """A restoration and its scores.

    Attributes:
        degraded: what was restored.
        restoration: what the solver returned.
        records: per image, ready for JSON: ``psnr``, ``ssim``, ``lpips``, ``effnet`` (None with a
            ``*_reason`` where not defined), ``consistency`` with the measurement, ``evaluations``, ``iterations``,
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
    if name in SOLVERS:
        check_types(settings, get_type_hints(SOLVERS[name]), name)
    return make_solver(name, **settings)


def usual_prior(name: str) -> str:
    """The shipped prior to start with for solver ``name``: of the kind that it needs.

    Raises:
        ValueError: none of that kind is shipped; the message says which prior to give.
    """
    kind = SOLVERS[name].prior_kind if name in SOLVERS else "denoiser"
    if kind not in DEFAULTS:
        raise ValueError(f"{name} needs {KINDS[kind][0]}, and none is shipped: give the prior")
    return DEFAULTS[kind]


def steps_of(name: str, steps: int) -> dict[str, int]:
    """The settings with which solver ``name`` takes ``steps`` steps, or that many at most; empty where it has none."""
    known = [field.name for field in fields(SOLVERS[name])] if name in SOLVERS else []
    return {setting: steps for setting in ("max_steps", "steps") if setting in known}


def degrade(
    photos: Tensor,
    spec: str,
    noise: float = 0.0,
    seed: int = 0,
    prior: Prior | None = None,
    numbers: Sequence[int] | None = None,
) -> Degraded:
    """Degrade ``photos`` (B, 3, H, W) in [0, 1] by the operator written ``spec`` ("sr:4"), then add noise.

    Missing pixels are drawn for every image by itself; a Walsh-Hadamard pattern is the instrument's, one for all.

    Args:
        noise: standard deviation, in units of the [0, 1] range.
        prior: if given, also check that it takes pictures with so many channels.
        numbers: of the images, for batches of a longer list; 0, 1, ... if not given.

    Raises:
        ValueError: bad ``spec``, ``noise`` or ``seed``, not one number per image, or a size that the operator cannot
            take; the message names one that it can.
    """
    check_numbers(noise, seed)
    numbers = tuple(range(len(photos)) if numbers is None else numbers)
    if len(numbers) != len(photos):
        raise ValueError(f"expected one number per image ({len(photos)}), got {len(numbers)}")
    op = operator_for(spec, photos, seed, numbers)
    if prior is not None:
        whole_or_tiles(prior, *photos.shape[-2:]).check(photos)
    clean = op(photos)
    y = (
        clean + noise * noise_source([stream_of(seed, "noise", number) for number in numbers])(clean)
        if noise
        else clean
    )
    return Degraded(op, y, photos, spec, noise, seed, numbers)


def observe(photos: Tensor, spec: str, noise: float | str = 0.0, seed: int = 0, prior: Prior | None = None) -> Degraded:
    """Take ``photos`` (B, 3, h, w) as they are for measurements of operator ``spec``; ``noise`` is what they contain,
    or "auto" for what :func:`estimate_noise` finds, in one photo at a time.

    Grey operators take the mean over channels, and what a mask says is lost is blanked. Each photo is number 0.

    Raises:
        ValueError: as :func:`degrade`; or the operator's measurement is not a picture of that shape, or depends on
            chance (which pixels are missing?) and cannot be that of an existing photo.
    """
    remark = ""
    if isinstance(noise, str):
        if noise != "auto" or len(photos) != 1:
            raise ValueError(f"noise is a number, or auto for one photo at a time, got {noise!r}, {len(photos)} photos")
        noise, remark = noise_of(photos)
    check_numbers(noise, seed)
    op, blank = operator_behind(spec, photos, seed)
    if prior is not None:
        whole_or_tiles(prior, *blank.shape[-2:]).check(blank)
    y = photos if op.measurement_shape(blank.shape)[1] == photos.shape[1] else photos.mean(dim=1, keepdim=True)
    mask = op.outer if isinstance(op, MaskedGrayscale) else op
    if isinstance(mask, Inpainting):
        y = mask(y)  # what is under the scratches of a photo is no measurement
    return Degraded(op, y, None, spec, noise, seed, (0,) * len(y), remark=remark)


def samples(degraded: Degraded, count: int) -> Degraded:
    """One measurement ``count`` times, with solver seeds ``seed``, ``seed + 1``, ...: :func:`restore` samples them.

    Missing pixels and noise stay those of ``seed``, so image 0 is that of a restoration without this.

    Raises:
        ValueError: not one image, or a ``count`` below 1.
    """
    if len(degraded.y) != 1:
        raise ValueError(f"samples are of one measurement, got a batch of {len(degraded.y)}")
    if count < 1:
        raise ValueError(f"the number of samples must be at least 1, got {count}")
    seeds = tuple(range(degraded.seed, degraded.seed + count))
    if count == 1:  # a copy may lie otherwise in memory, on which the last bit of a convolution depends
        return replace(degraded, solver_seeds=seeds)
    original = degraded.original
    return replace(
        degraded,
        y=torch.cat([degraded.y] * count),
        original=None if original is None else torch.cat([original] * count),
        numbers=degraded.numbers * count,
        solver_seeds=seeds,
    )


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
        ValueError: the solver cannot treat this operator, noise or prior, or takes no ``initial``.
    """
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
        "prior": prior.name,
        "prior_source": prior.source,
        **tiles_of(fitted),
        "operator": degraded.spec,
        "mask_fills": filled_share(degraded.op),
        "noise": degraded.noise,
        "seed": degraded.seed,
        "size": list(restoration.image.shape[-2:]),
        "batch": len(y),
        "environment": environment(y.device),
    }
    converged = restoration.converged
    records = [
        scores
        | {
            "solver_seed": seeds[index],
            "consistency": float(misfit[index]),
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
    y, op = degraded.y, degraded.op
    # A feed-forward network sees the photo alone.
    frame = None if prior.kind == "network" else degraded.frame(prior.multiple)
    if frame is not None:
        y = continue_beyond(y, op, frame, degraded.noise)
        initial = None if initial is None else frame.put(initial, frame.factor)
        callback = None if callback is None else _cutting(callback, frame)
    height, width = op.image_shape(y.shape)[-2:]
    fitted = whole_or_tiles(prior, height, width, pixels=math.inf)
    streams = [stream_of(seed, "solver", number) for seed, number in zip(seeds, degraded.numbers, strict=True)]
    given: dict[str, Any] = {"callback": callback} | ({} if initial is None else {"initial": initial})
    with torch.no_grad():
        found = solver(y, op, fitted, sigma_noise=degraded.noise, generator=streams, **given)
    image = found.image
    if degraded.y.shape[1] == 3:
        grey = is_grey(degraded.y if degraded.original is None else degraded.original).view(-1, 1, 1, 1)
        image = torch.where(grey, image.mean(dim=1, keepdim=True), image) if bool(grey.any()) else image
    misfit = consistency(image, degraded.y, op if frame is None else lambda x: frame.cut(op(x)))
    tiles = f"{prior.name} does not take {height} x {width} pixels: asked in tiles" if fitted is not prior else ""
    message = "; ".join(filter(None, (found.message, degraded.remark, op.remark, tiles)))
    image = image if frame is None else frame.cut(image, frame.factor)
    return replace(found, image=image, message=message), misfit, fitted


def _cutting(callback: Callback, frame: Frame) -> Callback:
    return lambda step: callback(replace(step, image=frame.cut(step.image, frame.factor)))


def check_numbers(noise: float, seed: int) -> None:
    """Raise ValueError unless ``noise`` is a standard deviation for pictures in [0, 1] and ``seed`` a seed."""
    if not 0 <= noise <= 1:
        hint = f"; {noise:g}/255 = {noise / 255:.3g}?" if 1 < noise <= 255 else ""
        raise ValueError(f"noise is a standard deviation on the [0, 1] scale, got {noise}{hint}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")


def _scores(restored: Tensor, original: Tensor | None, judge: bool) -> list[dict[str, Any]]:
    if original is not None:
        return score(restored, original, judge)
    reasons = dict.fromkeys(("lpips_reason", "effnet_reason"), "no original to compare")
    return [dict.fromkeys(("psnr", "ssim", "lpips", "effnet")) | reasons for _ in restored]
