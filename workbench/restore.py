"""From a photo to a restored photo and its scores: what the command line, the notebooks and the pipelines share.

    photo -> degrade (operator, noise) -> solver -> Result (pictures, scores, settings)

One seed fixes everything. It feeds independent streams: the operator (which pixels are missing), the noise added to
the measurement, and the solver. In a batch each image has its own streams of that seed, so that a batch gives what
single images give.
"""

from __future__ import annotations

import math
import platform
import time
from dataclasses import dataclass, fields
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from workbench.images import MAX_PIXELS, save_image
from workbench.metrics import consistency, score
from workbench.models.prior import Prior
from workbench.models.tiled import TiledPrior
from workbench.operators.base import Operator
from workbench.operators.compose import MaskedGrayscale
from workbench.operators.inpainting import Inpainting
from workbench.operators.parse import parse_operator, shrink_factor
from workbench.pipelines.job import write_json
from workbench.random import generator, noise_source, stream
from workbench.settings import check_types
from workbench.solvers import SOLVERS, make_solver
from workbench.solvers.base import Callback, Restoration, Solver


@dataclass(frozen=True)
class Degraded:
    """A measurement and what is known about it.

    Attributes:
        op: the forward model, for images of the original's size.
        y: the measurement ``op(original) + noise * eps``.
        picture: (B, 1 or 3, h, w), ``y`` where that is a picture, else its adjoint image.
        original: (B, 3, H, W), or None for photos that came degraded.
        spec, noise, seed: how it was made.
    """

    op: Operator
    y: Tensor
    picture: Tensor
    original: Tensor | None
    spec: str
    noise: float
    seed: int


