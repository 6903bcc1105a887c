"""From a photo to a restored photo and its scores: what the command line, the notebooks and the pipelines share.

    photo -> degrade (operator, noise) -> solver -> Result (pictures, scores, settings)

One seed fixes everything. It feeds independent streams: the operator (which pixels are missing), the noise added to
the measurement, and the solver. In a batch each image has its own streams of that seed, so that a batch gives what
single images give; samples of one measurement differ in the seed of the solver's stream alone.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from workbench.evaluation.metrics import consistency, score
from workbench.fitting import operator_behind, operator_for
from workbench.images import save_image
from workbench.models.prior import Prior
from workbench.operators.base import Operator
from workbench.operators.compose import MaskedGrayscale
from workbench.operators.inpainting import Inpainting
from workbench.random import noise_source, stream
from workbench.records import environment, solver_settings, tiles_of
from workbench.solvers import SOLVERS, make_solver
from workbench.solvers.base import Callback, Restoration, Solver
from workbench.text import check_types, write_json

# What metrics.json says of every image but the first, which has all.
OF_EACH_SAMPLE = (
    *("solver_seed", "psnr", "ssim", "lpips", "effnet", "consistency"),
    *("evaluations", "iterations", "converged", "message"),
)


@dataclass(frozen=True)
class Degraded:
    """A measurement and what is known about it.

    Attributes:
        op: the forward model, for images of the original's size.
        y: the measurement ``op(original) + noise * eps``.
        picture: (B, 1 or 3, h, w), ``y`` where that is a picture, else its adjoint image.
        original: (B, 3, H, W), or None for photos that came degraded.
        spec, noise, seed: how it was made.
        solver_seeds: seed of the solver's stream of each image, B of them; None: ``seed`` for all.

    Raises:
        ValueError: another number of ``solver_seeds`` than images.
    """

    op: Operator
    y: Tensor
    picture: Tensor
    original: Tensor | None
    spec: str
    noise: float
    seed: int
    solver_seeds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.solver_seeds is not None and len(self.solver_seeds) != len(self.y):
            raise ValueError(f"expected one solver seed per image ({len(self.y)}), got {len(self.solver_seeds)}")


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


def solver_of(name: str, settings: dict[str, Any]) -> Solver:
    """The solver ``name`` with ``settings`` that somebody wrote, on a command line or in a file: types are checked too.

    Raises:
        ValueError: unknown solver or setting, with the nearest name; or a value of the wrong type or out of range.
    """
    if name in SOLVERS:
        check_types(settings, get_type_hints(SOLVERS[name]), name)
    return make_solver(name, **settings)


def degrade(photos: Tensor, spec: str, noise: float = 0.0, seed: int = 0, prior: Prior | None = None) -> Degraded:
    """Degrade ``photos`` (B, 3, H, W) in [0, 1] by the operator written ``spec`` ("sr:4"), then add noise.

    Args:
        noise: standard deviation, in units of the [0, 1] range.
        prior: if given, also check that it takes pictures of this size. One in tiles (``TiledPrior``) takes all.

    Raises:
        ValueError: bad ``spec``, ``noise`` or ``seed``, or a size that operator or prior cannot take; the message
            names a size that they can.
    """
    check_numbers(noise, seed)
    op = operator_for(spec, photos, seed, prior)
    clean = op(photos)
    y = clean + noise * noise_source([stream(seed, "noise") for _ in photos])(clean) if noise else clean
    return Degraded(op, y, _picture(op, y), photos, spec, noise, seed)


def observe(photo: Tensor, spec: str, noise: float = 0.0, seed: int = 0, prior: Prior | None = None) -> Degraded:
    """Take ``photo`` (1, 3, h, w) as it is for the measurement of operator ``spec``; ``noise`` is what it contains.

    Grey operators take its mean over channels, and what a mask says is lost is blanked.

    Raises:
        ValueError: as :func:`degrade`; or the operator's measurement is not a picture of that shape, or depends on
            chance (which pixels are missing?) and cannot be that of an existing photo.
    """
    check_numbers(noise, seed)
    op, blank = operator_behind(spec, photo, seed)
    if prior is not None:
        prior.check(blank)
    y = photo if op.measurement_shape(blank.shape)[1] == photo.shape[1] else photo.mean(dim=1, keepdim=True)
    mask = op.outer if isinstance(op, MaskedGrayscale) else op
    if isinstance(mask, Inpainting):
        y = mask(y)  # what is under the scratches of a photo is no measurement
    return Degraded(op, y, _picture(op, y), None, spec, noise, seed)


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
        picture=torch.cat([degraded.picture] * count),
        original=None if original is None else torch.cat([original] * count),
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
) -> Result:
    """Run ``solver`` on a degraded batch and score what comes out.

    Args:
        name: what to call the solver in the records.
        initial: (B, 3, H, W) in [0, 1], a restoration by other means to start from, for solvers that take one.

    Raises:
        ValueError: the solver cannot treat this operator, noise or prior, or takes no ``initial``.
    """
    y = degraded.y
    start: dict[str, Any] = {} if initial is None else {"initial": initial}
    if start and not takes_initial(type(solver)):
        others = ", ".join(other for other, kind in SOLVERS.items() if takes_initial(kind))
        raise ValueError(f"{name or type(solver).__name__} takes no initial image; these do: {others}")
    expected = tuple(degraded.op.image_shape(y.shape))
    if initial is not None and tuple(initial.shape) != expected:
        height, width = initial.shape[-2:]
        raise ValueError(
            f"the initial image has {width}x{height} pixels (width x height), the result {expected[3]}x{expected[2]}"
        )
    images = y.shape[0]
    seeds = degraded.solver_seeds or (degraded.seed,) * images
    started = time.perf_counter()
    with torch.no_grad():
        restoration = solver(
            y,
            degraded.op,
            prior,
            sigma_noise=degraded.noise,
            generator=[stream(seed, "solver") for seed in seeds],
            callback=callback,
            **start,
        )
    if y.is_cuda:
        torch.cuda.synchronize(y.device)
    seconds = (time.perf_counter() - started) / images

    original = degraded.original
    if original is None:
        nothing: dict[str, Any] = {"psnr": None, "ssim": None}
        for key in ("lpips", "effnet"):
            nothing |= {key: None, f"{key}_reason": "no original to compare"}
        scores = [dict(nothing) for _ in range(images)]
    else:
        scores = score(restoration.image, original)
    misfit = consistency(restoration.image, y, degraded.op)
    common = {
        "solver": name or type(solver).__name__.lower(),
        "solver_settings": solver_settings(solver),
        "prior": prior.name,
        "prior_source": prior.source,
        **tiles_of(prior),
        "operator": degraded.spec,
        "noise": degraded.noise,
        "seed": degraded.seed,
        "size": list(restoration.image.shape[-2:]),
        "batch": images,
        "environment": environment(y.device),
    }
    converged = restoration.converged
    records = [
        scores[index]
        | {
            "solver_seed": seeds[index],
            "consistency": float(misfit[index]),
            "evaluations": int(restoration.evaluations[index]),
            "iterations": int(restoration.iterations[index]),
            "seconds": seconds,
            "converged": None if converged is None else bool(converged[index]),
            "message": restoration.message,
        }
        | common
        for index in range(images)
    ]
    return Result(degraded, restoration, records)


def takes_initial(solver: type) -> bool:
    """Whether solvers of this class start from another restoration (``initial``)."""
    return "initial" in signature(solver.__call__).parameters


def save(result: Result, folder: Path) -> None:
    """Write original.png and degraded.png of the first image of ``result``, and every image restored: restored.png,
    restored-2.png, ... metrics.json is the record of the first, with ``samples``, the scores of the others, if any.

    Each file is replaced in one step, metrics.json last. original.png is removed where there is no original, and what
    an earlier result with more images left.
    """
    if result.degraded.original is None:
        (folder / "original.png").unlink(missing_ok=True)
    else:
        save_image(result.degraded.original[:1], folder / "original.png")
    save_image(result.degraded.picture[:1], folder / "degraded.png")
    names = ["restored.png", *(f"restored-{number}.png" for number in range(2, len(result.image) + 1))]
    for name, image in zip(names, result.image.split(1), strict=True):
        save_image(image, folder / name)
    for file in folder.glob("restored-*.png"):
        if re.fullmatch(r"restored-\d+\.png", file.name) and file.name not in names:
            file.unlink()
    first, *others = result.records
    scores = [{key: record[key] for key in OF_EACH_SAMPLE} for record in others]
    write_json(folder / "metrics.json", first | ({"samples": scores} if scores else {}))


def _picture(op: Operator, y: Tensor) -> Tensor:
    return y if y.ndim == 4 and y.shape[1] in (1, 3) else op.adjoint(y)


def check_numbers(noise: float, seed: int) -> None:
    """Raise ValueError unless ``noise`` is a standard deviation and ``seed`` a seed."""
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is a standard deviation on the [0, 1] scale, so finite and at least 0, got {noise}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
