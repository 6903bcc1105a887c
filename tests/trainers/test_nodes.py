"""Training on two machines by the command in the docs: here two torchruns of one process each, on the CPU."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipelines.small_project import ROOT
from tests.trainers.small_run import small_prior
from workbench.models import load_prior, save_prior

SMALL = ["prior=mine.safetensors", "alpha=0.0", "size=8", "steps=4", "workers=0", 'data=["photos.npy"]']
DOCS = (ROOT / "docs" / "sharded_evaluation.md").read_text(encoding="utf-8")


def run(folder: Path, *commands: list[str]) -> None:
    """Run the commands side by side to their ends."""
    given = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    given |= {"MPLBACKEND": "Agg"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command, cwd=folder, env=given, **pipe) for command in commands]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(commands), "\n".join(said)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        return int(opened.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With photos and a prior."""
    folder = tmp_path_factory.mktemp("nodes")
    np.save(folder / "photos.npy", np.random.default_rng(0).integers(0, 256, (32, 12, 12, 3), np.uint8))
    torch.manual_seed(0)
    save_prior(small_prior(), folder / "mine.safetensors")
    return folder


def test_the_documented_command_trains_on_two_machines(folder):
    text = re.search(r"^torchrun (.*?)^```", DOCS, re.M | re.S)[1].replace("\\\n", " ")
    for old, new in (("FIRST_MACHINE:29500", f"localhost:{free_port()}"), ("--nproc-per-node 4", "--nproc-per-node 1")):
        assert old in text
        text = text.replace(old, new)
    launch = shlex.split(text[: text.index("notebooks/jobs")])
    command = [sys.executable, "-m", "torch.distributed.run", *launch, f"{ROOT}/notebooks/jobs/train_mupet.py", *SMALL]
    command += ["batch_size=2", "folder=two"]
    run(folder, command, command)
    assert load_prior(folder / "two" / "prior.safetensors").card["images"] == 16
