"""Pure noise, where the prior alone is the answer: every solver with its defaults beside the prior applied once.

    python benchmarks/pure_noise.py [--solvers diffpir,admm] [--side 64]

Prints PSNR in dB, the mean of three sample photos, at noise of 0.05, 0.1, 0.2 and 0.4. The prior applied once is the
posterior mean, which no sample can reach: a sampler that is right loses up to 3 dB to it, and comes near it with the
mean of several samples.
"""

from __future__ import annotations

import argparse

import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.restore import degrade, restore, solver_of, usual_prior
from workbench.solvers import SOLVERS

LEVELS = (0.05, 0.1, 0.2, 0.4)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solvers", default=",".join(name for name in SOLVERS if name != "network"))
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    photos, prior = sample_photos(arguments.side, ("coffee", "cat", "rocket")), load_prior("photo")
    noisy = [degrade(photos, "denoise", level) for level in LEVELS]

    def row(name: str, images: list[torch.Tensor]) -> None:
        print(f"{name:18s}", *(f"{float(psnr(image, photos, clip=True).mean()):7.2f}" for image in images), flush=True)

    print(f"{'noise':18s}", *(f"{level:7.2f}" for level in LEVELS))
    row("as it came", [one.y for one in noisy])
    with torch.no_grad():
        row("the prior once", [prior(one.y, one.noise) for one in noisy])
    for name in arguments.solvers.split(","):
        network = load_prior(usual_prior(name))
        row(name, [restore(one, solver_of(name, {}), network).image for one in noisy])


if __name__ == "__main__":
    main()
