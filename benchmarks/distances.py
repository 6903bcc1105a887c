"""What the distances make of distortions of known strength: the tables of docs/metrics/effnet.md, as Markdown.

    PYTHONPATH=. python benchmarks/distances.py --data ../shared/data/bsds500/test

Each photo is cut to its centre square and resized. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from skimage.filters import gaussian
from torch import Tensor

from workbench.data.evaluation import evaluation_photos
from workbench.evaluation.metrics import effnet, psnr
from workbench.images import to_uint8
from workbench.random import generator, noise_source

Distortion = Callable[[Tensor, float], Tensor]


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of standard deviation ``sigma`` pixels, mirrored at the border; images are (B, C, H, W)."""
    pixels = images.cpu().numpy()
    return torch.from_numpy(gaussian(pixels, sigma=(0, 0, sigma, sigma), mode="mirror", truncate=3)).to(images)


def noise(images: Tensor, sigma: float) -> Tensor:
    """White Gaussian noise of standard deviation ``sigma`` of 255 levels, clipped to [0, 1]; always the same."""
    return (images + sigma / 255 * noise_source(generator(0))(images)).clamp(0, 1)


def jpeg(images: Tensor, quality: float) -> Tensor:
    """JPEG compression by Pillow at ``quality`` from 1 to 95; smaller is stronger."""
    decoded = []
    for pixels in to_uint8(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
        decoded.append(np.array(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255


def shift(images: Tensor, pixels: float) -> Tensor:
    """A shift to the right by whole ``pixels``; columns that leave come in again on the left."""
    return images.roll(int(pixels), dims=-1)


def contrast(images: Tensor, share: float) -> Tensor:
    """Less contrast around mid-grey, by a ``share`` of 1."""
    return 0.5 + (1 - share) * (images - 0.5)


# Each with strengths that grow from just visible to strong.
DISTORTIONS: dict[str, tuple[Distortion, tuple[float, ...]]] = {
    "noise, σ × 255": (noise, (5, 10, 20, 35, 50, 80)),
    "blur, σ in pixels": (blur, (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)),
    "JPEG, quality": (jpeg, (90, 70, 50, 30, 15, 5)),
    "shift in pixels": (shift, (1, 2, 3, 4, 6)),
}


def ladder(
    distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, kind: Distortion, strengths: Sequence[float]
) -> Tensor:
    """The distance of each image from its distorted self, (strengths, B)."""
    return torch.stack([distance(kind(images, strength), images) for strength in strengths])


def rising(distances: Tensor) -> float:
    """Share of the images (columns) whose distances grow at every step of a :func:`ladder`, from 0 on."""
    steps = distances.diff(dim=0, prepend=torch.zeros_like(distances[:1]))
    return float((steps > 0).all(dim=0).double().mean())


def beside_noise(distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B,) of ``other`` from ``images``, and of noise that costs each image the same squared error."""
    error = (other - images).square().mean(dim=(1, 2, 3), keepdim=True)
    drawn = noise_source(generator(0))(images)
    drawn = drawn / drawn.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return distance(other, images), distance((images + error.sqrt() * drawn).clamp(0, 1), images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photos")
    parser.add_argument("--count", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)

    def judge(one: Tensor, other: Tensor) -> Tensor:
        return effnet(one, other, "effnet2")

    sets = {size: evaluation_photos([given.data], count=given.count, size=size, cut="fit")[0] for size in (32, 64, 128)}
    for title, (kind, strengths) in DISTORTIONS.items():
        print(f"\n| {title} | rising | {' | '.join(map(str, strengths))} |\n| --- |{' ---: |' * (1 + len(strengths))}")
        for size, images in sets.items():
            for name, distance in (("PSNR, dB", psnr), ("effnet", effnet), ("effnet2", judge)):
                values = ladder(distance, images, kind, strengths)
                share = "" if distance is psnr else f"{100 * rising(values):.0f} %"
                means = " | ".join(f"{value:.{1 if distance is psnr else 2}f}" for value in values.mean(dim=1).tolist())
                print(f"| {size}x{size}, {name} | {share} | {means} |", flush=True)
    print("\n| at equal error | PSNR, dB | effnet, noise | effnet2, noise | nearer than noise |")
    print("| --- |" + " ---: |" * 4)
    for size, images in sets.items():
        for title, other in (
            ("contrast −10 %", contrast(images, 0.1)),
            ("shift by 1", shift(images, 1)),
            ("JPEG 15", jpeg(images, 15)),
            ("blur 1", blur(images, 1)),
        ):
            pairs = [beside_noise(distance, images, other) for distance in (effnet, judge)]
            cells = [f"{float(own.mean()):.2f}, {float(noisy.mean()):.2f}" for own, noisy in pairs]
            nearer = ", ".join(f"{100 * float((own < noisy).double().mean()):.0f} %" for own, noisy in pairs)
            decibel = float(psnr(other, images).mean())
            print(f"| {size}x{size}, {title} | {decibel:.1f} | {' | '.join(cells)} | {nearer} |", flush=True)


if __name__ == "__main__":
    main()
