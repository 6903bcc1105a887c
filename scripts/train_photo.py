"""Train the prior ``photo``, or go on from its newest weights: weights in, warm restart, weights out.

    python scripts/train_photo.py --data ../shared/data --init photo \\
        --seconds 3600 --out runs/photo.safetensors

On a processor one thread and crops of 64x64 (``--batch 16``); with ``--device cuda`` as ``pipelines/gpu/README.md``
says. A run that was stopped goes on in its folder ``--run``. The rate warms up and falls along a cosine to the end of
``--seconds`` (of processor time on a CPU), whose number of steps a short trial finds.

``--data`` holds ``bsds500/train``, ``imagenet256``, ``bedroom256`` and ``tiny-imagenet`` (tar shards or a folder).
Every twentieth photo of BSDS500 ``train`` is held out; what the run reached on these is printed and recorded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from workbench.data import CropPool, InTurn, Stock, open_source
from workbench.data.dead_leaves import dead_leaves
from workbench.data.sources import Streamed
from workbench.evaluation.metrics import psnr
from workbench.models import EDMPrecond, Prior, UNet, UNetConfig, load_prior, save_prior
from workbench.models.networks.unet import Block
from workbench.random import generator
from workbench.trainers import DSM, TrainSettings, train, training_card

LEVELS = (5, 15, 25, 50)  # of 255
HELD_OUT = 20  # every how many photos of BSDS500 train
JPEG_FLOOR = 0.1  # thumbnails are JPEG of quality 75


def decoded(source: Path, limit: int | None = None) -> list[np.ndarray]:
    """Photos of a folder, or of the tar shards in it, in order."""
    packed = any(source.glob("train-*.tar"))
    found = open_source(f"{source}/train-*.tar" if packed else source)
    samples = found.stream(0, 0) if isinstance(found, Streamed) else map(found.__getitem__, range(len(found)))
    return [decode() for _, decode in itertools.islice(samples, limit)]


def pools(arguments: argparse.Namespace) -> tuple[CropPool, list[np.ndarray]]:
    """The training crops, and the photos held out."""
    data, device = arguments.data, arguments.device
    photos = decoded(data / "bsds500" / "train")
    held_out = photos[::HELD_OUT]
    photos = [photo for number, photo in enumerate(photos) if number % HELD_OUT]
    others = decoded(data / "imagenet256") + decoded(data / "bedroom256")
    thumbnails = decoded(data / "tiny-imagenet", arguments.thumbnails)
    palette = torch.from_numpy(np.concatenate([photo.reshape(-1, 3)[::7] for photo in photos])).to(device)
    draws = generator(0, device)
    leaves = [
        image
        for _ in range(max(1, arguments.leaves // 100))
        for image in dead_leaves(min(100, arguments.leaves), 128, palette, draws).cpu().numpy()
    ]
    share = arguments.leaf_share

    def pool(size: int, batch: int, photo_zooms, other_zooms, weights, seed: int) -> CropPool:
        stocks = [
            Stock(photos, weights[0], photo_zooms),
            Stock(others, weights[1], other_zooms),
            Stock(thumbnails, weights[2], floor=JPEG_FLOOR),
            Stock(leaves, weights[3]),
        ]
        stocks = [stock for stock in stocks if stock.weight > 0]
        return CropPool(stocks, size=size, batch_size=batch, seed=seed, device=device)

    small_zooms = ((1.0, 0.5, 0.33, 0.22), (0.6, 0.4, 0.25))
    if arguments.large:  # crops of 128x128 and of 64x64 in turn, the same number of pixels each
        large = pool(128, arguments.batch, (1.0, 0.8, 0.6, 0.45), (0.8, 0.6), (0.8 - share, 0.2, 0, share), 1)
        small = pool(64, 4 * arguments.batch, *small_zooms, (0.3, 0.2, 0.5, 0), 2)
        return InTurn([large, small]), held_out
    weights = (0.65 - share, 0.15, 0.2, share)
    return pool(64, arguments.batch, (1.0, 0.8, 0.6, 0.45, 0.33, 0.22), small_zooms[1], weights, 1), held_out


@torch.no_grad()
def held_out_psnr(prior: Prior, photos: list[np.ndarray]) -> list[float]:
    """Mean PSNR (dB) of denoising whole photos at ``LEVELS``, with the same noise every time."""
    device, sums = next(prior.parameters()).device, [0.0] * len(LEVELS)
    for number, photo in enumerate(photos):
        height, width = (side // 16 * 16 for side in photo.shape[:2])
        clean = torch.from_numpy(photo[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
        noise = torch.randn(clean.shape, generator=generator(number))
        for index, level in enumerate(LEVELS):
            noisy = (clean + level / 255 * noise).to(device)
            sums[index] += float(psnr(prior(noisy, level / 255), clean.to(device), clip=True))
    return [round(total / len(photos), 3) for total in sums]


def new_prior(arguments: argparse.Namespace) -> Prior:
    """The prior to train: ``--init``, or a new network. Attention is added to one without it, and starts as nothing."""
    config = UNetConfig(widths=tuple(arguments.widths), blocks=tuple(arguments.blocks), heads=arguments.heads)
    known = {}
    if arguments.init:
        trained = load_prior(arguments.init).net
        config, known = replace(trained.config, heads=trained.config.heads or arguments.heads), trained.state_dict()
    torch.manual_seed(0)
    net = UNet(config)
    net.load_state_dict({**net.state_dict(), **known})
    return EDMPrecond(net, sigma_max=80.0, multiple=net.multiple)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="default: beside --out")
    parser.add_argument("--init", help="prior to start from")
    parser.add_argument("--seconds", type=float, required=True, help="of the whole run")
    parser.add_argument("--slice", type=float, help="stop after this many seconds, to go on later")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--large", action="store_true", help="crops of 128x128 (--batch) and 64x64 (four times --batch)"
    )
    parser.add_argument("--widths", nargs="+", type=int, default=list(UNetConfig.widths))
    parser.add_argument("--blocks", nargs="+", type=int, default=list(UNetConfig.blocks))
    parser.add_argument("--heads", type=int, default=UNetConfig.heads)
    parser.add_argument("--leaf-share", type=float, default=0.1, help="of the crops that are dead leaves")
    parser.add_argument("--leaves", type=int, default=200, help="images of dead leaves")
    parser.add_argument("--thumbnails", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.device == "cpu" else 8)
    torch.backends.cudnn.benchmark = True
    clock = time.process_time if arguments.device == "cpu" else time.monotonic
    run = arguments.run or arguments.out.with_suffix(".run")
    started = time.monotonic()
    photos, held_out = pools(arguments)
    print(f"photos ready after {time.monotonic() - started:.0f} s", flush=True)

    def prepared() -> Prior:
        prior = new_prior(arguments)
        for block in prior.modules() if arguments.compile else ():
            if isinstance(block, Block):
                block.compile()
        return prior

    def settings(steps: int) -> TrainSettings:
        return TrainSettings(
            steps=steps,
            learning_rate=arguments.rate,
            warmup=min(200, steps // 10 + 1),
            optimiser="muon",
            ema_decay=0.999,
            accumulate=2 if arguments.large else 1,
            precision=arguments.precision,
            seed=arguments.seed,
            log_every=max(1, min(200, steps // 20)),
            save_every=max(1, steps // 10),
            workers=0,
        )

    file = run / "steps.json"
    objective = DSM(sigma_spread=1.3)
    if not file.is_file():
        took = {}
        shorter, longer = (4, 12) if arguments.device == "cpu" else (20, 120)
        with tempfile.TemporaryDirectory() as trial:
            for count in (3, shorter, longer):  # the first compiles
                begun = clock()
                train(prepared(), objective, photos, settings(count), f"{trial}/{count}", progress_bar=False)
                took[count] = clock() - begun
        pace = (took[longer] - took[shorter]) / (longer - shorter)
        run.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"steps": max(1, round(arguments.seconds / pace)), "seconds_per_step": pace}))
    plan = json.loads(file.read_text())
    print(plan, f"after {time.monotonic() - started:.0f} s", flush=True)
    prior, progress = train(
        prepared(), objective, photos, settings(plan["steps"]), run, max_seconds=arguments.slice, progress_bar=False
    )
    reached = held_out_psnr(prior, held_out)
    print(
        f"step {progress.step}/{plan['steps']}, {progress.images} crops, {progress.seconds:.0f} s, held out {reached}"
    )
    sources = ["BSDS500 train (190 of 200)", "ImageNet and LSUN bedroom photos", "tiny-imagenet", "dead leaves"]
    card = {"summary": "trained by scripts/train_photo.py", **training_card(progress, run, sources)}
    card["held_out_psnr"] = dict(zip(map(str, LEVELS), reached, strict=True))
    prior.trained_size = 64
    save_prior(prior, arguments.out, card=card, dtype=torch.float16)
    shutil.copy(run / "log.jsonl", arguments.out.with_suffix(".log.jsonl"))


if __name__ == "__main__":
    main()
