"""Solvers that are one map, run to its fixed point by ``solve_fixed_point``."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.solvers.base import Callback, Problem, Restoration, Solver, Step
from workbench.solvers.fixed_point.solve import FixedPointResult, explain


class Iterated(Solver):
    """Base of these solvers; a good ``initial`` saves steps. A subclass gives :meth:`estimate`.

    The restoration has the driver's measure at every step as ``residuals``, inf where it was not finite, and
    ``diverged``, bool (B,), in ``extras``. A subclass has the setting ``max_steps``, one network evaluation each.
    """

    takes_initial: ClassVar[bool] = True

    max_steps: int

    @property
    def stops(self) -> bool:
        """Whether images stop at a tolerance; else all steps are taken, and there is nothing to converge."""
        return True

    @abstractmethod
    def estimate(self, p: Problem, **options: Any) -> tuple[FixedPointResult, dict[str, Tensor]]:
        """The solve of ``p``, and what else to report of it, (B,) each; ``options`` are for the driver."""

    def image(self, value: Tensor) -> Tensor:
        """The estimate (B, C, H, W) in the driver's iterate: the iterate itself, unless a solver says otherwise."""
        return value

    def run(self, p: Problem, callback: Callback | None = None) -> Restoration:
        """Iterate until every image has stopped."""

        def watch(so_far: FixedPointResult) -> None:
            index, spent = so_far.trace.shape[1], so_far.evaluations.cpu()
            assert callback is not None
            callback(Step(index, self.max_steps, None, self.image(so_far.value), spent, so_far.trace[:, -1]))

        result, found = self.estimate(p, callback=watch if callback is not None else None)
        message = result.message
        if not self.stops:
            size = result.residual
            message = explain(torch.ones_like(result.diverged), result.diverged, size, size, self.max_steps)
        return Restoration(
            image=self.image(result.value),
            evaluations=result.evaluations,
            iterations=result.evaluations.clone(),
            residuals=result.trace,
            converged=result.converged if self.stops else None,
            message=message,
            extras={**found, "diverged": result.diverged},
        )
