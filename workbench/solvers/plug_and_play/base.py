"""What plug-and-play solvers share: one map, the fixed-point driver, the start, noise levels and weights.

With ``f(x) = 1/2 ||A x - y||^2`` and a denoiser ``D(., sigma)`` in place of the proximal operator of a regulariser, a
data step and a denoising step take turns. What they do in one turn is a map; the driver runs it, plainly or with
Anderson acceleration, and stops every image by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import interpolate

from workbench.limits import NotNegative, Whole
from workbench.operators.base import Operator
from workbench.operators.inpainting import Inpainting, fill_holes
from workbench.solvers.base import Problem, initial_image
from workbench.solvers.fixed_point.iterated import Iterated
from workbench.solvers.fixed_point.rules import Anderson, Picard, Rule
from workbench.solvers.fixed_point.solve import FixedPointResult, Map, solve_fixed_point


@dataclass(frozen=True)
class PlugAndPlay(Iterated):
    """Base of these solvers. A subclass gives :meth:`iteration`; the image is that of the last step.

    Attributes:
        tolerance: an image stops when the mean square of a step is at most this; 0 takes all steps.
        memory: earlier iterates of Anderson acceleration; 0 iterates plainly.
    """

    linear: ClassVar[bool] = False

    tolerance: NotNegative = 0.0
    memory: Whole = 0

    @abstractmethod
    def iteration(self, p: Problem) -> tuple[Tensor, Map]:
        """The start (B, ...) and the map of :func:`solve_fixed_point`."""

    def method(self) -> Rule:
        """The driver's update rule."""
        return Anderson(self.memory) if self.memory else Picard()

    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        start, update = self.iteration(p)
        result = solve_fixed_point(
            update,
            start,
            method=self.method(),
            max_steps=self.max_steps,
            tolerance=self.tolerance,
            measure=mean_square,
            keep="last",
            **options,
        )
        return result, {}


def mean_square(x: Tensor, residual: Tensor, proposal: Tensor) -> Tensor:
    """Mean square of the residual of each image, (b,): what MTDEQ compares with 1e-7 (section III-B)."""
    return residual.flatten(1).square().mean(1)


def resized(op: Operator, y: Tensor) -> Tensor:
    """The measurement at the size of the image, (B, C, H, W), by bilinear resizing (MTDEQ, section III-A)."""
    return interpolate(y, size=op.image_shape(y.shape)[-2:], mode="bilinear", align_corners=False)


def first_estimate(p: Problem) -> Tensor:
    """``initial`` if given; else the measurement with its holes filled or at the size of the image, where it is a
    picture; else the :func:`initial_image` of the data."""
    if p.initial is not None:
        return p.initial
    if isinstance(p.op, Inpainting):
        return fill_holes(p.y, p.op.mask)
    picture = p.y.ndim == 4 and p.y.shape[1] == p.op.image_shape(p.y.shape)[1]
    return resized(p.op, p.y) if picture else initial_image(p.op, p.y, p.sigma_noise)
