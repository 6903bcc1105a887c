"""How close a restored photo is to the original: PSNR, SSIM, LPIPS, EfficientNet distances and HaarPSI, one value per
image; and how close it is to the measurement: Consistency. ``FIGURES`` is the one table of them all; ``paper_scores``
gives PSNR and SSIM by the other conventions of published tables.

All take images (B, 3, H, W) of nominal range [0, 1] and clip them once, since that is what a viewer sees. What compares
two refuses what cannot be such images, since clipping would make a wrong range look good: an ``original`` beyond [0, 1]
and a ``restored`` beyond [-0.5, 1.5]. With ``clip=True`` the latter (noise, or a restoration that diverged) is clipped.
They raise ValueError for that, and where they are not available, with the reason.
"""

import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from workbench.evaluation.perceptual import checked_pair, effnet, effnet_unavailable, lpips, lpips_unavailable
from workbench.images import clipped_pair
from workbench.text import fits, require

SSIM_WINDOW = 11  # pixels
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # what R, G and B of 1 add to the limited range of BT.601
BLACK = 16 / 255  # of that range; white is 235/255
INFINITE = "infinite: the restored image equals the original"
NOT_FINITE = "undefined: the restored image has NaN or infinite values"


@dataclass(frozen=True)
class Metric:
    """A figure of a restoration: how it is called, printed and, where it compares two images, measured.

    Attributes:
        key: in records.
        title, unit, digits: in text.
        larger_is_better: None for what is neither.
        relative: its change also means something in per cent.
        heading: of a table's column, where the title is too long for one.
        paper: what published tables call it.
        measure: of restored and original images (B, 3, H, W), to (B,).
        unavailable: why it cannot be measured of such originals, or None.
        judge: nothing is trained on it. Slow, and measured only where priors are compared.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 3
    larger_is_better: bool | None = False
    relative: bool = True
    heading: str = ""
    paper: str = ""
    measure: Callable[[Tensor, Tensor], Tensor] | None = None
    unavailable: Callable[[Tensor], str | None] = lambda images: None
    judge: bool = False

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {True: "↑", False: "↓", None: ""}[self.larger_is_better]

    def best(self, values: Iterable[Any], key: Callable[[Any], float] | None = None) -> Any:
        """The best of ``values``, by ``key`` if given."""
        return (max if self.larger_is_better else min)(values, key=key)

    @property
    def column(self) -> str:
        """The heading of a table's column, with the direction."""
        text = self.heading or (f"{self.title}, {self.unit}" if self.unit else self.title)
        return f"{text} {self.arrow}".rstrip()


