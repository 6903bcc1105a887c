"""How close a restored photo is to the original: PSNR, SSIM, LPIPS, EfficientNet distances and HaarPSI, one value per
image; and how close it is to the measurement: Consistency.

All take images (B, 3, H, W) of nominal range [0, 1] and clip them once, since that is what a viewer sees.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.evaluation.perceptual import effnet, effnet_unavailable
from workbench.images import clipped_pair

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
SSIM_WINDOW = 11  # pixels
LPIPS_SIDE = 32  # pixels; AlexNet's pooling leaves nothing of smaller pictures


@dataclass(frozen=True)
class Metric:
    """How a figure of a restoration is called and printed.

    Attributes:
        key: in records.
        title, unit, digits: in text.
        larger_is_better: None for what is neither.
        relative: its change also means something in per cent.
        heading: of a table's column, where the title is too long for one.
        paper: what published tables call it.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 3
    larger_is_better: bool | None = False
    relative: bool = True
    heading: str = ""
    paper: str = ""

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


FIGURES = {
    metric.key: metric
    for metric in (
        Metric("psnr", "PSNR", "dB", 2, True, relative=False, paper="PSNR"),
        Metric("ssim", "SSIM", larger_is_better=True, paper="SSIM"),
        Metric("lpips", "LPIPS", paper="LPIPS"),
        Metric("effnet", "EfficientNet-Lite0 distance", heading="EfficientNet-Lite0\ndistance *"),
        # The judges: nothing is trained on them.
        Metric("effnet2", "EfficientNet-Lite2 distance", heading="EfficientNet-Lite2\ndistance"),
        Metric("haarpsi", "HaarPSI", larger_is_better=True),
        Metric("consistency", "Consistency", digits=2, heading="Consistency\n‖Ax̂−y‖₁", paper="Cons"),
        Metric("fid", "FID", digits=2, paper="FID"),
        Metric("frechet_effnet", "Fréchet distance", digits=2, heading="Fréchet distance\n(EfficientNet-Lite0)"),
        Metric("evaluations", "Network evaluations", "", 0, None, heading="Network\nevaluations"),
        Metric("iterations", "Iterations", "", 0, None),
        Metric("seconds", "Seconds", "", 2, None, heading="Seconds\nper photo", paper="seconds"),
    )
}
# Those that compare one image with its original, in the order in which reports show them.
METRICS = {key: FIGURES[key] for key in ("psnr", "ssim", "lpips", "effnet", "effnet2", "haarpsi")}


def psnr(restored: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), for a data range of 1; infinite where the images are equal.

    Raises:
        ValueError: the shapes differ.
    """
    restored, original = clipped_pair(restored, original)
    error = (restored - original).double().square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(restored: Tensor, original: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5), (B,), averaged over the channels.

    As in the reference implementation and scikit-image, only windows that lie inside the picture count; torchmetrics
    by itself also averages over windows that see the mirrored border, which matters for small pictures.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    restored, original = clipped_pair(restored, original)
    reason = _ssim_unavailable(original)
    if reason is not None:
        raise ValueError(reason)
    _, windows = structural_similarity_index_measure(
        restored, original, data_range=1.0, reduction="none", return_full_image=True
    )
    border = SSIM_WINDOW // 2
    return windows[..., border:-border, border:-border].mean(dim=(1, 2, 3))


def lpips(restored: Tensor, original: Tensor) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018; AlexNet, version 0.1), (B,).

    Raises:
        ValueError: the shapes differ, or :func:`lpips_unavailable` says why it cannot be computed.
    """
    restored, original = clipped_pair(restored, original)
    reason = lpips_unavailable(original)
    if reason is not None:
        raise ValueError(reason)
    with torch.no_grad():
        return lpips_distance(original.device)(restored.float(), original.float())


