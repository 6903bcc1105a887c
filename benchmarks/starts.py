"""What plug-and-play solvers gain by starting from the smooth estimate, on photos that nothing was trained on.

    python benchmarks/starts.py --photos ../shared/data/bsds500/test

Each solver with its default settings, from the published start ("picture": holes filled from their neighbours, low
resolution enlarged) and from the smooth one. PSNR in dB and evaluations, means over crops, and the difference with its
95 % interval over the photos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mtdeq import crops

from workbench.evaluation.metrics import psnr
from workbench.evaluation.statistics import paired_difference
from workbench.models import load_prior
from workbench.restore import degrade
from workbench.solvers import make_solver

TASKS = ("inpaint:0.7", "block:24", "blur:2", "sr:4")
SOLVERS = ("hqs", "admm", "red", "forward-backward", "pnp-reg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--noise", type=float, default=0.025)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    options = parser.parse_args()
    photos, prior = crops(options.photos, options.count, options.size), load_prior(options.prior)
    for task in options.tasks:
        degraded = degrade(photos, task, options.noise, seed=0)
        print(f"\n{task}, {len(photos)} crops of {options.size}x{options.size}, noise {options.noise:g}", flush=True)
        for name in options.solvers:
            scores, spent = [], []
            for start in ("picture", "smooth"):
                found = make_solver(name, start=start)(degraded.y, degraded.op, prior, sigma_noise=degraded.noise)
                scores.append(psnr(found.image, photos, clip=True))
                spent.append(float(found.evaluations.float().mean()))
            gap = paired_difference(scores[1].tolist(), scores[0].tolist())
            means = [f"{float(score.mean()):6.2f} ({count:3.0f})" for score, count in zip(scores, spent, strict=True)]
            print(f"{name:18} picture {means[0]}  smooth {means[1]}  gain {gap.mean:+.2f} ± {gap.half:.2f}", flush=True)


if __name__ == "__main__":
    main()
