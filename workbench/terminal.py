"""What the command line shows: progress, scores, cards of priors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from workbench.solvers.base import Step


class Bar:
    """A progress bar over the steps of a solver, fed by its callback."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None  # drawn once there is a step: a solver may refuse its input

    def __call__(self, step: Step) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc=self._name, unit="step", total=step.total)
        self._bar.update(step.index - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def summary(records: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Scores and cost from the ``records`` of a restoration, one per sample."""
    from workbench.evaluation.metrics import METRICS, as_text

    record, samples = records[0], len(records)
    known = (metric for key, metric in METRICS.items() if record.get(key) is not None)
    scores = ", ".join(f"{metric.title} {as_text(record[metric.key], metric.key)}" for metric in known)
    count = record["evaluations"]
    cost = f"{count} network evaluation{'s' * (count != 1)}, {record['seconds']:.1f} s"
    none = record.get("psnr_reason", "no original to compare")
    scores = f"{scores or none}; {cost}" + (f"; sample 1 of {samples}" if samples > 1 else "")
    lines = [f"{scores}; written to {folder}"]
    if (share := record["mask_fills"]) is not None:
        inverted = share > 0.5 and record["operator"].startswith(("mask:", "oldphoto:"))
        lines.append(f"The mask fills {100 * share:.1f} % of the photo" + (": is it inverted?" if inverted else ""))
    if record["tile"] and count:
        lines.append(f"Denoised in tiles of {record['tile']} pixels that share {record['overlap']} (--tile)")
    return "\n".join(lines + ([f"Note: {record['message']}"] if record["message"] else []))


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """What a reader needs of a prior's card, in a few lines; the file holds the rest."""
    lines = [f"{card['name']}  {card.get('summary', '')}".rstrip()]
    lines += [f"    size: {card['megabytes']} MB"] if "megabytes" in card else []
    lines += [f"    {key}: {card[key]}" for key in ("data", "hardware") if key in card]
    if {"images", "steps", "seconds"} <= set(card):
        minutes = round(card["seconds"] / 60)
        time = f"{minutes} minute{'s' * (minutes != 1)}"
        lines.append(f"    training: {card['images']:,} images in {card['steps']:,} steps, {time}")
    for task, methods in card.get("restoration", {}).items():
        figures = (f"{name} {own['psnr']:.2f}" for name, own in methods.items())
        lines.append(f"    restorations, {task}: {', '.join(figures)} dB")
    measured = card.get("denoising_psnr")
    if measured:
        levels = ", ".join(map(str, measured["sigma_255"]))
        for photos, methods in measured["psnr"].items():
            for method in (name for name in ("this prior", "ffdnet", "bm3d") if name in methods):
                values = " / ".join(f"{value:.2f}" for value in methods[method])
                lines.append(f"    denoising {photos}, sigma {levels} of 255, {method}: {values} dB")
    return lines


def writable(out: Path) -> None:
    """Find out before the slow part whether results can be written, and leave nothing behind."""
    try:
        nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        probe = nearest / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise typer.BadParameter(f"cannot write to the folder {out} ({error.strerror})") from None
