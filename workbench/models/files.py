"""Weight files of any origin, read without running anything that they hold.

safetensors files are mapped. PyTorch files are pickles: they go through ``torch.load(weights_only=True)``, which builds
tensors and plain containers and refuses the rest, and are mapped too where their format allows (since PyTorch 1.6).
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def read_weights(path: str | Path) -> tuple[Any, dict[str, str]]:
    """What a weight file holds, and the metadata of its header (safetensors only, else empty).

    Returns:
        Tensors on the CPU, mapped into memory: a mapping by name for safetensors, whatever was saved for PyTorch files.

    Raises:
        ValueError: no such file, empty, truncated, of another format, or a pickle that needs more than tensors and
            plain containers; each in its own words.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"no weights {file}: {'it is a folder' if file.is_dir() else 'no such file'}")
    with file.open("rb") as opened:
        head = opened.read(512)
    size = file.stat().st_size
    if not head:
        raise ValueError(f"{file} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    # safetensors: the length of a JSON header, then the header. Its first byte may be that of a pickle.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LONGEST_HEADER:
        return _read_safetensors(file, size)
    if head.startswith((ZIP, PICKLE)):
        return _read_torch(file, size, mapped=head.startswith(ZIP)), {}
    if file.suffix == ".safetensors":
        return _read_safetensors(file, size)
    kind = "a text file" if _is_text(head) else f"neither, it starts with {head[:8]!r}"
    raise ValueError(f"{file} ({size} bytes): expected a safetensors or a PyTorch file, found {kind}")


def _read_safetensors(file: Path, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} ({size} bytes) is not a whole safetensors file: {error}") from None


def _read_torch(file: Path, size: int, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of, such as TorchScript, ends in an error below
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"Unsupported (?:global|class): (?:GLOBAL )?([\w.]+)", str(error))
        if refused is None:
            refused = re.search(r"([\w.]+) was not an allowed global", str(error))
        reason = f"it asks for {refused[1]}" if refused else str(error).split("\n")[0]
        raise ValueError(
            f"{file} is refused: reading it would need more than tensors and plain containers ({reason}), which could "
            "run any code. If you trust its origin, load it there and save the state dict alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        # What PyTorch raises for a damaged file depends on where the damage is.
        if "TorchScript" in str(error):
            raise ValueError(f"{file} is refused: it is a TorchScript program, not weights") from None
        text = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{file} ({size} bytes) is not a whole PyTorch file, truncated or damaged: {text}") from None


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise ValueError, naming what is wrong, unless ``found`` is exactly the ``expected`` tensors, finite numbers all.

    Missing and left over names, shapes, kinds of number (any float precision will do) and values are looked at in
    this order.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing or extra:
        raise ValueError(
            f"{where}: {len(missing)} tensors missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(extra)} left over ({', '.join(extra[:3]) or 'none'})"
        )
    for name, wanted in expected.items():
        tensor = found[name]
        if tensor.shape != wanted.shape:
            raise ValueError(f"{where}: {name}: expected shape {tuple(wanted.shape)}, found {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{where}: {name}: expected floating-point numbers, found {tensor.dtype}")
    for name in expected:
        # Minimum and maximum are finite exactly if all values are, and need no memory for the answer.
        low, high = torch.aminmax(found[name].detach())
        if not bool(low.isfinite() & high.isfinite()):
            raise ValueError(f"{where}: {name} holds values that are not finite")


def assign(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make ``tensors`` (all of its state dict, as :func:`check_tensors` found them) the weights of ``net``.

    Nothing is copied where the precision fits: weights stay mapped, and pages are read when they are used. Other
    precisions become that of ``net``. ``net`` may have been made on the meta device, where it needs no memory.
    """
    own = net.state_dict()
    net.load_state_dict({name: tensors[name].detach().to(own[name].dtype) for name in own}, assign=True)


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, in hexadecimal digits."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")  # the last character may be cut
    return len(text.encode()) > len(head) - 4 and all(
        character.isprintable() or character.isspace() for character in text
    )
