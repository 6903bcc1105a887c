"""Gaussian denoising PSNR of a prior beside classical methods, on photos it has not seen.

    python benchmarks/denoising.py --prior photo-dsm --data ../shared/data [--crops 20] [--json out.json]

Crops are 128x128, one from the centre of each of the first CROPS test photos of BSDS500 by name, and the five images
of Set5 (cut to multiples of 8). The same noise for every method, sigma in units of 1/255, PSNR on clipped images,
mean over images. BM3D (package ``bm3d``, colour profile), non-local means and BayesShrink wavelets (scikit-image) are
told the true sigma.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from workbench.models import load_prior
from workbench.models.prior import Prior

LEVELS = (5, 15, 25, 50)


def photos(data: Path, crops: int) -> dict[str, list[np.ndarray]]:
    """float64 (H, W, 3) images in [0, 1] per set."""
    sets: dict[str, list[np.ndarray]] = {"bsds500": [], "set5": []}
    for file in sorted((data / "bsds500" / "test").glob("*.jpg"))[:crops]:
        pixels = np.asarray(Image.open(file).convert("RGB")) / 255.0
        top, left = (pixels.shape[0] - 128) // 2, (pixels.shape[1] - 128) // 2
        sets["bsds500"].append(pixels[top : top + 128, left : left + 128])
    for file in sorted((data / "set5").glob("*.png")):
        pixels = np.asarray(Image.open(file).convert("RGB")) / 255.0
        height, width = (side // 8 * 8 for side in pixels.shape[:2])
        sets["set5"].append(pixels[:height, :width])
    if not sets["bsds500"] or not sets["set5"]:
        raise SystemExit(f"no photos: expected {data}/bsds500/test/*.jpg and {data}/set5/*.png")
    return sets


def network(prior: Prior) -> Callable[[np.ndarray, float], np.ndarray]:
    device = next(prior.parameters()).device

    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        x = torch.from_numpy(noisy).float().permute(2, 0, 1)[None].to(device)
        with torch.no_grad():
            return prior(x, sigma)[0].permute(1, 2, 0).double().cpu().numpy()

    return denoise


def classical() -> dict[str, Callable[[np.ndarray, float], np.ndarray]]:
    from bm3d import bm3d_rgb
    from skimage.restoration import denoise_nl_means, denoise_wavelet

    def means(noisy: np.ndarray, sigma: float) -> np.ndarray:
        return denoise_nl_means(
            noisy, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
        )

    def wavelets(noisy: np.ndarray, sigma: float) -> np.ndarray:
        return denoise_wavelet(noisy, sigma=sigma, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)

    return {"bm3d": bm3d_rgb, "non-local means": means, "wavelets": wavelets}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.clip(0, 1) - b) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", action="append", default=[], help="name or file; may be given several times")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-classical", action="store_true", help="the priors only")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    if not arguments.prior and arguments.no_classical:
        raise SystemExit("nothing to measure: give --prior, or leave --no-classical out")
    methods = {name: network(load_prior(name, device=arguments.device)) for name in arguments.prior}
    if not arguments.no_classical:
        methods |= classical()
    results: dict[str, dict[str, list[float]]] = {}
    for group, images in photos(arguments.data, arguments.crops).items():
        results[group] = {}
        for name, denoise in methods.items():
            started, means = time.perf_counter(), []
            for level in LEVELS:
                rng = np.random.default_rng(level)
                values = [psnr(denoise(i + rng.normal(0, level / 255, i.shape), level / 255), i) for i in images]
                means.append(round(float(np.mean(values)), 2))
            results[group][name] = means
            columns = "  ".join(f"{value:6.2f}" for value in means)
            print(f"{group:8} {name:32} {columns}   ({time.perf_counter() - started:.0f} s)", flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"sigma_255": LEVELS, "crops": arguments.crops, "psnr": results}, indent=1)
        )


if __name__ == "__main__":
    main()
