"""Memory of evaluating a large test set: `python benchmarks/sharded_memory.py COUNT`, in a process for each COUNT.

Runs notebooks/jobs/evaluate on COUNT random images of 16x16 pixels, with the pseudo-inverse and features of the size of
EfficientNet-Lite0's by a random projection: the networks would take hours, and no memory that grows. Prints the time,
the peak of what Python allocates (arrays of numpy too, not torch's), and how the process' own memory grew.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import matplotlib
import numpy as np
import torch

from workbench.evaluation import fid
from workbench.pipelines.script import run_script

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "jobs" / "evaluate.py"


def own_memory() -> float:
    """Of this process in MB, without files that are mapped."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


def main(count: int) -> None:
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if "efficientnet" in name else find(name, *rest)
    projection = torch.randn(768, 1280, generator=torch.Generator().manual_seed(0))
    fid.fid_unavailable = lambda: None
    fid._inception = lambda weights, device: lambda levels: levels.flatten(1).float() @ projection
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        np.save("photos.npy", np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8))
        given = ["photos=['photos.npy']", "size=16", "solver=pinv", "batch=100", "pictures=0"]
        run_script(NOTEBOOK, [*given, "count=200"])  # what is loaded once
        tracemalloc.start()
        before, started = own_memory(), time.perf_counter()
        run_script(NOTEBOOK, [*given, f"count={count}"])
        seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1] / 2**20
        print(
            f"{count} images: {seconds:.0f} s, Python's peak {peak:.1f} MB, own memory +{own_memory() - before:.1f} MB"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
