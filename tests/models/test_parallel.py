"""A network call spread over devices and over processes gives what one gives, and DeqIR with it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workbench.models import SharedPrior, SplitPrior, load_prior
from workbench.models.wrappers import existing_device
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.solvers import DeqIR

Y = torch.rand(3, 3, 8, 8, generator=generator(1))
SCRIPT = """
import sys
import torch
import torch.distributed as dist
from workbench.models import SharedPrior, load_prior
from workbench.operators import parse_operator
from workbench.random import generator
from workbench.solvers import DeqIR

dist.init_process_group("gloo")
prior = SharedPrior(load_prior("photo"))
asked = [0]
inner = prior.prior.denoise
def count(x, sigma):
    asked[0] += len(x)
    return inner(x, sigma)
prior.prior.denoise = count
y = torch.load(sys.argv[1])
result = DeqIR(7, 4)(y, parse_operator("sr:2", (3, 16, 16)), prior, generator=generator(0))
torch.save((result.image, result.evaluations, asked[0], prior.name), f"{sys.argv[2]}/{dist.get_rank()}.pt")
dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path: Path):
    y, prior = Y, load_prior("photo")
    expected = DeqIR(7, 4)(y, parse_operator("sr:2", (3, 16, 16)), prior, generator=generator(0))
    torch.save(y, tmp_path / "y.pt")
    (tmp_path / "run.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(tmp_path / "run.py"), str(tmp_path / "y.pt"), str(tmp_path)]
    subprocess.run([sys.executable, *launch, *arguments], check=True, capture_output=True, timeout=120)
    total = 0
    for rank in range(2):
        image, evaluations, asked, name = torch.load(tmp_path / f"{rank}.pt")
        # Batches of another size take other convolution routines: float32 rounding.
        torch.testing.assert_close(image, expected.image, atol=1e-5, rtol=0)
        assert torch.equal(evaluations, expected.evaluations)
        assert name == "photo in 2 processes"
        total += asked
    # The work was shared: together as much as one process does, and not twice that.
    assert total == int(expected.evaluations.sum())


@pytest.mark.parametrize("count", [1, 3])
def test_devices_share_a_batch(count):
    y, prior, op = Y, load_prior("photo"), parse_operator("sr:2", (3, 16, 16))
    expected = DeqIR(7, 4)(y, op, prior, generator=generator(0)).image
    split = SplitPrior(prior, ["cpu"] * count)
    torch.testing.assert_close(DeqIR(7, 4)(y, op, split, generator=generator(0)).image, expected, atol=1e-5, rtol=0)
    # Fewer images than devices, and the same answer to each image.
    x, sigma = torch.rand(2, 3, 16, 16, generator=generator(2)), torch.tensor([0.1, 2.0])
    torch.testing.assert_close(split(x, sigma), prior(x, sigma), atol=1e-5, rtol=0)
    for name in ("sigma_min", "sigma_max", "channels", "multiple", "image_size", "card", "trained_size"):
        assert getattr(split, name) == getattr(prior, name)


def test_devices_that_do_not_exist_are_refused():
    prior = load_prior("photo")
    absent = f"cuda:{torch.cuda.device_count()}"
    for device in (absent, "gpu", "meta"):
        with pytest.raises(ValueError, match=f"device '{re.escape(device)}' cannot be used .*; there are cpu"):
            SplitPrior(prior, ["cpu", device])
    with pytest.raises(ValueError, match=r"device 'mps' cannot be used \(it has no float64\); there are cpu"):
        existing_device("mps")
    with pytest.raises(ValueError, match="at least one device"):
        SplitPrior(prior, [])
    with pytest.raises(RuntimeError, match=r"start torch\.distributed first"):
        SharedPrior(prior)
