"""What tiles cost and whether they show: one photo, restored with the prior in tiles and as separate patches.

    python benchmarks/tiles.py photo.jpg --tile 64 --out tiles
    python benchmarks/tiles.py photo.jpg --whole

Restores with DDNM and writes tiles.png, patches.png (every tile restored by itself, put side by side; same noise) and
with --whole whole.png. Per result: PSNR, seconds, peak resident memory of the process so far (ru_maxrss as Linux
counts), and the seam ratio: the mean absolute difference between the two pixels on either side of a border, over that
between neighbours elsewhere. 1 is no seam. So that structure of the photo itself does not count, both are taken of the
result less the photo. Borders are those of the patches, and for tiles also where one hands over to the next.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from torch import Tensor

from workbench.images import load_image, save_image
from workbench.models import Prior, TiledPrior, load_prior
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.solvers import DDNM

Noise = list[Tensor]


def seam_ratio(error: Tensor, rows: list[int], columns: list[int]) -> float:
    """Jumps of ``error`` (1, C, H, W) before the given rows and columns, over jumps elsewhere."""
    seams, others = [], []
    for dim, borders in ((-2, rows), (-1, columns)):
        jumps = error.diff(dim=dim).abs().movedim(dim, 0).flatten(1)
        at_border = torch.zeros(len(jumps), dtype=torch.bool)
        at_border[[border - 1 for border in borders]] = True
        seams.append(jumps[at_border].flatten())
        others.append(jumps[~at_border].flatten())
    return float(torch.cat(seams).mean() / torch.cat(others).mean())


def restored(photo: Tensor, spec: str, prior: Prior, steps: int, noise: Noise) -> Tensor:
    """``photo`` (1, 3, H, W) degraded without noise and restored by DDNM with the given draws."""
    op, draws = parse_operator(spec, tuple(photo.shape[1:]), generator(0)), iter(noise)
    return DDNM(steps=steps)(op(photo), op, prior, noise=lambda like: next(draws)).image


def in_patches(photo: Tensor, spec: str, prior: Prior, steps: int, noise: Noise, side: int) -> Tensor:
    """Every patch of ``side`` pixels degraded and restored by itself."""
    out = torch.empty_like(photo)
    for top in range(0, photo.shape[-2], side):
        for left in range(0, photo.shape[-1], side):
            place = (..., slice(top, top + side), slice(left, left + side))
            out[place] = restored(photo[place], spec, prior, steps, [draw[place] for draw in noise])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--degrade", default="sr:4")
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--whole", action="store_true", help="also the prior on the whole photo: needs more memory")
    parser.add_argument("--out", type=Path, default=Path("tiles"))
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    prior = load_prior(arguments.prior)
    tiled = TiledPrior(prior, arguments.tile, arguments.overlap)
    photo, side = load_image(arguments.photo), tiled.tile
    # Patches have no partition of unity: only whole ones can be compared.
    height, width = (length - length % side for length in photo.shape[-2:])
    photo = photo[..., :height, :width]
    rows, columns = range(side, height, side), range(side, width, side)
    noise = [torch.randn(photo.shape, generator=generator(step)) for step in range(arguments.steps + 1)]
    run = (arguments.degrade, tiled, arguments.steps, noise)
    results = {
        "tiles": lambda: restored(photo, *run),
        "patches": lambda: in_patches(photo, arguments.degrade, prior, arguments.steps, noise, side),
        "whole": lambda: restored(photo, arguments.degrade, prior, arguments.steps, noise),
    }
    if not arguments.whole:
        del results["whole"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    meets = [tiled.handovers(length) for length in (height, width)]
    print(f"{width}x{height} pixels, {arguments.degrade}, DDNM with {arguments.steps} steps, {tiled.summary()}")
    for name, result in results.items():
        started = time.perf_counter()
        image = result()
        seconds = time.perf_counter() - started
        save_image(image, arguments.out / f"{name}.png")
        error = image.clamp(0, 1) - photo
        psnr = float(-10 * error.square().mean().log10())
        own = f", where tiles meet {seam_ratio(error, *meets):.3f}" if name == "tiles" else ""
        print(
            f"{name}: PSNR {psnr:.2f}, {seconds:.0f} s, peak so far "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, seam ratio "
            f"{seam_ratio(error, list(rows), list(columns)):.3f}{own}",
            flush=True,
        )


if __name__ == "__main__":
    main()
