"""The network behind ``perceptual-tiny``: a small classifier whose stages see an image at five resolutions.

Each stage is two 3x3 convolutions with batch normalisation and ReLU; 2x2 means halve the resolution between stages
(means rather than strides or maxima, which alias and so would answer to a shift by one pixel as to a change).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (16, 32, 64, 128, 192)  # channels of the stages, at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution
SMALLEST = 2 ** (len(WIDTHS) - 1)  # pixels; below this the last stage has no position left


class PerceptualNetwork(nn.Module):
    """Convolutional classifier of photos, of any size from 16x16 pixels on; 0.9 million parameters.

    Args:
        classes: how many.
        normalised: with batch normalisation, as it is trained; without, as :func:`fused` makes it and files hold it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, *, normalised: bool = True) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*_layer(before, width, normalised), *_layer(width, width, normalised))
            for before, width in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.head = nn.Linear(WIDTHS[-1], classes)
        # What photos of this range have on average; constants, so that the file alone defines the distance.
        self.register_buffer("mean", torch.tensor([0.48, 0.45, 0.40]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.27, 0.26, 0.28]).view(3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of each stage, (B, WIDTHS[k], H // 2^k, W // 2^k), for images (B, 3, H, W) of range [0, 1]."""
        values = (images - self.mean) / self.std
        outputs: list[Tensor] = []
        for stage in self.stages:
            values = stage(nn.functional.avg_pool2d(values, 2) if outputs else values)
            outputs.append(values)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, classes) for images (B, 3, H, W) of range [0, 1]."""
        return self.head(self.features(images)[-1].mean(dim=(2, 3)))


def fused(network: PerceptualNetwork) -> PerceptualNetwork:
    """The same function as ``network`` in eval mode, its normalisations worked into the convolutions: fewer passes."""
    plain = PerceptualNetwork(network.head.out_features, normalised=False)
    convolutions = [module for module in network.stages.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.stages.modules() if isinstance(module, nn.BatchNorm2d)]
    targets = [module for module in plain.stages.modules() if isinstance(module, nn.Conv2d)]
    for target, convolution, norm in zip(targets, convolutions, norms, strict=True):
        target.load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())
    plain.head.load_state_dict(network.head.state_dict())
    return plain.eval()


def _layer(before: int, after: int, normalised: bool) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=not normalised)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()] if normalised else [convolution, nn.ReLU()]
