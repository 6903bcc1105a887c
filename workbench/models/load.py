"""The priors that come with the package, and one way to get any prior: :func:`load_prior`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.models.check import check_once
from workbench.models.checkpoint import prior_from_checkpoint, read_header
from workbench.models.diffusers_source import load_diffusers
from workbench.models.feed_forward import load_spandrel
from workbench.models.files import FLOATS, about, read_weights, sha256
from workbench.models.hub import WEIGHTS, fetch, parse
from workbench.models.lora import adapter_from_checkpoint, is_adapter
from workbench.models.prior import Prior
from workbench.models.published_files import prior_from_published
from workbench.text import require, unknown

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".pt", ".pth", ".ckpt", ".bin")


def _shipped() -> dict[str, Path]:
    folder = Path(str(resources.files("workbench"))) / "models" / "weights"
    return {file.name.removesuffix(SUFFIX): file for file in sorted(folder.glob(f"*{SUFFIX}"))}


# The shipped prior to start with, by kind; there is none of kind "network".
DEFAULTS = {"denoiser": "photo", "consistency": "photo-cm", "unfolded": "photo-ud2m"}


def available_priors() -> list[str]:
    """Names of the shipped priors."""
    return list(_shipped())


def shipped_kind(name: str) -> str:
    """The kind of a shipped prior, see :class:`Prior`, told from its file's header."""
    header = read_header(_shipped()[name])
    if "unfolding" in header:
        return "unfolded"
    return "consistency" if header["adapter"] == "consistency" else "denoiser"


def describe_priors() -> list[dict[str, Any]]:
    """One entry per shipped prior: ``name``, ``megabytes``, and the facts of its card."""
    return [
        {"name": name, "megabytes": round(file.stat().st_size / 1e6, 2), **read_header(file)["card"]}
        for name, file in _shipped().items()
    ]


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
    ``FILE``                      a file of this package, or a published checkpoint: ``published.py`` says which
    ``FOLDER``                    with ``model.safetensors`` of this package, or a diffusers repository
    ``hf:USER/NAME[@REVISION]``   the same on the Hugging Face Hub; ``hf:USER/NAME/FILE`` one file of a repository
    ``diffusers:NAME``            a ``UNet2DModel`` repository on the Hub, or a folder in that format
    ``deepinv:NAME``              a denoiser of deepinv with its published weights, such as ``deepinv:drunet``
    ``spandrel:FILE``             a feed-forward restorer (ESRGAN, SwinIR, NAFNet, ...), for the solver ``network``
    a denoiser object             a :class:`Prior`, returned as it is, or a denoiser of deepinv
    ============================  ==================================================================================

    Args:
        dtype: precision of the network's weights (``torch.bfloat16``); images keep theirs. None: float32.
        channels_last: memory layout of the weights, faster for convolutions on some hardware.
        check: raise ValueError for a network that is beyond doubt no denoiser (:func:`check_prior`). False: never.
        settings: of the source, such as ``weights="raw"`` or ``head_channels=64`` (``prior_from_published``), ``step``
            ("nearest" or "interpolate", variance-preserving networks), ``pretrained=FILE`` (deepinv).

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
    prior.checked |= not check or (isinstance(source, str) and source in _shipped())
    check_once(prior.to(device))
    return prior


def _find(source: str | Path | nn.Module, settings: dict[str, Any]) -> Prior:
    if isinstance(source, Prior):
        raise ValueError(f"a prior takes no settings, got {', '.join(settings)}")
    if isinstance(source, nn.Module):
        return _deepinv(source, settings)
    name = str(source)
    kind, colon, rest = name.partition(":")
    kinds = {"hf": _hub, "diffusers": _diffusers, "deepinv": _deepinv, "spandrel": _spandrel}
    if colon and kind in kinds:
        return kinds[kind](rest, settings)
    shipped = _shipped()
    if name in shipped:
        return load_file(shipped[name], settings)
    try:
        path = Path(name).expanduser()
        folder, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # no right to look, a name too long; no such user after ~
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {name[:200]}: {reason}") from None
    if folder:
        return _folder(path, settings)
    if exists or path.suffix in SUFFIXES:
        return load_file(path, settings)
    raise ValueError(
        f"{unknown('prior', name, shipped)}; or give a file, a folder, hf:USER/NAME, diffusers:NAME, deepinv:NAME or "
        "spandrel:FILE"
    )


def load_file(path: Path, settings: dict[str, Any]) -> Prior:
    """The prior in one file, of this package or published.

    Raises:
        ValueError: see :func:`load_prior`.
    """
    content, metadata = read_weights(path)
    with about(path):
        if is_adapter(metadata):
            prior: Prior = _with(settings, adapter_from_checkpoint, content, metadata, path.stem)
        elif "workbench" in metadata:
            prior = _with(settings, prior_from_checkpoint, content, metadata, path.stem)
        else:
            prior = prior_from_published(content, path.stem, **settings)
    prior.source |= {"file": path.name, "sha256": sha256(path)}
    return prior


def _folder(path: Path, settings: dict[str, Any]) -> Prior:
    if not (path / WEIGHTS).is_file():
        return _diffusers(path, settings)
    prior = load_file(path / WEIGHTS, settings)
    prior.name = path.resolve().name
    return prior


def _hub(source: str, settings: dict[str, Any]) -> Prior:
    prior = load_file(fetch(source), settings)
    repository, file, _ = parse(source)
    prior.name = Path(file).stem if file else Path(repository).name
    prior.source["repository"] = source
    return prior


def _diffusers(source: str | Path, settings: dict[str, Any]) -> Prior:
    return _with(settings, load_diffusers, source)


def _spandrel(source: str, settings: dict[str, Any]) -> Prior:
    return _with(settings, load_spandrel, source)


def _deepinv(source: str | nn.Module, settings: dict[str, Any]) -> Prior:
    from workbench.deepinv_bridge import prior_from_deepinv  # a layer above: it imports this one

    return prior_from_deepinv(source, **settings)


def _with(settings: dict[str, Any], function: Callable[..., Prior], *arguments: Any) -> Prior:
    """``function(*arguments, **settings)``. Raises ValueError for a setting that it does not take."""
    known = [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            raise ValueError(unknown("setting", name, known))
    return function(*arguments, **settings)
