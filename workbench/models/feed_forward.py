"""Published feed-forward restorers, which turn a degraded picture into a restored one in a single evaluation.

spandrel (chaiNNer's loader) tells some forty architectures from their tensors: ESRGAN, SwinIR, HAT, NAFNet, SCUNet, ...
Its own reader also takes TorchScript, which is a program; here files are read as tensors alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.models.files import about, check_finite, check_plain, optional_package, read_weights, sha256
from workbench.models.prior import Prior


class Network(Prior):
    """A network of spandrel as a prior of kind "network": it has no noise level, and ignores ``sigma``.

    It takes images of the restored size, as all priors do, so that it also runs in tiles. One that ``enlarges``
    sees every so many pixels of them: show it its input with each pixel repeated.

    Args:
        found: spandrel's ``ImageModelDescriptor``, which mirrors at the lower and right border what a network cannot
            take, and clips the result to [0, 1].
    """

    def __init__(self, found: Any, name: str) -> None:
        super().__init__(channels=found.input_channels, multiple=found.scale, name=name)
        self.kind, self.enlarges = "network", found.scale
        self.net, self.found = found.model, found
        words = (found.architecture.name, *found.tags, f"x{found.scale}", "(spandrel)")
        self.card = {"network": " ".join(words)}

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The restored images (B, C, H, W) in [0, 1]. No gradients."""
        seen = x[..., :: self.enlarges, :: self.enlarges].to(next(self.parameters()).dtype)
        return torch.cat([self.found(image) for image in seen.split(1)]).to(x)  # spandrel takes one at a time


def load_spandrel(source: str) -> Prior:
    """The network in the file ``source`` (PyTorch or safetensors).

    Raises:
        ValueError: spandrel is not installed; a file that cannot be read as tensors; no network that spandrel knows, or
            one that needs more than a picture (a mask, a noise level) or changes the number of channels.
    """
    path = Path(source).expanduser()
    content, _ = read_weights(path)
    library = optional_package("spandrel")
    with about(path):
        prior = Network(_describe(library, content), path.stem)
    prior.source = {"file": path.name, "sha256": sha256(path)}
    return prior.eval().requires_grad_(False)


def _describe(library: Any, content: Any) -> Any:
    """What spandrel makes of a file's ``content``."""
    try:
        state = library.canonicalize_state_dict(content)  # without what training put around and before the names
        plain = bool(state) and all(isinstance(name, str) and isinstance(state[name], Tensor) for name in state)
    except Exception:  # whatever else a file may hold
        plain = False
    if not plain:
        raise ValueError(f"expected named tensors, found {type(content).__name__}")
    check_plain(state)
    check_finite(state)
    # Layers are counted by the highest number in their names: one long number could take all memory.
    if any(part.isdecimal() and int(part) > 10 * len(state) for name in state for part in name.split(".")):
        raise ValueError(f"its names count further than {len(state)} tensors can")
    try:
        found = library.ModelLoader().load_from_state_dict(state)
    except library.UnsupportedModelError:
        raise ValueError(f"no network that spandrel knows: {len(state)} tensors such as {next(iter(state))}") from None
    except Exception as error:  # tensors that are missing or left over: each architecture fails in its own way
        raise ValueError(f"spandrel cannot build this network: {str(error)[:300]}") from None
    name = found.architecture.name
    if not isinstance(found, library.ImageModelDescriptor):
        raise ValueError(f"{name} needs a mask beside the picture, which is not supported")
    if name == "DRUNet" or "FDnCNN" in found.tags:
        raise ValueError(f"{name} needs to be told a noise level: DRUNet is read without spandrel:, as a denoiser")
    if found.input_channels != found.output_channels:
        raise ValueError(f"{name} turns {found.input_channels} channels into {found.output_channels}, not supported")
    return found
