"""A small prior learned from samples of an exact one, so that what a prior's error adds to a sampler's can be seen."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workbench.exam.tasks import ExactPrior
from workbench.models.adapters import EDMPrecond
from workbench.models.prior import Prior
from workbench.random import Draws, stream
from workbench.trainers.dsm import DSM


class SmallNet(nn.Module):
    """Two hidden layers on the pixels and four features of the logarithm of the level, for ``EDMPrecond``."""

    def __init__(self, shape: Sequence[int], width: int = 128) -> None:
        super().__init__()
        size = math.prod(shape)
        self.layers = nn.Sequential(
            nn.Linear(size + 4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, size)
        )

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        log = s.log()[:, None] / 4
        features = torch.cat([log, log.sin(), (2 * log).cos(), (4 * log).sin()], 1)
        return self.layers(torch.cat([x.flatten(1), features], 1)).view_as(x)


def learn(exact: ExactPrior, *, steps: int = 1500, batch: int = 256, seed: int = 0) -> Prior:
    """A prior of about 35,000 weights, by denoising score matching on ``steps`` batches of samples, in seconds.

    Adam, cosine schedule from 0.002. It knows noise from 0.005 to 100.
    """
    generator = stream(seed, "exam", "learn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallNet(exact.shape)
    prior = EDMPrecond(net, sigma_min=0.005, sigma_max=100.0, sigma_data=0.5, channels=exact.shape[0], name="learned")
    optimiser = torch.optim.Adam(prior.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    objective, draws = DSM(sigma_median=0.2, sigma_spread=1.2), Draws(generator)
    images = exact.sample(batch * 50, generator).float()
    for step in range(steps):
        if step and step % 50 == 0:
            images = exact.sample(batch * 50, generator).float()
        rows = torch.randint(len(images), (batch,), generator=generator)
        loss, _ = objective(prior, images[rows], draws)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return prior.eval().requires_grad_(False)
