"""UD2M beside DiffPIR in 100 evaluations and DDRM in 20, on photos that nothing was trained on.

    python benchmarks/few_step.py --photos ../shared/data/bsds500/test --count 24

One crop per photo, its centre; PSNR in dB, the distances of EfficientNet-Lite0 (a training loss of UD2M) and Lite2 (the
judge), means, and UD2M less each other method with its 95 % interval over the photos. ``--samples N`` adds what the
samples say: N of each photo by each method, the mean standard deviation of a pixel, and how often the true pixel lies
between the extremes of the samples beside ``(N - 1) / (N + 1)``, which exact samples have.
``--out`` keeps every figure as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from mtdeq import crops
from torch import Tensor

from workbench.evaluation.metrics import psnr
from workbench.evaluation.perceptual import effnet
from workbench.evaluation.statistics import paired_difference
from workbench.models import load_prior
from workbench.models.prior import Prior
from workbench.random import stream
from workbench.restore import Degraded, degrade
from workbench.solvers import Solver, make_solver

TASKS = {
    "SR x4": ("sr:4", 0.025),
    "blur 2": ("blur:2", 0.01),
    "70 % missing": ("inpaint:0.7", 0.025),
    "80 % missing": ("inpaint:0.8", 0.025),
    "SR x4, noise 0.05": ("sr:4", 0.05),
    "SR x4, noise 0.1": ("sr:4", 0.1),
    "SR x8": ("sr:8", 0.025),
    "JPEG 10": ("jpeg:10", 0.01),
    "JPEG 20": ("jpeg:20", 0.01),
}
METHODS = {
    "DiffPIR 100": ("diffpir", "photo", {"steps": 100}),
    "DiffPIR 20": ("diffpir", "photo", {"steps": 20}),
    "DiffPIR 20, smooth": ("diffpir", "photo", {"steps": 20, "start": "smooth", "sigma_start": 0.2}),
    "DDNM 100": ("ddnm", "photo", {}),
    "DDNM 20": ("ddnm", "photo", {"steps": 20}),
    "DDNM 20, smooth": ("ddnm", "photo", {"steps": 20, "sigma_start": 0.2}),
    "DDRM 20": ("ddrm", "photo", {"steps": 20}),
    "CM4IR 4": ("cm4ir", "photo-cm", {"steps": 4}),
    "LATINO 8": ("latino", "photo-cm", {"steps": 8}),
}
PUBLISHED = ["DiffPIR 100", "DDRM 20", "CM4IR 4", "LATINO 8"]
FIGURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": psnr,
    "lite0": effnet,
    "lite2": lambda restored, original: effnet(restored, original, "effnet2"),
}


def sample(solver: Solver, prior: Prior, degraded: Degraded, seed: int) -> Tensor:
    """A restoration of each image of the batch, each from a stream of its own."""
    streams = [stream(seed, "solver", number) for number in range(len(degraded.y))]
    return solver(degraded.y, degraded.op, prior, sigma_noise=degraded.noise, generator=streams).image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--ud2m", nargs="*", default=["photo-ud2m"], help="unfolded networks")
    parser.add_argument("--steps", type=int, default=3, help="of UD2M")
    parser.add_argument("--methods", nargs="*", default=PUBLISHED, choices=list(METHODS))
    parser.add_argument(
        "--tasks",
        help="a method that refuses JPEG is left out there",
        nargs="+",
        default=list(TASKS),
        choices=list(TASKS),
    )
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    methods = {name: METHODS[name] for name in arguments.methods}
    methods |= {Path(file).stem: ("ud2m", file, {"steps": arguments.steps}) for file in arguments.ud2m}
    priors = {source: load_prior(source, device=arguments.device) for _, source, _ in methods.values()}
    images = crops(arguments.photos, arguments.count, arguments.size).to(arguments.device)
    found = {}
    for task in arguments.tasks:
        spec, noise = TASKS[task]
        degraded = degrade(images, spec, noise, seed=0)
        values: dict[str, dict[str, list[float]]] = {}
        for name, (kind, source, settings) in methods.items():
            one = make_solver(kind, **settings)
            if one.linear and not degraded.op.linear:
                continue
            drawn = torch.stack([sample(one, priors[source], degraded, seed) for seed in range(arguments.samples or 1)])
            restored = drawn[0]
            values[name] = {key: score(restored.clamp(0, 1), images).tolist() for key, score in FIGURES.items()}
            if arguments.samples:
                drawn = drawn.clamp(0, 1)
                inside = (drawn.amin(0) <= images) & (images <= drawn.amax(0))
                values[name] |= {
                    "spread": drawn.std(0).flatten(1).mean(1).tolist(),
                    "covered": inside.float().flatten(1).mean(1).tolist(),
                }
        print(f"\n{task}, {len(images)} crops of {arguments.size}x{arguments.size}")
        judged = list(values)[-1]
        for name, own in values.items():
            line = f"{name:18}" + "".join(f"  {key} {sum(v) / len(v):7.3f}" for key, v in own.items())
            for key in FIGURES if name != judged else ():
                gap = paired_difference(values[judged][key], own[key])
                half = 0.0 if gap.half is None else gap.half
                line += f"  [{judged} less it: {key} {gap.mean:+.3f} ± {half:.3f}]"
            print(line, flush=True)
        found[task] = values
    if arguments.out:
        arguments.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
