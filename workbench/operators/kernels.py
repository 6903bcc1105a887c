"""Blur kernels: (kh, kw), non-negative, sum 1, at any size, odd or even.

Computed in float64 and returned in ``dtype`` (torch's default if None). Rows run down, columns to the right; angles are
in degrees, counter-clockwise from the direction of the rows as one looks at the picture.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.photo_file import read_photo


def gaussian_kernel(
    sigma: float | tuple[float, float],
    angle: float = 0.0,
    size: int | tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A Gaussian sampled at pixel centres, around the middle of the kernel (between pixels where a side is even).

    Args:
        sigma: standard deviation in pixels; two of them are along ``angle`` and across it.
        angle: of the first one; 0 is horizontal.
        size: of the kernel; None takes the odd size that reaches four standard deviations.

    Raises:
        ValueError: a standard deviation that is not positive and finite, or no pixels.
    """
    along, across = (sigma, sigma) if isinstance(sigma, int | float) else sigma
    if not (0 < along < math.inf and 0 < across < math.inf and math.isfinite(angle)):
        raise ValueError(f"sigma must be positive and finite, got {sigma} at angle {angle}")
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    if size is None:
        reach = (math.hypot(along * sin, across * cos), math.hypot(along * cos, across * sin))
        size = (2 * math.ceil(4 * reach[0]) + 1, 2 * math.ceil(4 * reach[1]) + 1)
    down, right = _offsets(size)
    u, v = cos * right - sin * down, sin * right + cos * down
    exponent = (u / along) ** 2 + (v / across) ** 2
    # Relative to the tap nearest to the middle, so that a kernel far smaller than a pixel is an impulse and not 0/0.
    return _normalised(torch.exp((exponent.min() - exponent) / 2), dtype)


def uniform_kernel(size: int | tuple[int, int], dtype: torch.dtype | None = None) -> Tensor:
    """A box: the mean over ``size`` pixels. Raises ValueError for a size below 1."""
    down, right = _offsets(size)
    return _normalised(torch.ones_like(down * right), dtype)


def motion_kernel(length: int, angle: float = 0.0, dtype: torch.dtype | None = None) -> Tensor:
    """Straight motion: ``length`` points one pixel apart, each shared (bilinearly) by the four pixels around it.

    Raises:
        ValueError: length below 1, or an angle that is not finite.
    """
    if length < 1 or not math.isfinite(angle):
        raise ValueError(f"length must be at least 1 and angle finite, got {length} at {angle}")
    t = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    radius = math.ceil((length - 1) / 2)
    # Rounded so that 90 degrees is vertical to the last bit.
    rows = (radius - t * math.sin(math.radians(angle))).round(decimals=9)
    columns = (radius + t * math.cos(math.radians(angle))).round(decimals=9)
    grid = torch.arange(2 * radius + 1, dtype=torch.float64)
    share = [(1 - (grid[None] - at[:, None]).abs()).clamp(min=0) for at in (rows, columns)]
    return _normalised(share[0].T @ share[1], dtype)


def bicubic_kernel(factor: int, dtype: torch.dtype | None = None) -> Tensor:
    """The antialiasing bicubic filter (a = -1/2) that shrinks by ``factor``, as Pillow, torch and MATLAB resize.

    4 ``factor`` taps a side for even factors, 4 ``factor`` - 1 for odd ones (whose outermost taps are 0). Some taps are
    negative.
    """
    taps = 4 * factor - factor % 2
    t = _offsets(taps)[1].flatten().abs() / factor
    near, far = (1.5 * t - 2.5) * t**2 + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    line = torch.where(t <= 1, near, torch.where(t < 2, far, 0.0))
    return _normalised(torch.outer(line, line), dtype)


# What a kernel file ends with; the last two may hold several arrays, of which one is named: kernels.npz:kernel3.
FILE = re.compile(r"(?P<path>.+\.(?:png$|npy$|npz|mat))(?::(?P<array>[^:/]+))?$", re.IGNORECASE | re.DOTALL)


def file_kernel(name: str) -> tuple[Tensor, str]:
    """The kernel in a file, (kh, kw) float64, divided by its sum; and a remark where that was not 1.

    A kernel is what it makes of a white point on black, as rows and columns of a picture; its middle is tap
    (kh // 2, kw // 2), see ``blur.py``.

    Args:
        name: a grey picture (.png), or an array (.npy, .npz or .mat; ``FILE.npz:NAME`` where there are several).

    Raises:
        ValueError: no such file, not one array of two dimensions, not finite, or a sum that is not positive; one line
            that begins with the file.
    """
    array = _read_array(name, "kernel")
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected a kernel (kh, kw) of real numbers, got shape {array.shape}, {array.dtype}")
    kernel = torch.from_numpy(array.astype(np.float64))
    total = float(kernel.sum())
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"{name}: the kernel's values must be finite with a sum above 0, got {total:g}")
    remark = f"{Path(name).name}: the kernel summed to {total:.4g} and was divided by it"
    return kernel / total, "" if abs(total - 1) < 0.01 else remark


def file_coils(name: str) -> Tensor:
    """The complex coil maps (J, H, W) in a file named as for :func:`file_kernel`, with its errors."""
    array = _read_array(name, "coil map")
    if array.dtype.kind != "c":
        raise ValueError(f"{name}: expected complex coil maps, got {array.dtype}")
    return torch.from_numpy(array.astype(np.complex128))


def _read_array(name: str, what: str) -> np.ndarray:
    found = FILE.match(name)
    if found is None:
        raise ValueError(f"{name}: expected a {what} file, .png, .npy, .npz:NAME or .mat:NAME")
    # A sparse matrix, and the text that a .npz may hold, become arrays of no dimensions.
    return np.asarray(_read(Path(found["path"]).expanduser(), found["array"], what))


def _read(path: Path, array: str | None, what: str) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind == ".png":
        photo = read_photo(path)  # what is transparent counts as black, not as the white of a page
        return (photo.image if photo.alpha is None else photo.image * photo.alpha)[0].double().mean(0).numpy()
    try:
        if kind == ".npy":
            with path.open("rb") as file:  # np.load would take a .npz of this name
                return np.lib.format.read_array(file, allow_pickle=False)
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as package:
                arrays = dict(package)
        else:
            from scipy.io import loadmat

            arrays = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    except Exception as error:  # readers raise whatever their parsing hits
        raise ValueError(f"{path}: no {what} can be read from it ({error})") from None
    if array is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if array not in arrays:
        one = f"one of {', '.join(arrays) or 'none'}, got {array or 'none'}"
        raise ValueError(f"{path}: which {what}? write {path.name}:NAME with {one}")
    return arrays[array]


def _offsets(size: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixel centres relative to the middle of the kernel, (kh, 1) and (1, kw)."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"a kernel has at least one pixel, got size {size}")
    down, right = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    return down[:, None], right[None]


def _normalised(kernel: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (kernel / kernel.sum()).to(dtype or torch.get_default_dtype())
