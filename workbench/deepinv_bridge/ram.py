"""deepinv's RAM (Terris et al. 2025) as the first estimate of UD2M: it is shown y and x_t together (section 3.1)."""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.deepinv_bridge.denoisers import deepinv_package
from workbench.deepinv_bridge.physics import physics_for_deepinv
from workbench.operators.base import Operator, column
from workbench.text import require


class RAMEstimator(nn.Module):
    """``f(y, op, sigma_noise, x_t, t)``: RAM on the stacked operator (A, I), for ``Unfolded(estimator=...)``.

    RAM knows one noise level. ``x_t`` has noise t where ``y`` has sigma_noise, so it is stacked as
    ``(sigma_noise / t) x_t``, the measurement of ``(sigma_noise / t) I`` with noise sigma_noise.

    Args:
        net: a ``deepinv.models.RAM``; None: with its published weights, which deepinv downloads. Its weights are
            trained with the adapter if they ask for gradients.

    Raises:
        ValueError: deepinv is not installed; when called, an operator that is not linear, which RAM does not take.
    """

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = deepinv_package().models.RAM() if net is None else net

    def forward(self, y: Tensor, op: Operator, sigma_noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """A first estimate (B, C, H, W); ``sigma_noise`` and ``t`` are (B,)."""
        require(op.linear, "RAM's operator", "linear", type(op).__name__)
        deepinv = deepinv_package()
        share = column(sigma_noise / t, x_t)

        def scaled(x: Tensor, **options: Any) -> Tensor:
            return share * x

        shape = (int(x_t.shape[1]), int(x_t.shape[2]), int(x_t.shape[3]))
        parts = [physics_for_deepinv(op, shape), deepinv.physics.LinearPhysics(A=scaled, A_adjoint=scaled)]
        stacked = deepinv.physics.StackedLinearPhysics(parts)
        measured = deepinv.utils.TensorList([y, share * x_t])
        found: Tensor = self.net(measured, physics=stacked, sigma=sigma_noise, gain=torch.zeros_like(sigma_noise))
        return found
