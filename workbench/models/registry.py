"""The priors that come with the package, and one way to get any prior: :func:`load_prior`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.models.checkpoint import prior_from_checkpoint, read_header
from workbench.models.files import read_weights, sha256
from workbench.models.prior import Prior
from workbench.models.published import prior_from_published
from workbench.text import unknown

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".pt", ".pth", ".ckpt", ".bin")


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


def load_prior(
    source: str | Path | nn.Module,
    /,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
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
    a denoiser object             a :class:`Prior`, returned as it is, or a denoiser of deepinv
    ============================  ==================================================================================

    Args:
        dtype: precision of the network's weights (``torch.bfloat16``); images keep theirs. None: float32.
        channels_last: memory layout of the weights, faster for convolutions on some hardware.
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
    if dtype not in (None, torch.float32, torch.float64, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype must be a floating-point precision, got {dtype}")
    for weights in prior.parameters():
        # One by one: the whole network is never held twice.
        if dtype is not None:
            weights.data = weights.data.to(dtype)
        if channels_last and weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return prior.to(device)


def _find(source: str | Path | nn.Module, settings: dict[str, Any]) -> Prior:
    if isinstance(source, Prior):
        raise ValueError(f"a prior takes no settings, got {', '.join(settings)}")
    if isinstance(source, nn.Module):
        from workbench.deepinv_bridge import prior_from_deepinv

        return prior_from_deepinv(source, **_suitable(prior_from_deepinv, settings))
    name = str(source)
    kind, colon, rest = name.partition(":")
    if colon and kind == "diffusers":
        return _diffusers(rest, settings)
    if colon and kind == "deepinv":
        from workbench.deepinv_bridge import prior_from_deepinv

        return prior_from_deepinv(rest, **_suitable(prior_from_deepinv, settings))
    if colon and kind == "hf":
        from workbench.models.hub import fetch, parse

        prior = load_file(fetch(rest), settings)
        repository, file, _ = parse(rest)
        prior.name = Path(file).stem if file else repository.rpartition("/")[2]
        prior.source["repository"] = rest
        return prior
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
        f"{unknown('prior', name, shipped)}; or give a file, a folder, hf:USER/NAME, diffusers:NAME or deepinv:NAME"
    )


def load_file(path: Path, settings: dict[str, Any]) -> Prior:
    """The prior in one file, of this package or published.

    Raises:
        ValueError: see :func:`load_prior`.
    """
    content, metadata = read_weights(path)
    try:
        if "workbench" in metadata:
            prior = prior_from_checkpoint(content, metadata, path, **_suitable(prior_from_checkpoint, settings))
        else:
            prior = prior_from_published(content, path, **settings)
    except ValueError as error:
        # Names in a file may hold any text, and what checks settings does not know of files.
        text = " ".join(str(error).splitlines())
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None
    prior.source |= {"file": path.name, "sha256": sha256(path)}
    return prior


def _folder(path: Path, settings: dict[str, Any]) -> Prior:
    own = path / "model.safetensors"
    if own.is_file():
        prior = load_file(own, settings)
        prior.name = path.resolve().name
        return prior
    if any((path / name).is_file() for name in ("model_index.json", "config.json", "unet/config.json")):
        return _diffusers(path, settings)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise ValueError(
        f"{path} holds no model: expected model.safetensors, or model_index.json or config.json of diffusers, "
        f"found {found}"
    )


def _diffusers(source: str | Path, settings: dict[str, Any]) -> Prior:
    from workbench.models.diffusers_source import load_diffusers

    return load_diffusers(source, **_suitable(load_diffusers, settings))


def _suitable(function: Callable[..., Prior], settings: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return settings  # it says itself what it takes
    known = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    known = [name for name in known if name != "device"]
    for name in settings:
        if name not in known:
            raise ValueError(unknown("setting", name, known))
    return settings
