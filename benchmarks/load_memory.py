"""Peak memory of loading a checkpoint, over the size of its weights.

    python benchmarks/load_memory.py --width 128

Writes the DDPM network for 256x256 (114 million weights, 455 MB at width 128) in three formats and loads each in a
process of its own: peak resident memory while loading, less that before, over the size of the weights that were loaded.
Mapped files count as far as they were read. Linux only. Exits with 1 if one is above 1.3; files in half precision may
take 2: they are read beside the weights, which are twice their size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from workbench.models import DDPM, VPNoise, save_prior
from workbench.models.formats import KNOWN

CHILD = """
import json, re, sys
from workbench.models import load_prior
load_prior("photo")  # whatever is imported on the first use counts as before
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak starts from what is resident now
before = peak()
prior = load_prior(sys.argv[1], check=False)
print(json.dumps({"peak": peak() - before, "weights": sum(w.nbytes for w in prior.parameters())}))
"""


def peak(file: Path) -> float:
    """Peak over the size of the loaded weights, of one load in a new process."""
    run = subprocess.run([sys.executable, "-c", CHILD, str(file)], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout)
    return found["peak"] / found["weights"]


def write_files(folder: Path, width: int) -> dict[str, tuple[Path, float]]:
    """The same weights in several formats, each with its bar."""
    torch.manual_seed(0)
    config = next(known.config for known in KNOWN if known.title.startswith("DDPM 256"))
    net = DDPM(replace(config, width=width))
    state = net.state_dict()
    files = {
        "safetensors": (folder / "own.safetensors", 1.3),
        "safetensors, half": (folder / "half.safetensors", 2.0),
        "PyTorch": (folder / "plain.ckpt", 1.3),
        "PyTorch, with averages and optimiser": (folder / "run.pth", 1.3),
    }
    save_prior(VPNoise(net, multiple=net.multiple), files["safetensors"][0])
    save_prior(VPNoise(net, multiple=net.multiple), files["safetensors, half"][0], dtype=torch.float16)
    torch.save(state, files["PyTorch"][0])
    slots = {i: {"exp_avg": w, "exp_avg_sq": w * w} for i, w in enumerate(net.parameters())}
    average = {"shadow_params": [w.detach() + 1 for w in state.values()]}
    torch.save({"optimizer": {"state": slots}, "model": state, "ema": average, "step": 1}, files[list(files)[3]][0])
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128, help="of the network; 128 is the published one")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, bar) in write_files(Path(folder), options.width).items():
            ratio = peak(file)
            missed += ratio > bar
            print(f"{name:38}{file.stat().st_size / 1e6:8.0f} MB on disk, peak {ratio:5.2f} of the weights (bar {bar})")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
