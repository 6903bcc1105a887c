"""Whether an operator keeps to its contract, tried out on random images: what it breaks is said in one sentence.

Unsaid, a wrong adjoint shows as conjugate gradients that do not converge, and images of a batch that are mixed as
restorations that depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.operators.base import Operator, Shape

Map = Callable[[Tensor], Tensor]
TOLERANCE = 1e-4  # relative: rounding stays below it, in float32 too


def check_operator(op: Operator, image_shape: Shape, device: torch.device | str = "cpu") -> None:
    """Raise ValueError, one sentence on what is wrong, unless ``op`` is an operator on images like these.

    About ten applications to two images, or to the whole batch where ``op`` takes no other. It must do what
    :func:`check_map` says, its ``measurement_shape`` and ``image_shape`` must be true, and ``adjoint`` the adjoint of
    ``forward`` unless ``linear`` is False.

    Args:
        image_shape: (B, C, H, W).
        device: where it is tried out.
    """
    name, shape = type(op).__name__, (_count(op, tuple(image_shape), device), *image_shape[1:])
    u, v, seen = check_map(op, shape, name, linear=op.linear, device=device)
    told, back = tuple(op.measurement_shape(shape)), tuple(op.image_shape(seen.shape))
    if (told, back) != (tuple(seen.shape), shape):
        raise ValueError(
            f"{name} takes images {shape} to measurements {tuple(seen.shape)}; its measurement_shape says {told}, "
            f"its image_shape {back}"
        )
    if op.linear:
        check_adjoint(op, op.adjoint, u, v, f"{name}.adjoint")


def check_first_use(op: Operator, image_shape: Shape, device: torch.device | str) -> None:
    """:func:`check_operator`, once, if ``op`` is not of this package or contains one that is not."""
    parts = [part for part in op.modules() if isinstance(part, Operator)]
    parts = [part for part in parts if not type(part).__module__.startswith("workbench.")]
    if op.checked or all(part.checked for part in parts):
        return
    check_operator(op, image_shape, device)
    for part in parts:
        part.checked = True


@torch.no_grad()
def check_map(
    function: Map,
    image_shape: Shape,
    name: str,
    *,
    linear: bool = True,
    alone: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Raise ValueError, naming ``name``, unless ``function`` measures images (B, C, H, W).

    It returns one real and finite tensor, batch first, of dtype and device of its input, which it leaves as it was; the
    same one each time, each image by itself, by torch functions that can be differentiated; and if ``linear``, so that
    ``f(2 u - 3 v) = 2 f(u) - 3 f(v)``. In float64, or float32 where it refuses float64.

    Args:
        alone: it takes any number of images: measure them one by one, to see whether each is by itself.

    Returns:
        Two batches of images, normal (uniform in [0, 1] if not linear), and the measurement of the first.
    """
    generator, shape = torch.Generator().manual_seed(0), tuple(image_shape)
    draw = torch.randn if linear else torch.rand
    pair = draw(2, *shape, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        seen, failure = None, None
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
            raise ValueError(f"{name} fails on images {shape}: {failure}") from failure
        if seen.ndim < 1 or len(seen) != len(u):
            raise ValueError(f"{name} takes {len(u)} images to shape {tuple(seen.shape)}: the batch must stay first")
        if not _near(function(u.clone()), seen):
            raise ValueError(f"{name} gives the same images another measurement each time: noise is added by degrade")
        other = function(v.clone())
        if len(u) > 1:
            parts = (u[:1].clone(), v[1:].clone())
            mixed = torch.cat([function(part) for part in parts]) if alone else function(torch.cat(parts))
            if not _near(mixed, torch.cat([seen[:1], other[1:]])):
                raise ValueError(f"{name} mixes the images of a batch: with others, an image is measured otherwise")
        if linear:
            scale, expected = (2 * seen).norm() + (3 * other).norm(), 2 * seen - 3 * other
            gap = (function(2 * u - 3 * v) - expected).norm()
            if not bool(gap <= TOLERANCE * scale):
                share = f"f(2u - 3v) is {float(gap / scale):.1e} off 2f(u) - 3f(v)"
                raise ValueError(f"{name} is not linear: {share}")
        _check_differentiable(function, u, name)
    return u, v, seen


@torch.no_grad()
def check_adjoint(forward: Map, adjoint: Map, u: Tensor, v: Tensor, name: str) -> None:
    """Raise ValueError, naming ``name``, unless ``<A u, y> = <u, A^T y>`` for images ``u``, ``v`` (B, C, H, W)."""
    seen, other = forward(u.clone()), forward(u + v)
    # Part of y is seen from an image like u: an adjoint that is wrong shows more in that than in noise.
    noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = other / other.norm().clamp(min=1e-30) + noise.to(seen) / seen.numel() ** 0.5
    image = adjoint(given := y.clone())
    _check_answer(name, image, y, given)
    if image.shape != u.shape:
        raise ValueError(f"{name} gives shape {tuple(image.shape)} for measurements of images {tuple(u.shape)}")
    gap, scale = float((seen * y).sum() - (u * image).sum()), float(seen.norm() * y.norm())
    if not abs(gap) <= TOLERANCE * scale:
        share = f"{100 * abs(gap) / scale:.2g} %" if scale else f"{gap:.2g}"
        raise ValueError(f"{name} is not the adjoint of forward: <A x, y> and <x, A^T y> differ by {share}")


def _check_answer(name: str, answer: Any, x: Tensor, given: Tensor) -> None:
    """Of ``name`` to ``given``, which was a copy of ``x``."""
    if not torch.equal(given, x):
        raise ValueError(f"{name} writes into its input: let it work on a copy (x.clone())")
    if not isinstance(answer, Tensor):
        kind = f"{type(answer).__module__}.{type(answer).__qualname__}"
        raise ValueError(f"{name} returns {kind}: it must be a torch tensor, computed by torch functions")
    if answer.is_complex():
        raise ValueError(f"{name} returns complex numbers: use torch.view_as_real")
    if (answer.dtype, answer.device) != (x.dtype, x.device):
        kinds = f"{x.dtype} on {x.device} into {answer.dtype} on {answer.device}"
        raise ValueError(f"{name} turns {kinds}: it must keep them (weights.to(x))")
    if not bool(answer.isfinite().all()):
        raise ValueError(f"{name} returns numbers that are not finite")


def _check_differentiable(function: Map, u: Tensor, name: str) -> None:
    reason = "no gradient reaches its input"
    with torch.inference_mode(False), torch.enable_grad():
        try:
            differentiable = function(u.clone().requires_grad_()).requires_grad
        except Exception as error:
            differentiable, reason = False, str(error).splitlines()[0]
    if not differentiable:
        advice = "compute in torch, or give the gradient by a torch.autograd.Function"
        raise ValueError(f"{name} cannot be differentiated ({reason}): {advice}")


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=TOLERANCE * float(b.abs().max()))


def _count(op: Operator, shape: tuple[int, ...], device: torch.device | str) -> int:
    """2, or as many as there are where masks and kernels of single images leave no choice."""
    try:
        return 2 if len(op(torch.zeros(2, *shape[1:], device=device))) == 2 else shape[0]
    except Exception:
        return shape[0]
