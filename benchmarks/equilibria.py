"""Evaluations until the equilibria of MTDEQ (eq. 3) are found: the published iteration against faster ones.

    python benchmarks/equilibria.py --prior photo-mtdeq

All stop, image by image, at a mean squared step of 1e-7 or after 350 evaluations. "published": plain iteration from the
measurement, with missing pixels black; "filled": the same with holes filled by their neighbours; "smooth": from the
smooth estimate, from there also with Anderson acceleration. Means over sample photos, how many converged, PSNR of the
equilibria, and how many times fewer evaluations than "published" were needed.
"""

from __future__ import annotations

import argparse

import torch

from workbench.evaluation.metrics import psnr
from workbench.images import sample_photos
from workbench.models import load_prior
from workbench.restore import degrade
from workbench.solvers import ForwardBackward
from workbench.solvers.start import resized

TASKS = [
    *(("sr:2", 0.01), ("sr:4", 0.05), ("blur:0.8", 0.05), ("blur:1.6", 0.01), ("blur:2.4", 0.1)),
    *(("inpaint:0.5", 0.05), ("inpaint:0.8", 0.1), ("inpaint:0.9", 0.0)),
]
WAYS = {
    "published": {"start": "picture"},
    "filled": {"start": "picture"},
    "smooth": {},
    **{f"Anderson {memory}": {"memory": memory} for memory in (1, 2, 5)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="photo-mtdeq")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    prior, photos = load_prior(arguments.prior, device=arguments.device), sample_photos(arguments.size)
    totals: dict[str, list[float]] = {name: [] for name in WAYS}
    print(f"{'task':12} {'noise':>5}  " + "".join(f"{name:>28}" for name in WAYS))
    for spec, noise in TASKS:
        degraded = degrade(photos.to(arguments.device), spec, noise, seed=0)
        cells = []
        for name, settings in WAYS.items():
            initial = resized(degraded.op, degraded.y) if name == "published" else None
            solver = ForwardBackward(**settings)
            with torch.no_grad():
                found = solver(degraded.y, degraded.op, prior, sigma_noise=noise, initial=initial)
            mean, converged = float(found.evaluations.float().mean()), int(found.converged.sum())
            quality = float(psnr(found.image.cpu(), photos, clip=True).mean())
            totals[name].append(mean)
            fewer = totals["published"][-1] / mean
            cells.append(f"{mean:6.0f} ({fewer:4.1f}x) {converged}/{len(photos)} {quality:5.1f} dB")
        print(f"{spec:12} {noise:5g}  " + "".join(f"{cell:>28}" for cell in cells), flush=True)
    for name, means in totals.items():
        ratios = torch.tensor(totals["published"]) / torch.tensor(means)
        print(f"{name:12} {float(ratios.log().mean().exp()):.2f} times fewer, geometric mean over tasks")


if __name__ == "__main__":
    main()
