"""UD2M: train an unfolded network to sample ``p(x_0 | y, x_t)`` (section 3.2, eq. 8 to 13).

    generator      min  L_adv + w_2 |x_0 - L(x_t, y)|^2 + w_PS d(x_0, L(x_t, y))
    discriminator  max  L_adv - w_GS E |grad D|^2

``t`` is uniform over the times of the DDPM schedule, ``x_t = x_0 + t eps`` in variance-exploding coordinates, and
``d`` a perceptual distance. Squares are means over pixels. Equation (9) adds the penalty to what is *maximised*, which
would make D steeper; it is subtracted (errata 16).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from workbench.data.photos import Batch
from workbench.evaluation.perceptual import effnet_loss, lpips_distance
from workbench.limits import Count, Limited, NotNegative, Positive, one_of
from workbench.models.adapters import linear_alphas_cumprod
from workbench.models.lora import adapted
from workbench.models.unfolded import Unfolded, smoothed
from workbench.operators.base import Operator, column
from workbench.operators.jpeg import JPEG
from workbench.operators.least_squares import smooth_estimate
from workbench.random import Draws
from workbench.solvers.start import first_estimate
from workbench.text import require
from workbench.trainers.adversarial import CollapseWatch, Discriminator, adversarial, fooling, gradient_penalty
from workbench.trainers.degradations import Degradation, Degradations
from workbench.trainers.dsm import Values, check_images, unwrapped
from workbench.trainers.loop import TrainSettings
from workbench.trainers.task import Context, Loss, Modules, Task, described


@dataclass(frozen=True)
class OneOperator:
    """The distribution of a single operator, in place of :class:`Degradations`."""

    op: Operator

    def sample(self, count: int, size: tuple[int, int], draws: Draws) -> Operator:
        """The operator."""
        return self.op


Problems = Degradations | OneOperator
BLURS = (1.0, 1.5, 2.0, 2.5, 3.0)
FAMILIES: dict[str, Callable[[], Problems]] = {
    "super-resolution": lambda: Degradations(kinds=("super-resolution",), factors=(4,)),
    "deblurring": lambda: Degradations(kinds=("deblurring",), blurs=BLURS),
    "inpainting": lambda: Degradations(kinds=("pixels",), rates=(0.7, 0.75, 0.8)),
    "box": lambda: Degradations(kinds=("block",)),
    "jpeg": lambda: OneOperator(JPEG(10)),
    "universal": lambda: Degradations(
        kinds=("super-resolution", "deblurring", "pixels"), factors=(4,), blurs=BLURS, rates=(0.7, 0.75, 0.8)
    ),
}
PERCEPTUAL = ("lpips", "effnet", "none")


@dataclass(frozen=True)
class UD2M(Limited):
    """The objective; defaults are those of Table 9 where it has them.

    Attributes:
        problems: distribution of A; one of ``FAMILIES``.
        noise: least and largest standard deviation of the measurement's noise, drawn uniformly between them.
        squared, perceptual, adversarial, penalty: weights ``w_2``, ``w_PS``, of ``L_adv`` (the paper's is 1) and
            ``w_GS``. With ``adversarial`` 0 there is no discriminator.
        distance: "lpips" (eq. 11, needs its weights), "effnet" (its stand-in, EfficientNet-Lite0) or "none".
        discriminator_rate: learning rate of the discriminator; None: the generator's.
        width: channels of the discriminator's first layer.
    """

    problems: Problems = field(default_factory=lambda: FAMILIES["super-resolution"]())
    noise: tuple[float, float] = (0.025, 0.025)
    squared: NotNegative = 1.0
    perceptual: NotNegative = 0.1
    adversarial: NotNegative = 1.0
    penalty: NotNegative = 0.01
    distance: Annotated[str, one_of(PERCEPTUAL)] = "lpips"
    discriminator_rate: Positive | None = None
    width: Count = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.noise[0] <= self.noise[1] < float("inf"), "noise", "two levels that rise", self.noise)
        weights = self.squared, self.perceptual * (self.distance != "none"), self.adversarial
        require(any(weights), "squared, perceptual (with a distance) and adversarial", "not all 0", weights)
        require(self.squared + self.perceptual + self.adversarial > 0, "weights", "not all 0", "0")

    def task(self, network: Unfolded, settings: TrainSettings) -> Task:
        """Modules ``generator`` and ``discriminator`` with AdamW (weight decay 0.01) each, one turn after the other.

        With low-rank layers, they alone are trained, averaged and stored; the base stays as it is.

        Raises:
            ValueError: a prior that is not unfolded, or was loaded with low-rank layers in its weights; a distance
                whose weights are not there.
        """
        network.check_kind("UD2M", "unfolded")
        if network.lora is not None and not adapted(network.net):
            raise ValueError(
                f"{network.name} has its low-rank layers in its weights, as files are loaded: train "
                "Unfolded(load_prior(BASE), unfolding, lora), after start_from(it, FILE) to go on from there"
            )
        if self.distance != "none" and self.perceptual:
            self.distances(torch.device("cpu"))
        if network.lora is None:
            network.requires_grad_(True)
        modules: dict[str, nn.Module] = {"generator": network}
        rates, turns = {"generator": settings.learning_rate}, [("generator", cast(Loss, self.generator_loss))]
        if self.adversarial:
            with torch.random.fork_rng(devices=[]):  # the same weights in every process, and in a run that goes on
                torch.manual_seed(settings.seed)
                modules["discriminator"] = Discriminator(network.channels, self.width)
            rates["discriminator"] = self.discriminator_rate or settings.learning_rate
            turns.append(("discriminator", partial(self._watched, CollapseWatch())))
        steppers: dict[str, list[torch.optim.Optimizer]] = {}
        for name, rate in rates.items():
            trained = [p for p in modules[name].parameters() if p.requires_grad]
            steppers[name] = [torch.optim.AdamW(trained, lr=rate, betas=settings.betas)]
        parts = {"unfolding": network.unfolding} | ({} if network.lora is None else {"lora": network.lora})
        more = {f"{part}.{key}": v for part, kind in parts.items() for key, v in asdict(cast(Any, kind)).items()}
        return Task(modules, steppers, turns, described(self) | more)

    def generator_loss(self, modules: Modules, batch: Batch, draws: Draws, context: Context) -> tuple[Tensor, Values]:
        """Eq. (8); ``squared``, ``perceptual`` and ``fooling`` to log."""
        images, fake, seen = self.draw(modules["generator"], batch.images, draws)
        values: Values = {"squared": (fake - images).square().mean()}
        loss = self.squared * values["squared"]
        if self.perceptual and self.distance != "none":
            values["perceptual"] = self.distances(images.device)(fake, images).mean()
            loss = loss + self.perceptual * values["perceptual"]
        if self.adversarial:
            values["fooling"] = fooling(modules["discriminator"](fake, seen))
            loss = loss + self.adversarial * values["fooling"]
        return loss, values

    def discriminator_loss(self, modules: Modules, batch: Batch, draws: Draws) -> tuple[Tensor, Values]:
        """Minus eq. (9), with the sign of errata 16; ``certainty`` is ``-L_adv``: 2 log 2 for a coin, 0 at the end."""
        with torch.no_grad():
            images, fake, seen = self.draw(modules["generator"], batch.images, draws)
        judge = modules["discriminator"]
        certainty = -adversarial(judge(images, seen), judge(fake, seen))
        slope = gradient_penalty(judge, images, fake, seen, draws.uniform(len(images)))
        return certainty + self.penalty * slope, {"certainty": certainty, "slope": slope}

    def _watched(
        self, watch: CollapseWatch, modules: Modules, batch: Batch, draws: Draws, context: Context
    ) -> tuple[Tensor, Values]:
        """The discriminator's turn."""
        loss, values = self.discriminator_loss(modules, batch, draws)
        watch.see(float(values["certainty"].detach()), context.step)
        return loss, values

    def draw(self, network: nn.Module, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """The images, samples of the network for one problem each, and what the data show, as images."""
        check_images(images)
        target = cast(Unfolded, unwrapped(network))
        count, size = len(images), (images.shape[-2], images.shape[-1])
        op = self.problems.sample(count, size, draws)
        low, high = self.noise
        sigma = low + (high - low) * draws.uniform(count)
        clean = op(images)
        y = clean + column(sigma, clean) * draws.normal(*clean.shape)
        if isinstance(op, Degradation):
            first = smooth_estimate(op, y, sigma, op.first_estimate(y))
        else:
            first = first_estimate(op, y, sigma)
            first = first if op.linear else smoothed(first)
        t = self.times(target.sigma_max).to(images.device)
        t = t[(draws.uniform(count) * len(t)).long()]
        x_t = images + column(t, images) * draws.normal(*images.shape)
        # By what wraps the network where several processes train: gradients are shared through its calls alone.
        around = cast(Unfolded, network)
        sample = target.posterior(y, op, sigma, x_t, t, first, lambda like: draws.normal(*like.shape), around)
        return images, sample, first

    @staticmethod
    def times(sigma_max: float) -> Tensor:
        """The levels of all times of the DDPM schedule up to ``sigma_max``."""
        alphas = linear_alphas_cumprod()
        levels = ((1 - alphas) / alphas).sqrt() / 2
        return levels[levels <= sigma_max].float()

    def distances(self, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
        """The perceptual distance, per image. Raises ValueError where its weights are not there."""
        return lpips_distance(device) if self.distance == "lpips" else effnet_loss(device)
