"""Physics of deepinv as operators, and operators as physics of deepinv. See the package's text."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from workbench.deepinv_bridge.denoisers import deepinv_package, device_of
from workbench.operators.base import Operator, Shape
from workbench.operators.checks import check_image
from workbench.operators.contract import check_operator
from workbench.operators.function import FunctionOperator
from workbench.operators.least_squares import vjp
from workbench.text import fits, require


def physics_for_deepinv(op: Operator, image_shape: tuple[int, int, int], *, sigma_noise: float = 0.0) -> Any:
    """``op`` as a ``deepinv.physics.LinearPhysics``; the attribute ``op`` keeps it.

    ``A``, ``A_adjoint``, ``A_dagger`` and ``prox_l2`` are ``op``, its adjoint, pinv and prox; solver settings in calls
    are accepted and not needed. ``gamma`` may be a number, () or one per image, and infinite (the projection onto
    ``A x = y``). An operator that is not linear (JPEG) becomes a plain ``Physics`` with the same methods, where
    ``A_adjoint`` and ``A_dagger`` are the stand-ins of ``op`` and ``prox_l2`` descends by gradient.

    Args:
        image_shape: (C, H, W).
        sigma_noise: ``GaussianNoise`` of this level; 0: ``ZeroNoise``, for which deepinv's samplers assume a level of
            their own (DDRM 0.01, DiffPIR that of its constructor). ``set_noise_model(GaussianNoise(0.0))`` says 0.

    Raises:
        ValueError: deepinv is not installed, ``image_shape`` does not fit ``op``, or ``sigma_noise`` is negative.
    """
    shape = _image_shape(image_shape)
    if not isinstance(op, Operator):
        raise ValueError(f"expected a workbench operator, got {type(op).__name__}")
    number = isinstance(sigma_noise, int | float) and 0 <= sigma_noise < math.inf
    require(number, "sigma_noise", "a number, finite and not negative", sigma_noise)
    physics = deepinv_package().physics
    op.measurement_shape((1, *shape))
    noise = physics.GaussianNoise(float(sigma_noise)) if sigma_noise else physics.ZeroNoise()
    linear, general = _physics_classes()
    return (linear if op.linear else general)(op, shape, noise)


def operator_from_deepinv(
    physics: Any, image_shape: tuple[int, int, int], *, tolerance: float | None = None, max_iterations: int = 500
) -> Operator:
    """A linear deepinv physics as an operator, without its noise.

    Only ``A`` and ``A_adjoint`` are deepinv's (autograd where a physics has no adjoint); pinv and prox are the
    conjugate gradients of :class:`Operator`. It works on a copy: what becomes of ``physics`` later does not matter.

    deepinv computes in float32: a physics that cannot take float64 images, or would answer in float32, raises
    ValueError for them rather than lose precision.

    Args:
        image_shape: (C, H, W).
        tolerance, max_iterations: see :class:`Operator`.

    Raises:
        ValueError: deepinv is not installed, ``physics`` is not linear, has parameters per image, a wrong adjoint,
            complex or several measurements, or fails on images of that shape.
    """
    shape = _image_shape(image_shape)
    if not isinstance(physics, deepinv_package().physics.Physics):
        raise ValueError(f"expected a deepinv physics, got {type(physics).__name__}")
    return DeepinvOperator(physics, shape, tolerance=tolerance, max_iterations=max_iterations)


class DeepinvOperator(FunctionOperator):
    """See :func:`operator_from_deepinv`."""

    def __init__(self, physics: Any, shape: tuple[int, int, int], **options: Any) -> None:
        own = physics.clone()
        try:
            super().__init__(lambda x: _run(own, own.A, x), shape, device=device_of(own), **options)
            self.physics = own
            # LinearPhysics without a function for it would build autograd's adjoint for one fixed batch.
            general = deepinv_package().physics.LinearPhysics.A_adjoint
            self.has_adjoint = hasattr(own, "A_adjoint") and not (type(own).A_adjoint is general and own.A_adj is None)
            check_operator(self, (2, *shape), device_of(own))
            seen = self(torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device_of(own))).detach()
            if not torch.allclose(own.sensor(seen.clone()), seen):
                raise ValueError("its sensor is not linear")
        except Exception as error:  # deepinv has asserts and errors of every kind for shapes that do not fit
            name = type(own).__name__
            raise ValueError(f"deepinv's {name} is not a linear operator on images {shape}: {error}") from error

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` for images (B, C, H, W)."""
        check_image(x)
        self.measurement_shape(x.shape)
        return _run(self.physics, self.physics.A, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        shape = self.image_shape(y.shape)
        if self.has_adjoint:
            return _run(self.physics, self.physics.A_adjoint, y)
        return vjp(lambda x: _run(self.physics, self.physics.A, x), y.new_zeros(shape), y)


def _run(physics: Any, function: Any, values: Tensor) -> Tensor:
    name = type(physics).__name__
    advice = "give it float32 images, or look for a workbench operator"
    try:
        # A copy: some of them write into their input, others return it.
        result: Tensor = function(values.clone())
    except RuntimeError as error:
        if values.dtype != torch.float64 or not _takes(function, values.float()):
            raise
        raise ValueError(f"deepinv's {name} does not take float64 ({error}): {advice}") from error
    if isinstance(result, Tensor) and result.is_floating_point() and result.dtype != values.dtype:
        raise ValueError(f"deepinv's {name} turns {values.dtype} into {result.dtype}: {advice}")
    return result


def _takes(function: Any, values: Tensor) -> bool:
    try:
        function(values)
    except Exception:  # of any kind
        return False
    return True


def _image_shape(shape: Shape) -> tuple[int, int, int]:
    given = isinstance(shape, Sequence) and len(shape) == 3 and all(fits(side, int) and side >= 1 for side in shape)
    require(given, "image_shape", "(C, H, W)", tuple(shape) if isinstance(shape, Sequence) else shape)
    channels, height, width = map(int, shape)
    return channels, height, width


@cache
def _physics_classes() -> tuple[type, type]:
    """The subclasses of deepinv's LinearPhysics and Physics that are an operator of ours."""
    linear: Any = deepinv_package().physics.LinearPhysics
    general: Any = deepinv_package().physics.Physics

    class Methods:
        op: Operator

        def A(self, x: Tensor, **kwargs: Any) -> Tensor:
            """``op(x)``. ``forward`` hands the options of the noise to A too; an operator has none of its own."""
            unknown = kwargs.keys() - {"sigma", "seed", "rng"}
            if unknown:
                name = type(self.op).__name__
                raise ValueError(f"{name} cannot be changed in a call: got {', '.join(sorted(unknown))}")
            return self.op(x)

        def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
            return self.op.adjoint(y)

        def A_dagger(self, y: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self.op.pinv(y)

        def prox_l2(self, z: Any, y: Tensor, gamma: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """``argmin_x gamma/2 ||A x - y||^2 + 1/2 ||x - z||^2``; ``z`` may be a number, or None for 0."""
            if not isinstance(z, Tensor):
                z = y.new_full(self.op.image_shape(y.shape), 0.0 if z is None else float(z))
            strength = torch.as_tensor(gamma, dtype=z.dtype, device=z.device)
            require(bool((strength > 0).all()), "gamma", "positive", gamma)
            return self.op.prox(z, y, 1 / (strength.flatten() if strength.ndim else strength))

    class OperatorPhysics(Methods, linear):
        def __init__(self, op: Operator, image_shape: Shape, noise: Any) -> None:
            super().__init__(img_size=image_shape, noise_model=noise, device=device_of(op))
            self.op = op

    class NonlinearPhysics(Methods, general):
        def __init__(self, op: Operator, image_shape: Shape, noise: Any) -> None:
            super().__init__(noise_model=noise)
            self.img_size, self.op = image_shape, op

    return OperatorPhysics, NonlinearPhysics
