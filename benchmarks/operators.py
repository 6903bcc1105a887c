"""Operators beside deepinv 0.5.0, alternating in one process: ratios of times, and how far the results are apart.

    python benchmarks/operators.py --threads 1

Prints one line per operator and method: median milliseconds of both, their ratio, the bar it has to meet, and the
largest difference of the results relative to the largest value (empty where the conventions differ). Times are CPU
seconds of the process with one thread, wall-clock seconds with more. Exits with 1 if a bar is missed; "no slower"
allows 5 % for what the measurement itself varies.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import deepinv
import torch
from deepinv.physics.functional import gaussian_blur
from timing import times
from torch import Tensor

from workbench.operators import Blur, Grayscale, Inpainting, Operator, SuperResolution

# Time of ours over theirs, at most.
BARS = {"call": 1.0, "adjoint": 1.0, "prox": 0.5, "pinv": 0.1}
BLUR_PROX = 0.8
# Two equal computations measure up to this far apart (inpainting's call is one multiplication on both sides).
NOISE = 1.05


@dataclass(frozen=True)
class Case:
    """Ours and theirs; ``bars`` by method; ``shift``: ours(x) is theirs(x rolled by that)."""

    name: str
    ours: Operator
    theirs: deepinv.physics.LinearPhysics
    bars: dict[str, float]
    shift: int = 0


def cases(size: int, factor: int) -> list[Case]:
    """The operators of the comparison on RGB images of ``size`` x ``size``."""
    shape = (3, size, size)
    mask = (torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    found = []
    for taps in (15, 61):
        kernel = gaussian_blur(sigma=(2.0, 2.0), psf_size=(taps, taps))
        ours = Blur(kernel)
        convolution = deepinv.physics.Blur(kernel, padding="circular", use_fft=True)
        calls = {method: BARS[method] for method in ("call", "adjoint")}
        found += [
            Case(f"blur {taps}, BlurFFT", ours, deepinv.physics.BlurFFT(shape, kernel), {**calls, "prox": BLUR_PROX}),
            Case(f"blur {taps}, Blur use_fft", ours, convolution, calls),
        ]
    for name in ("bicubic", "gaussian"):
        theirs = deepinv.physics.Downsampling(img_size=shape, filter=name, factor=factor)
        taps = theirs.filter.shape[-1]
        # Theirs keeps the first pixel of each block, ours its middle; half a pixel apart where only one side is even.
        shift = -((factor + taps - 1) // 2 - taps // 2)
        found.append(Case(f"sr x{factor} {name}", SuperResolution(factor, theirs.filter), theirs, BARS, shift))
    direct = {method: BARS[method] for method in ("call", "adjoint", "prox")}
    found.append(Case("inpainting", Inpainting(mask), deepinv.physics.Inpainting(shape, mask=mask), direct))
    weights = [0.66851 * w for w in (0.4472, 0.8781, 0.1706)]  # theirs, BT.601
    # Their prox of grey drops the null space, so that only the times compare.
    found.append(Case("grey", Grayscale(weights), deepinv.physics.Decolorize(), direct))
    return found


def methods(case: Case, x: Tensor, z: Tensor) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Ours and theirs of each method, on measurements of each side's own."""
    ours, theirs = case.ours, case.theirs
    y, their_y = ours(x), theirs.A(x)
    return {
        "call": (lambda: ours(x), lambda: theirs.A(x)),
        "adjoint": (lambda: ours.adjoint(y), lambda: theirs.A_adjoint(their_y)),
        "prox": (lambda: ours.prox(z, y, 1.0), lambda: theirs.prox_l2(z, their_y, 1.0)),
        "pinv": (lambda: ours.pinv(y), lambda: theirs.A_dagger(their_y)),
    }


def difference(case: Case, method: str, x: Tensor, z: Tensor) -> str:
    """Largest difference of the results on the same measurement, once theirs is shifted to our convention."""
    if method == "pinv":
        return ""  # theirs stops early: nothing to agree with
    ours, theirs, by = case.ours, case.theirs, (case.shift, case.shift)
    y = ours(x)

    def back(image: Tensor) -> Tensor:
        return image.roll((-by[0], -by[1]), (2, 3))

    if method == "call":
        pair = (y, theirs.A(x.roll(by, (2, 3))))
    elif method == "adjoint":
        pair = (ours.adjoint(y), back(theirs.A_adjoint(y)))
    else:
        pair = (ours.prox(z, y, 1.0), back(theirs.prox_l2(z.roll(by, (2, 3)), y, 1.0)))
    return f"{float((pair[0] - pair[1]).abs().max() / pair[0].abs().max()):.0e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--factor", type=int, default=4, help="of super-resolution")
    parser.add_argument("--rounds", type=int, default=200, help="rounds per line, at most")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds per line, after which rounds stop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="operators whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    clock = time.process_time if options.threads == 1 else time.perf_counter
    shape = (options.batch, 3, options.size, options.size)
    x, z = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 2))
    print(f"deepinv {deepinv.__version__}, torch {torch.__version__}, {shape}, float32, {options.threads} thread(s)")
    print(f"{'operator':24}{'method':10}{'ours ms':>9}{'theirs ms':>11}{'ratio':>8}{'bar':>6}{'':3}{'difference':>11}")
    missed = 0
    with torch.no_grad():
        for case in cases(options.size, options.factor):
            if options.only not in case.name:
                continue
            for method, pair in methods(case, x, z).items():
                if method not in case.bars:
                    continue
                ours, theirs = times(pair, options.rounds, options.budget, clock)
                ratio, bar = ours / theirs, case.bars[method]
                held = ratio <= (NOISE if bar == 1 else bar)
                missed += not held
                print(
                    f"{case.name:24}{method:10}{1e3 * ours:9.2f}{1e3 * theirs:11.2f}{ratio:8.3f}{bar:6.1f}"
                    f"{'' if held else ' !':3}{difference(case, method, x, z):>11}",
                    flush=True,
                )
    print(f"{missed} bar(s) missed" if missed else "all bars met")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
