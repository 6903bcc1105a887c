"""Measure a network of perceptual-tiny and ship it: weights with their card into the package, the page into docs.

    python scripts/publish_perceptual.py runs/perceptual/perceptual-tiny.safetensors --data ../shared/data

Every figure is measured here or recorded by the training run. ``--data`` holds ``tiny-imagenet/val.tar`` and
``bsds500/test``; neither is seen in training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from workbench.images import load_image
from workbench.metrics import psnr
from workbench.perceptual.distance import WEIGHTS, PerceptualTiny
from workbench.perceptual.distortions import DISTORTIONS, Distance, at_equal_error, ladder, rising
from workbench.perceptual.file import load_network, save_network
from workbench.perceptual.training import accuracy, labelled_photos

ROOT = Path(__file__).parents[1]
CROP = 96  # side of the BSDS500 crops
OFF_GRID = 3  # pixels cut off to leave the 8x8 blocks of the JPEG files


def photo_sets(data: Path, count: int) -> dict[str, Tensor]:
    """Held-out photos by size: the first ``count`` of val.tar (32 by halving) and centres of the first of BSDS500."""
    whole = labelled_photos([str(data / "tiny-imagenet" / "val.tar")])[0][:count].float() / 255
    files = sorted((data / "bsds500" / "test").glob("*.jpg"))[:count]
    crops = []
    for file in files:
        image = load_image(file)
        top, left = ((side - CROP) // 2 for side in image.shape[-2:])
        crops.append(image[..., top : top + CROP, left : left + CROP])
    inner = whole[..., OFF_GRID : -OFF_GRID - 1, OFF_GRID : -OFF_GRID - 1]
    return {
        "tiny-imagenet, 32": torch.nn.functional.avg_pool2d(whole, 2),
        "tiny-imagenet, 64": whole,
        f"tiny-imagenet, {inner.shape[-1]} (off the JPEG grid)": inner,
        f"BSDS500, {CROP}": torch.cat(crops),
    }


def measured(distance: Distance, sets: dict[str, Tensor]) -> dict:
    """Per set: per distortion the share that rises at every step and the mean distances; and those at equal error."""
    result = {}
    for name, images in sets.items():
        ladders = {
            kind: ladder(distance, images, distortion, strengths)
            for kind, (distortion, strengths) in DISTORTIONS.items()
        }
        equal = at_equal_error(images, distance)
        result[name] = {
            "photos": len(images),
            "rising": {kind: round(rising(values), 4) for kind, values in ladders.items()},
            "mean": {kind: [round(float(v), 4) for v in values.mean(dim=1)] for kind, values in ladders.items()},
            "equal_error": {
                "photos": len(equal["shift"]),
                "mean": {kind: round(float(values.mean()), 4) for kind, values in equal.items()},
                "shift_below_blur": round(float((equal["shift"] < equal["blur"]).double().mean()), 4),
                "shift_below_noise": round(float((equal["shift"] < equal["noise"]).double().mean()), 4),
                "psnr": round(float(at_equal_error(images, psnr)["shift"].mean()), 2),
            },
        }
    return result


def page(card: dict, megabytes: float, parameters: int) -> str:
    """The card as Markdown."""
    lines = ["# perceptual-tiny", ""]
    lines += ["How different two images look to a small classifier that this project trained. It has the form of LPIPS"]
    lines += ["(Zhang et al. 2018, eq. 1) without learned weights (uncalibrated), and it is **not LPIPS**: its values"]
    lines += ["compare restorations of the same photos with each other, and with nothing published. Smaller is closer;"]
    lines += ["0 is equal; images need sides of at least 16 pixels.", ""]
    lines += ["| fact | value |", "| --- | --- |"]
    lines += [f"| parameters | {parameters / 1e6:.2f} million, {megabytes:.2f} MB as float16 |"]
    lines += [f"| data | {card['data']} |"]
    lines += [f"| training | {card['images']:,} crops of {card['crops']}x{card['crops']}, {card['steps']:,} steps, "]
    lines[-1] += f"{card['seconds'] / 60:.0f} minutes, `notebooks/jobs/train_perceptual` |"
    lines += [f"| note | {card['note']} |"] if card.get("note") else []
    lines += [f"| hardware | {card['hardware']} |"] if card.get("hardware") else []
    lines += [f"| accuracy | {card['accuracy']:.1%} of {card['accuracy_photos']:,} validation photos 64x64, "]
    lines[-1] += f"{len(card['classes'])} classes |"
    lines += ["", "## Does it rank distortions by strength?", ""]
    lines += ["Share of held-out photos whose distance grows at every step from none to the strongest.", ""]
    kinds = list(DISTORTIONS)
    lines += ["| photos | number | " + " | ".join(kinds) + " |", "| --- | ---: |" + " ---: |" * len(kinds)]
    for name, figures in card["ranking"].items():
        shares = " | ".join(f"{figures['rising'][kind]:.0%}" for kind in kinds)
        lines += [f"| {name} | {figures['photos']} | {shares} |"]
    lines += [
        "",
        "The photos of tiny-imagenet are JPEG files themselves: compressing one again, in the same blocks and at",
    ]
    lines += [
        "about its own quality, can change it less than a higher quality does. The set off the grid avoids that.",
        "",
    ]
    lines += ["Mean distances:", ""]
    for kind, (_, strengths) in DISTORTIONS.items():
        lines += [f"| {kind} | " + " | ".join(map(str, strengths)) + " |", "| --- |" + " ---: |" * len(strengths)]
        for name, figures in card["ranking"].items():
            lines += [f"| {name} | " + " | ".join(f"{value:.3f}" for value in figures["mean"][kind]) + " |"]
        lines += [""]
    lines += ["## Is it more than an error of pixels?", ""]
    lines += [
        "Three distortions of equal mean squared error in each photo, that of a shift by one pixel: to PSNR they are"
    ]
    lines += ["the same. Photos that no blur changes as much are left out.", ""]
    lines += ["| photos | number | PSNR, dB | shift | noise | blur | shift below noise | shift below blur |"]
    lines += ["| --- |" + " ---: |" * 7]
    for name, figures in card["ranking"].items():
        equal = figures["equal_error"]
        values = " | ".join(f"{equal['mean'][kind]:.3f}" for kind in ("shift", "noise", "blur"))
        lines += [f"| {name} | {equal['photos']} | {equal['psnr']:.2f} | {values} | "]
        lines[-1] += f"{equal['shift_below_noise']:.0%} | {equal['shift_below_blur']:.0%} |"
    lines += ["", "Reproduce with `scripts/publish_perceptual.py`.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="photos of each set")
    parser.add_argument("--hardware", help="what it was trained on, one line")
    parser.add_argument("--note", help="what else a reader should know about the training, one line")
    arguments = parser.parse_args()

    network, card = load_network(arguments.weights)
    for key in ("hardware", "note"):
        card |= {key: getattr(arguments, key)} if getattr(arguments, key) else {}
    images, labels, _ = labelled_photos([str(arguments.data / "tiny-imagenet" / "val.tar")], card["classes"])
    distance = PerceptualTiny(arguments.weights)
    with torch.no_grad():
        card["ranking"] = measured(distance, photo_sets(arguments.data, arguments.count))
    card |= {"accuracy": round(accuracy(network, images, labels), 4), "accuracy_photos": len(labels)}
    save_network(network, WEIGHTS, card)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    text = page(card, WEIGHTS.stat().st_size / 1e6, parameters)
    target = ROOT / "docs" / "metrics" / "perceptual-tiny.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
