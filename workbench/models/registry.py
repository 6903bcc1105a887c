"""The priors that come with the package, and one way to get any prior: :func:`load_prior`."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from workbench.models.checkpoint import load_checkpoint, read_header
from workbench.models.ncsnpp import NCSNppConfig
from workbench.models.prior import Prior

SUFFIX = ".safetensors"
# Architecture of the shipped photo priors: 3.84 million parameters, fully convolutional, 7.7 MB in half precision.
PHOTO_CONFIG = NCSNppConfig(
    width=32,
    multipliers=(1, 2, 4),
    blocks=2,
    attention_levels=(),
    middle_attention=False,
    fir=False,
    input_pyramid="none",
    fourier_scale=1.0,
)


def _shipped() -> dict[str, Path]:
    folder = Path(str(resources.files("workbench"))) / "models" / "weights"
    return {file.name.removesuffix(SUFFIX): file for file in sorted(folder.glob(f"*{SUFFIX}"))}


def available_priors() -> list[str]:
    """Names of the shipped priors."""
    return list(_shipped())


def describe_priors() -> list[dict[str, Any]]:
    """One entry per shipped prior: ``name``, ``megabytes``, and the facts of its card."""
    return [
        {"name": name, "megabytes": round(file.stat().st_size / 1e6, 2), **read_header(file)["card"]}
        for name, file in _shipped().items()
    ]


def load_prior(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> Prior:
    """A prior by the name of a shipped one (``workbench models``) or by the path of a checkpoint of this package.

    Returns:
        The prior in eval mode, float32, without gradients to its weights (``requires_grad_(True)`` to train it).

    Raises:
        ValueError: neither a known name (the nearest is suggested) nor a readable checkpoint.
    """
    shipped = _shipped()
    name = str(name_or_path)
    if name in shipped:
        return load_checkpoint(shipped[name], device=device)
    if Path(name_or_path).exists() or name.endswith(SUFFIX):
        return load_checkpoint(name_or_path, device=device)
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown prior {name!r}{hint} (shipped: {', '.join(shipped) or 'none'}; or give a file's path)")