def lpips_distance(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS as a differentiable function of two batches (B, 3, H, W) in [0, 1], not clipped, to (B,): for losses.

    Raises:
        ValueError: :func:`lpips_unavailable` says why it cannot be computed.
    """
    reason = lpips_unavailable()
    if reason is not None:
        raise ValueError(reason)
    network = _lpips_network(str(_lpips_weights())).to(device).requires_grad_(False)

    def distance(restored: Tensor, original: Tensor) -> Tensor:
        return network(restored, original, normalize=True).reshape(-1)

    return distance


def lpips_unavailable(images: Tensor | None = None) -> str | None:
    """Why LPIPS cannot be computed (for ``images``, if given), or None when it can.

    LPIPS needs the weights of AlexNet. They are looked for where torch keeps them and never downloaded: a network with
    random weights would give a number too, but that number would not be LPIPS.
    """
    weights = _lpips_weights()
    if not weights.is_file():
        return f"unavailable: place {weights.name} in {weights.parent}"
    if images is not None and min(images.shape[-2:]) < LPIPS_SIDE:
        return f"unavailable: LPIPS needs sides of at least {LPIPS_SIDE} pixels, got {_size(images)}"
    return None


def consistency(restored: Tensor, y: Tensor, op: Callable[[Tensor], Tensor]) -> Tensor:
    """Consistency with the measurement, ``||A x - y||_1``, (B,): the "Cons" of DDNM and DeqIR's Table 3.

    A sum over all entries of ``y``, so it grows with the picture, and in units of [0, 1] images. The papers do not say
    in which units theirs is, nor have they published its code; in these, the 8 bits of a PNG alone are 33 at 256x256,
    and the best they report is 43. Of noisy data it is the noise, not 0, that a good restoration leaves.

    Args:
        restored: (B, 3, H, W), clipped here.
        y: the measurement, (B, ...), as ``op`` gives it.
    """
    return (op(restored.clamp(0, 1)) - y).double().abs().flatten(1).sum(1)


def haarpsi(restored: Tensor, original: Tensor) -> Tensor:
    """Haar wavelet similarity (Reisenhofer et al. 2018, natural images), (B,), by deepinv; needs no trained network.

    Raises:
        ValueError: the shapes differ, or deepinv is not installed.
    """
    restored, original = clipped_pair(restored, original)
    reason = _haarpsi_unavailable(original)
    if reason is not None:
        raise ValueError(reason)
    from deepinv.loss.metric import HaarPSI

    return HaarPSI(C=30, alpha=4.2)(restored.float(), original.float())


def score(restored: Tensor, original: Tensor, judge: bool = False) -> list[dict[str, float | str | None]]:
    """All metrics of each image, ready for JSON: ``psnr``, ``ssim``, ``lpips``, ``effnet`` (EfficientNet-Lite0, not
    LPIPS), and for each that is None a ``*_reason``.

    Args:
        judge: also ``effnet2`` and ``haarpsi``, which nothing is trained on. They cost more than the others together,
            and tell priors apart that ``effnet`` trained; methods with one prior differ in ``effnet`` as well.

    Raises:
        ValueError: the shapes differ, or ``restored`` is not finite.
    """
    restored, original = clipped_pair(restored, original)
    decibel = [float(value) for value in psnr(restored, original)]
    rows: list[dict[str, float | str | None]] = [{"psnr": value} for value in decibel]
    for row, value in zip(rows, decibel, strict=True):
        if math.isinf(value):
            row |= {"psnr": None, "psnr_reason": "infinite: the restored image equals the original"}
    for key, (measure, unavailable) in (SCORES | JUDGES if judge else SCORES).items():
        reason = unavailable(original)
        values = [None] * len(rows) if reason else measure(restored, original).tolist()
        for row, value in zip(rows, values, strict=True):
            row |= {key: value} | ({f"{key}_reason": reason} if reason else {})
    return rows


def as_text(value: float | None, kind: str, signed: bool = False) -> str:
    """A score or cost as reports print it; ``kind`` is a key of ``FIGURES``. A proper minus sign; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{FIGURES[kind].digits}f}".replace("-", "−")


def _ssim_unavailable(images: Tensor) -> str | None:
    if min(images.shape[-2:]) < SSIM_WINDOW:
        return f"unavailable: SSIM needs sides of at least {SSIM_WINDOW} pixels, got {_size(images)}"
    return None


def _haarpsi_unavailable(images: Tensor) -> str | None:
    if importlib.util.find_spec("deepinv") is None:
        return "unavailable: HaarPSI needs deepinv, pip install 'restoration-workbench[deepinv]'"
    return None


def _size(images: Tensor) -> str:
    return f"{images.shape[-2]}x{images.shape[-1]}"


def _lpips_weights() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS


@lru_cache(maxsize=1)
def _lpips_network(weights: str) -> torch.nn.Module:
    import lpips as package

    with warnings.catch_warnings():  # the package calls torchvision the old way
        warnings.simplefilter("ignore", UserWarning)
        return package.LPIPS(net="alex", verbose=False).eval()


Score = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], str | None]]
# Besides PSNR: each metric, and why it cannot be computed of some images.
SCORES: dict[str, Score] = {
    "ssim": (ssim, _ssim_unavailable),
    "lpips": (lpips, lpips_unavailable),
    "effnet": (effnet, effnet_unavailable),
}
JUDGES: dict[str, Score] = {
    "effnet2": (partial(effnet, name="effnet2"), partial(effnet_unavailable, name="effnet2")),
    "haarpsi": (haarpsi, _haarpsi_unavailable),
}
