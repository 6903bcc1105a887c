"""Weight files of any origin, read without running anything that they hold.

safetensors files are mapped. PyTorch files are pickles: they go through ``torch.load(weights_only=True)``, which builds
tensors and plain containers and refuses the rest, and are mapped too where their format allows (since PyTorch 1.6).
"""

import hashlib
import importlib
import json
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.text import replacing

Net = TypeVar("Net", bound=nn.Module)
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # those of 8 bits need scales beside them
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


@contextmanager
def about(source: str | Path) -> Iterator[None]:
    """A ValueError of the block says in one line what is wrong, after the name of ``source`` if it lacks it."""
    try:
        yield
    except ValueError as error:
        text = " ".join(str(error).splitlines())  # names in a file may hold any text
        raise ValueError(text if str(source) in text else f"{source}: {text}") from None


def optional_package(name: str) -> Any:
    """The module ``name``, which is an extra of this package. Raises ValueError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'restoration-workbench[{name}]'") from error


def read_weights(path: str | Path) -> tuple[Any, dict[str, str]]:
    """What a weight file holds, and the metadata of its header (safetensors only, else empty).

    Returns:
        Tensors on the CPU, mapped into memory: a mapping by name for safetensors, whatever was saved for PyTorch files.

    Raises:
        ValueError: no such file, empty, truncated, of another format, or a pickle that needs more than tensors and
            plain containers; each in its own words.
    """
    file = Path(path)
    try:
        if not file.is_file():
            kind = "it is a folder" if file.is_dir() else "not a regular file" if file.exists() else "no such file"
            raise ValueError(f"no weights {file}: {kind}")
        with file.open("rb") as opened:
            head = opened.read(512)
        size = file.stat().st_size
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
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
    raise ValueError(f"{file} ({size} bytes): expected a safetensors or a PyTorch file, it starts with {head[:16]!r}")


def write_weights(path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write ``tensors`` and ``header``, which is JSON in the metadata ``workbench``, to a safetensors file, atomically.

    Raises:
        ValueError: a header that is not JSON, or a file that cannot be written.
    """
    try:
        metadata = {"workbench": json.dumps(header, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card must be JSON without NaN: {error}") from None
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            save_file(tensors, file, metadata=metadata)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"cannot write {path}: {error}") from None


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
        asked = re.search(r"Unsupported (?:global|class): (?:GLOBAL )?([\w.]+)|([\w.]+) was not an allowed", str(error))
        # PyTorch's own text starts with advice to load the file unsafely; what is wrong comes after it.
        reason = str(error).partition("WeightsUnpickler error: ")[2].strip().split("\n")[0]
        reason = f"it asks for {asked[1] or asked[2]}" if asked else reason or "it cannot be unpickled"
        raise ValueError(
            f"{file} is refused: reading it would need more than tensors and plain containers ({reason}), which could "
            "run any code. If you trust its origin, load it there and save the state dict alone"
        ) from None
    except Exception as error:
        # What PyTorch raises for a damaged file depends on where the damage is: struct.error, KeyError, OSError, ...
        if "TorchScript" in str(error):
            raise ValueError(f"{file} is refused: it is a TorchScript program, not weights") from None
        text = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(f"{file} ({size} bytes) is not a whole PyTorch file, truncated or damaged: {text}") from None


def check_plain(found: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first, unless all tensors are dense numbers that the file itself holds.

    A file may hold sparse, nested or quantised tensors, ones without values (meta), and ones that repeat a few numbers
    over a shape of any size: few bytes on the disk, and more than the memory when they are used.
    """
    for name, tensor in found.items():
        if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else "sparse"
            raise ValueError(f"{name}: expected a dense tensor, found a {kind} one")
        if tensor.is_meta:
            raise ValueError(f"{name} has a shape, but no values (a tensor of the meta device)")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name}: shape {tuple(tensor.shape)} is more than the file holds values")


def check_names(missing: Collection[str], extra: Collection[str]) -> None:
    """Raise ValueError that counts the tensors and names the first, if any are missing or left over."""
    if missing or extra:
        first = [", ".join(sorted(names)[:3]) or "none" for names in (missing, extra)]
        raise ValueError(f"{len(missing)} tensors missing ({first[0]}), {len(extra)} left over ({first[1]})")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first, unless all values are finite."""
    for name, tensor in tensors.items():
        # Minimum and maximum are finite exactly if all values are, and need no memory for the answer.
        if tensor.is_floating_point() and not bool(torch.stack(torch.aminmax(tensor.detach())).isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite in {tensor.dtype}")


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming what is wrong, unless ``found`` is exactly the ``expected`` tensors, finite numbers all.

    Missing and left over names, shapes, kinds of number (floats of 16 bits or more) and values are looked at in
    this order.
    """
    check_names(expected.keys() - found.keys(), found.keys() - expected.keys())
    for name, wanted in expected.items():
        tensor = found[name]
        if tensor.shape != wanted.shape:
            raise ValueError(f"{name}: expected shape {tuple(wanted.shape)}, found {tuple(tensor.shape)}")
        if tensor.dtype not in FLOATS:
            kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise ValueError(f"{name}: expected floating-point numbers, found {tensor.dtype} (known are {kinds})")
    check_finite(found)


def build(network: type[Net], configure: Callable[[], Any], tensors: int) -> Net:
    """``network(configure())`` on the meta device, for a file of so many ``tensors``.

    Raises:
        ValueError: no network has this configuration, or none with so few tensors.
    """
    try:
        config = configure()
        # Every block and level has tensors of its own. Without this bound, a number in a file could take all memory.
        blocks = max(config.blocks) if isinstance(config.blocks, tuple) else config.blocks
        if max(blocks, len(getattr(config, "multipliers", ()))) > max(tensors, 1):
            raise ValueError(f"{config.blocks} blocks per level, and only {tensors} tensors")
        with torch.device("meta"):
            return network(config)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Sizes of zero, below it or beyond any memory fail in the layers, each in its own way.
        raise ValueError(f"no network has this configuration: {str(error).splitlines()[0]}") from None


def assign(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make ``tensors`` (all of its state dict, as :func:`check_tensors` found them) the weights of ``net``.

    Nothing is copied where the precision fits: weights stay mapped, and pages are read when they are used. Other
    precisions become that of ``net``. ``net`` may have been made on the meta device, where it needs no memory.
    """
    own = net.state_dict()
    # A file can mark numbers as negated instead of negating them.
    plain = {name: tensors[name].detach().resolve_neg().to(own[name].dtype) for name in own}
    net.load_state_dict(plain, assign=True)


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, in hexadecimal digits."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
