"""Denoisers of deepinv as priors, and priors as denoisers of deepinv. See the package's text."""

import copy
import inspect
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.adapters import linear_alphas_cumprod
from workbench.models.files import optional_package
from workbench.models.prior import Prior
from workbench.text import require, unknown

SHORT_NAMES = {"tv": "TVDenoiser", "tgv": "TGVDenoiser", "wavelet": "WaveletDenoiser", "median": "MedianFilter"}
# By class; others take any level and size. DRUNet, GSPnP (the class of GSDRUNet): [0, 50]/255, DPIR, section 3.2, and
# deepinv's table of weights. FFDNet: [0, 75]/255, its paper. The two EDM networks: 0.002 to 80 on [-1, 1]. deepinv's
# table states [0, 20]/255 for an earlier DRUNet of its own and nothing for the present one.
KNOWN: dict[str, dict[str, Any]] = {
    "DRUNet": {"sigma_max": 50 / 255},
    "GSPnP": {"sigma_max": 50 / 255},
    "FFDNet": {"sigma_max": 75 / 255, "multiple": 2},
    "NCSNpp": {"sigma_min": 0.001, "sigma_max": 40.0, "multiple": 4},
    "ADMUNet": {"sigma_min": 0.001, "sigma_max": 40.0, "multiple": 8},
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
    name: str | None = None,
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
    facts = _known(denoiser) | {"channels": _channels(denoiser), "name": type(denoiser).__name__}
    given = {"sigma_min": sigma_min, "sigma_max": sigma_max, "channels": channels, "multiple": multiple, "name": name}
    return DeepinvDenoiser(denoiser, **facts | {key: value for key, value in given.items() if value is not None})


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
    require(above in ("raise", "shrink"), "above", "'raise' or 'shrink'", repr(above))
    return _denoiser_class()(prior, above)


class DeepinvDenoiser(Prior):
    """``net(x, sigma)`` of deepinv, so that a batch is the same as its images one by one.

    deepinv's own classes take sigma (B,) and are called once, except those in ``COUPLED``, called per image. A class
    from elsewhere may know numbers only: it is called once per distinct level.
    """

    def __init__(self, net: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.net = net
        kinds = {cls.__name__ for part in net.modules() for cls in type(part).__mro__}
        if "WaveletDenoiser" in kinds and find_spec("ptwt") is None:
            raise ValueError("the wavelet denoisers of deepinv need ptwt: pip install ptwt")
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
        result = torch.empty_like(x)
        for level in sigma.unique():
            result[sigma == level] = self.net(x[sigma == level], level.item())
        return result


def deepinv_package() -> Any:
    return optional_package("deepinv")


def _build(models: Any, name: str, options: dict[str, Any]) -> nn.Module:
    """The denoiser called ``name``, made with ``options``, in eval mode."""
    # GSDRUNet is a function that makes a GSPnP.
    denoisers = {key for key, value in vars(models).items() if _is_denoiser_class(models, value)} | {"GSDRUNet"}
    known = {key.lower(): key for key in denoisers} | SHORT_NAMES
    if name.lower() not in known:
        raise ValueError(unknown("denoiser of deepinv", name.lower(), sorted(known)))
    maker = getattr(models, known[name.lower()])
    if isinstance(options.get("pretrained"), os.PathLike):
        options = options | {"pretrained": os.fspath(options["pretrained"])}  # it asks strings what they start with
    weights, kind = options.get("pretrained"), known[name.lower()]
    try:
        with _tensors_only():
            net = maker(**options)
    except OSError as error:
        raise ValueError(_missing_weights(error, kind, weights)) from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{weights or 'the weights'}: not a file of plain tensors, and a pickle that can run code is not loaded: "
            "save its state dict with torch.save, from a process that trusts it"
        ) from error
    except Exception as error:
        raise ValueError(f"deepinv cannot make {kind} from {options or 'its defaults'}: {error}") from error
    default = inspect.signature(maker).parameters.get("pretrained")
    trained = "pretrained" in options or (default is not None and default.default is not None)
    if not trained and next(net.parameters(), None) is not None:
        advice = "make it, load its weights and pass it" if default is None else "pass pretrained=FILE or 'download'"
        raise ValueError(f"deepinv makes {kind} with random weights: {advice}")
    return net.eval()


def _is_denoiser_class(models: Any, value: Any) -> bool:
    if not inspect.isclass(value) or value is models.Denoiser:
        return False
    return issubclass(value, models.Denoiser) and not issubclass(value, models.Reconstructor)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load refuses all but plain tensors meanwhile, also where the caller asks for more (as torch.hub does)."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
        os.environ |= {} if before is None else {name: before}


def _missing_weights(error: Exception, name: str, weights: Any) -> str:
    """What is missing and where it belongs, for weights that cannot be read or downloaded."""
    if isinstance(error, FileNotFoundError):
        return f"pretrained={weights!r}: no such file"
    text = f"the weights of deepinv's {name} cannot be loaded ({error.__cause__ or error}): "
    found = re.search(r"https?://[^\s?]+[^\s?:,]", str(error))
    if found is not None:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(found.group()).name
        text += f"get {found.group()} and put it at {place}, or "
    return text + "pass pretrained=FILE"


def _check_denoiser(models: Any, denoiser: Any) -> None:
    """Raise ValueError unless ``denoiser`` takes (x, sigma), real images in [0, 1]."""
    kind = type(denoiser).__name__
    if not isinstance(denoiser, nn.Module):
        raise ValueError(f"expected a deepinv denoiser or the name of one, got {kind}")
    if isinstance(denoiser, (models.MinusOneOneDenoiserWrapper, models.ComplexDenoiserWrapper)):
        raise ValueError(f"{kind} does not take real images in [0, 1]: pass the denoiser that it wraps")
    arguments = list(inspect.signature(denoiser.forward).parameters.values())
    second = arguments[1] if len(arguments) > 1 else None
    if second is None or second.kind in (second.KEYWORD_ONLY, second.VAR_KEYWORD) or second.name == "physics":
        fits = False
    else:
        fits = isinstance(denoiser, models.Denoiser) or second.name in ("sigma", "ths", "noise_level")
    if not fits:
        names = ", ".join(argument.name for argument in arguments)
        others = "PlainDenoiser, EDMPrecond, VPNoise or VEScore make priors of others"
        raise ValueError(f"{kind} is not a denoiser: expected forward(x, sigma), got forward({names}); {others}")


def _known(denoiser: nn.Module) -> dict[str, Any]:
    """Noise range and ``multiple`` of a denoiser, as far as known."""
    names = [cls.__name__ for cls in type(denoiser).__mro__]
    if "DiffUNet" in names:
        # It looks for the nearest of the 1000 steps of DDPM; sigma is that of [-1, 1], halved.
        levels = (1 / linear_alphas_cumprod() - 1).sqrt() / 2
        return {"sigma_min": float(levels[0]), "sigma_max": float(levels[-1])}
    return next((KNOWN[name] for name in names if name in KNOWN), {})


def _channels(denoiser: nn.Module) -> int:
    """Image channels (1 or 3) that the first convolution takes, less the noise map of DRUNet; 3 if that is not it."""
    inputs = next((part.in_channels for part in denoiser.modules() if isinstance(part, nn.Conv2d)), 3)
    # DRUNet: one noise map more. FFDNet: four half-size images of each channel and four of the noise map.
    return {1: 1, 2: 1, 8: 1}.get(inputs, 3)


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
