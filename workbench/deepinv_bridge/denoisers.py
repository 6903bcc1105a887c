"""Denoisers of deepinv as priors, and priors as denoisers of deepinv. See the package's text."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from workbench.models.adapters import linear_alphas_cumprod
from workbench.models.prior import Prior

SHORT_NAMES = {"tv": "TVDenoiser", "tgv": "TGVDenoiser", "wavelet": "WaveletDenoiser", "median": "MedianFilter"}
# (sigma_min, sigma_max, multiple) by class; others are (0, inf, 1). DRUNet, GSPnP (the class of GSDRUNet): [0, 50]/255,
# DPIR, section 3.2, and deepinv's table of weights. FFDNet: [0, 75]/255, its paper. The two EDM networks: 0.002 to 80
# on [-1, 1]. deepinv's table states [0, 20]/255 for an earlier DRUNet of its own and nothing for the present one.
KNOWN = {
    "DRUNet": (0.0, 50 / 255, 1),
    "GSPnP": (0.0, 50 / 255, 1),
    "FFDNet": (0.0, 75 / 255, 2),
    "NCSNpp": (0.001, 40.0, 4),
    "ADMUNet": (0.001, 40.0, 8),
}
# These stop iterating when the batch as a whole has converged, so that its images depend on each other.
COUPLED = ("TVDenoiser", "TGVDenoiser", "WaveletDictDenoiser", "DScCP")


def prior_from_deepinv(
    denoiser: nn.Module | str,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    channels: int | None = None,
    multiple: int | None = None,
    name: str = "",
    **options: Any,
) -> Prior:
    """A deepinv denoiser as a prior.

    Args:
        denoiser: ``forward(x, sigma)`` on [0, 1]; or the name of a class of ``deepinv.models`` in any case, or "tv",
            "tgv", "wavelet", "median". An object is used as it is: its weights are shared and its mode is kept.
        sigma_min, sigma_max: noise range. Default: that of the published weights where known, else 0 and infinity.
        channels: Default: what its first convolution takes, else 3.
        multiple: sides must be multiples of this. Default: known for deepinv's networks, else 1.
        options: with a name, the arguments of its class: ``pretrained`` ("download", None or a weights file) and so
            on. Weights are read as plain tensors only, whatever deepinv asks for: a pickle can run code.

    TV and wavelet denoisers take sigma as their regularisation weight (``ths``), as in deepinv itself.

    Raises:
        ValueError: deepinv is not installed, no denoiser of this name, not a denoiser, wrong options, or weights that
            are missing or unsafe.
    """
    models = deepinv_package().models
    if isinstance(denoiser, str):
        denoiser = _build(models, denoiser, options)
    elif options:
        raise ValueError(f"{', '.join(options)}: only for a denoiser given by its name")
    if isinstance(denoiser, Prior):
        raise ValueError(f"{denoiser.name} is a prior already")
    _check_denoiser(models, denoiser)
    if isinstance(denoiser, _denoiser_class()):
        kept: Any = denoiser
        return kept.prior
    low, high, sides = _known(denoiser)
    return DeepinvDenoiser(
        denoiser,
        sigma_min=low if sigma_min is None else sigma_min,
        sigma_max=high if sigma_max is None else sigma_max,
        channels=_channels(denoiser) if channels is None else channels,
        multiple=sides if multiple is None else multiple,
        name=name or type(denoiser).__name__,
    )


def denoiser_for_deepinv(prior: Prior, *, above: str = "raise") -> Any:
    """``prior`` as a ``deepinv.models.Denoiser``: ``forward(x, sigma)``, sigma a number, () or one per image.

    Args:
        prior: kept as the attribute ``prior``.
        above: what happens above ``prior.sigma_max``. "raise": the prior's ValueError. "shrink": the image is shrunk
            towards 1/2 until its noise is at ``sigma_max``, an approximation that is good where ``sigma_max`` exceeds
            the contrast of images many times (50 does). deepinv's DiffPIR and DPS start near sigma = 78 and need it.

    Raises:
        ValueError: deepinv is not installed, or another ``above``; when called, see :class:`Prior`.
    """
    if not isinstance(prior, Prior):
        raise ValueError(f"expected a workbench prior, got {type(prior).__name__}")
    if above not in ("raise", "shrink"):
        raise ValueError(f'above must be "raise" or "shrink", got {above!r}')
    return _denoiser_class()(prior, above)


class DeepinvDenoiser(Prior):
    """``net(x, sigma)`` of deepinv, so that a batch is the same as its images one by one.

    deepinv's own classes take sigma (B,) and are called once, except those in ``COUPLED``, called per image. A class
    from elsewhere may know numbers only: it is called once per distinct level.
    """

    def __init__(
        self, net: nn.Module, *, sigma_min: float, sigma_max: float, channels: int, multiple: int, name: str
    ) -> None:
        super().__init__(sigma_min=sigma_min, sigma_max=sigma_max, channels=channels, multiple=multiple, name=name)
        self.net = net
        kinds = {cls.__name__ for part in net.modules() for cls in type(part).__mro__}
        self.coupled = not kinds.isdisjoint(COUPLED)
        self.patches = "BM3D" in kinds
        self.batched = type(net).__module__.startswith("deepinv.")

    def check(self, x: Tensor) -> None:
        super().check(x)
        # The bm3d package does not raise for an image smaller than its patches: it ends the process.
        if self.patches and min(x.shape[-2:]) <= 8:
            raise ValueError(f"{self.name} takes sides from 9 pixels, got {x.shape[-2]}x{x.shape[-1]}")

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.coupled:
            pairs = zip(x.split(1), sigma.tolist(), strict=True)
            return torch.cat([_cold(self.net)(image, level) for image, level in pairs])
        if self.batched:
            return self.net(x, sigma)
        order, images = [], []
        for level in sigma.unique().tolist():
            index = (sigma == level).nonzero()[:, 0]
            order.append(index)
            images.append(self.net(x[index], level))
        return torch.cat(images)[torch.cat(order).argsort()]


def deepinv_package() -> Any:
    try:
        import deepinv
    except ImportError as error:
        raise ValueError("deepinv is not installed: pip install 'restoration-workbench[deepinv]'") from error
    return deepinv


def _build(models: Any, name: str, options: dict[str, Any]) -> nn.Module:
    """The denoiser called ``name``, made with ``options``, in eval mode."""
    # GSDRUNet is a function that makes a GSPnP.
    denoisers = {key for key, value in vars(models).items() if _is_denoiser_class(models, value)} | {"GSDRUNet"}
    known = {key.lower(): key for key in denoisers} | SHORT_NAMES
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"deepinv has no denoiser {name!r}: {hint}")
    maker = getattr(models, known[name.lower()])
    weights = options.get("pretrained")
    if isinstance(weights, os.PathLike):
        # deepinv asks strings what they start with.
        weights = os.fspath(weights)
        options = {**options, "pretrained": weights}
    try:
        with _tensors_only():
            net = maker(**options)
    except (OSError, URLError) as error:
        raise ValueError(_missing_weights(error, known[name.lower()], weights)) from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{weights or 'the weights'}: not a file of plain tensors, and a pickle that can run code is not loaded: "
            "save its state dict with torch.save, from a process that trusts it"
        ) from error
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"deepinv cannot make {known[name.lower()]} from {options or 'its defaults'}: {error}"
        ) from error
    default = inspect.signature(maker).parameters.get("pretrained")
    if (
        "pretrained" not in options
        and (default is None or default.default is None)
        and next(net.parameters(), None) is not None
    ):
        advice = "make it, load its weights and pass it" if default is None else "pass pretrained=FILE or 'download'"
        raise ValueError(f"deepinv makes {known[name.lower()]} with random weights: {advice}")
    return net.eval()


def _is_denoiser_class(models: Any, value: Any) -> bool:
    if not inspect.isclass(value) or issubclass(value, models.Reconstructor) or value is models.Denoiser:
        return False
    return issubclass(value, models.Denoiser)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load refuses all but plain tensors meanwhile, also where the caller asks for more (as torch.hub does)."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _missing_weights(error: Exception, name: str, weights: Any) -> str:
    """What is missing and where it belongs, for weights that cannot be read or downloaded."""
    if isinstance(error, FileNotFoundError):
        return f"pretrained={weights!r}: no such file"
    found = re.search(r"https?://\S+?(?=[:,]?\s|$)", str(error))
    if found is None:
        return f"the weights of deepinv's {name} cannot be loaded ({error}): pass pretrained=FILE"
    url = found.group()
    file = Path(url.partition("?")[0]).name
    return (
        f"the weights of deepinv's {name} cannot be downloaded ({error.__cause__ or error}): get {url} and put it at "
        f"{Path(torch.hub.get_dir()) / 'checkpoints' / file}, or pass pretrained=FILE"
    )


def _check_denoiser(models: Any, denoiser: Any) -> None:
    """Raise ValueError unless ``denoiser`` takes (x, sigma), real images in [0, 1]."""
    kind = type(denoiser).__name__
    if not isinstance(denoiser, nn.Module):
        raise ValueError(f"expected a deepinv denoiser or the name of one, got {kind}")
    if isinstance(denoiser, (models.MinusOneOneDenoiserWrapper, models.ComplexDenoiserWrapper)):
        raise ValueError(f"{kind} does not take real images in [0, 1]: pass the denoiser that it wraps")
    arguments = list(inspect.signature(denoiser.forward).parameters.values())
    second = arguments[1] if len(arguments) > 1 else None
    if second is not None and isinstance(denoiser, models.Denoiser):
        fits = second.name != "physics" and second.kind not in (second.KEYWORD_ONLY, second.VAR_KEYWORD)
    else:
        fits = second is not None and second.name in ("sigma", "ths", "noise_level")
    if not fits:
        names = ", ".join(argument.name for argument in arguments)
        raise ValueError(f"{kind} is not a denoiser: expected forward(x, sigma), got forward({names})")


def _known(denoiser: nn.Module) -> tuple[float, float, int]:
    """(sigma_min, sigma_max, multiple) of a denoiser."""
    for cls in type(denoiser).__mro__:
        if cls.__name__ == "DiffUNet":
            # It looks for the nearest of the 1000 steps of DDPM; sigma is that of [-1, 1], halved.
            levels = (1 / linear_alphas_cumprod() - 1).sqrt() / 2
            return float(levels[0]), float(levels[-1]), 1
        if cls.__name__ in KNOWN:
            return KNOWN[cls.__name__]
    return 0.0, math.inf, 1


def _channels(denoiser: nn.Module) -> int:
    """Image channels (1 or 3) that the first convolution takes, less the noise map of DRUNet; 3 if that is not it."""
    for part in denoiser.modules():
        if isinstance(part, nn.Conv2d):
            inputs = part.in_channels
            # DRUNet: one noise map more. FFDNet: four half-size images of each channel and four of the noise map.
            return {1: 1, 2: 1, 8: 1}.get(inputs, 3)
    return 3


def _cold(net: nn.Module) -> nn.Module:
    """``net`` without the memory of its last call (TV and TGV start from the last image), its tensors shared."""
    fresh = copy.copy(net)
    fresh.__dict__["_modules"] = {name: part and _cold(part) for name, part in net._modules.items()}
    if "restart" in fresh.__dict__:
        fresh.__dict__["restart"] = True
    return fresh


def device_of(module: nn.Module) -> torch.device:
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@cache
def _denoiser_class() -> type:
    """The subclass of deepinv's Denoiser; made on demand, since making it takes deepinv."""

    base: Any = deepinv_package().models.Denoiser

    class PriorDenoiser(base):
        def __init__(self, prior: Prior, above: str) -> None:
            super().__init__(device=device_of(prior))
            self.prior = prior
            self.above = above

        def forward(self, x: Tensor, sigma: float | Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """The prior; what deepinv's samplers pass on besides (class labels and so on) means nothing to it."""
            levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
            if levels.ndim > 1 and levels.numel() == levels.shape[0]:
                levels = levels.flatten()
            highest = self.prior.sigma_max
            if self.above == "shrink" and bool((levels > highest).any()):
                scale = (highest / levels).clamp(max=1.0)
                x = 0.5 + (x - 0.5) * (scale.view(-1, 1, 1, 1) if scale.ndim else scale)
                levels = levels.clamp(max=highest)
            return self.prior(x, levels)

    return PriorDenoiser
