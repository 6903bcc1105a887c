"""A discriminator that is shown the measurement, its losses, and a watch for its collapse (UD2M, section 3.2)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, logsigmoid

from workbench.limits import Count, Limited, NotNegative
from workbench.operators.base import column


class Discriminator(nn.Module):
    """``D(x; y)``, (B,), the larger the more it takes x for a photo: a strided CNN on the image beside the data.

    Radford et al. 2016 without batch normalisation, whose statistics a gradient penalty does not go with. What is
    judged is patches: the answer is the mean over positions.

    Args:
        channels: of the images.
        width: channels of the first layer, doubled twice.
    """

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        widths = [2 * channels, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """For images ``x`` (B, C, H, W) in [0, 1] and what the data show, ``seen``, as an image of that size."""
        h = 2 * torch.cat([x, seen], 1) - 1
        for layer in self.layers:
            h = leaky_relu(layer(h), 0.2)
        return self.last(h).mean((1, 2, 3))


def adversarial(real: Tensor, fake: Tensor) -> Tensor:
    """``E log s(D(x)) + E log(1 - s(D(L)))`` (eq. 12), s the sigmoid, of scores (B,): what the discriminator raises."""
    return logsigmoid(real).mean() + logsigmoid(-fake).mean()


def fooling(fake: Tensor) -> Tensor:
    """``-E log s(D(L))``, what the generator lowers. Deviation: eq. (8) has ``E log(1 - s(D(L)))``, which has the same
    fixed point but next to no gradient while the discriminator wins (Goodfellow et al. 2014, section 3)."""
    return -logsigmoid(fake).mean()


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, seen: Tensor, mix: Tensor) -> Tensor:
    """``E |grad_x D(u x + (1 - u) L, y)|^2`` (eq. 13) for ``mix`` = u (B,); the square is summed over pixels."""
    share = column(mix, real)
    with torch.enable_grad():
        between = (share * real + (1 - share) * fake).detach().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(between, seen).sum(), between, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


@dataclass
class CollapseWatch(Limited):
    """Stops a run whose discriminator is certain of everything: the generator learns nothing from it any more.

    Attributes:
        patience: steps in a row.
        certain: the discriminator's loss (minus eq. 12) below which it counts as certain; 2 log 2 is a coin's.
    """

    patience: Count = 200
    certain: NotNegative = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self.row, self.step = 0, -1

    def see(self, loss: float, step: int) -> None:
        """Raise FloatingPointError after ``patience`` certain steps in a row. A resumed run counts anew.

        Of a step that sees several batches the first one counts.
        """
        if step == self.step:
            return
        self.step, self.row = step, self.row + 1 if loss < self.certain else 0
        if self.row >= self.patience:
            raise FloatingPointError(
                f"the discriminator has been certain (loss below {self.certain:g}) for {self.row} steps: its gradient "
                "says nothing to the generator; the last checkpoint is kept. Raise the gradient penalty, lower the "
                "discriminator's learning rate or its width, or lower the weight of the adversarial loss"
            )
