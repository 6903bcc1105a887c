"""The priors that come with the package, and one way to get any prior: :func:`load_prior`."""

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.check import check_once
from workbench.models.checkpoint import as_saved, checkpoint_header, prior_from_checkpoint, read_header
from workbench.models.diffusers_source import load_diffusers, prior_from_unet
from workbench.models.feed_forward import load_spandrel
from workbench.models.files import FLOATS, about, check_finite, read_weights, sha256
from workbench.models.hub import WEIGHTS, fetch, parse
from workbench.models.lora import adapter_from_checkpoint, is_adapter
from workbench.models.prior import Prior
from workbench.models.published_files import prior_from_published
from workbench.models.wrappers import existing_device
from workbench.own import imported, install, named, telling
from workbench.text import require, unknown

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".pt", ".pth", ".ckpt", ".bin")


def _shipped() -> dict[str, Path]:
    folder = Path(str(resources.files("workbench"))) / "models" / "weights"
    return {file.name.removesuffix(SUFFIX): file for file in sorted(folder.glob(f"*{SUFFIX}"))}


# The shipped prior to start with, by kind; there is none of kind "network".
DEFAULTS = {"denoiser": "photo", "consistency": "photo-cm", "unfolded": "photo-ud2m"}


_REGISTERED: dict[str, str] = {}
LOADED: dict[str, dict[str, str]] = {}  # where the weights of each prior are from that this process loaded by name


def _registered() -> dict[str, str]:
    """What installed packages register: ``package.module:NAME`` by name."""
    return install("priors", _REGISTERED, lambda name, text: text)


def available_priors() -> list[str]:
    """Names of the shipped priors, and of those that installed packages register."""
    return list(dict.fromkeys((*_shipped(), *_registered())))


def shipped_kind(name: str) -> str | None:
    """The kind of a shipped prior, see :class:`Prior`, told from its file's header; None for one that is registered."""
    if name not in _shipped():
        return None
    header = read_header(_shipped()[name])
    if "unfolding" in header:
        return "unfolded"
    return "consistency" if header["adapter"] == "consistency" else "denoiser"


def describe_priors() -> list[dict[str, Any]]:
    """One entry per prior: ``name``; of those shipped ``megabytes`` and the facts of the card, else ``summary``."""
    shipped = [
        {"name": name, "megabytes": round(file.stat().st_size / 1e6, 2), **read_header(file)["card"]}
        for name, file in _shipped().items()
    ]
    return shipped + [{"name": name, "summary": f"registered as {text}"} for name, text in _registered().items()]


def load_prior(
    source: str | Path | nn.Module,
    /,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    check: bool = True,
    **settings: Any,
) -> Prior:
    """Any prior, by one name.

    ============================  ==================================================================================
    source                        what it is
    ============================  ==================================================================================
    ``photo``                     shipped with the package (``workbench models`` lists them)
    ``FILE``                      a file of this package, or a published checkpoint: ``published_files`` says which
    ``FOLDER``                    with ``model.safetensors`` of this package, or a diffusers repository
    ``hf:USER/NAME[@REVISION]``   the same on the Hugging Face Hub; ``hf:USER/NAME/FILE`` one file of a repository
    ``diffusers:NAME``            a ``UNet2DModel`` repository on the Hub, or a folder in that format
    ``deepinv:NAME``              a denoiser of deepinv with its published weights, such as ``deepinv:drunet``
    ``spandrel:FILE``             a feed-forward restorer (ESRGAN, SwinIR, NAFNet, ...), for the solver ``network``
    ``FILE.py:NAME``              one's own: a :class:`Prior`, or a function of the settings that returns anything here
    ``package.module:NAME``       the same, or what an installed package registers, by its name alone
    a denoiser object             a :class:`Prior`, returned as it is, a denoiser of deepinv, or a ``UNet2DModel`` of
                                  diffusers, with the setting ``scheduler``
    ============================  ==================================================================================

    Args:
        dtype: precision of the network's weights (``torch.bfloat16``); images keep theirs. None: float32.
        channels_last: memory layout of the weights, faster for convolutions on some hardware.
        check: raise ValueError for a network that is beyond doubt no denoiser (:func:`check_prior`). False: never.
        settings: of the source, such as ``weights="raw"`` or ``head_channels=64`` (``prior_from_published``), ``step``
            ("nearest" or "interpolate", variance-preserving networks), ``pretrained=FILE`` (deepinv), ``trust_code``
            (True runs the code that a file of one's own prior names).

    Returns:
        The prior in eval mode, without gradients to its weights (``requires_grad_(True)`` to train it);
        ``prior.summary()`` says what it is.

    Raises:
        ValueError: an unknown name (the nearest is suggested), a file or repository that cannot be read or is none of
            these, settings that do not suit the source; the message says what was found and what is known.
    """
    prior = source if isinstance(source, Prior) and not settings else _find(source, settings)
    require(dtype in (None, *FLOATS), "dtype", "a floating-point precision", dtype)
    for weights in prior.parameters():
        # One by one: the whole network is never held twice.
        if dtype is not None:
            weights.data = weights.data.to(dtype)
        if channels_last and weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    device = existing_device(device)
    prior.checked |= not check or (isinstance(source, str) and source in _shipped())
    check_once(prior.to(device))
    if isinstance(source, str | Path):
        LOADED[str(source)] = prior.source
    return prior


