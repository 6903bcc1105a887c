"""Whether an operator keeps to its contract, tried out on random images: what it breaks is said in one sentence."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape
from workbench.operators.least_squares import Map
from workbench.text import require, require_kind

Device = torch.device | str
TOLERANCE = 1e-4  # relative: rounding stays below it, in float32 too
ROUGH = 1e-2  # of a proximal step, which may come of an iteration that stops early


@torch.no_grad()
def check_operator(op: Operator, image_shape: Shape, device: Device = "cpu") -> None:
    """Raise ValueError, with a sentence on what is wrong, unless ``op`` is an operator on images (B, C, H, W): as
    :func:`check_map` says, with the shapes that it states and, if ``linear``, its adjoint. Two images are tried, or the
    whole batch if it takes no other.
    """
    require_kind(op, Operator, "op", "parse_operator('sr:4', (3, H, W))")
    name, count = type(op).__name__, image_shape[0]
    with suppress(Exception):  # of masks and kernels for another number of images, say
        count = 2 if len(op(torch.zeros(2, *image_shape[1:], device=device))) == 2 else count
    shape = (count, *image_shape[1:])
    u, v, seen = check_map(op, shape, name, linear=op.linear, device=device)
    told, back = tuple(op.measurement_shape(shape)), tuple(op.image_shape(seen.shape))
    if (told, back) != (tuple(seen.shape), shape):
        raise ValueError(
            f"{name} takes {shape} to {tuple(seen.shape)}; measurement_shape says {told}, image_shape {back}"
        )
    if not op.linear:
        return
    # Part of y is seen from an image like u: an adjoint that is wrong shows more in that than in noise.
    other, noise = op(u + v), torch.randn(seen.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = other / other.norm().clamp(min=1e-30) + noise.to(seen) / seen.numel() ** 0.5
    image = op.adjoint(given := y.clone())
    _check_answer(f"{name}.adjoint", image, y, given)
    if image.shape != u.shape:
        raise ValueError(f"{name}.adjoint gives shape {tuple(image.shape)} for measurements of images {shape}")
    gap, scale = float(((seen * y).sum() - (u * image).sum()).abs()), float(seen.norm() * y.norm())
    if not gap <= TOLERANCE * scale:
        says = f"<A x, y> and <x, A^T y> differ by {100 * gap / (scale or 1):.2g} %"
        raise ValueError(f"{name}.adjoint is not the adjoint of forward: {says}")
    _check_prox(op, u, seen)


def _check_prox(op: Operator, x: Tensor, y: Tensor) -> None:
    """What ``op`` knows in closed form shows in its proximal step; conjugate gradients need only its adjoint. A
    ``prox`` of its own is taken as it is: it may be another step on purpose."""
    closed = type(op).damped_pinv is not Operator.damped_pinv or op.row_gram() is not None
    if closed and type(op).prox is Operator.prox:
        best = op.prox(-x, y, 1.0)
        slope = op.adjoint(op(best) - y) + best + x
        if not float(slope.norm()) <= ROUGH * float(op.adjoint(y).norm() + x.norm()):
            raise ValueError(f"{type(op).__name__}.prox is not the minimum: its row_gram or its transform is wrong")


def check_measurement(op: Operator, y: Tensor) -> tuple[int, ...]:
    """The shape (B, C, H, W) of the images behind ``y``. Raises ValueError unless ``op`` is an operator and ``y`` a
    measurement of its shape: floating-point, finite, not empty."""
    require_kind(op, Operator, "op", "parse_operator('sr:4', (3, H, W))")
    require_kind(y, Tensor, "y", "the measurement (B, ...)")
    require(y.is_floating_point(), "y", "floating-point, [0, 1]; complex ones by torch.view_as_real", y.dtype)
    shape = tuple(op.image_shape(y.shape))
    if len(shape) != 4 or y.numel() == 0:
        raise ValueError(f"y must be measurements (B, ...) of images (B, C, H, W), got shape {tuple(y.shape)}")
    if not bool(y.isfinite().all()):
        raise ValueError("a measurement has values that are NaN or infinite")
    return shape


def check_first_use(op: Operator, image_shape: Shape, device: Device) -> None:
    """:func:`check_operator`, once, if ``op`` is not of this package or contains one that is not."""
    parts = [part for part in op.modules() if isinstance(part, Operator)]
    if not op.checked and not all(part.checked or type(part).__module__.startswith("workbench.") for part in parts):
        check_operator(op, image_shape, device)
        for part in parts:
            part.checked = True


@torch.no_grad()
def check_map(
    function: Map, shape: Shape, name: str, *, linear: bool = True, alone: bool = False, device: Device = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Raise ValueError, naming ``name``, unless ``function`` measures images of ``shape`` (B, C, H, W).

    It returns one real, finite tensor, batch first, of its input's dtype and device; leaves that input as it was; gives
    the same each time, and each image by itself (``alone``: one by one, too); can be differentiated; and is ``linear``,
    all in float64, or float32 if it refuses that. Returns two batches of images and the measurement of the first.
    """
    draw, generator = torch.randn if linear else torch.rand, torch.Generator().manual_seed(0)
    pair, seen = draw(2, *shape, generator=generator, dtype=torch.float64), None
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        for dtype in (torch.float32, torch.float64):
            x = pair[0].to(device, dtype)
            try:
                answer = function(given := x.clone())
            except Exception as error:  # of any kind: it is the user's function
                failure = error
                continue
            _check_answer(name, answer, x, given)
            u, v, seen = x, pair[1].to(device, dtype), answer
        if seen is None:
            raise ValueError(f"{name} fails on images {tuple(shape)}: {failure}") from failure
        if seen.ndim < 1 or len(seen) != len(u):
            raise ValueError(f"{name} takes {len(u)} images to shape {tuple(seen.shape)}: the batch must stay first")
        if not _near(function(u.clone()), seen):
            raise ValueError(f"{name} gives the same images another measurement each time: noise is added by degrade")
        other = function(v.clone())
        if len(u) > 1:
            parts = u[:1].clone(), v[1:].clone()
            mixed = torch.cat([function(part) for part in parts]) if alone else function(torch.cat(parts))
            if not _near(mixed, torch.cat([seen[:1], other[1:]])):
                raise ValueError(f"{name} mixes the images of a batch: with others, an image is measured otherwise")
        if linear:
            expected, scale = 2 * seen - 3 * other, (2 * seen).norm() + (3 * other).norm()
            gap = (function(2 * u - 3 * v) - expected).norm()
            if not bool(gap <= TOLERANCE * scale):
                raise ValueError(f"{name} is not linear: f(2u - 3v) is {float(gap / scale):.1e} off 2f(u) - 3f(v)")
        graph = False
        with torch.inference_mode(False), torch.enable_grad(), suppress(Exception):  # of numpy
            graph = function(u.clone().requires_grad_()).requires_grad
    if not graph:
        raise ValueError(f"{name} cannot be differentiated: compute in torch, or write a torch.autograd.Function")
    return u, v, seen


def _check_answer(name: str, answer: Any, x: Tensor, given: Tensor) -> None:
    """Of ``name`` to ``given``, which was a copy of ``x``."""
    if not torch.equal(given, x):
        raise ValueError(f"{name} writes into its input: let it work on a copy (x.clone())")
    if not isinstance(answer, Tensor):
        raise ValueError(f"{name} returns {type(answer)}: it must be a torch tensor")
    if answer.is_complex():
        raise ValueError(f"{name} returns complex numbers: use torch.view_as_real")
    if (answer.dtype, answer.device) != (x.dtype, x.device):
        raise ValueError(f"{name} turns {x.dtype} on {x.device} into {answer.dtype} on {answer.device}: keep both")
    if not bool(answer.isfinite().all()):
        raise ValueError(f"{name} returns numbers that are not finite")


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=TOLERANCE * float(b.abs().max()))
