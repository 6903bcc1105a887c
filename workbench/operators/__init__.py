"""Forward models ``y = A x + noise``: what happened to the photo. Noise is separate."""

from workbench.operators.base import Operator, SpectralOperator
from workbench.operators.blur import Blur
from workbench.operators.color import Grayscale
from workbench.operators.compose import Compose
from workbench.operators.contract import check_operator
from workbench.operators.function import FunctionOperator
from workbench.operators.hadamard import WalshHadamard
from workbench.operators.inpainting import Identity, Inpainting
from workbench.operators.jpeg import JPEG
from workbench.operators.kernels import bicubic_kernel, gaussian_kernel, motion_kernel, uniform_kernel
from workbench.operators.masks import block_mask, random_mask, scratches_mask, stripes_mask, text_mask
from workbench.operators.mri import MaskedFourier, MultiCoil, cartesian_mask
from workbench.operators.parse import describe_operators, parse_operator
from workbench.operators.separable import Separable, circulant, decimation
from workbench.operators.super_resolution import SuperResolution

__all__ = [
    "JPEG",
    "Blur",
    "Compose",
    "FunctionOperator",
    "Grayscale",
    "Identity",
    "Inpainting",
    "MaskedFourier",
    "MultiCoil",
    "Operator",
    "Separable",
    "SpectralOperator",
    "SuperResolution",
    "WalshHadamard",
    "bicubic_kernel",
    "block_mask",
    "cartesian_mask",
    "check_operator",
    "circulant",
    "decimation",
    "describe_operators",
    "gaussian_kernel",
    "motion_kernel",
    "parse_operator",
    "random_mask",
    "scratches_mask",
    "stripes_mask",
    "text_mask",
    "uniform_kernel",
]
