"""The gain of equilibrium training over the Gaussian denoiser, cell by cell of MTDEQ's Tables I and II.

    python benchmarks/mtdeq.py --photos ../shared/data/bsds500/test --count 50 --priors Gauss=photo MTDEQ=photo-mtdeq

The first prior is what the others are compared with. Degradations, solvers and settings are those of the rows of
``pipelines/mtdeq_table1.yaml`` and ``mtdeq_table2.yaml``; a label that is no row of theirs runs what ``Gauss`` does.
One crop per photo, its centre, or with ``--size 0`` all of it but for sides that are multiples of 24; PSNR in dB, the
mean gain with its 95 % interval over the photos. ``--out`` keeps the PSNR of every photo.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from workbench.data.sources import open_source
from workbench.evaluation.metrics import psnr
from workbench.evaluation.statistics import mean_interval
from workbench.models import load_prior
from workbench.pipelines.schema import load_pipeline
from workbench.restore import degrade
from workbench.solvers import Solver, make_solver

ROOT = Path(__file__).parents[1]


SIDES = 24  # what super-resolution by 2 and 3 and the network's three halvings divide


def centres(photos: Path, count: int, size: int) -> list[torch.Tensor]:
    """The centres of the first ``count`` photos by name, each (3, size, size) in [0, 1]; size 0: as large as fits."""
    source = open_source(photos)
    images = []
    for index in range(min(count, len(source))):
        photo = torch.from_numpy(source[index][1]().copy()).permute(2, 0, 1).float() / 255
        height, width = (size or side // SIDES * SIDES for side in photo.shape[1:])
        top, left = (photo.shape[1] - height) // 2, (photo.shape[2] - width) // 2
        images.append(photo[:, top : top + height, left : left + width])
    return images


def crops(photos: Path, count: int, size: int) -> torch.Tensor:
    """The centres of the first ``count`` photos by name, (count, 3, size, size) in [0, 1]."""
    return torch.stack(centres(photos, count, size))


def row_solver(job: dict[str, Any], label: str) -> Solver:
    """What the table's row of this label runs; rows that it lacks run what ``Gauss`` does."""
    row = label if label in job["settings"] else "Gauss"
    name, settings = job["solvers"].get(row, job["solver"]), job["settings"][row]
    return make_solver(name, **{"max_steps": job["steps"], **settings})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--size", type=int, default=64, help="side of the crops; 0: whole photos, one by one")
    parser.add_argument("--priors", nargs="+", default=["Gauss=photo", "MTDEQ=photo-mtdeq"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    priors = dict(pair.split("=", 1) for pair in arguments.priors)
    networks = {label: load_prior(source, device=arguments.device) for label, source in priors.items()}
    first, *others = networks
    images = centres(arguments.photos, arguments.count, arguments.size)
    batch = arguments.batch if arguments.size else 1
    jobs = [job for number in (1, 2) for job in load_pipeline(ROOT / f"pipelines/mtdeq_table{number}.yaml").jobs]
    gains: dict[str, list[float]] = {label: [] for label in others}
    print(f"{len(images)} photos, {arguments.size or 'whole'}; {first}, then gains over it")
    for job in jobs:
        own = job.parameters
        solvers = {label: row_solver(own, label) for label in networks}
        values: dict[str, list[float]] = {label: [] for label in networks}
        for start in range(0, len(images), batch):
            part = torch.stack(images[start : start + batch]).to(arguments.device)
            numbers = range(start, start + len(part))
            degraded = degrade(part, own["degradation"], own["noise"], seed=0, numbers=numbers)
            for label, network in networks.items():
                restored = solvers[label](degraded.y, degraded.op, network, sigma_noise=own["noise"]).image
                values[label] += psnr(restored, part, clip=True).tolist()
        line = f"{own['published_task']:22} {sum(values[first]) / len(images):6.2f}"
        for label in others:
            gap = mean_interval([a - b for a, b in zip(values[label], values[first], strict=True)])
            gains[label].append(gap.mean)
            line += f"   {label} {gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps({"task": own["published_task"], "psnr": values}) + "\n")
    for label, own in gains.items():
        mean, above = sum(own) / len(own), sum(gain > 0 for gain in own)
        print(f"{label}: mean gain {mean:+.2f} dB, above {first} in {above} of {len(own)}")


if __name__ == "__main__":
    main()
