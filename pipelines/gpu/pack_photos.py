"""Gather the training photos that a GPU job takes along: BSDS500 (train, val) and box-filtered 32x32 thumbnails.

python pipelines/gpu/pack_photos.py --data ../shared/data --out .data --thumbnails 8000
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path

import numpy as np

from workbench.data import open_source
from workbench.data.sources import TarShards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--thumbnails", type=int, default=8000)
    arguments = parser.parse_args()

    photos = arguments.out / "bsds"
    photos.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        for file in sorted((arguments.data / "bsds500" / part).glob("*.jpg")):
            shutil.copy(file, photos / file.name)
    shards = open_source(str(arguments.data / "tiny-imagenet" / "train-*.tar"))
    assert isinstance(shards, TarShards)
    # Halving by averaging 2x2 pixels removes the JPEG blocks of the 64x64 originals.
    halves = [
        decode().reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
        for _, decode in itertools.islice(shards.stream(0, 0), arguments.thumbnails)
    ]
    np.save(arguments.out / "thumbnails.npy", np.stack(halves))
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{len(list(photos.iterdir()))} photos and {len(halves)} thumbnails, {size / 1e6:.1f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
