"""What several tests of models share: reference vectors, a small state dict, files that are refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.models import DDPM, DDPMConfig, load_prior

read_prior = partial(load_prior, check=False)  # without the look at what it does, which test_check_prior.py tests


def reference(shared: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """The case's state dict as published, its inputs and outputs, its description."""
    source = shared / "reference" / "models" / f"{name}.safetensors"
    tensors = load_file(source)
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    return state, tensors, json.loads(source.with_suffix(".json").read_text())


def ddpm_state(**options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = DDPMConfig(width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,), **options)
    return dict(DDPM(config).state_dict())


def refused(file: Path, message: str, content: Any = None, /, **settings: Any) -> None:
    """``content`` saved as ``file`` (None: as it is) is refused in one short line that names the file."""
    if content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=message) as raised:
        load_prior(file, **settings)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
