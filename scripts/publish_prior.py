"""Measure a trained prior and ship it: weights with their card into the package, the card's page into docs/priors.

    python scripts/publish_prior.py runs/photo/prior.safetensors --name photo --data ../shared/data

Everything in the card is measured here or recorded by the training run. ``--data`` holds ``bsds500/val``,
``bsds500/test`` and ``set5``, ``--folder`` further photos (Kodak24): benchmarks/denoising.py says how they are used. A
set that the training saw, by the card's text on its data, gets no figures. ``--log`` takes the run's ``log.jsonl`` and
adds the curves of what it logged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.utils import save_image

from workbench.models import load_prior, save_prior
from workbench.models.files import read_weights
from workbench.models.prior import Prior
from workbench.random import generator
from workbench.solvers import DDIM, Consistency

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import denoising  # noqa: E402
from ffdnet import FFDNet  # noqa: E402
from timing import times  # noqa: E402

# PSNR in dB at sigma = 15, 25 and 50 of 255: Zhang et al. 2018 (FFDNet), Zhang et al. 2021 (DPIR, DRUNet).
PUBLISHED = {
    "cbsd68": {"CBM3D": (33.52, 30.71, 27.38), "FFDNet": (33.87, 31.21, 27.96), "DRUNet": (34.30, 31.69, 28.51)},
    "kodak24": {"FFDNet": (34.63, 32.13, 28.98), "DRUNet": (35.31, 32.89, 29.86)},
}
COUNTS = {"cbsd68": 68, "kodak24": 24}  # the papers' figures are means over so many photos
TITLES = {"cbsd68": "CBSD68", "bsds500-test": "BSDS500 test", "set5": "Set5", "kodak24": "Kodak24"}
LABELS = {"ffdnet": "FFDNet", "bm3d": "BM3D"}
NOTE = (
    "PSNR of whole photos, mean, without rounding. The same noise for all rows that are not marked as published; every "
    "method is told its level, networks compute in float32. FFDNet: the public weights of IPOL 2019, not those of the "
    "published rows. Reproduce with `benchmarks/denoising.py`."
)


def measured(prior: Prior, data: Path, folders: Sequence[Path], count: int | None) -> dict:
    """The card's entry on denoising: PSNR per set, row and level; FFDNet and BM3D from the stored measurements."""
    files = denoising.photos(data, folders, count=count)
    rows = denoising.score("this prior", prior, files) + denoising.read(denoising.CLASSICAL)
    entry: dict = {"sigma_255": denoising.LEVELS, "images": {}, "psnr": {}, "less_ffdnet": {}}
    for group in files:
        own = denoising.values(rows, group, "this prior")
        if not own:
            continue
        entry["images"][group] = len(own)
        entry["psnr"][group] = {"this prior": _mean(own.values())}
        for method in denoising.CLASSICAL_METHODS:
            known = denoising.values(rows, group, method)
            both = [image for image in own if image in known]
            part = "" if len(both) == len(own) else f", {len(both)} of the photos"
            if both:
                entry["psnr"][group][method + part] = _mean([known[image] for image in both])
            if both and part:
                entry["psnr"][group]["this prior" + part] = _mean([own[image] for image in both])
        gaps = denoising.difference(rows, group, "this prior", "ffdnet")
        entry["less_ffdnet"][group] = [[_rounded(value) for value in (gap.mean, gap.low, gap.high)] for gap in gaps]
    return entry | {"seconds": seconds(prior)}


def seconds(prior: Prior) -> dict[str, float]:
    """Processor time per photo of 481x321 on one thread, prior and FFDNet in turn; its weights do not change that."""
    torch.set_num_threads(1)
    photo = np.random.default_rng(0).random((321, 481, 3))
    net, ours = FFDNet().fused(), denoising.network(prior)
    pair = (lambda: ours(photo, 0.1), lambda: denoising.on_tensors(net, photo, 0.1))
    taken = times(pair, rounds=5, budget=60, clock=time.process_time)
    return {name: round(value, 2) for name, value in zip(("this prior", "ffdnet"), taken, strict=True)}


