"""What a record says beside the scores, so that a figure can be had again: versions, hardware, settings, tiles."""

from __future__ import annotations

import platform
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import torch

from workbench.models.prior import Prior
from workbench.models.tiled import TiledPrior


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that a figure depends on."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "workbench": version("restoration-workbench"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
    }


def solver_settings(solver: Any) -> dict[str, Any]:
    """All settings of a solver, defaults too, ready for JSON."""
    values = {field.name: getattr(solver, field.name) for field in fields(solver)}
    return {name: getattr(value, "__name__", value) for name, value in values.items()}


def tiles_of(prior: Prior) -> dict[str, Any]:
    """How the prior was cut into tiles, ready for JSON; ``tile`` 0 for none."""
    if isinstance(prior, TiledPrior):
        return {"tile": prior.tile, "overlap": prior.overlap}
    return {"tile": 0, "overlap": 0}
