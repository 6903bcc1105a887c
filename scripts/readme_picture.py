"""Draw docs/images/quick.png, the README's picture, from the results of `make reproduce`.

.venv/bin/python scripts/readme_picture.py results/quick
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import torch
from torch.nn.functional import interpolate

from workbench.images import load_image
from workbench.plots import show

ROWS = {"sr:4": "cat", "blur:2": "astronaut", "inpaint:0.8": "coffee", "block:48": "rocket"}
NOISE, SIDE = 0.01, 128


def main(results: Path) -> None:
    matplotlib.use("Agg")
    columns: dict[str, list[torch.Tensor]] = {}
    notes: dict[str, list[str]] = {}
    for operator, photo in ROWS.items():
        for file in sorted(results.glob("jobs/restore-*/result.json")):
            for record in json.loads(file.read_text(encoding="utf-8"))["records"]:
                names = (record["operator"], record["photo"], record["noise"], record["size"])
                if names == (operator, photo, NOISE, [SIDE, SIDE]):
                    for kind in ("original", "degraded"):
                        pictures = columns.setdefault(kind, [])
                        if len(pictures) == len(columns.get(record["solver"], [])):
                            small = load_image(file.parent / record[kind])
                            pictures.append(interpolate(small, size=(SIDE, SIDE)))
                    columns.setdefault(record["solver"], []).append(load_image(file.parent / record["image"]))
                    notes.setdefault(record["solver"], []).append(f"{record['psnr']:.1f} dB")
    figure = show({kind: torch.cat(pictures) for kind, pictures in columns.items()}, list(ROWS), notes, height=1.55)
    target = Path(__file__).parents[1] / "docs" / "images" / "quick.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=80)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
