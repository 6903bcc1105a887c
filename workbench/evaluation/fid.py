"""Fréchet inception distance (Heusel et al. 2017) of samples of a prior, when its published feature network is there.

The distance of two Gaussians that have the means m and covariances C of the 2,048 features of either set,

    FID = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)).

It depends on the feature network, the resizing and the number of images (fewer than some 10,000 bias it upwards):
compare figures only where all three agree. The network is torch-fidelity's copy of the original (extra ``fid``), with
the original resizing by torchmetrics. Nothing is downloaded, and no other network's figure is called FID: where
the original is absent, ``frechet_effnet`` is the same distance of the 1,280 features of EfficientNet-Lite0.
"""

import functools
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from workbench.evaluation.perceptual import absent, effnet_unavailable, loaded, refuse, torch_file
from workbench.images import FINITE, check_range, finite_images, to_uint8
from workbench.models.files import read_weights, sha256

FID_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # the last part is the start of its SHA-256
BATCH = 50


def set_distance(samples: Tensor, reference: Tensor, key: str) -> float:
    """The distance of two sets of images (N, 3, H, W) in [0, 1], clipped and rounded to 8 bits; 0 for equal sets.

    The sets may differ in number and size; every image is resized to 299x299 for "fid". "frechet_effnet" is of other
    features, those that EfficientNet-Lite0's classifier sees, of images enlarged to 128 pixels (see ``perceptual``).

    Raises:
        ValueError: fewer than two images, other shapes, samples that are not finite, a ``reference`` beyond [0, 1], or
            what is needed is not there (:func:`fid_unavailable`, the extra ``perceptual``).
    """
    for name, images in (("samples", samples), ("reference", reference)):
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[0] < 2:
            raise ValueError(f"{name}: expected at least 2 images (N, 3, H, W), got shape {tuple(images.shape)}")
    check_range(samples, "samples", *FINITE)
    check_range(reference, "reference")
    refuse(fid_unavailable() if key == "fid" else effnet_unavailable())
    return distance(moments(samples, key), moments(reference, key))


fid, frechet_effnet = (functools.partial(set_distance, key=key) for key in ("fid", "frechet_effnet"))


def fid_record(samples: Tensor, reference: Tensor) -> dict[str, float | str | None]:
    """``fid`` of two sets of images, ready for JSON; where it cannot be computed, None with ``fid_reason``, and
    ``frechet_effnet``, None with its own reason where that cannot be either."""
    few = "a distance of sets needs at least 2 images" if min(len(samples), len(reference)) < 2 else None
    few = few or (None if bool(finite_images(samples).all()) else "undefined: not all restored images are finite")
    record: dict[str, float | str | None] = {}
    for key, reason in (("fid", few or fid_unavailable()), ("frechet_effnet", few or effnet_unavailable())):
        if reason is None:
            return record | {key: set_distance(samples, reference, key)}
        record |= {key: None, f"{key}_reason": reason}
    return record


@torch.no_grad()
def moments(images: Tensor, key: str) -> Tensor:
    """All that the distance ``key`` ("fid" or "frechet_effnet") needs of a set of ``images`` (N, 3, H, W): the sum of
    (f, 1) (f, 1)^T over the D features f of each, (D + 1, D + 1) in double precision. Those of a set's parts add up."""
    network = _inception(str(torch_file(FID_WEIGHTS)), images.device) if key == "fid" else _pooled
    found = torch.zeros((), dtype=torch.double, device=images.device)
    for batch in images.split(BATCH):
        levels = torch.from_numpy(to_uint8(batch)).permute(0, 3, 1, 2).to(images.device)
        features = nn.functional.pad(network(levels).double(), (0, 1), value=1.0)
        found = found + features.T @ features
    return found


def distance(samples: Tensor, reference: Tensor) -> float:
    """The distance of two sets of at least two images by their :func:`moments`.

    Not by torchmetrics, whose metric sums up the same but cannot be made of sums, and rounds the result to float32.
    """
    count, other = samples[-1, -1], reference[-1, -1]
    mean, mean2 = samples[-1, :-1] / count, reference[-1, :-1] / other
    spread = (samples[:-1, :-1] - count * mean.outer(mean)) / (count - 1)
    spread2 = (reference[:-1, :-1] - other * mean2.outer(mean2)) / (other - 1)
    shared = torch.linalg.eigvals(spread @ spread2).sqrt().real.sum()
    return float((mean - mean2).square().sum() + spread.trace() + spread2.trace() - 2 * shared)


def fid_unavailable() -> str | None:
    """Why FID cannot be computed, or None when it can: torch-fidelity and the published weights, where torch keeps
    such files, under their own name and with the SHA-256 that the name begins to tell."""
    if importlib.util.find_spec("torch_fidelity") is None:
        return "unavailable: FID needs torch-fidelity, pip install 'restoration-workbench[fid]'"
    weights = torch_file(FID_WEIGHTS)
    if reason := absent(weights):
        return reason
    expected, found = weights.stem.rsplit("-", 1)[-1], sha256(weights)
    if not found.startswith(expected):
        return f"unavailable: {weights} is not the published file, its SHA-256 begins with {found[:8]}"
    return None


@functools.cache
def _inception(weights: str, device: torch.device) -> nn.Module:
    read_weights(Path(weights))  # the library would run what a pickle says; this refuses all but tensors
    # Without antialiasing: the resizing of the original, which published figures used.
    metric = FrechetInceptionDistance(feature_extractor_weights_path=weights, antialias=False)
    return metric.inception.to(device)


def _pooled(levels: Tensor) -> Tensor:
    return loaded("effnet", str(levels.device)).pooled(levels / 255)
