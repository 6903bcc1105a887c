"""PnP-ReG: train a denoiser together with the gradient of its regulariser (Fermanian et al. 2022, section III).

If ``D(., sigma)`` is the proximal operator of ``sigma^2 R``, then ``sigma^2 G(x) = x_noisy - x`` at ``x = D(x_noisy)``
with ``G`` the gradient of R. With ``x_noisy = image + sigma_0 n`` and ``rec = D(x_noisy, sigma)`` the loss is

    delta |rec - image| + weight (sigma^2 G(rec) - (x_noisy - rec))^2,    means over pixels and images.

As in the published code, odd steps (the first, the third, ...) have ``delta = 1`` and ``sigma = sigma_0``; even ones
have ``delta = 0`` and a level drawn independently of the noise that is there, so that G sees images denoised too much
or too little. Both networks learn from both.

``G`` is minus the score of a second prior at one fixed level, ``(x - D_G(x, level)) / level^2``: a network of the same
architecture that starts from the denoiser's weights, and is saved and loaded like any other, as a prior that knows
this level alone. In :class:`PnPReG` it is the prior.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from workbench.data.photos import Batch
from workbench.limits import Limited, NotNegative, Positive
from workbench.models.prior import Prior
from workbench.operators.base import column
from workbench.random import Draws
from workbench.trainers.dsm import Values, check_images
from workbench.trainers.loop import TrainSettings
from workbench.trainers.muon import optimisers
from workbench.trainers.task import Context, Modules, Task, described


@dataclass(frozen=True)
class ReG(Limited):
    """The joint objective.

    Attributes:
        weight: of the regulariser's term.
        sigma_max: levels are uniform in [0, sigma_max].
        level: at which the regulariser's network is asked.
        learn_denoiser: False keeps the denoiser as it is; all steps are then even ones.
    """

    weight: NotNegative = 0.004
    sigma_max: Positive = 50 / 255
    level: Positive = 0.03
    learn_denoiser: bool = True

    def task(self, prior: Prior, settings: TrainSettings) -> Task:
        """A task of two modules, ``denoiser`` and ``regulariser``; both start from ``prior``.

        Raises:
            ValueError: the prior does not know the levels.
        """
        prior.check_kind("ReG")
        highest = max(self.sigma_max, self.level)
        if highest > prior.sigma_max:
            raise ValueError(f"{prior.name} knows noise up to {prior.sigma_max:g}, ReG asks up to {highest:g}")
        denoiser, regulariser = prior.requires_grad_(self.learn_denoiser), copy.deepcopy(prior).requires_grad_(True)
        regulariser.sigma_min = regulariser.sigma_max = self.level  # all that it will know
        trained = [denoiser, regulariser] if self.learn_denoiser else [regulariser]
        steppers = [stepper for module in trained for stepper in optimisers(module, settings)]
        modules: dict[str, nn.Module] = {"denoiser": denoiser, "regulariser": regulariser}
        return Task(modules, {"joint": steppers}, [("joint", self.loss)], described(self))

    def loss(self, modules: Modules, batch: Batch, draws: Draws, context: Context) -> tuple[Tensor, Values]:
        """Of one step; ``residual`` is the regulariser's term before its weight."""
        images, regulariser = batch.images, modules["regulariser"]
        check_images(images)
        actual, other = (self.sigma_max * draws.uniform(len(images)) for _ in range(2))
        supervised = self.learn_denoiser and context.step % 2 == 0
        noisy = images + column(actual, images) * draws.normal(*images.shape)

        def gradient(x: Tensor) -> Tensor:
            return (x - regulariser(x, self.level)) / self.level**2

        return self.terms(modules["denoiser"], gradient, images, noisy, actual if supervised else other, supervised)

    def terms(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        gradient: Callable[[Tensor], Tensor],
        images: Tensor,
        noisy: Tensor,
        told: Tensor,
        supervised: bool,
    ) -> tuple[Tensor, Values]:
        """The loss for given noise and levels ``told`` (B,)."""
        clean = denoise(noisy, told)
        residual = (column(told, clean) ** 2 * gradient(clean) - (noisy - clean)).square().mean()
        loss = self.weight * residual
        if supervised:
            loss = loss + (clean - images).abs().mean()
        return loss, {"residual": residual.detach()}
