"""Base classes of the forward models ``y = A x + noise``. Noise is separate.

Everything a solver asks of a linear operator follows from one map, the damped pseudo-inverse

    damped_pinv(r, w) = argmin_d 1/2 ||A d - r||^2 + w/2 ||d||^2 = A^T (A A^T + w)^-1 r

since ``pinv(y) = damped_pinv(y, 0)`` and ``prox(z, y, w) = z + damped_pinv(y - A z, w)``. The published Fourier step,
``(A^T y + w z - ...)/w``, is the same image, but it cancels in float32 below w = 1e-5; this form does not.

:class:`Operator` computes that map by conjugate gradients, :class:`SpectralOperator` in closed form from "transform and
singular values"; an operator that has something faster overrides ``damped_pinv`` alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from workbench.operators.checks import check_image, check_rcond, check_weight
from workbench.operators.least_squares import LeastSquares, descend, solve_least_squares
from workbench.operators.least_squares import column as column  # re-exported
from workbench.text import require

Shape = Sequence[int]
Method = TypeVar("Method", bound=Callable[..., Any])
COMPUTING = {"forward", "adjoint", "damped_pinv", "pinv", "prox", "residual", "project_null", "first_estimate"}
COMPUTING |= {"analysis", "synthesis", "data_analysis", "data_synthesis", "singular_values", "spectral_filter"}


def full_precision(method: Method) -> Method:
    """``method`` without autocast: training in bfloat16 rounds the network's products, not the measurement's."""

    @wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        lowered = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        if not lowered:
            return method(*arguments, **options)
        with ExitStack() as stack:
            for kind in lowered:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return method(*arguments, **options)

    return cast(Method, call)


class Operator(nn.Module):
    """A forward model ``A`` from images (B, C, H, W) to measurements. A subclass gives ``forward`` and ``adjoint``.

    Results have the dtype (float32 or float64) and device of the input, whatever the buffers hold, and never share its
    memory; autocast does not change them. They can be differentiated with respect to images, measurements and weights.

    Attributes:
        linear: False for an operator (JPEG) whose ``adjoint`` and ``pinv`` are stand-ins; solvers that need a linear
            one refuse it. Its ``prox`` descends by gradient, on ``1/2 ||residual||^2``, if it gives no other.
        checked: solvers do not try out whether it is an operator (``contract.py``): done already, or not wanted.
        remark: what should be known of how it was made, a line for messages; often empty.
        source: ``file`` and ``sha256`` of the code that made it, if it is none of this package's.

    Args:
        tolerance: conjugate gradients stop, image by image, when the gradient of the least-squares problem has fallen
            to this share of its start. None: eps^(2/3) of the dtype, that is 2.4e-5 in float32 and 3.7e-11 in float64.
        max_iterations: after that many a RuntimeWarning names the share that was reached.
    """

    linear: bool = True
    remark: str = ""
    checked: bool = False
    source: Mapping[str, str] = {}

    def __init_subclass__(cls) -> None:
        for name in COMPUTING & vars(cls).keys():
            setattr(cls, name, full_precision(vars(cls)[name]))

    def __init__(self, *, tolerance: float | None = None, max_iterations: int = 500) -> None:
        super().__init__()
        require(tolerance is None or 0 < tolerance < 1, "tolerance", "between 0 and 1", tolerance)
        require(max_iterations >= 1, "max_iterations", "at least 1", max_iterations)
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A x`` for images (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """``A^T (A A^T + weight)^-1 r``, images (B, C, H, W), for ``r`` like y; ``weight`` is () or (B,).

        At weight 0 it is ``A^+ r``. Where :meth:`row_gram` is known it is ``A^T r`` scaled, else conjugate gradients;
        those start from zero, so that at weight 0 they find the solution of least norm. Their gradient solves the
        transposed problem and does not reach the operator's own parameters.
        """
        gram = self.row_gram()
        if gram is not None:
            image = self.adjoint(r)
            return image / (gram + column(weight, image))
        tolerance = self.tolerance or torch.finfo(r.dtype).eps ** (2 / 3)
        problem = LeastSquares(self, self.adjoint, tolerance, self.max_iterations, type(self).__name__)
        return solve_least_squares(problem, r, weight)

    def row_gram(self) -> float | None:
        """``c`` if ``A A^T = c`` times the identity, c > 0; None if not."""
        return None

    def pinv(self, y: Tensor) -> Tensor:
        """``A^+ y`` (Moore-Penrose), images (B, C, H, W)."""
        return self.damped_pinv(y, torch.zeros((), dtype=y.dtype))

    @full_precision
    def prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``argmin_x 1/2 ||A x - y||^2 + weight/2 ||x - z||^2`` for images ``z`` (B, C, H, W).

        ``weight`` is () or (B,). At 0 it is the limit: of all least-squares solutions the one nearest to ``z``,
        ``z + A^+ (y - A z)``.

        Raises:
            ValueError: weight negative or not finite, or shapes or dtypes that do not fit.
        """
        checked = self.check_prox(z, y, weight)
        if not self.linear:
            start = self.adjoint(y) if type(self).pinv is Operator.pinv else self.pinv(y)
            return descend(self.residual, z, y, checked.to(z.device).expand(z.shape[0]), start, self.max_iterations)
        return z + self.damped_pinv(y - self(z), checked)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """``y - A x``, like ``y``: what images ``x`` (B, C, H, W) leave of the measurement, to be taken for noise."""
        return y - self(x)

    def project_null(self, x: Tensor) -> Tensor:
        """``(I - A^+ A) x``: what the measurement does not see of ``x`` (B, C, H, W)."""
        return x - self.pinv(self(x))

    def take(self, rows: Tensor, count: int) -> Operator:
        """This operator for the images ``rows`` (b,), indices, of a batch of ``count`` alone.

        Masks and kernels may belong to single images, and only a subclass knows whether its do. By default the whole
        batch is computed, with ones for the other images; a subclass may do better.
        """
        from workbench.operators.taken import Taken

        return Taken(self, rows, count)

    def measurement_shape(self, image_shape: Shape) -> tuple[int, ...]:
        """Shape of ``A x`` for images of shape (B, C, H, W)."""
        return tuple(image_shape)

    def image_shape(self, measurement_shape: Shape) -> tuple[int, ...]:
        """Shape (B, C, H, W) of the images behind measurements of that shape."""
        return tuple(measurement_shape)

    def adjointness_error(
        self, image_shape: Shape, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> float:
        """``|<A x, y> - <x, A^T y>| / (||A x|| ||y||)`` for normal x (B, C, H, W) and y: rounding only, if right."""
        device = generator.device if generator is not None else None
        x = torch.randn(tuple(image_shape), generator=generator, dtype=dtype, device=device)
        seen = self(x)
        y = torch.randn(seen.shape, generator=generator, dtype=dtype, device=device)
        gap = torch.vdot(seen.flatten(), y.flatten()) - torch.vdot(x.flatten(), self.adjoint(y).flatten())
        return float(gap.abs() / (seen.norm() * y.norm()))

    def check_prox(self, z: Tensor, y: Tensor, weight: float | Tensor) -> Tensor:
        """``weight`` as a tensor () or (B,) of z's dtype; raise ValueError unless it, ``z`` and ``y`` fit together."""
        check_image(z)
        if y.dtype != z.dtype:
            raise ValueError(f"y and z must have the same dtype, got {y.dtype} and {z.dtype}")
        expected = self.measurement_shape(z.shape)
        if tuple(y.shape) != expected:
            raise ValueError(
                f"{type(self).__name__} takes images {tuple(z.shape)} to {expected}, got y of shape {tuple(y.shape)}"
            )
        return check_weight(weight, z)


class SpectralOperator(Operator):
    """A linear operator whose singular value decomposition ``A = U diag(s) V^T`` is known as fast transforms.

    A subclass gives five methods and inherits everything else. Coefficients are real tensors with the batch first;
    there are as many as pixels, and both transforms are orthonormal, so that white noise stays white:

    - ``analysis(x)`` = ``V^T x`` and ``synthesis(c)`` = ``V c``;
    - ``data_analysis(y)`` = ``U^T y`` laid out like ``analysis(x)``, zero where a coefficient has no
      measurement, and ``data_synthesis(c)`` = ``U c``;
    - ``singular_values(x)`` >= 0, with as many dimensions as the coefficients, (1 or B, ...), broadcastable to them.

    Args:
        rcond: ``pinv``, ``project_null`` and :meth:`truncated_singular_values` treat singular values up to ``rcond``
            times the largest one of the same image as zero. ``forward``, ``adjoint`` and ``prox`` at a positive weight
            use all of them. None: sqrt(eps) of the dtype (3.5e-4 in float32, 1.5e-8 in float64), where the two errors
            meet: what is cut off is below sqrt(eps) of the measurement, and the rounding of the measurement is
            magnified to sqrt(eps) of the image at most. Noisy measurements want the noise level over that of the image.
    """

    def __init__(self, *, rcond: float | None = None) -> None:
        super().__init__()
        self.rcond = check_rcond(rcond)

    @abstractmethod
    def analysis(self, x: Tensor) -> Tensor:
        """``V^T x``: coefficients of images (B, C, H, W)."""

    @abstractmethod
    def synthesis(self, c: Tensor) -> Tensor:
        """``V c``: images (B, C, H, W) from coefficients."""

    @abstractmethod
    def data_analysis(self, y: Tensor) -> Tensor:
        """``U^T y``, laid out like the coefficients of an image, zeros where no measurement belongs."""

    @abstractmethod
    def data_synthesis(self, c: Tensor) -> Tensor:
        """``U c``: measurements from coefficients."""

    @abstractmethod
    def singular_values(self, x: Tensor) -> Tensor:
        """Singular values for images like ``x`` (its shape, dtype and device count), (1 or B, ...), see the class."""

    def truncated_singular_values(self, x: Tensor) -> Tensor:
        """``singular_values(x)`` with those that ``pinv`` cuts off set to zero: zero means null space."""
        s = self.singular_values(x)
        return torch.where(kept(s, self.rcond), s, 0.0)

    def spectral_filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """``V diag(gain(s)) V^T x`` for images (B, C, H, W), ``s`` being the truncated singular values."""
        return self.synthesis(gain(self.truncated_singular_values(x)) * self.analysis(x))

    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""
        c = self.analysis(x)
        return self.data_synthesis(self._values(x, c) * c)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, images (B, C, H, W)."""
        c = self.data_analysis(y)
        return self.synthesis(self._values(self._image_like(y), c) * c)

    def damped_pinv(self, r: Tensor, weight: Tensor) -> Tensor:
        """``V s/(s^2 + weight) U^T r``, images (B, C, H, W); at weight 0 with the cut-off ``rcond``."""
        if self.row_gram() is not None:
            return super().damped_pinv(r, weight)
        c = self.data_analysis(r)
        return self.synthesis(damped_gain(self._values(self._image_like(r), c), weight, self.rcond) * c)

    def project_null(self, x: Tensor) -> Tensor:
        """``(I - A^+ A) x``: the part of ``x`` (B, C, H, W) with (truncated) singular value zero."""
        if self.row_gram() is not None:
            return super().project_null(x)
        return self.spectral_filter(x, lambda s: (s == 0).to(s.dtype))

    def _values(self, x: Tensor, c: Tensor) -> Tensor:
        s = self.singular_values(x)
        if s.ndim != c.ndim:
            # Fewer dimensions would broadcast, but the cut-off of each image is found along the first one.
            raise ValueError(
                f"{type(self).__name__}.singular_values must have the {c.ndim} dimensions of the coefficients "
                f"{tuple(c.shape)}, the batch (1 or B) first, got shape {tuple(s.shape)}"
            )
        return s

    def _image_like(self, y: Tensor) -> Tensor:
        # A stand-in without memory: only its shape, dtype and device are looked at.
        return y.new_empty(()).expand(self.image_shape(y.shape))


def damped_gain(a: Tensor, weight: Tensor, rcond: float | None) -> Tensor:
    """``conj(a) / (|a|^2 + weight)`` per element of ``a`` (1 or B, ...), ``weight`` () or (B,).

    Where ``weight`` is 0: 1/a for the ``a`` that :func:`kept` keeps, else 0.
    """
    positive = weight > 0
    if bool(positive.all()):
        return a.conj() / (square(a) + column(weight, a))
    keep = kept(a, rcond)
    exact = torch.where(keep, 1 / torch.where(keep, a, 1.0), 0.0)
    if not bool(positive.any()):
        return exact
    positive_weight = column(torch.where(positive, weight, 1.0), a)
    return torch.where(column(positive, a), a.conj() / (square(a) + positive_weight), exact)


def kept(a: Tensor, rcond: float | None) -> Tensor:
    """Where ``|a|`` is above ``rcond`` times the largest of its image, ``a`` (1 or B, ...); see ``rcond`` above."""
    size = a.abs()
    largest = column(size.flatten(1).amax(1), size)
    return size > largest * (torch.finfo(size.dtype).eps ** 0.5 if rcond is None else rcond)


def square(a: Tensor) -> Tensor:
    """``|a|^2``, real, also for complex ``a``."""
    return a.real**2 + a.imag**2 if a.is_complex() else a**2
