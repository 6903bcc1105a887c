"""Do intervals of posterior samples hold the truth on photos? Per-pixel coverage with a shipped prior.

    python benchmarks/coverage.py --photos FOLDER --count 16

Crops of photos are degraded; each method restores every measurement 19 times. The 50 and 90 % intervals of a pixel
leave out 10 and 2 of the 20 places that the truth can have among the samples: samples of the true posterior have these
coverages exactly. Pixels of one photo are not independent: the uncertainty is Student's t over the photos. Spread says
how diverse the samples are: their standard deviation, root mean square over pixels, in grey levels of 255. Error/spread
is the root mean square error of the samples' mean over it, 1 for samples of the posterior. The posterior of photos is
not known: coverage judges sampler and prior together.
"""

from __future__ import annotations

import argparse
import time

import torch

from workbench.data.evaluation import evaluation_photos, photo_of
from workbench.evaluation.statistics import mean_interval
from workbench.models import load_prior
from workbench.random import stream
from workbench.restore import degrade, usual_prior
from workbench.solvers import make_solver
from workbench.text import parse_settings

SAMPLES = 19


def candidate(text: str) -> tuple[str, dict]:
    """``daps,steps=100,inner=1`` as a name and settings."""
    name, *settings = text.split(",")
    return name, parse_settings(settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="*", default=[], help="folders of photos; none: the sample photos")
    parser.add_argument("--count", type=int, default=16, help="crops")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--degrade", nargs="+", default=["inpaint:0.5", "sr:2", "blur:1.5"])
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--solver", nargs="+", default=["ddrm", "diffpir,steps=20", "daps,steps=50", "mmps,steps=8"])
    parser.add_argument("--prior", help="default: photo, or what the solver needs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, names = evaluation_photos(options.photos, count=options.count, size=options.size, seed=options.seed)
    print(f"{options.count} crops of {options.size}x{options.size}, noise {options.noise:g}")
    heads = f"{'50 %':>16}{'90 %':>16}{'spread':>9}{'error/spread':>14}{'evaluations':>13}{'seconds':>9}"
    print(f"{'operator':14}{'solver':22}{heads}")
    for spec in options.degrade:
        degraded = degrade(images, spec, options.noise, options.seed)
        for text in options.solver:
            name, settings = candidate(text)
            prior = load_prior(options.prior or usual_prior(name))
            solver, started, draws = make_solver(name, **settings), time.perf_counter(), []
            for number in range(SAMPLES):
                streams = [stream(options.seed, "coverage", number, k) for k in range(len(images))]
                arguments = (degraded.y, degraded.op, prior)
                result = solver(*arguments, sigma_noise=options.noise, generator=streams)
                draws.append(result.image)
            samples = torch.stack(draws)
            ranks = (samples < images).sum(0).flatten(1)
            shares = []
            for out in (5, 1):
                inside = ((ranks >= out) & (ranks <= SAMPLES - out)).double().mean(1)
                interval = mean_interval(inside.tolist(), [photo_of(name) for name in names])
                shares.append(f"{100 * interval.mean:.1f} ± {100 * (interval.half or 0):.1f}")
            spread = float(samples.var(0).mean().sqrt())
            ratio = float((samples.mean(0) - images).square().mean().sqrt()) / spread / (1 + 1 / SAMPLES) ** 0.5
            spent, seconds = int(result.evaluations[0]), time.perf_counter() - started
            figures = f"{255 * spread:9.1f}{ratio:14.2f}{spent:13}{seconds:9.0f}"
            print(f"{spec:14}{text:22}{shares[0]:>16}{shares[1]:>16}{figures}", flush=True)


if __name__ == "__main__":
    main()
