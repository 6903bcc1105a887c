"""Magnetic resonance of a phantom: several coils, a part of the lines, restored by priors of photos.

The Shepp-Logan phantom of scikit-image; simulated coils in a ring; ``mri:ACCELERATION`` (random columns, the middle
measured whole), complex white noise of that standard deviation in real and imaginary part each. Its one channel is
measured once and handed to the prior of colour photos as three equal ones. Writes a picture of each method, and the
files for the command line (there each of the three channels has noise of its own):

    python benchmarks/mri.py --out phantom
    workbench restore phantom/phantom.png --degrade mri:4:phantom/coils.npz --noise 0.01 --solver hqs --out restored
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize
from torch import Tensor

from workbench.images import save_image
from workbench.models import load_prior
from workbench.operators import MultiCoil, cartesian_mask
from workbench.random import stream
from workbench.restore import measured, restore
from workbench.solvers import make_solver


def simulated_coils(count: int, size: tuple[int, int]) -> Tensor:
    """Maps (count, H, W), complex: sensitivity falls as 1 over the distance, its phase is the direction, as near wires
    along the patient; the sum of their squared moduli is 1."""
    down, right = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in size)
    places = 1.5 * torch.exp(2j * torch.pi * torch.arange(count, dtype=torch.float64) / count)  # in half sides
    maps = 1 / (down[:, None] + 1j * right - places[:, None, None])
    return maps / maps.abs().square().sum(0).sqrt()


def main() -> None:
    """Print PSNR and seconds of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("phantom"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--acceleration", type=float, default=4)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0, help="of the columns and the noise")
    parser.add_argument("--prior", default="photo")
    parser.add_argument("--tolerance", type=float, default=None, help="of conjugate gradients")
    parser.add_argument("--methods", nargs="+", default=["pinv", "hqs", "diffpir", "ddnm"])
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    size = (options.size, options.size)
    phantom = torch.from_numpy(resize(shepp_logan_phantom(), size, anti_aliasing=True)).float().clamp(0, 1)[None, None]
    maps = simulated_coils(options.coils, size)
    save_image(phantom, options.out / "phantom.png")
    np.savez(options.out / "coils.npz", maps=maps.to(torch.complex64).numpy())
    mask = cartesian_mask(size, options.acceleration, None, stream(options.seed, "operator"))
    op = MultiCoil(mask, maps, tolerance=options.tolerance)
    clean = op(phantom)
    y = clean + options.noise * torch.randn(clean.shape, generator=stream(options.seed, "noise"))
    degraded = measured(op, y.expand(-1, 3, *y.shape[2:]), options.noise, original=phantom.expand(-1, 3, -1, -1))
    save_image(degraded.picture, options.out / "zero-filled.png")
    zero_filled = -10 * float((degraded.picture.clamp(0, 1) - phantom).square().mean().log10())
    print(f"zero-filled {zero_filled:.2f} dB", flush=True)
    for name in options.methods:
        result = restore(degraded, make_solver(name), load_prior(options.prior))
        (record,) = result.records
        save_image(result.image, options.out / f"{name}.png")
        cost = f"{record['evaluations']} evaluations, {record['seconds']:.0f} s"
        print(f"{name:12}{record['psnr']:.2f} dB, {cost} {record['message']}", flush=True)


if __name__ == "__main__":
    main()
