"""Deblurring photos that came blurred: borders that are estimated beside circular ones and beside the exact model.

    python benchmarks/borders.py --data ../shared/data [--photos 3] [--size 128]

Parts of BSDS500 test photos are blurred by two of Levin's kernels with the scenery around them, cut to what a camera
would have seen, and get noise 0.01. "valid" is the exact forward model, solved by conjugate gradients at every step.
Prints PSNR in dB of the whole and of the outer 12 pixels, and seconds, means over photos and kernels.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workbench.images import load_image
from workbench.models import load_prior, whole_or_tiles
from workbench.operators import Blur
from workbench.random import generator
from workbench.restore import Degraded, restore, solver_of

NOISE, OUTER = 0.01, 12
METHODS = {"hqs": {}, "diffpir": {"steps": 15}, "ddrm": {"steps": 15}, "deqir": {"steps": 15}}


def psnr(image: Tensor, original: Tensor) -> tuple[float, float]:
    """Of the whole and of the outer pixels."""
    error = (image.clamp(0, 1) - original).square().mean((0, 1))
    border = torch.ones_like(error)
    border[OUTER:-OUTER, OUTER:-OUTER] = 0
    whole, outer = error.mean(), (error * border).sum() / border.sum()
    return float(-10 * whole.log10()), float(-10 * outer.log10())


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*conjugate gradients stopped")
    prior, size = load_prior("photo"), arguments.size
    files = sorted((arguments.data / "bsds500" / "test").glob("*.jpg"))[5 :: 190 // arguments.photos]
    kernels = np.load(arguments.data / "levin09.npz")
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for file in files[: arguments.photos]:
        for kernel in (torch.from_numpy(kernels[name]).float() for name in ("kernel1", "kernel4")):
            kh, kw = kernel.shape
            scenery = load_image(file)[..., 60 : 60 + size + kh - 1, 90 : 90 + size + kw - 1]
            exact, (top, left) = (
                Blur(kernel, boundary="valid", max_iterations=100),
                (kh - 1 - kh // 2, kw - 1 - kw // 2),
            )
            original = scenery[..., top : top + size, left : left + size]
            clean = exact(scenery)
            y = clean + NOISE * torch.randn(clean.shape, generator=generator(1))
            found.setdefault(("input", ""), []).append((*psnr(y, original), 0.0))
            for name, settings in METHODS.items():
                solver = solver_of(name, settings)
                for border in ("circular", "estimated", "valid"):
                    if border == "valid" and name not in ("hqs", "diffpir"):
                        continue  # solvers that need singular values have no exact model
                    started = time.perf_counter()
                    if border == "estimated":
                        image = restore(Degraded(Blur(kernel), y, None, "blur", NOISE, 0, (0,)), solver, prior).image
                    else:
                        op = exact if border == "valid" else Blur(kernel)
                        fitted = whole_or_tiles(prior, *op.image_shape(y.shape)[-2:])
                        image = solver(y, op, fitted, sigma_noise=NOISE, generator=generator(0)).image
                        image = image[..., top : top + size, left : left + size] if border == "valid" else image
                    seconds = time.perf_counter() - started
                    found.setdefault((name, border), []).append((*psnr(image, original), seconds))
    print(f"{'':20s}   whole   outer  seconds")
    for (name, border), rows in found.items():
        whole, outer, seconds = np.mean(rows, axis=0)
        print(f"{name:10s}{border:10s} {whole:7.2f} {outer:7.2f} {seconds:8.2f}")


if __name__ == "__main__":
    main()
