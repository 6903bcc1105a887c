"""The published MAP fixed point (Adam) beside the proximal map with Anderson, on MUPET's training distribution.

    python benchmarks/map_estimate.py --prior photo --data shards-{00..05}.tar --draws 200

Both solve the same problems: degradations of MUPET, section IV-A, noise levels of eq. (11), one sample each, both in
one process. Counted are network evaluations; the stationarity ||A^T (A x - y) - sigma^2 s(x)|| (root mean square) is
evaluated at what each returns, not counted. Bars: 10 times fewer evaluations on average, a larger stationarity on at
most 2 % of the draws. ``--low`` draws the levels log-uniformly below 1 instead, where the fixed points are hard.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from torch import Tensor

from workbench.data import Photos
from workbench.images import SAMPLES, sample_photo
from workbench.models import Prior, load_prior
from workbench.operators.base import column
from workbench.random import Draws
from workbench.solvers import MapByAdam, MapByProx, stationarity
from workbench.trainers import MUPET
from workbench.trainers.degradations import KINDS, Degradations

Row = tuple[int, float, int, float, float]  # evaluations and stationarity of Adam, of the proximal map; sigma
RANGES = ((0.0, 0.03), (0.03, 0.1), (0.1, 1.0), (1.0, 10.0), (10.0, 1e9))


def photos(data: list[str] | None, count: int, size: int, seed: int) -> Tensor:
    """Clean images (count, 3, size, size)."""
    if data:
        return next(iter(Photos(data, size=size, batch_size=count, scales=(0.5, 1.0), seed=seed))).images
    whole = torch.cat([sample_photo(name, 128) for name in SAMPLES])
    tiles = whole.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, size, size)
    order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(seed))
    return tiles[order.repeat(count // len(tiles) + 1)[:count]]


@torch.no_grad()
def compare(prior: Prior, images: Tensor, low: bool, seed: int, published: MapByAdam, fast: MapByProx) -> list[tuple]:
    """(kind, row) of every image; the rules stop each sample by itself, so they may share batches."""
    draws = Draws(torch.Generator().manual_seed(seed))
    levels = MUPET(levels="log-uniform", sigma_max=1.0) if low else MUPET()
    sigma = levels.noise_levels(prior, len(images), draws)
    op = Degradations().sample(len(images), tuple(images.shape[-2:]), draws)
    clean = op(images)
    y = clean + column(sigma, clean) * draws.normal(*clean.shape)
    estimates = [
        published(y, op, prior, sigma_noise=sigma, initial=0.5 + draws.normal(*images.shape)),
        fast(y, op, prior, sigma_noise=sigma),
    ]
    reached = [
        stationarity(prior, op, y, e.image, sigma).flatten(1).square().mean(1).sqrt().tolist() for e in estimates
    ]
    spent = [e.evaluations.tolist() for e in estimates]
    rows = zip(spent[0], reached[0], spent[1], reached[1], sigma.tolist(), strict=True)
    return [(kind[0], row) for kind, row in zip(op.kinds, rows, strict=True)]


def line(name: str, rows: list[Row]) -> str:
    adam, prox = (sum(row[i] for row in rows) / len(rows) for i in (0, 2))
    worse = sum(row[3] > row[1] for row in rows) / len(rows)
    lower = sorted(row[3] / row[1] for row in rows)[len(rows) // 2]
    return f"{name:20} {len(rows):5} {adam:8.1f} {prox:8.1f} {adam / prox:7.1f}x {worse:8.1%} {lower:10.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--data", nargs="*", help="photo sources; without, tiles of the sample photos")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--low", action="store_true")
    parser.add_argument("--tolerance", type=float, default=MapByProx().tolerance)
    parser.add_argument("--max-steps", type=int, default=MapByProx().max_steps)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior, device=arguments.device)
    fast = MapByProx(tolerance=arguments.tolerance, max_steps=arguments.max_steps)
    rows: list[tuple] = []
    for seed in range(arguments.draws // arguments.batch):
        images = photos(arguments.data, arguments.batch, arguments.size, seed)
        rows += compare(prior, images, arguments.low, seed, MapByAdam(), fast)
        print(line("so far", [row for _, row in rows]), flush=True)
    print(f"\n{'':20} draws     Adam     prox   ratio    worse  stationarity (median of prox / Adam)")
    groups = defaultdict(list)
    for kind, row in rows:
        groups[kind].append(row)
    for kind in KINDS:
        if groups[kind]:
            print(line(kind, groups[kind]))
    for below, above in RANGES:
        within = [row for _, row in rows if below <= row[4] < above]
        if within:
            print(line(f"sigma {below:g} to {above:g}" if above < 1e9 else f"sigma from {below:g}", within))
    print(line("all", [row for _, row in rows]))


if __name__ == "__main__":
    main()
