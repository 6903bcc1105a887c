"""(Re)train the shipped prior on a GPU, in resumable slices. README.md beside this file has the commands.

The run lives in ``--run`` and goes on there; every slice leaves ``prior.safetensors`` (averaged weights, float16),
``log.jsonl``, ``settings.json`` and the last sample grid in ``--out``. ``--toy`` is a rehearsal of seconds on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from workbench.data import Photos
from workbench.models import PHOTO_CONFIG, EDMPrecond, NCSNpp, load_prior, save_prior
from workbench.solvers import DDIM
from workbench.trainers import DSM, TrainSettings, train, training_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="photo sources")
    parser.add_argument("--weights", nargs="+", type=float)
    parser.add_argument("--scales", nargs="+", default=[], help="random zoom per source, as LOW:HIGH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/gpu-prior"))
    parser.add_argument("--init", help="prior whose weights start a new run (same architecture)")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=500, help="length of this slice")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()

    run = arguments.run
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    width, steps, batch, size = arguments.width, arguments.steps, arguments.batch, arguments.size
    if arguments.toy:
        width, steps, batch, size = 8, 20, 4, 16
    net = NCSNpp(replace(PHOTO_CONFIG, width=width))
    prior = EDMPrecond(net, multiple=net.multiple)
    if arguments.init:
        prior.load_state_dict(load_prior(arguments.init).state_dict())
    scales = [tuple(map(float, text.split(":"))) for text in arguments.scales]
    photos = Photos(
        arguments.data,
        size=size,
        batch_size=batch,
        weights=arguments.weights,
        scales=[(low, high) for low, high in scales] or (1.0, 1.0),
        preload=True,
    )
    settings = TrainSettings(
        steps=steps,
        warmup=1000 if not arguments.toy else 2,
        learning_rate=1e-3,
        ema_decay=0.9999,
        precision="bf16",
        log_every=100 if not arguments.toy else 5,
        save_every=2000 if not arguments.toy else 5,
        sample_every=10_000 if not arguments.toy else 10,
        workers=arguments.workers,
    )

    def sampler(averaged, generator):
        like = next(averaged.parameters())
        return DDIM(steps=50)(averaged, (64, 3, size, size), generator=generator, like=like).image

    averaged, progress = train(
        prior, DSM(), photos, settings, run, sampler=sampler, max_seconds=arguments.seconds, progress_bar=False
    )
    per_second = progress.images / max(progress.seconds, 1e-9)
    print(
        f"step {progress.step}/{steps}, {progress.images} images, {progress.seconds:.0f} s, {per_second:.0f} images/s"
    )
    print((run / "log.jsonl").read_text().splitlines()[-1])
    card = {"summary": "trained by pipelines/gpu/train_prior.py", **training_card(progress, run, arguments.data)}
    save_prior(averaged, arguments.out / "prior.safetensors", card=card, dtype=torch.float16)
    for name in ("settings.json", "log.jsonl"):
        shutil.copy(run / name, arguments.out / name)
    for grid in sorted((run / "samples").glob("*.png"))[-1:]:
        shutil.copy(grid, arguments.out / "samples.png")


if __name__ == "__main__":
    main()
