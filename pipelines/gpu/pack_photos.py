"""Gather the training photos that a GPU job takes along, in the layout of ``--data``, as files without tar shards.

    python pipelines/gpu/pack_photos.py --data ../shared/data --out .data --thumbnails 1000

BSDS500 ``train`` only: ``val`` holds CBSD68, and ``test`` is what priors are measured on.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--thumbnails", type=int, default=1000)
    arguments = parser.parse_args()

    for part in ("bsds500/train", "imagenet256", "bedroom256"):
        shutil.copytree(arguments.data / part, arguments.out / part, dirs_exist_ok=True)
    thumbnails = arguments.out / "tiny-imagenet"
    thumbnails.mkdir(parents=True, exist_ok=True)
    left = arguments.thumbnails
    for shard in sorted((arguments.data / "tiny-imagenet").glob("train-*.tar")):
        with tarfile.open(shard) as archive:
            names = [name for name in archive.getnames() if name.endswith(".jpg")][:left]
            left -= len(names)
            for name in names:
                content = archive.extractfile(name)
                assert content is not None
                (thumbnails / Path(name).name).write_bytes(content.read())
    files = [file for file in arguments.out.rglob("*") if file.is_file()]
    print(f"{len(files)} photos, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
