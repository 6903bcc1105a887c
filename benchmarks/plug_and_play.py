"""``hqs`` and ``admm`` beside DPIR and ADMM of deepinv 0.5.0: one denoiser, one operator, the same parameters.

    python benchmarks/plug_and_play.py --ffdnet ffdnet_weights_rgb.pth --kernels ../shared/data/levin09.npz

The denoiser is FFDNet with its published weights (``ffdnet.py`` says where they are), else DRUNet of deepinv with
random weights. Prints the largest difference of the restored images, and processor time per iteration, ours over
theirs, in turns in one process. Without ``--kernels`` the kernel is a Gaussian.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.models import DRUNet
from deepinv.models.base import Denoiser
from deepinv.optim import ADMM as DeepinvADMM
from deepinv.optim import DPIR, L2
from deepinv.optim.prior import PnP
from deepinv.physics import BlurFFT
from ffdnet import load_ffdnet
from timing import times
from torch import Tensor, nn

from workbench.deepinv_bridge import prior_from_deepinv
from workbench.images import sample_photos
from workbench.operators import Blur
from workbench.operators.kernels import gaussian_kernel
from workbench.random import generator
from workbench.solvers import ADMM, HQS

LEVEL, PENALTY = 0.05, 0.05  # of ADMM, which keeps one level


class Published(Denoiser):
    """FFDNet as a denoiser of deepinv."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Any, **options: Any) -> Tensor:
        return self.net(x, float(torch.as_tensor(sigma).flatten()[0]))


def compare(name: str, ours: Any, theirs: Any, steps: int) -> str:
    """A line of the table: the difference of the images, and the times per iteration."""
    with torch.no_grad():
        gap = float((ours() - theirs()).abs().max())
        mine, other = times((ours, theirs), rounds=5, budget=60, clock=time.process_time)
    per_step = f"{1000 * mine / steps:.0f} and {1000 * other / steps:.0f} ms"
    return f"{name:30} largest difference {gap:.1e}, per iteration {per_step}, ratio {mine / other:.2f}"


def report(kernel: Tensor, clean: Tensor, noise: float, denoiser: Denoiser) -> None:
    """Both pairs of solvers on ``clean`` (1, 3, H, W), blurred by ``kernel``."""
    prior = prior_from_deepinv(denoiser, sigma_min=0.0, sigma_max=75 / 255)
    op, physics = Blur(kernel), BlurFFT(img_size=tuple(clean.shape[1:]), filter=kernel[None, None])
    draws = noise * torch.randn(clean.shape, generator=generator(0))
    y, seen = op(clean) + draws, physics.A(clean) + draws
    print(f"  the operators differ by {float((y - seen).abs().max()):.1e}")
    given = {"sigma_noise": noise, "initial": physics.A_adjoint(seen)}

    hqs = HQS(max_steps=8, sigma_end=noise, noise_floor=0.01)
    dpir = DPIR(sigma=noise, denoiser=denoiser)
    print(compare("  hqs, DPIR", lambda: hqs(y, op, prior, **given).image, lambda: dpir(seen, physics), 8))

    admm = ADMM(max_steps=20, sigma_start=LEVEL, sigma_end=LEVEL, penalty=PENALTY)
    settings = {"stepsize": 1 / PENALTY, "g_param": LEVEL, "beta": 1.0, "lambda_reg": 1.0}
    other = DeepinvADMM(data_fidelity=L2(), prior=PnP(denoiser=denoiser), max_iter=20, early_stop=False, **settings)
    start = (given["initial"], torch.zeros_like(clean))
    theirs = lambda: other(seen, physics, init=start)  # noqa: E731
    print(compare("  admm, ADMM", lambda: admm(y, op, prior, **given).image, theirs, 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ffdnet", type=Path, help="the file of FFDNet's weights")
    parser.add_argument("--kernels", type=Path, help="Levin's kernels, levin09.npz")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--noise", type=float, default=0.02)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    torch.manual_seed(0)
    denoiser = Published(load_ffdnet(arguments.ffdnet)) if arguments.ffdnet else DRUNet(pretrained=None)
    denoiser = denoiser.eval().requires_grad_(False)
    clean = sample_photos(arguments.size)[:1]
    if arguments.kernels:
        stored = np.load(arguments.kernels)
        kernels = {name: torch.from_numpy(stored[name]).float() for name in sorted(stored)[:3]}
    else:
        kernels = {"Gaussian": gaussian_kernel(1.6)}
    for name, kernel in kernels.items():
        print(name)
        report(kernel, clean, arguments.noise, denoiser)


if __name__ == "__main__":
    main()
