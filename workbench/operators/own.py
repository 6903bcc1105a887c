"""Operators of one's own: objects, or the names of objects in one's own code."""

import sys
from typing import Any

from torch import Tensor, nn

from workbench.operators.base import Operator, Shape
from workbench.operators.contract import check_first_use
from workbench.operators.function import FunctionOperator
from workbench.own import imported, source_of, telling


def operator_from(spec: Any, image_shape: Shape) -> Operator:
    """The operator that ``spec`` stands for, on images of ``image_shape`` (C, H, W).

    ``spec`` is, or names (``FILE.py:NAME``, ``package.module:NAME``): an :class:`Operator`; a linear deepinv physics; a
    function, or class, called with ``image_shape``, that returns one of these or a linear function of image batches.

    Raises:
        ValueError: anything else, or what the code raises, in one line.
    """
    made, source = imported(spec) if isinstance(spec, str) else (spec, source_of(spec))
    name, shape = spec_of(spec), (image_shape[0], image_shape[1], image_shape[2])
    with telling(name if isinstance(made, nn.Module) else f"{name}({shape})"):
        op = made if isinstance(made, nn.Module) or not callable(made) else made(shape)
        if "deepinv" in sys.modules and isinstance(op, sys.modules["deepinv"].physics.Physics):
            from workbench.deepinv_bridge import operator_from_deepinv  # a layer above: it imports this one

            op = operator_from_deepinv(op, shape)
        elif callable(op) and not isinstance(op, Operator):
            op = FunctionOperator(op, shape)
    if not isinstance(op, Operator):
        kinds = "an operator, a deepinv physics, or a function of the image shape (C, H, W) that returns one"
        raise ValueError(f"{name}: expected {kinds} or a linear function, got {type(op).__name__}")
    op.source = source
    return op


def shape_behind(spec: Any, measured: Shape) -> tuple[int, ...]:
    """(B, C, H, W) of the images behind ``measured``, which is itself that unless ``spec`` is or names an operator."""
    made = imported(spec)[0] if isinstance(spec, str) else spec
    return made.image_shape(measured) if isinstance(made, Operator) else tuple(measured)


def measure_own(op: Operator, photos: Tensor, name: str) -> Tensor:
    """``op(photos)``. Raises ValueError, one line, where an operator of one's own is none or takes no such images."""
    with telling(f"{name} on images {tuple(photos.shape)}"):
        check_first_use(op, photos.shape, photos.device)  # before it writes into the photos, say
        return op(photos)


def spec_of(spec: Any) -> str:
    """A short name for an operator: its text, its attribute ``name``, or the name of the function or class."""
    found = spec if isinstance(spec, str) else getattr(spec, "name", None) or getattr(spec, "__name__", None)
    return found if isinstance(found, str) else type(spec).__name__