def _mean(values: Sequence[Sequence[float]]) -> list[float]:
    return [round(float(value), 2) for value in np.mean(list(values), axis=0)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def page(name: str, card: dict, megabytes: float, parameters: int, stored: str = "float16") -> str:
    """The card as Markdown."""
    measures = card["denoising_psnr"]
    taken = measures["seconds"]
    ratio = taken["this prior"] / taken["ffdnet"]
    lines = [f"# {name}", "", card["summary"], ""]
    lines += [card["note"], ""] if "note" in card else []
    lines += [
        "| fact | value |",
        "| --- | --- |",
        f"| parameters | {parameters / 1e6:.2f} million, {megabytes:.2f} MB as {stored} |",
        f"| data | {card['data']} |",
        f"| training | {card['images']:,} images, {card['steps']:,} steps, {card['seconds'] / 60:.0f} minutes |",
        f"| hardware | {card['hardware']} |",
        f"| time | {taken['this prior']:.1f} s per photo of 481x321 on one thread, {ratio:.1f} times FFDNet's |",
        "",
        "## Denoising, PSNR in dB",
        "",
        NOTE,
        "",
    ]
    for group in measures["psnr"]:
        lines += [*table(group, measures), ""]
    lines += ["## The noisy end", "", f"DDIM samples, 100 steps, seed 0: ![samples]({name}-samples.png)", ""]
    return "\n".join(lines)


def table(group: str, measures: dict) -> list[str]:
    """One set: what was measured, the difference to FFDNet, and what papers give."""
    levels = measures["sigma_255"]
    title = f"{TITLES.get(group, group)}, {measures['images'][group]} photos"
    lines = [f"| {title} | " + " | ".join(f"σ = {level}/255" for level in levels) + " |"]
    lines += ["| --- |" + " ---: |" * len(levels)]
    for method, values in measures["psnr"][group].items():
        own, comma, part = method.partition(",")
        lines += [f"| {LABELS.get(own, own)}{comma}{part} | " + " | ".join(f"{value:.2f}" for value in values) + " |"]
    gaps = measures["less_ffdnet"][group]
    if gaps:
        cells = [f"{mean:+.2f}" + ("" if low is None else f" ({low:+.2f} to {high:+.2f})") for mean, low, high in gaps]
        lines += ["| this prior less FFDNet, 95 % interval | " + " | ".join(cells) + " |"]
    complete = measures["images"][group] == COUNTS.get(group)
    for method, values in PUBLISHED[group].items() if complete else ():
        known = dict(zip((15, 25, 50), values, strict=True))
        cells = [f"{known[level]:.2f}" if level in known else "" for level in levels]
        lines += [f"| {method}, published | " + " | ".join(cells) + " |"]
    return lines


def curves(log: Path, target: Path) -> None:
    """A picture of the logged values against the number of images."""
    import matplotlib.pyplot as plt

    lines = [json.loads(text) for text in log.read_text().splitlines()]
    titles = {
        "loss": "loss",
        "dsm": "score matching (eq. 5)",
        "map": "fixed points (eq. 9)",
        "equilibrium": "squared error at the equilibria",
        "evaluations": "evaluations per fixed point",
        "converged": "share of fixed points converged",
        "generator/squared": "squared error",
        "generator/perceptual": "EfficientNet-Lite0",
        "generator/fooling": "fooling the discriminator",
        "discriminator/certainty": "certainty of the discriminator",
    }
    shown = [
        name
        for name in titles
        if name in lines[-1] and not (name == "loss" and {"dsm", "equilibrium"} & set(lines[-1]))
    ]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 2.8), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], shown, strict=True):
        axis.plot([line["images"] / 1000 for line in lines], [line[name] for line in lines], linewidth=1)
        axis.set(title=titles[name], xlabel="thousand images")
        axis.title.set_fontsize(10)
    figure.savefig(target, dpi=110)


def samples(prior: Prior, size: int, target: Path) -> None:
    """A picture of 16 samples from nothing, twice as large."""
    made = DDIM(steps=100)(prior, (16, prior.channels, size, size), generator=generator(0)).image
    enlarged = torch.nn.functional.interpolate(made.clamp(0, 1), scale_factor=2, mode="nearest")
    save_image(enlarged, target, nrow=8, padding=4, pad_value=1)


