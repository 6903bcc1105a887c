"""Measure a trained prior and ship it: weights with their card into the package, the card's page into docs/priors.

    python scripts/publish_prior.py runs/photo-dsm/prior.safetensors --name photo-dsm --data ../shared/data

Everything in the card is measured here or recorded by the training run. ``--data`` holds ``bsds500/test`` and ``set5``
(benchmarks/denoising.py says how they are used); neither is seen in training. ``--log`` takes the run's ``log.jsonl``
and adds the curves of what it logged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from torchvision.utils import save_image

from workbench.models import load_prior, save_prior
from workbench.random import generator
from workbench.solvers import DDIM

ROOT = Path(__file__).parents[1]


def measured(weights: Path, data: Path, crops: int, classical: Path | None) -> dict:
    """PSNR per set, method and level, by the benchmark script; the classical methods' from ``classical`` if given."""
    output = weights.with_suffix(".denoising.json")
    script = str(ROOT / "benchmarks" / "denoising.py")
    command = [sys.executable, script, "--prior", str(weights), "--data", str(data), "--crops", str(crops)]
    if classical is not None:
        command.append("--no-classical")
    subprocess.run([*command, "--json", str(output)], check=True)
    result = json.loads(output.read_text())
    if classical is not None:
        known = json.loads(classical.read_text())
        if known["crops"] != crops:
            raise SystemExit(f"{classical} was measured on {known['crops']} crops, not {crops}")
        for group, methods in known["psnr"].items():
            result["psnr"][group] |= methods
    for methods in result["psnr"].values():
        methods["this prior"] = methods.pop(str(weights))
    return result


def page(name: str, card: dict, megabytes: float, parameters: int) -> str:
    """The card as Markdown."""
    denoising = card["denoising_psnr"]
    levels = denoising["sigma_255"]
    lines = [
        f"# {name}",
        "",
        card["summary"],
        "",
        "| fact | value |",
        "| --- | --- |",
        f"| parameters | {parameters / 1e6:.2f} million, {megabytes:.2f} MB as float16 |",
        f"| data | {card['data']} |",
        f"| training | {card['images']:,} images, {card['steps']:,} steps, {card['seconds'] / 60:.0f} minutes |",
        f"| hardware | {card['hardware']} |",
        "",
        "## Denoising, PSNR in dB",
        "",
        f"BSDS500: {denoising['crops']} test crops of 128x128 (the centres of the first test photos by name). "
        "Set5: whole images. The same noise for every method; all are told its level. "
        "Reproduce with `benchmarks/denoising.py`.",
        "",
    ]
    if "note" in card:
        lines[3:3] = ["", card["note"]]
    for group, methods in denoising["psnr"].items():
        lines += [f"| {group} | " + " | ".join(f"σ = {level}/255" for level in levels) + " |"]
        lines += ["| --- |" + " ---: |" * len(levels)]
        ordered = sorted(methods.items(), key=lambda item: item[0] != "this prior")
        lines += [
            f"| {method} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for method, values in ordered
        ]
        lines += [""]
    lines += ["## The noisy end", "", f"DDIM samples, 100 steps, seed 0: ![samples]({name}-samples.png)", ""]
    return "\n".join(lines)


def curves(log: Path, target: Path) -> None:
    """A picture of the logged values against the number of images."""
    import matplotlib.pyplot as plt

    lines = [json.loads(text) for text in log.read_text().splitlines()]
    titles = {
        "loss": "loss",
        "dsm": "score matching (eq. 5)",
        "map": "fixed points (eq. 9)",
        "evaluations": "evaluations per fixed point",
        "converged": "share of fixed points converged",
    }
    shown = [name for name in titles if name in lines[-1] and not (name == "loss" and "dsm" in lines[-1])]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 2.8), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], shown, strict=True):
        axis.plot([line["images"] / 1000 for line in lines], [line[name] for line in lines], linewidth=1)
        axis.set(title=titles[name], xlabel="thousand images")
        axis.title.set_fontsize(10)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--summary", help="one line; default: the one in the file")
    parser.add_argument("--crops", type=int, default=40)
    parser.add_argument("--classical", type=Path, help="JSON of benchmarks/denoising.py without priors, to save time")
    parser.add_argument("--size", type=int, default=32, help="side of the samples")
    parser.add_argument(
        "--trained-on", help="the training photos in words; default: the sources as the run was given them"
    )
    parser.add_argument("--note", help="a paragraph for the card")
    parser.add_argument("--log", type=Path, help="log.jsonl of the training run, for its curves")
    arguments = parser.parse_args()

    prior = load_prior(arguments.weights)
    card = dict(prior.card)
    card["summary"] = arguments.summary or card["summary"]
    if arguments.trained_on:
        card["data"] = arguments.trained_on
    if arguments.note:
        card["note"] = arguments.note
    card["denoising_psnr"] = measured(arguments.weights, arguments.data, arguments.crops, arguments.classical)
    target = ROOT / "workbench" / "models" / "weights" / f"{arguments.name}.safetensors"
    save_prior(prior, target, card=card, dtype=torch.float16)
    docs = ROOT / "docs" / "priors"
    docs.mkdir(parents=True, exist_ok=True)
    samples = DDIM(steps=100)(prior, (36, prior.channels, arguments.size, arguments.size), generator=generator(0)).image
    enlarged = torch.nn.functional.interpolate(samples.clamp(0, 1), scale_factor=3, mode="nearest")
    save_image(enlarged, docs / f"{arguments.name}-samples.png", nrow=6, padding=4, pad_value=1)
    parameters = sum(parameter.numel() for parameter in prior.parameters())
    text = page(arguments.name, card, target.stat().st_size / 1e6, parameters)
    if arguments.log is not None:
        curves(arguments.log, docs / f"{arguments.name}-training.png")
        text += f"\n## Training\n\n![curves]({arguments.name}-training.png)\n"
    (docs / f"{arguments.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