def _find(source: str | Path | nn.Module, settings: dict[str, Any]) -> Prior:
    if isinstance(source, Prior):
        raise ValueError(f"a prior takes no settings, got {', '.join(settings)}")
    if isinstance(source, nn.Module):
        unet = any(kind.__module__.startswith("diffusers.") for kind in type(source).__mro__)
        return _with(settings, prior_from_unet, source) if unet else _deepinv(source, settings)
    if not isinstance(source, str | Path):
        raise ValueError(f"a prior is a name, a file or an object that denoises, got {type(source).__name__}")
    name = str(source)
    kind, colon, rest = name.partition(":")
    if colon and kind in KINDS:
        require(bool(rest), f"what follows {kind}:", "a name", "nothing")
        return KINDS[kind](rest, settings)
    shipped = _shipped()
    if name in shipped:
        return load_file(shipped[name], settings)
    try:
        path = Path(name).expanduser()
        folder, exists = bool(name) and path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # no right to look, a name too long; no such user after ~
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {name[:200]}: {reason}") from None
    if folder:
        return _folder(path, settings)
    if (exists and name) or path.suffix in SUFFIXES:
        return load_file(path, settings)
    if named(text := _registered().get(name, name)):
        return _own(name, text, settings)
    raise ValueError(
        f"{unknown('prior', name, available_priors())}; or give a file, a folder, hf:USER/NAME, diffusers:NAME, "
        "deepinv:NAME, spandrel:FILE or FILE.py:NAME"
    )


def _own(name: str, text: str, settings: dict[str, Any]) -> Prior:
    """The prior in one's own code, ``text``; the settings are those of a function."""
    made, code = imported(text)
    told = {"code_settings": json.dumps(settings, default=str)} if settings else {}
    with telling(name):
        if callable(made) and not isinstance(made, nn.Module):
            made, settings = made(**settings), {}
        prior = made if isinstance(made, Prior) and not settings else _find(made, settings)
    if prior.name == type(prior).__name__:
        prior.name = text.rpartition(":")[2]
    prior.source = prior.source | {"code": text, "code_sha256": code.get("sha256", "")} | told
    return prior.eval().requires_grad_(False)


def _saved(tensors: Mapping[str, Tensor], header: dict[str, Any], settings: dict[str, Any]) -> Prior:
    """The prior of one's own with the weights that ``save_prior`` wrote."""
    given, code = dict(settings), header["code"]
    if given.pop("trust_code", False) is not True:
        raise ValueError(f"a prior of one's own: loading it runs {code}; if you trust that, set trust_code=True")
    prior = _own(code, code, header["code_settings"] | given)
    check_finite(tensors)
    with telling(code):
        prior.load_state_dict(tensors)
    if prior.source["code_sha256"] != header.get("code_sha256"):
        warnings.warn(f"{code} is not what it was when the weights were saved", stacklevel=2)
    return as_saved(prior, header)


def runs_code(source: str, settings: Mapping[str, Any]) -> bool:
    """Whether loading the prior runs code that the name or the file of a prior names."""
    return "trust_code" in settings or (source.partition(":")[0] not in KINDS and named(source))


def load_file(path: Path, settings: dict[str, Any]) -> Prior:
    """The prior in one file, of this package or published.

    Raises:
        ValueError: see :func:`load_prior`.
    """
    content, metadata = read_weights(path)
    with about(path):
        if is_adapter(metadata):
            prior: Prior = _with(settings, adapter_from_checkpoint, content, metadata, path.stem)
        elif "workbench" in metadata and "code" in (header := checkpoint_header(metadata)):
            prior = _saved(content, header, settings)
        elif "workbench" in metadata:
            prior = _with(settings, prior_from_checkpoint, content, metadata, path.stem)
        else:
            prior = prior_from_published(content, path.stem, **settings)
    prior.source |= {"file": path.name, "sha256": sha256(path)}
    return prior


def _folder(path: Path, settings: dict[str, Any]) -> Prior:
    if not (path / WEIGHTS).is_file():
        return _with(settings, load_diffusers, path)
    prior = load_file(path / WEIGHTS, settings)
    prior.name = path.resolve().name
    return prior


def _hub(source: str, settings: dict[str, Any]) -> Prior:
    prior = load_file(fetch(source), settings)
    repository, file, _ = parse(source)
    prior.name = Path(file).stem if file else Path(repository).name
    prior.source["repository"] = source
    return prior


def _deepinv(source: str | nn.Module, settings: dict[str, Any]) -> Prior:
    from workbench.deepinv_bridge import prior_from_deepinv  # a layer above: it imports this one

    return prior_from_deepinv(source, **settings)


KINDS: dict[str, Callable[[str, dict[str, Any]], Prior]] = {
    "hf": _hub,
    "diffusers": lambda source, settings: _with(settings, load_diffusers, source),
    "deepinv": _deepinv,
    "spandrel": lambda source, settings: _with(settings, load_spandrel, source),
}


def _with(settings: dict[str, Any], function: Callable[..., Prior], *arguments: Any) -> Prior:
    """``function(*arguments, **settings)``. Raises ValueError for a setting that it does not take."""
    known = [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            raise ValueError(unknown("setting", name, known))
    return function(*arguments, **settings)
