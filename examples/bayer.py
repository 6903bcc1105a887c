"""The sensor of a camera: each pixel measures one colour."""

import torch

from workbench.operators import FunctionOperator


def mosaic(image_shape: tuple[int, int, int]) -> FunctionOperator:
    """Bayer mosaic (RGGB): one number per pixel."""
    _, height, width = image_shape
    mask = torch.zeros(3, height, width)
    mask[0, ::2, ::2] = 1
    mask[1, ::2, 1::2] = mask[1, 1::2, ::2] = 1
    mask[2, 1::2, 1::2] = 1
    return FunctionOperator(lambda x: (mask.to(x) * x).sum(dim=1, keepdim=True), image_shape)