def psnr(restored: Tensor, original: Tensor, clip: bool = False) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), for a data range of 1; infinite where the images are equal."""
    restored, original = clipped_pair(restored, original, clip)
    error = (restored - original).double().square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(restored: Tensor, original: Tensor, clip: bool = False) -> Tensor:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5), (B,), averaged over the channels.

    K1 is 0.01, K2 0.03, and nothing is shrunk first. As in the reference implementation (``ssim_index.m``) and
    scikit-image, only windows that lie inside the picture count. Written out here: scikit-image has no GPU, and
    torchmetrics, which takes longer to import than torch, also counts windows that see the mirrored border.
    """
    x, y = checked_pair(restored, original, _ssim_unavailable, clip)
    weights = torch.exp(-((torch.arange(SSIM_WINDOW).to(x) - SSIM_WINDOW // 2) ** 2) / (2 * 1.5**2))
    down, across = (weights / weights.sum()).view(1, 1, -1, 1), (weights / weights.sum()).view(1, 1, 1, -1)
    means = conv2d(conv2d(torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 2)[:, None], down), across)
    mx, my, xx, yy, xy = means.view(5, *x.shape[:2], -1)
    above = (2 * mx * my + 0.01**2) * (2 * (xy - mx * my) + 0.03**2)
    below = (mx**2 + my**2 + 0.01**2) * (xx - mx**2 + yy - my**2 + 0.03**2)
    return (above / below).mean(dim=(1, 2))


def luma(images: Tensor) -> Tensor:
    """Luma Y of BT.601 in its limited range, as MATLAB's ``rgb2ycbcr`` has it, of sRGB ``images`` (B, 3, H, W) in
    [0, 1]: (B, 1, H, W) from 16/255 to 235/255, not rounded."""
    return BLACK + (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)


def paper_scores(restored: Tensor, original: Tensor, crop: int = 0, clip: bool = False) -> dict[str, Tensor]:
    """PSNR in dB and SSIM as papers count them, of the pictures that an 8-bit file holds: by convention, (B,) each.

    The key names the convention, such as ``psnr_y_crop4``; docs/metrics/psnr.md measures what each changes.

    ``psnr_rgb``, ``ssim_rgb``: over the three channels, as ``psnr`` and ``ssim`` but for the rounding.
    ``psnr_y``, ``ssim_y``: of :func:`luma` alone with a peak of 255, as papers on super-resolution count. Its range of
    219 of 255 levels makes every PSNR 1.32 dB larger; for a grey photo that is all the difference.

    Args:
        restored, original: (B, 3, H, W), clipped and rounded here.
        crop: pixels to leave out along each border; papers on super-resolution leave out the factor.

    Returns:
        No SSIM where less than its window is left.

    Raises:
        ValueError: not three channels, or nothing is left by ``crop``.
    """
    restored, original = clipped_pair(restored, original, clip)
    channels, height, width = original.shape[1:]
    require(channels == 3, "the number of channels", "3 (RGB)", channels)
    few = fits(crop, int) and 0 <= 2 * crop < min(height, width)
    require(few, "crop", f"0 to less than half of {height}x{width} pixels", crop)
    inside = (..., slice(crop, height - crop), slice(crop, width - crop))
    rgb = [images[inside].mul(255).round().div(255) for images in (restored, original)]
    measures = {"psnr": psnr} | ({} if _ssim_unavailable(rgb[1]) else {"ssim": ssim})
    return {
        f"{key}_{name}" + (f"_crop{crop}" if crop else ""): measure(one, other)
        for name, (one, other) in (("rgb", rgb), ("y", [luma(images) for images in rgb]))
        for key, measure in measures.items()
    }


def consistency(restored: Tensor, y: Tensor, op: Callable[[Tensor], Tensor]) -> Tensor:
    """Consistency with the measurement, ``||A x - y||_1``, (B,): the "Cons" of DDNM and DeqIR's Table 3.

    A sum over all entries of ``y``, so it grows with the picture, and in units of [0, 1] images. The papers do not say
    in which units theirs is, nor have they published its code; in these, the 8 bits of a PNG alone are 33 at 256x256,
    and the best they report is 43. Of noisy data it is the noise, not 0, that a good restoration leaves.

    Args:
        restored: (B, 3, H, W), clipped here.
        y: the measurement, (B, ...), as ``op`` gives it.
    """
    return (op(restored.clamp(0, 1)) - y).double().abs().reshape(len(y), -1).sum(1)


def haarpsi(restored: Tensor, original: Tensor, clip: bool = False) -> Tensor:
    """Haar wavelet similarity (Reisenhofer et al. 2018, natural images), (B,), by deepinv; needs no trained network."""
    restored, original = checked_pair(restored, original, _haarpsi_unavailable, clip)
    from deepinv.loss.metric import HaarPSI

    return HaarPSI(C=30, alpha=4.2)(restored.float(), original.float())


def score(
    restored: Tensor, original: Tensor, judge: bool = False, clip: bool = False
) -> list[dict[str, float | str | None]]:
    """All metrics of each image, ready for JSON: ``psnr``, ``ssim``, ``lpips``, ``effnet`` (EfficientNet-Lite0, not
    LPIPS), and for each that is None a ``*_reason``.

    Args:
        judge: also ``effnet2`` and ``haarpsi``, which nothing is trained on. They cost more than the others together,
            and tell priors apart that ``effnet`` trained; methods with one prior differ in ``effnet`` as well.

    Raises:
        ValueError: as ``clipped_pair``, also on ``clip``.
    """
    restored, original = clipped_pair(restored, original, clip)
    rows: list[dict[str, float | str | None]] = [{} for _ in restored]
    for key, metric in METRICS.items():
        if metric.measure is None or (metric.judge and not judge):
            continue
        reason = metric.unavailable(original)
        values = [None] * len(rows) if reason else metric.measure(restored, original).tolist()
        for row, value in zip(rows, values, strict=True):
            row |= for_json(key, value, reason)
    return rows


def for_json(key: str, value: float | None, reason: str | None = None) -> dict[str, float | str | None]:
    """``value`` under its ``key``; None with ``reason`` as ``*_reason`` where there is one, or it is infinite."""
    why = INFINITE if value == math.inf else reason
    return {key: None, f"{key}_reason": why} if why else {key: value}


def as_text(value: float | None, kind: str, signed: bool = False) -> str:
    """A score or cost as reports print it; ``kind`` is a key of ``FIGURES``. A proper minus sign; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{FIGURES[kind].digits}f}".replace("-", "−")


def _ssim_unavailable(images: Tensor) -> str | None:
    height, width = images.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        return f"unavailable: SSIM needs sides of at least {SSIM_WINDOW} pixels, got {height}x{width}"
    return None


def _haarpsi_unavailable(images: Tensor) -> str | None:
    if importlib.util.find_spec("deepinv") is None:
        return "unavailable: HaarPSI needs deepinv, pip install 'restoration-workbench[deepinv]'"
    return None


_TABLE = (
    Metric("psnr", "PSNR", "dB", 2, True, relative=False, paper="PSNR", measure=psnr),
    Metric("ssim", "SSIM", "", 3, True, paper="SSIM", measure=ssim, unavailable=_ssim_unavailable),
    Metric("lpips", "LPIPS", paper="LPIPS", measure=lpips, unavailable=lpips_unavailable),
    Metric(
        "effnet",
        "EfficientNet-Lite0 distance",
        heading="EfficientNet-Lite0\ndistance *",
        measure=effnet,
        unavailable=effnet_unavailable,
    ),
    Metric(
        "effnet2",
        "EfficientNet-Lite2 distance",
        heading="EfficientNet-Lite2\ndistance",
        measure=partial(effnet, name="effnet2"),
        unavailable=partial(effnet_unavailable, name="effnet2"),
        judge=True,
    ),
    Metric("haarpsi", "HaarPSI", "", 3, True, measure=haarpsi, unavailable=_haarpsi_unavailable, judge=True),
    Metric("consistency", "Consistency", digits=2, heading="Consistency\n‖Ax̂−y‖₁", paper="Cons"),
    Metric("fid", "FID", digits=2, paper="FID"),
    Metric("frechet_effnet", "Fréchet distance", digits=2, heading="Fréchet distance\n(EfficientNet-Lite0)"),
    Metric("evaluations", "Network evaluations", "", 0, None, heading="Network\nevaluations"),
    Metric("iterations", "Iterations", "", 0, None),
    Metric("seconds", "Seconds", "", 2, None, heading="Seconds\nper photo", paper="seconds"),
)
FIGURES = {metric.key: metric for metric in _TABLE}
# Those that compare one image with its original, in the order in which reports show them.
METRICS = {key: metric for key, metric in FIGURES.items() if metric.measure}
