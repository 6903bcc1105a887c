"""One pair of pictures, every convention of PSNR and SSIM: the tables of docs/metrics/psnr.md, as Markdown.

    PYTHONPATH=. python benchmarks/metric_conventions.py --set5 ../shared/data/set5

Three restorations of a photo: enlarged again by bicubic interpolation after a reduction by 4, blurred, and nearly
perfect, with noise of one of 255 levels. Beside the package's figures, what torchmetrics, scikit-image and deepinv
give. ``--set5``: bicubic interpolation on that set beside what papers print for it. Some seconds on one core.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from workbench.evaluation.metrics import luma, paper_scores, psnr, ssim
from workbench.images import from_pillow, load_image, sample_photo, to_pillow, to_uint8
from workbench.random import generator, noise_source

Row = tuple[str, float, float]  # how it was measured, PSNR in dB, SSIM
PUBLISHED = {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)}  # bicubic on Set5, Y, as in VDSR's Table 3


def saved(image: Tensor) -> Tensor:
    """``image`` (1, 3, H, W) as a file of 8 bits gives it back."""
    return from_pillow(to_pillow(image))


def bicubic(photo: Tensor, factor: int) -> Tensor:
    """``photo`` (1, 3, H, W) reduced by ``factor``, saved, and enlarged again, by MATLAB's kernel (a = -1/2)."""
    height, width = photo.shape[-2:]
    small = interpolate(photo, size=(height // factor, width // factor), mode="bicubic", antialias=True)
    return interpolate(saved(small), size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)


def blurred(photo: Tensor) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(photo, [13, 13], [1.5, 1.5])


def matlab_y(restored: Tensor, original: Tensor, crop: int) -> tuple[float, float]:
    """As ``psnr_y`` and ``ssim_y``, with Y rounded too: what MATLAB's ``rgb2ycbcr`` makes of uint8 pictures."""
    inside = (..., slice(crop, -crop), slice(crop, -crop))
    one, other = (luma(saved(image)).mul(255).round().div(255)[inside] for image in (restored, original))
    return float(psnr(one, other)), float(ssim(one, other))


def ours(restored: Tensor, original: Tensor) -> Iterator[Row]:
    yield "`psnr`, `ssim`", float(psnr(restored, original)), float(ssim(restored, original))
    found = paper_scores(restored, original) | paper_scores(restored, original, 4)
    keys = list(found)
    for one, other in zip(keys[::2], keys[1::2], strict=True):
        yield f"`{one}`, `{other}`", float(found[one]), float(found[other])
    yield "the same, Y rounded (MATLAB, of uint8 pictures)", *matlab_y(restored, original, 4)
    full = [
        from_pillow(to_pillow(image).convert("L").convert("RGB"))[..., 4:-4, 4:-4] for image in (restored, original)
    ]
    yield "the same, Y of the full range 0 to 255 (Pillow, OpenCV, JPEG)", float(psnr(*full)), float(ssim(*full))


def theirs(restored: Tensor, original: Tensor) -> Iterator[Row]:
    from deepinv.loss.metric import PSNR, SSIM
    from skimage.color import rgb2ycbcr
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torchmetrics.functional.image import peak_signal_noise_ratio as tm_psnr
    from torchmetrics.functional.image import structural_similarity_index_measure as tm_ssim

    measured = tm_psnr(restored, original, 1.0), tm_ssim(restored, original, data_range=1.0)
    yield "torchmetrics, `data_range=1`", *map(float, measured)
    for title, crop in (("deepinv", None), ("deepinv, `center_crop=-4`", -4)):
        both = (metric(center_crop=crop)(restored, original) for metric in (PSNR, SSIM))
        yield title, *map(float, both)
    pixels = [to_uint8(image)[0] for image in (original, restored)]
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    decibel = float(peak_signal_noise_ratio(*pixels))
    yield "scikit-image, uint8 (SSIM: 7x7 mean)", decibel, float(structural_similarity(*pixels, channel_axis=2))
    similarity = float(structural_similarity(*pixels, channel_axis=2, **wang))
    yield "scikit-image, uint8, SSIM of Wang et al. (`gaussian_weights`, ...)", decibel, similarity
    y = [rgb2ycbcr(each)[4:-4, 4:-4, 0] for each in pixels]
    for peak in (255, 219):
        values = peak_signal_noise_ratio(*y, data_range=peak), structural_similarity(*y, data_range=peak, **wang)
        yield f"scikit-image, `rgb2ycbcr(...)[4:-4, 4:-4, 0]`, `data_range={peak}`", *map(float, values)


def on_set5(folder: Path) -> None:
    """Bicubic interpolation, means over the five photos, beside the published figures."""
    print("\n| Set5, bicubic | `psnr`, `ssim` | `psnr_y_cropN`, `ssim_y_cropN` | the same, Y rounded | published |")
    print("| --- |" + " ---: |" * 4)
    for factor, published in PUBLISHED.items():
        rows = []
        for file in sorted(folder.glob("*.png")):
            photo = load_image(file)
            height, width = (side // factor * factor for side in photo.shape[-2:])
            photo = photo[..., :height, :width]
            restored = bicubic(photo, factor)
            y = list(paper_scores(restored, photo, factor).values())[2:]
            figures = psnr(restored, photo), ssim(restored, photo), *y, *matlab_y(restored, photo, factor)
            rows.append([float(figure) for figure in figures])
        means = [*np.mean(rows, axis=0), *published]
        pairs = zip(means[::2], means[1::2], strict=True)
        print(f"| ×{factor} | {' | '.join(f'{decibel:.2f}, {similarity:.4f}' for decibel, similarity in pairs)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", help="a file; the default is scikit-image's astronaut, 512x512")
    parser.add_argument("--set5", type=Path, help="folder of the five photos")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    photo = load_image(given.photo) if given.photo else sample_photo("astronaut", None)
    restorations = {
        "reduced by 4, enlarged": bicubic(photo, 4),
        "blurred by 1.5 pixels": blurred(photo),
        "noise of one level": (photo + noise_source(generator(0))(photo) / 255).clamp(0, 1),
    }
    print(f"| PSNR in dB, SSIM | {' | '.join(restorations)} |\n| --- |" + " ---: |" * len(restorations))
    for rows in (ours, theirs):
        for together in zip(*(rows(restored, photo) for restored in restorations.values()), strict=True):
            cells = (f"{decibel:.2f}, {similarity:.4f}" for _, decibel, similarity in together)
            print(f"| {together[0][0]} | {' | '.join(cells)} |")
    if given.set5:
        on_set5(given.set5)


if __name__ == "__main__":
    main()
