"""Consistency trajectory models: the distillation loss of Kim et al. (2024), eq. 9 to 13.

A student that jumps from level t to s directly is compared with one that first follows the teacher from t to u in
``n`` Heun steps and jumps from there, ``s <= u < t``. Both results jump on to the lowest level with the target, the
average of the student without a gradient to its weights:

    estimate  G^-(G(x_t, t, s), s, sigma_min)          gradient through the frozen G^-
    target    G^-(G(Heun(x_t, t, u), u, s), s, sigma_min)    no gradient

To it comes denoising score matching with ``g(x, sigma, sigma)``, weighted so that the gradients of both with respect
to the last layer are equally long.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from workbench.limits import Limited, NotNegative
from workbench.models.consistency import TrajectoryModel, heun_step
from workbench.models.prior import Prior
from workbench.operators.base import column

Distance = Callable[[Tensor, Tensor], Tensor]


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean square difference of each image, (B,)."""
    return (a - b).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Trajectory(Limited):
    """The losses, for given levels.

    Attributes:
        distance: of images in [0, 1], per image (B,). The paper's is LPIPS.
        power: weight of the loss, ``(1 - s/t)^-power`` ("uniform_g" of the published code); 0 weighs all alike.
        matching: jump to u instead of s, so that the teacher's point itself is the target.
    """

    distance: Distance = mean_square
    power: NotNegative = 0.0
    matching: bool = False

    def consistency(
        self,
        student: TrajectoryModel,
        target: TrajectoryModel,
        teacher: Prior,
        noisy: Tensor,
        levels: Tensor,
        s: Tensor,
    ) -> Tensor:
        """Per image (B,), for ``noisy`` (B, C, H, W) at ``levels[0]``.

        Args:
            levels: (n + 1, B), from t down to u, the levels of the teacher's Heun steps.
            s: (B,), where the jumps end, at most u.
        """
        t, u = levels[0], levels[-1]
        end = torch.full_like(s, student.sigma_min)
        goal = u if self.matching else s
        with torch.no_grad():
            moved = noisy
            for before, after in pairwise(levels):
                moved = heun_step(teacher, moved, before, after)
            wanted = target(student(moved, u, goal), goal, end)
        frozen = target.requires_grad_(False)
        found = frozen(student(noisy, t, goal), goal, end)
        return (1 - s / t) ** -self.power * self.distance(found, wanted)


def denoising(student: TrajectoryModel, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """``(s^2 + d^2) / (s d)^2 |g(x + s n, s, s) - x|^2``, images in [-1, 1], ``s = 2 sigma`` (B,); per image (B,)."""
    s, d = 2 * sigma, student.precond.sigma_data
    clean = student.clean(images + column(sigma, images) * noise, sigma, sigma)
    return (s**2 + d**2) / (s * d) ** 2 * mean_square(2 * clean, 2 * images)


def adaptive_weight(first: Tensor, second: Tensor, layer: Tensor) -> Tensor:
    """``|grad first| / (|grad second| + 1e-4)`` with respect to ``layer``, at most 1e4, without a graph: what the loss
    ``second`` is multiplied by to count as much as ``first``."""
    lengths = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (first, second)]
    return (lengths[0] / (lengths[1] + 1e-4)).clamp(0, 1e4).detach()
