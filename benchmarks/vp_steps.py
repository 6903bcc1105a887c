"""What it costs that a variance-preserving network knows 1000 noise levels and no others.

    python benchmarks/vp_steps.py --prior photo-ddpm --data ../shared/data

Solvers ask for any level; ``VPNoise`` answers at the nearest step, as the published samplers do, or between two steps.
Two measurements, at levels half-way between two steps:

1. Exact: the Gaussian image model, whose denoiser is known in closed form at every level; root mean square error of
   the denoised image relative to the posterior's standard deviation.
2. With a trained network: PSNR of denoising real photos (``--data``: 32x32 centres of BSDS500, halved), both ways and
   at the two steps beside it, on average (the network never saw a level between them).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.evaluation.metrics import psnr
from workbench.images import SAMPLES, load_image, sample_photo
from workbench.models import VPNoise, load_prior
from workbench.models.adapters import linear_alphas_cumprod

MEAN, SPREAD = 0.45, 0.25


def schedule() -> Tensor:
    """The 1000 levels, on [0, 1] images."""
    return (1 / linear_alphas_cumprod() - 1).sqrt() / 2


class Gaussian(nn.Module):
    """A perfect network for white Gaussian images, told fractional steps."""

    def forward(self, state: Tensor, step: Tensor) -> Tensor:
        low = step.double().floor().long().clamp(0, 998)
        logs = (2 * schedule()).log()
        s2 = torch.lerp(logs[low], logs[low + 1], step.double() - low).exp().view(-1, 1, 1, 1) ** 2
        alpha = 1 / (1 + s2)
        mean, variance = 2 * MEAN - 1, (2 * SPREAD) ** 2
        return (1 - alpha).sqrt() * (state - alpha.sqrt() * mean) / (alpha * variance + 1 - alpha)


def exact_error(step: str, sigma: Tensor) -> float:
    """Root mean square error over the posterior's standard deviation."""
    prior = VPNoise(Gaussian(), step=step)
    draw = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = MEAN + (SPREAD**2 + sigma**2).sqrt() * draw
    exact = MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)
    deviation = SPREAD * sigma / (SPREAD**2 + sigma**2).sqrt()
    return float((prior(x, sigma) - exact).pow(2).mean().sqrt() / deviation)


def photos(data: Path | None) -> Tensor:
    """(N, 3, 32, 32) real photos."""
    if data is None:
        return torch.cat([sample_photo(name, 32) for name in SAMPLES])
    files = sorted((data / "bsds500" / "test").glob("*.jpg"))[:100]
    return torch.cat([load_image(file, 160)[:, :, 48:112, 48:112] for file in files]).unflatten(2, (32, 2)).unflatten(
        4, (32, 2)
    ).mean((3, 5))  # fmt: skip


def network_psnr(name: str, step: str, sigma: Tensor, images: Tensor) -> float:
    prior = load_prior(name, step=step)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float(psnr(prior(images + sigma.float() * noise, float(sigma)), images).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", help="a variance-preserving prior; without it, the first measurement alone")
    parser.add_argument("--data", type=Path, help="folder with bsds500/test; default: the sample photos")
    options = parser.parse_args()
    torch.set_num_threads(1)
    levels = schedule()
    images = photos(options.data) if options.prior else None
    print(f"{'sigma':>8}{'step':>9}{'gap':>8} | error, Gaussian model    ", end="")
    print(f"| PSNR of {options.prior}, {len(images)} photos" if images is not None else "")
    print(f"{'':25} |{'nearest':>12}{'between':>12} |", end="")
    print(f"{'on steps':>12}{'nearest':>9}{'between':>9}" if images is not None else "")
    for index in (0, 1, 3, 10, 30, 100, 300, 600, 900):
        sigma = (levels[index] * levels[index + 1]).sqrt()
        gap = float(levels[index + 1] / levels[index] - 1)
        errors = [exact_error(step, sigma) for step in ("nearest", "interpolate")]
        print(f"{float(sigma):8.4f}{index + 0.5:9.1f}{gap:8.1%} |{errors[0]:12.1e}{errors[1]:12.1e} |", end="")
        if images is None:
            print()
            continue
        both = [network_psnr(options.prior, "nearest", level, images) for level in levels[index : index + 2]]
        values = [sum(both) / 2]  # PSNR is nearly linear in the logarithm of the level
        values += [network_psnr(options.prior, step, sigma, images) for step in ("nearest", "interpolate")]
        print(f"{values[0]:12.3f}{values[1]:9.3f}{values[2]:9.3f}")


if __name__ == "__main__":
    main()
