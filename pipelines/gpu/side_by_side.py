"""Training runs side by side on one GPU: a trial tells the pace, then every group gets as many steps as fit.

    PYTHONPATH=.:.data/effnet python pipelines/gpu/side_by_side.py pipelines/gpu/pairs.yml --seconds 430 --out $OUT

The file names groups of runs of one job notebook. Runs of a group take the same number of steps, that of the slowest,
so that they can be compared. In ``--out`` there is then NAME.safetensors of every run, and ``logs.zip`` with what they
said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml

TOY = {"size": 32, "batch_size": 2, "workers": 0, "precision": "no"}
ENDLESS = 100_000  # steps of a trial, which its time ends


def settings_of(group: dict[str, Any], run: dict[str, Any], common: dict[str, Any], **more: Any) -> dict[str, Any]:
    return common | group.get("parameters", {}) | run | more


def start(notebook: str, settings: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    pairs = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "workbench.pipelines.script", f"notebooks/jobs/{notebook}.py", *pairs]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def side_by_side(file: dict[str, Any], folder: Path, seconds: float, steps: dict[str, int]) -> None:
    """All runs of all groups at once, until they end."""
    folder.mkdir(parents=True, exist_ok=True)
    running = {}
    for title, group in file["groups"].items():
        for name, run in group["runs"].items():
            more = {"steps": steps[title], "max_seconds": seconds, "folder": str(folder / name)}
            settings = settings_of(group, run or {}, file["common"], **more)
            running[name] = start(group["notebook"], settings, folder / f"{name}.txt")
    begun = time.monotonic()
    for name, process in running.items():
        if process.wait():
            print(f"{name} failed: {(folder / f'{name}.txt').read_text(errors='replace')[-600:]}", flush=True)
    print(f"{len(running)} runs, {time.monotonic() - begun:.0f} s", flush=True)


def progress_of(run: Path) -> dict[str, Any]:
    """Where the run stands: ``step`` and ``seconds``; 0 steps if it failed."""
    file = run / "checkpoint.pt"
    return dict(torch.load(file, weights_only=True)["progress"]) if file.is_file() else {"step": 0, "seconds": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--groups", nargs="+", help="of the file; all of them")
    parser.add_argument("--trial", type=float, default=25, help="seconds of training")
    parser.add_argument("--seconds", type=float, required=True, help="of training, after the trial")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true", help="rehearsal: small crops and batches, float32")
    arguments = parser.parse_args()
    file = yaml.safe_load(arguments.file.read_text())
    file["groups"] = {name: file["groups"][name] for name in arguments.groups or file["groups"]}
    if arguments.toy:
        for group in file["groups"].values():
            for name in group["runs"]:
                group["runs"][name] = (group["runs"][name] or {}) | TOY

    trial, real = Path("runs/trial"), Path("runs/side_by_side")
    shutil.rmtree(trial, ignore_errors=True)
    side_by_side(file, trial, arguments.trial, dict.fromkeys(file["groups"], ENDLESS))
    steps = {}
    for title, group in file["groups"].items():
        paces = {name: progress_of(trial / name) for name in group["runs"]}
        slowest = min(said["step"] / said["seconds"] for said in paces.values())
        steps[title] = max(10, int(slowest * arguments.seconds))
        trials = {name: f"{said['step']} steps in {said['seconds']:.0f} s" for name, said in paces.items()}
        print(title, trials, "->", steps[title])
    side_by_side(file, real, arguments.seconds, steps)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.out / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for text in [*real.rglob("*.txt"), *real.rglob("*.json*"), *trial.glob("*.txt")]:
            archive.write(text)
    for group in file["groups"].values():
        for name in group["runs"]:
            print(name, progress_of(real / name))
            if (weights := real / name / "prior.safetensors").is_file():
                shutil.copy(weights, arguments.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
