"""Muon for convolutions: ``torch.optim.Muon`` takes matrices only, one at a time.

Kernels (out, in, k, k) are matrices (out, in k k), and those of one shape are orthogonalised together: a network of
fifty kernels takes a tenth of the launches on a GPU. On a matrix the update is that of
``torch.optim.Muon(adjust_lr_fn="match_rms_adamw", weight_decay=0)``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

if TYPE_CHECKING:
    from workbench.trainers.loop import TrainSettings

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. (2024)
STEPS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each of (N, rows, columns), with its singular values moved near 1, in bfloat16 (Jordan et al. 2024, "Muon")."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(Optimizer):
    """Momentum, orthogonalised, for parameters of two or more dimensions.

    Args:
        rate: as for Adam: the update is scaled to Adam's usual length, ``0.2 sqrt(larger side)`` (Liu et al. 2025).

    Raises:
        ValueError: a parameter with less than two dimensions.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float = 1e-3, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim < 2:
                raise ValueError(f"Muon takes matrices and kernels, got a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure=None):
        """One step with Nesterov momentum."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape[0], parameter[0].numel()].append(parameter)
            for (rows, columns), parameters in alike.items():
                for parameter in parameters:
                    if not self.state[parameter]:
                        self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
                momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
                updates = orthogonalised(torch.stack([update.reshape(rows, columns) for update in ahead]))
                scale = -group["lr"] * 0.2 * max(rows, columns) ** 0.5
                scaled = (updates.to(parameters[0].dtype) * scale).unbind()
                torch._foreach_add_(parameters, [u.view_as(p) for u, p in zip(scaled, parameters, strict=True)])
        return loss


def optimisers(model: nn.Module, settings: TrainSettings) -> list[Optimizer]:
    """ "adam": Adam for everything. "muon": Muon for convolution kernels, Adam for the rest."""
    rate, betas = settings.learning_rate, settings.betas
    kernels = [p for p in model.parameters() if p.ndim == 4] if settings.optimiser == "muon" else []
    rest = [p for p in model.parameters() if not kernels or p.ndim != 4]
    found: list[Optimizer] = [Adam(rest, lr=rate, betas=betas)] if rest else []
    return [Muon(kernels, lr=rate), *found] if kernels else found
