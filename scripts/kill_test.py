"""Kill -9 at random moments: training and pipelines go on, and end with the results of a run that was never killed.

    .venv/bin/python scripts/kill_test.py --kills 50

Half of the kills hit the training of a tiny network (``notebooks/jobs/train_prior`` as a script), half hit
``workbench run`` on a pipeline that trains one and restores with it. After five, or if it ends before the next, a run
is left to end. Compared bit for bit are weights, losses, restored images, pictures and results (but for times). Also,
no job whose result was there before a kill may run again. Prints a table, one row per run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
SIZES = {"widths": [8, 8], "blocks": [1, 1], "size": 16, "batch_size": 2, "workers": 0}
STEPS = {"training": 300, "pipeline": 100}  # saved ten times, when a line of the log is complete, which is a mean
IN_A_ROW = 5


def training(what: str) -> dict[str, Any]:
    """The parameters of train_prior."""
    return {**SIZES, "steps": STEPS[what], "save_every": STEPS[what] // 10}


# Of results: times, which restorations were there already, and the hash of the prior's file, whose card has the time
# that its training took. The rest must be equal.
OTHERWISE = {"finished", "seconds", "waiting", "cells", "commit", "prior_source"}
PIPELINE = f"""
name: killed
title: A pipeline that is killed
jobs:
- {{notebook: train_prior, name: train, parameters: {json.dumps(training("pipeline"))}}}
- notebook: restore
  needs: [train]
  parameters:
    {{photos: ["cat:32", "astronaut:32"], methods: [pinv, ddnm], settings: {{ddnm: {{steps: 10}}}}, prior: "job:train"}}
"""


def bare(content: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(content, dict):
        return {key: bare(value) for key, value in content.items() if key not in OTHERWISE}
    return [bare(each) for each in content] if isinstance(content, list) else content


def digest(file: Path) -> str:
    """A hash of what a file says: of tensors, of JSON without times, else of its bytes."""
    if file.suffix == ".safetensors":
        said: Any = {name: [str(t.dtype), t.double().tolist()] for name, t in sorted(load_file(file).items())}
    elif file.suffix in (".json", ".jsonl"):
        text = file.read_text(encoding="utf-8")
        said = bare([json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text))
    else:
        said = file.read_bytes().hex()
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of all files that hold results, by their paths in ``folder``; restored images by what they are."""
    kinds = ("prior.safetensors", "log.jsonl", "result.json", "cells/*.safetensors", "jobs/*/*.png")
    files = {file: digest(file) for kind in kinds for file in folder.rglob(kind) if not file.name.startswith(".")}
    return {
        said if file.parent.name == "cells" else str(file.relative_to(folder)): said for file, said in files.items()
    }


def done(folder: Path) -> dict[str, int]:
    """When the results that are there were written, in ns."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("jobs/*/result.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["training", "pipeline"])
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    good = True
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "killed.yaml").write_text(PIPELINE, encoding="utf-8")
        settings = [f"{key}={value!r}" for key, value in training("training").items()]
        notebooks = ROOT / "notebooks" / "jobs"
        script = [sys.executable, "-m", "workbench.pipelines.script", str(notebooks / "train_prior.py")]
        run = [sys.executable, "-m", "workbench", "run", str(home / "killed.yaml"), "--out", "out"]
        run += ["--workers", "2", "--notebooks", str(notebooks)]
        print(f"{'':9} {'run':>3}  {'killed after (s)':34} {'files':>5}  equal  done jobs kept")
        for what, command in {"training": [*script, *settings], "pipeline": run}.items():
            if arguments.only not in (None, what):
                continue
            (wanted, seconds, _), number = execute(command, home / what), 0
            print(f"{what:9} {number:3}  {f'not: it took {seconds:.0f} s':34} {len(wanted):5}", flush=True)
            left = arguments.kills // 2
            while left > 0:
                number += 1
                folder, kills, kept = home / f"{what}{number}", [], True
                for _ in range(min(left, IN_A_ROW)):
                    before, moment = done(folder / "out"), moments.uniform(0, seconds)
                    if execute(command, folder, moment)[2]:
                        break
                    kills.append(moment)
                    kept = kept and before.items() <= done(folder / "out").items()
                before, found = done(folder / "out"), execute(command, folder)[0]
                kept = kept and before.items() <= done(folder / "out").items()
                left -= len(kills)
                good = good and kept and found == wanted
                said = ", ".join(f"{moment:.1f}" for moment in kills)
                print(f"{what:9} {number:3}  {said:34} {len(found):5}  {found == wanted!s:5}  {kept}", flush=True)
                for file in sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
                    print(f"{'':9}      differs: {file}", flush=True)
    print("nothing lost, everything equal" if good else "DIFFERENT")
    sys.exit(not good)


def execute(command: list[str], folder: Path, moment: float | None = None) -> tuple[dict[str, str], float, int]:
    """Run ``command`` in ``folder`` to its end, or kill it after ``moment`` seconds.

    Returns:
        What is there then, how long it took, and 1 if it came to its end.
    """
    folder.mkdir(exist_ok=True)
    begun = time.monotonic()
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return {}, moment or 0.0, 0
    if code:
        raise RuntimeError(f"exit code {code}: {(folder / 'output.txt').read_text(errors='replace')[-2000:]}")
    return digests(folder), time.monotonic() - begun, 1


if __name__ == "__main__":
    main()
