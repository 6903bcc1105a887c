"""Train ``photo-ddpm``, a small variance-preserving prior in the layout of the published DDPM checkpoints.

It is a stand-in for those networks, with everything that makes them awkward: 1000 discrete steps and no others, data in
[-1, 1], noise prediction. It is told steps of the published schedule only, so that what happens between them
(``benchmarks/vp_steps.py``) is what happens with the published networks. Resumable; an hour on one core.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from workbench.data import Photos
from workbench.models import DDPM, DDPMConfig, VPNoise, save_prior
from workbench.models.adapters import linear_alphas_cumprod
from workbench.trainers import DSM, TrainSettings, train, training_card

CONFIG = DDPMConfig(width=32, multipliers=(1, 2, 4), blocks=1, attention_levels=(2,))


@dataclass(frozen=True)
class DiscreteDSM(DSM):
    """Denoising score matching on the levels of the 1000 steps alone."""

    def levels(self, count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
        """``count`` levels, each one of the schedule's."""
        drawn = super().levels(count, low, high, generator).double()
        alphas = linear_alphas_cumprod().to(drawn.device)
        grid = ((1 - alphas) / alphas).sqrt() / 2
        nearest = (grid.log()[None] - drawn.log()[:, None]).abs().argmin(dim=1)
        return grid[nearest].float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="photo sources")
    parser.add_argument("--scale", type=float, default=0.5, help="photos are resized by this before cropping")
    parser.add_argument("--run", type=Path, default=Path("runs/photo-ddpm"))
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this long; run again to go on")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = DDPM(CONFIG)
    prior = VPNoise(net, step="nearest", multiple=net.multiple)
    photos = Photos(
        arguments.data, size=32, batch_size=arguments.batch, scales=(arguments.scale, arguments.scale), preload=True
    )
    settings = TrainSettings(
        steps=arguments.steps, warmup=200, learning_rate=6e-4, ema_decay=0.999, save_every=500, workers=0
    )
    # Weight 1 / sigma^2: the loss on the noise, unweighted (DDPM, eq. 14).
    objective = DiscreteDSM(weighting="score", sigma_median=0.15, uniform_share=0.2)
    averaged, progress = train(
        prior, objective, photos, settings, arguments.run, max_seconds=arguments.seconds, progress_bar=False
    )
    averaged.trained_size = 32
    print(f"step {progress.step}, {progress.images} images, {progress.seconds:.0f} s")
    card = {
        "summary": "stand-in for the published DDPM networks: variance preserving, 1000 steps, trained on 32x32 photos",
        **training_card(progress, arguments.run, ["tiny-imagenet, halved to 32x32"]),
    }
    save_prior(averaged, arguments.run / "photo-ddpm.safetensors", card=card, dtype=torch.float16)


if __name__ == "__main__":
    main()