def publish_few_step(arguments: argparse.Namespace, prior: Prior) -> None:
    """Ship a consistency model or an unfolded network; its figures are restorations (``benchmarks/few_step.py``)."""
    given = {"summary": arguments.summary, "data": arguments.trained_on, "note": arguments.note}
    card = dict(prior.card) | {key: text for key, text in given.items() if text}
    if arguments.figures is not None:
        found = json.loads(arguments.figures.read_text())
        card["restoration"] = {
            task: {
                name: {key: round(float(np.mean(values)), 3) for key, values in own.items()}
                for name, own in methods.items()
            }
            for task, methods in found.items()
        }
        card["restoration_photos"] = len(next(iter(next(iter(found.values())).values()))["psnr"])
    target = ROOT / "workbench" / "models" / "weights" / f"{arguments.name}.safetensors"
    if prior.kind == "consistency":
        save_prior(prior, target, card=card, base=arguments.base)
    else:
        tensors, metadata = read_weights(arguments.weights)
        header = json.loads(metadata["workbench"]) | {"card": card}
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, target, {"workbench": json.dumps(header)})
    docs = ROOT / "docs" / "priors"
    size = target.stat().st_size / 1e6
    lines = [f"# {arguments.name}", "", card["summary"], "", card.get("note", ""), ""]
    lines += ["| fact | value |", "| --- | --- |", f"| file | {size:.2f} MB, on top of {arguments.base} |"]
    lines += [f"| data | {card['data']} |"]
    lines += [f"| training | {card['images']:,} images, {card['steps']:,} steps, {card['seconds'] / 60:.0f} minutes |"]
    lines += [f"| hardware | {card['hardware']} |", ""]
    if "restoration" in card:
        lines += [f"## Restorations, {card['restoration_photos']} crops of 64x64 of BSDS500 test", ""]
        lines += ["PSNR in dB / distance of EfficientNet-Lite0 / Lite2 (smaller is closer; not LPIPS).", ""]
        names = list(next(iter(card["restoration"].values())))
        lines += ["| task | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
        for task, methods in card["restoration"].items():
            cells = [f"{own['psnr']:.2f} / {own['lite0']:.2f} / {own['lite2']:.2f}" for own in methods.values()]
            lines += [f"| {task} | " + " | ".join(cells) + " |"]
        lines += [""]
    if prior.kind == "consistency":
        made = torch.cat([Consistency(steps=k)(prior, (8, 3, 64, 64), generator=generator(0)).image for k in (1, 2, 4)])
        save_image(made.clamp(0, 1), docs / f"{arguments.name}-samples.png", nrow=8, padding=4, pad_value=1)
        lines += ["## Samples", "", "Images out of noise, one jump, two and four (rows), seed 0:", ""]
        lines += [f"![samples]({arguments.name}-samples.png)", ""]
    if arguments.log is not None:
        curves(arguments.log, docs / f"{arguments.name}-training.png")
        lines += ["## Training", "", f"![curves]({arguments.name}-training.png)", ""]
    (docs / f"{arguments.name}.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="further photos to measure on")
    parser.add_argument("--images", type=int, help="photos per set, the first by name; default: all")
    parser.add_argument("--summary", help="one line; default: the one in the file")
    parser.add_argument("--size", type=int, default=64, help="side of the samples")
    parser.add_argument(
        "--trained-on", help="the training photos in words; default: the sources as the run was given them"
    )
    parser.add_argument("--base", help="a shipped prior: only the difference to its weights is stored")
    parser.add_argument("--note", help="a paragraph for the card")
    parser.add_argument("--figures", type=Path, help="of benchmarks/few_step.py, for what is no denoiser")
    parser.add_argument("--log", type=Path, help="log.jsonl of the training run, for its curves")
    arguments = parser.parse_args()

    prior = load_prior(arguments.weights)
    if prior.kind != "denoiser":
        publish_few_step(arguments, prior)
        return
    given = {"summary": arguments.summary, "data": arguments.trained_on, "note": arguments.note}
    card = prior.card = dict(prior.card) | {key: text for key, text in given.items() if text}
    target = ROOT / "workbench" / "models" / "weights" / f"{arguments.name}.safetensors"
    save_prior(prior, target, card=card, dtype=torch.float16, base=arguments.base)
    prior = load_prior(target)  # what is measured is what is shipped
    card["denoising_psnr"] = measured(prior, arguments.data, arguments.folder, arguments.images)
    save_prior(prior, target, card=card, dtype=torch.float16, base=arguments.base)
    docs = ROOT / "docs" / "priors"
    docs.mkdir(parents=True, exist_ok=True)
    samples(prior, arguments.size, docs / f"{arguments.name}-samples.png")
    parameters = sum(parameter.numel() for parameter in prior.parameters())
    stored = f"a difference to {arguments.base}" if arguments.base else "float16"
    text = page(arguments.name, card, target.stat().st_size / 1e6, parameters, stored)
    if arguments.log is not None:
        curves(arguments.log, docs / f"{arguments.name}-training.png")
        text += f"\n## Training\n\n![curves]({arguments.name}-training.png)\n"
    (docs / f"{arguments.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
