"""Muon for convolutions: ``torch.optim.Muon``, which takes matrices alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

if TYPE_CHECKING:
    from workbench.trainers.loop import TrainSettings


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` with kernels (out, in, k, k) as matrices (out, in k k).

    Args:
        lr: as for Adam: updates are scaled to Adam's usual length, ``0.2 sqrt(larger side)`` (Liu et al. 2025).

    Raises:
        ValueError: a parameter with less than two dimensions.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], *, lr: float = 1e-3, momentum: float = 0.95) -> None:
        kernels = list(kernels)
        with _as_matrices(kernels):
            super().__init__(kernels, lr=lr, momentum=momentum, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with _as_matrices([kernel for group in self.param_groups for kernel in group["params"]]):
            super().step()
        return loss


@contextmanager
def _as_matrices(kernels: list[nn.Parameter]) -> Iterator[None]:
    whole = [(kernel, kernel.data, kernel.grad) for kernel in kernels]
    try:
        for kernel, weights, gradient in whole:
            if weights.ndim > 2:
                kernel.grad, kernel.data = None, weights.view(len(weights), -1)  # a view: the step changes the kernel
                kernel.grad = None if gradient is None else gradient.flatten(1)
        yield
    finally:
        for kernel, weights, gradient in whole:
            kernel.grad, kernel.data = None, weights
            kernel.grad = gradient


def optimisers(model: nn.Module, settings: TrainSettings) -> list[Optimizer]:
    """ "adam": Adam for everything. "muon": Muon for convolution kernels, Adam for the rest."""
    rate, betas = settings.learning_rate, settings.betas
    kernels = [p for p in model.parameters() if p.ndim == 4] if settings.optimiser == "muon" else []
    rest = [p for p in model.parameters() if not kernels or p.ndim != 4]
    found: list[Optimizer] = [Adam(rest, lr=rate, betas=betas)] if rest else []
    return [Muon(kernels, lr=rate), *found] if kernels else found
