"""Overhead of the samplers beside deepinv 0.5.0: time per step with a network that costs next to nothing.

    python benchmarks/samplers.py

Both sides do the same work in one process: the same images, operator, noise level and number of network calls; DPS with
its backward pass. Prints milliseconds per step of both and their ratio; exits with 1 if ours takes longer, with 5 % for
what the measurement itself varies. deepinv's samplers draw and mix in other orders, so that results do not compare.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import deepinv
import numpy as np
import torch
from deepinv.physics.functional import gaussian_blur
from timing import times
from torch import Tensor

from workbench.models import Prior
from workbench.operators import Blur, Inpainting, Operator
from workbench.solvers import DDRM, DPS, DiffPIR

NOISE = 1.05
SIGMA = 0.05
Pair = tuple[Callable[[], Any], Callable[[], Any]]


class Shrink(Prior):
    """One multiplication."""

    def __init__(self) -> None:
        super().__init__(sigma_min=1e-3, sigma_max=100.0)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.9 * x


class TheirShrink(deepinv.models.Denoiser):
    """The same for deepinv."""

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        return 0.9 * x


def operators(size: int) -> dict[str, tuple[Operator, deepinv.physics.LinearPhysics]]:
    """Ours and theirs, on RGB images of ``size`` x ``size``; theirs knows the noise level, and needs three channels."""
    mask = (torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    kernel = gaussian_blur(sigma=(2.0, 2.0), psf_size=(15, 15)).expand(1, 3, -1, -1)
    noise: dict[str, Any] = {"noise_model": deepinv.physics.GaussianNoise(SIGMA)}
    return {
        "inpainting": (Inpainting(mask), deepinv.physics.Inpainting((3, size, size), mask=mask, **noise)),
        "blur": (Blur(kernel), deepinv.physics.BlurFFT((3, size, size), kernel, **noise)),
    }


def pairs(ours: Operator, theirs: deepinv.physics.LinearPhysics, x: Tensor, steps: int) -> dict[str, Pair]:
    """Ours and theirs of each sampler, ``steps`` network calls each."""
    prior, network = Shrink(), TheirShrink()
    y, their_y = ours(x), theirs.A(x)

    def run(solver: Any) -> Callable[[], Any]:
        return lambda: solver(y, ours, prior, sigma_noise=SIGMA, generator=torch.Generator().manual_seed(0))

    # Theirs asks the network at every level of ``sigmas``, the last of them 0.
    ddrm = deepinv.sampling.DDRM(network, sigmas=np.linspace(1, 0, steps))
    diffpir = deepinv.sampling.DiffPIR(network, deepinv.optim.data_fidelity.L2(), sigma=SIGMA, max_iter=steps)
    dps = deepinv.sampling.DPS(network, num_steps=steps + 1, dtype=torch.float32)
    return {
        "DiffPIR": (run(DiffPIR(steps, schedule="vp")), lambda: diffpir(their_y, theirs)),
        "DDRM": (run(DDRM(steps)), lambda: ddrm(their_y.clone(), theirs)),
        "DPS": (run(DPS(steps)), lambda: dps(their_y, theirs)),
    }


def calls(run: Callable[[], Any], kind: type, method: str) -> int:
    """How often ``run`` asks its network."""
    count, original = [0], getattr(kind, method)

    def counted(*arguments: Any, **options: Any) -> Tensor:
        count[0] += 1
        return original(*arguments, **options)

    setattr(kind, method, counted)
    try:
        run()
    finally:
        setattr(kind, method, original)
    return count[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50, help="network calls")
    parser.add_argument("--rounds", type=int, default=60, help="rounds per line, at most")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds per line, after which rounds stop")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    clock = time.process_time if options.threads == 1 else time.perf_counter
    x = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    print(f"deepinv {deepinv.__version__}, torch {torch.__version__}, {tuple(x.shape)}, {options.threads} thread(s)")
    print(f"{'operator':12}{'sampler':10}{'calls':>11}{'ours ms/step':>14}{'theirs':>9}{'ratio':>8}")
    missed = 0
    for name, (ours, theirs) in operators(options.size).items():
        for sampler, pair in pairs(ours, theirs, x, options.steps).items():
            asked = (calls(pair[0], Shrink, "denoise"), calls(pair[1], TheirShrink, "forward"))
            seconds = times(pair, options.rounds, options.budget, clock)
            per_step = [1e3 * taken / count for taken, count in zip(seconds, asked, strict=True)]
            ratio = per_step[0] / per_step[1]
            missed += ratio > NOISE
            print(
                f"{name:12}{sampler:10}{asked[0]:6}{asked[1]:5}{per_step[0]:14.3f}{per_step[1]:9.3f}{ratio:8.3f}"
                f"{' !' if ratio > NOISE else ''}",
                flush=True,
            )
    print(f"{missed} bar(s) missed" if missed else "all bars met")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
