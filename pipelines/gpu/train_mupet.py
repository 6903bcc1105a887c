"""The pair of a MUPET comparison, in resumable slices: MUPET, or with ``--control`` score matching continued.

    PYTHONPATH=. python pipelines/gpu/train_mupet.py --prior photo --data .data/bsds500/train .data/imagenet256 \
        --weights 0.7 0.3 --scales 0.4:1 0.5:1 --size 128 --out $OUT --seconds 520

Both runs see the same photos, noise and noise levels in the same order. The run lives in ``--run`` and goes on there;
every slice leaves ``prior.safetensors`` (averaged weights, float16), ``log.jsonl`` and ``settings.json`` in ``--out``.
``--toy`` is a rehearsal of seconds on a CPU. README.md beside this file has the commands of the shipped priors.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from workbench.data import Photos
from workbench.models import load_prior, save_prior
from workbench.solvers import MapByAdam
from workbench.trainers import MUPET, TrainSettings, train, training_card


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", required=True, help="prior to start from")
    parser.add_argument("--control", action="store_true", help="score matching alone")
    parser.add_argument("--data", nargs="+", required=True, help="photo sources")
    parser.add_argument("--weights", nargs="+", type=float)
    parser.add_argument("--scales", nargs="+", default=[], help="random zoom per source, as LOW:HIGH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="folder of the run; by default runs/mupet or runs/control")
    parser.add_argument("--alpha", type=float, default=0.003, help="1 for the squared loss as published")
    parser.add_argument("--map", choices=("gradient", "prox"), default="prox")
    parser.add_argument("--loss", choices=("squared", "absolute", "lpips", "effnet"), default="effnet")
    parser.add_argument("--fixed-point", choices=("adam", "prox"), default="prox")
    parser.add_argument("--levels", choices=("published", "log-uniform"), default="log-uniform")
    parser.add_argument("--sigma-max", type=float, help="of the levels; by default the prior's")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--seconds", type=float, default=500, help="length of this slice")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--toy", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    run = given.run or Path("runs") / ("control" if given.control else "mupet")
    given.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = given.control  # fixed points shrink their batch: each size would be tried anew
    steps, batch, often = (20, 4, 5) if given.toy else (given.steps, given.batch, 50)
    objective = MUPET(
        alpha=0.0 if given.control else given.alpha,
        fixed_point=MapByAdam() if given.fixed_point == "adam" else MUPET().fixed_point,
        map=given.map,
        loss=given.loss,
        levels=given.levels,
        sigma_max=given.sigma_max,
    )
    scales = [tuple(map(float, text.split(":"))) for text in given.scales]
    photos = Photos(
        given.data,
        size=given.size,
        batch_size=batch,
        weights=given.weights,
        scales=[(low, high) for low, high in scales] or (1.0, 1.0),
        preload=True,
        seed=1,  # another order than that of the first training
    )
    settings = TrainSettings(
        steps=steps,
        learning_rate=given.rate,
        warmup=min(200, steps // 5),
        schedule="constant",
        betas=(0.9, 0.999),
        ema_decay=given.ema,
        precision=given.precision,
        log_every=often,
        save_every=10 * often,
        workers=given.workers,
    )
    averaged, progress = train(
        load_prior(given.prior), objective, photos, settings, run, max_seconds=given.seconds, progress_bar=False
    )
    print(
        f"step {progress.step}/{steps}, {progress.images} images, {progress.seconds:.0f} s, lost {progress.lost_steps}"
    )
    print((run / "log.jsonl").read_text().splitlines()[-1])
    card = {
        "summary": f"{'score matching continued' if given.control else 'fine-tuned by MUPET'}, from {given.prior}",
        "from": given.prior,
        **training_card(progress, run, given.data),
    }
    save_prior(averaged, given.out / "prior.safetensors", card=card, dtype=torch.float16)
    for name in ("settings.json", "log.jsonl"):
        shutil.copy(run / name, given.out / name)


if __name__ == "__main__":
    main()
