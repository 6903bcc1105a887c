"""The loss of an estimate that is a fixed point, with its implicit gradient (MUPET, eq. 4)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from workbench.models.prior import Prior
from workbench.operators.base import full_precision
from workbench.solvers.base import Restoration
from workbench.solvers.fixed_point.gradient import Backward, JacobianFree, attach_gradient
from workbench.solvers.fixed_point.solve import Map
from workbench.trainers.dsm import LOST, Values, unwrapped

LARGEST = 1e4  # of an estimate; beyond, and where it is not finite, it must not spoil the images beside it


def checked(prior: nn.Module, images: Tensor, backward: Backward) -> Prior:
    """The prior itself. Raises ValueError unless it takes the ``images``, and where several processes train with a
    gradient that is not Jacobian-free."""
    target = unwrapped(prior)
    target.check(images)
    if target is not prior and not isinstance(backward, JacobianFree):
        # Their backward pass runs the network once more, in the middle of the exchange of gradients.
        raise ValueError(f"several processes train with the Jacobian-free gradient only, got {backward}")
    return target


@dataclass(frozen=True)
class Equilibrium:
    """``mean_b loss(x_b)`` at ``x = map(x)``: solved without a graph, then ``map`` is applied once with one.

    Attributes:
        map: ``f(x, rows)`` as in ``solve_fixed_point``, with a graph to what is trained.
        solve: finds the fixed point (B, C, H, W) without a graph.
        loss: of estimates (B, C, H, W), per image (B,).
        backward: how the gradient passes through the fixed point; Jacobian-free (MUPET, eq. 10), Neumann or exact.
    """

    map: Map
    solve: Callable[[], Restoration]
    loss: Callable[[Tensor], Tensor]
    backward: Backward = field(default_factory=JacobianFree)

    def __call__(self) -> tuple[Tensor, Values]:
        """The loss, in which an image whose solve diverged counts as 0, and ``evaluations`` per image, shares
        ``converged`` and ``lost`` to log."""
        found = full_precision(self.solve)()  # in bfloat16 iterates move by rounding alone, and none converges
        usable = found.image.flatten(1).isfinite().all(1)
        if "diverged" in found.extras:
            usable = usable & ~found.extras["diverged"]
        point = found.image.nan_to_num(0.5, 0.5, 0.5).clamp(-LARGEST, LARGEST)
        errors = self.loss(attach_gradient(self.map, point, self.backward))
        converged = usable if found.converged is None else found.converged
        values = {
            "evaluations": found.evaluations.float().mean(),
            "converged": converged.float().mean(),
            LOST: (~usable).float().mean(),
        }
        # By selection: an image that diverged must not reach the sum as 0 * NaN.
        return errors[usable].sum() / len(errors), values