@dataclass(frozen=True)
class Result:
    """A restoration and its scores.

    Attributes:
        degraded: what was restored.
        restoration: what the solver returned.
        records: per image, ready for JSON: ``psnr``, ``ssim``, ``lpips``, ``perceptual_tiny`` (None with a
            ``*_reason`` where not defined), ``consistency`` with the measurement, ``evaluations``, ``iterations``,
            ``seconds``, ``converged``, ``message``, all settings and versions.
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
    _check(noise, seed)
    op = _operator(spec, photos, seed, prior)
    clean = op(photos)
    y = clean + noise * noise_source(_streams(seed, "noise", photos))(clean) if noise else clean
    return Degraded(op, y, _picture(op, y), photos, spec, noise, seed)


def observe(photo: Tensor, spec: str, noise: float = 0.0, seed: int = 0, prior: Prior | None = None) -> Degraded:
    """Take ``photo`` (1, 3, h, w) as it is for the measurement of operator ``spec``; ``noise`` is what it contains.

    Grey operators take its mean over channels, and what a mask says is lost is blanked.

    Raises:
        ValueError: as :func:`degrade`; or the operator's measurement is not a picture of that shape, or depends on
            chance (which pixels are missing?) and cannot be that of an existing photo.
    """
    _check(noise, seed)
    op, blank = _behind(spec, photo, seed)
    if prior is not None:
        prior.check(blank)
    y = photo if op.measurement_shape(blank.shape)[1] == photo.shape[1] else photo.mean(dim=1, keepdim=True)
    mask = op.outer if isinstance(op, MaskedGrayscale) else op
    if isinstance(mask, Inpainting):
        y = mask(y)  # what is under the scratches of a photo is no measurement
    return Degraded(op, y, _picture(op, y), None, spec, noise, seed)


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
    started = time.perf_counter()
    with torch.no_grad():
        restoration = solver(
            y,
            degraded.op,
            prior,
            sigma_noise=degraded.noise,
            generator=_streams(degraded.seed, "solver", y),
            callback=callback,
            **start,
        )
    if y.is_cuda:
        torch.cuda.synchronize(y.device)
    seconds = (time.perf_counter() - started) / images

    original = degraded.original
    if original is None:
        nothing: dict[str, Any] = {"psnr": None, "ssim": None}
        for key in ("lpips", "perceptual_tiny"):
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
        **_tiles(prior),
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
    """Write the first image of ``result`` as original.png, degraded.png and restored.png, and metrics.json.

    Each file is replaced in one step, metrics.json last. original.png is removed where there is no original.
    """
    if result.degraded.original is None:
        (folder / "original.png").unlink(missing_ok=True)
    else:
        save_image(result.degraded.original[:1], folder / "original.png")
    save_image(result.degraded.picture[:1], folder / "degraded.png")
    save_image(result.image[:1], folder / "restored.png")
    write_json(folder / "metrics.json", result.records[0])


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that a figure depends on."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "workbench": version("restoration-workbench"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
    }


def fitting_size(spec: str, limit: int, prior: Prior | None) -> int | None:
    """The largest square side of at most ``limit`` pixels that operator and prior take, or None if none was found."""
    step = prior.multiple if prior is not None else 1
    sides = [limit - limit % step - step * k for k in range(64)] + [2**k for k in range(12, 3, -1)]
    for side in (side for side in sides if 0 < side <= limit):
        try:
            blank = torch.zeros(1, 3, side, side)
            parse_operator(spec, tuple(blank.shape[1:]), generator(0))
            if prior is not None:
                prior.check(blank)
        except ValueError:
            continue
        return side
    return None


def _behind(spec: str, photo: Tensor, seed: int) -> tuple[Operator, Tensor]:
    """The operator that measures ``photo`` (1, 3, h, w), and a blank image of the size that it takes."""
    height, width = (shrink_factor(spec) * side for side in photo.shape[-2:])
    if height * width > max(MAX_PIXELS, photo.shape[-2] * photo.shape[-1]):
        raise ValueError(f"{spec!r} would make a picture of {height}x{width} pixels, the limit is {MAX_PIXELS:,}")
    blank = photo.new_zeros(()).expand(*photo.shape[:2], height, width)  # without memory: only its shape counts
    chance = stream(seed, "operator")
    before = chance.get_state()
    op = parse_operator(spec, tuple(blank.shape[1:]), chance).to(photo.device)
    measured = op.measurement_shape(blank.shape)
    if len(measured) != 4 or measured[-2:] != photo.shape[-2:]:
        raise ValueError(f"{spec!r} does not turn pictures into pictures, so a photo is not its result")
    if not torch.equal(before, chance.get_state()):
        raise ValueError(
            f"{spec!r} is drawn at random: which pixels of this photo are missing cannot be known; paint them white in "
            "a picture of its size: mask:FILE or oldphoto:FILE"
        )
    return op, blank


def solver_settings(solver: Any) -> dict[str, Any]:
    """All settings of a solver, defaults too, ready for JSON."""
    values = {field.name: getattr(solver, field.name) for field in fields(solver)}
    return {name: getattr(value, "__name__", value) for name, value in values.items()}


def _operator(spec: str, photos: Tensor, seed: int, prior: Prior | None) -> Operator:
    try:
        op = parse_operator(spec, tuple(photos.shape[1:]), stream(seed, "operator")).to(photos.device)
    except ValueError as error:
        raise _proposal(error, spec, photos, prior) from None
    try:
        if prior is not None:
            prior.check(photos)
    except ValueError as error:
        if prior is None or photos.shape[1] != prior.channels:
            raise
        raise ValueError(f"{_proposal(error, spec, photos, prior)}; or in tiles (--tile, TiledPrior)") from None
    return op


def _proposal(error: ValueError, spec: str, photos: Tensor, prior: Prior | None) -> ValueError:
    """``error``, with a size that operator and prior take, if there is one."""
    side = fitting_size(spec, min(photos.shape[-2:]), prior)
    if side is None or photos.shape[-2:] == (side, side):
        return error
    return ValueError(f"{error}; {side}x{side} would do (--size {side})")


def _tiles(prior: Prior) -> dict[str, Any]:
    """How the prior was cut into tiles, ready for JSON; ``tile`` 0 for none."""
    if isinstance(prior, TiledPrior):
        return {"tile": prior.tile, "overlap": prior.overlap}
    return {"tile": 0, "overlap": 0}


def _picture(op: Operator, y: Tensor) -> Tensor:
    return y if y.ndim == 4 and y.shape[1] in (1, 3) else op.adjoint(y)


def _check(noise: float, seed: int) -> None:
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is a standard deviation on the [0, 1] scale, so finite and at least 0, got {noise}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")


def _streams(seed: int, purpose: str, batch: Tensor) -> list[torch.Generator]:
    return [stream(seed, purpose) for _ in range(batch.shape[0])]
