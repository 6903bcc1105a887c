"""Seconds until an image is there: the sequential chain beside DeqIR's parallel one, in one process.

    python benchmarks/deqir_latency.py --device cuda --size 64
    python benchmarks/deqir_latency.py --device cuda --prior path/to/256x256_diffusion_uncond.pt --size 256 --steps 20

Same levels, same noise. DeqIR stops at ``--tolerance`` (1e-2: within about 1 % of the chain, printed). A ratio above 1
says that the parallel sampler is faster, for which the device needs room for the states of an iteration. With
``--devices cuda:0,cuda:1`` they are shared by several. Random weights do for timing, but not for counting iterations.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from timing import times
from torch import Tensor

from workbench.models import Prior, SplitPrior, load_prior
from workbench.operators import Operator, parse_operator
from workbench.random import generator
from workbench.solvers import DDNM, DeqIR, Restoration, Solver


def restore(solver: Solver, y: Tensor, op: Operator, prior: Prior) -> Restoration:
    return solver(y, op, prior, generator=generator(0, y.device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--devices", help="share every network call among these, as cuda:0,cuda:1")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--task", default="sr:4")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for each line")
    given = parser.parse_args()
    device = torch.device(given.device)
    prior = load_prior(given.prior, device=device)
    if given.devices:
        prior = SplitPrior(prior, given.devices.split(","))

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    op = parse_operator(given.task, (3, given.size, given.size)).to(device)
    print(f"{prior.name} on {device}, {given.task}, {given.size}x{given.size}, tolerance {given.tolerance:g}")
    print("  T  batch  sequential, s  parallel, s  ratio  iterations  evaluations  distance")
    for steps in given.steps:
        for batch in given.batch:
            photos = torch.rand(batch, 3, given.size // 8, given.size // 8, generator=generator(1))
            smooth = torch.nn.functional.interpolate(photos, size=(given.size, given.size), mode="bicubic")
            y = op(smooth.to(device))
            chain, parallel = DDNM(steps), DeqIR(steps, iterations=steps, tolerance=given.tolerance)

            both = partial(restore, chain, y, op, prior), partial(restore, parallel, y, op, prior)
            expected, found = both[0]().image, both[1]()
            seconds = times(both, given.rounds, given.budget, clock)
            distance = float((found.image - expected).norm() / expected.norm())
            print(
                f"{steps:3} {batch:6} {seconds[0]:14.3f} {seconds[1]:12.3f} {seconds[0] / seconds[1]:6.2f} "
                f"{float(found.iterations.double().mean()):11.1f} {float(found.evaluations.double().mean()):12.0f} "
                f"{100 * distance:8.2f}%",
                flush=True,
            )


if __name__ == "__main__":
    main()
