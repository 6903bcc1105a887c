"""Does the loader keep the network busy? Photos per second from each source beside what training consumes.

    python benchmarks/loader.py --data ../shared/data [--workers 0]

Measured in one process on this machine: a training step of the shipped architecture (bf16, batch 16, 64x64 crops) and
the loader alone, both in images per second. The ratio is how many times faster the loader is; with workers it is more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from workbench.data import Photos, loader
from workbench.models import EDMPrecond, UNet, UNetConfig
from workbench.random import Draws
from workbench.trainers import DSM

SIZE, BATCH = 64, 16


def rate(step: Callable[[], object], seconds: float = 6.0) -> float:
    """Images per second of ``step``, which handles one batch; the first calls are not counted."""
    for _ in range(2):
        step()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        count += BATCH
    return count / (time.perf_counter() - started)


def training_step() -> Callable[[], object]:
    net = UNet(UNetConfig())
    prior, images = EDMPrecond(net, multiple=net.multiple), torch.rand(BATCH, 3, SIZE, SIZE)
    draws = Draws(torch.Generator())

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = DSM()(prior, images, draws)
        loss.backward()
        prior.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    consumed = rate(training_step())
    print(f"{'training step':34} {consumed:8.0f} images/s")
    specs: dict[str, tuple[str, dict]] = {
        "folder of 481x321 JPEG": (str(arguments.data / "bsds500" / "train"), {}),
        "the same, preloaded, zoom 0.3-1": (
            str(arguments.data / "bsds500" / "train"),
            {"preload": True, "scales": (0.3, 1.0)},
        ),
        "npz of 32x32, enlarged": (str(arguments.data / "cifar10" / "cifar10_train.npz"), {}),
        "tar shards of 64x64 JPEG": (str(arguments.data / "tiny-imagenet" / "train-*.tar"), {}),
    }
    for name, (spec, options) in specs.items():
        batches = loader(Photos(spec, size=SIZE, batch_size=BATCH, **options), workers=arguments.workers)
        speed = rate(lambda batches=batches: next(batches))
        print(f"{name:34} {speed:8.0f} images/s   {speed / consumed:6.1f} x training")


if __name__ == "__main__":
    main()
