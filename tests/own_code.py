"""Code as somebody outside the package writes it: a solver, operators and priors in a working directory."""

import hashlib
from pathlib import Path

import pytest

from workbench.images import sample_photo, save_image

DAPS = """
from __future__ import annotations

from dataclasses import dataclass

import torch

from helpers_of_mine import halved
from workbench.limits import Count, Positive
from workbench.solvers import Iterate, Sampler


@dataclass(frozen=True)
class Mine(Sampler):
    steps: Count = 4
    trust: Positive = 0.5
    kind: torch.dtype = torch.float32

    def iterate(self, p):
        levels = p.levels("vp", self.steps)
        x = p.grey + levels[0] * p.draw(p.grey)
        for sigma, below in zip(levels[:-1], levels[1:]):
            clean = p.op.prox(p.prior(x, sigma), p.y, halved(2 * self.trust))
            x = clean + below * p.draw(clean)
            yield Iterate(x, sigma, clean, self.steps)
"""

# Fails on photos that are dark on average.
FAILING = """
from dataclasses import dataclass, replace

from workbench.solvers import PseudoInverse


@dataclass(frozen=True)
class Failing(PseudoInverse):
    darkest: float = 0.4

    def run(self, p, callback=None):
        found = super().run(p, callback)
        image = found.image.clone()
        image[image.mean((1, 2, 3)) < self.darkest, 0, 0, 0] = float("nan")
        return replace(found, image=image)
"""

OTHERS = '''
import torch

from workbench.models import GaussianPrior, PlainDenoiser
from workbench.operators import FunctionOperator, Inpainting, Operator

mask = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
half = Inpainting(mask)
number = 3


def every_second(shape):
    """Every second column."""
    return lambda x: x[..., ::2]


def lines(shape):
    return FunctionOperator(lambda x: x.diff(dim=-1), shape)


def grey(sigma_max: float = 500.0):
    return GaussianPrior(torch.full((3, 32, 32), 0.04), torch.full((3,), 0.5), sigma_max=sigma_max)


def shipped():
    return "photo-ddpm"


def fails(shape):
    a = 1
    raise RuntimeError("no\\nway")
'''


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A working directory with a photo and code of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helpers_of_mine.py").write_text("def halved(x):\n    return x / 2\n")
    (tmp_path / "my.py").write_text(DAPS)
    (tmp_path / "others.py").write_text(OTHERS)
    save_image(sample_photo("cat", 32), "cat.png")
    return tmp_path


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
