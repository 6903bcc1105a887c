"""What people write and read: names that are unknown, settings as text, files that are replaced in one step."""

import ast
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is not among ``known``: the nearest one if there is one, and all of them.

    >>> unknown("solver", "diffpri", ["ddnm", "diffpir"])
    "unknown solver 'diffpri', did you mean 'diffpir'? There are: ddnm, diffpir"
    """
    names = list(known)
    same = [each for each in names if each.lower() == str(name).lower()]
    near = same or get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} There are: {', '.join(names) or 'none'}"


def check_labels(what: str, given: Iterable[str], kind: str, known: Iterable[str]) -> None:
    """Raise ValueError, which names the parameter ``what``, unless all names ``given`` are among those ``known``.

    >>> check_labels("settings", ["deqr"], "method", ["ddnm", "deqir"])
    Traceback (most recent call last):
    ValueError: settings: unknown method 'deqr', did you mean 'deqir'? There are: ddnm, deqir
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise ValueError(f"{what}: {unknown(kind, name, names)}")


def printable(name: object) -> str:
    """``name`` as text: file names may hold bytes that are none."""
    return str(name).encode("utf-8", "replace").decode()


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Raise ValueError naming the setting unless ``holds``. Comparisons with NaN are false, so NaN is refused."""
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")


def require_kind(value: object, kind: type, name: str, how: str) -> None:
    """Raise ValueError unless ``value`` is a ``kind``; ``how`` says where one comes from."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ValueError(f"{name} must be of type {kind.__name__}: {how}; got {got}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to. It takes the place of ``path`` in one step at the end of the block,
    so that ``path`` always holds either the old or the new content; if the block raises, it is removed."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}."[:50])
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's files can be read by their owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def columns(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Lines of ``rows`` with their columns one below the other, each to the left (<) or right (>) as ``sides`` says."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, sides, widths, strict=True) for row in rows)
    return ["  ".join(f"{text:{side}{width}}" for text, side, width in line).rstrip() for line in lines]


def write_json(path: Path, content: Any) -> None:
    """Write JSON to ``path`` in one step. Raises ValueError for NaN or infinity, which JSON does not have."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write_text(text + "\n", encoding="utf-8")


def json_lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines. A line that cannot be read, cut off by a full disk or not yet whole, is none
    of them; nor are there any where there is no file."""
    found: list[dict[str, Any]] = []
    for line in file.read_text("utf-8", "replace").splitlines() if file.is_file() else ():
        with suppress(ValueError):
            found += [content] if isinstance(content := json.loads(line), dict) else []
    return found


def fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is of the type that ``hint`` annotates. Numbers of NumPy are numbers, True is none, and a list
    will do for a tuple; a hint that cannot be tried, such as a protocol, admits anything."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind in (Annotated, Literal):
        return value in parts if kind is Literal else fits(value, parts[0])
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (tuple, Sequence) and parts:
        if isinstance(value, list | tuple):
            each = parts if kind is tuple and parts[-1] is not ... else parts[:1] * len(value)
            return len(each) == len(value) and all(map(fits, value, each))
        return kind is Sequence and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
    return kind is Any or not isinstance(kind, type) or hasattr(kind, "_is_protocol") or isinstance(value, kind)


def type_name(hint: Any) -> str:
    """``hint`` as it is written, without the names of modules.

    >>> type_name(Annotated[float, "positive"] | Literal["auto"] | None)
    "float | 'auto' | None"
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return " | ".join(type_name(part) for part in parts)
    if kind is Literal:
        return " | ".join(map(repr, parts))
    if kind in (Annotated, NoneType):
        return type_name(parts[0]) if parts else "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else re.sub(r"\w+\.(?=\w)", "", str(hint))


def check_types(settings: Mapping[str, Any], types: Mapping[str, Any], what: str) -> None:
    """Raise ValueError unless every setting has its type in ``types`` (annotations; names that are missing may be any).

    >>> check_types({"steps": "many"}, {"steps": int}, "ddnm")
    Traceback (most recent call last):
    ValueError: setting steps of ddnm must be int, got 'many'
    """
    for name, value in settings.items():
        require(fits(value, types.get(name, Any)), f"setting {name} of {what}", type_name(types.get(name)), repr(value))


def parse_settings(pairs: Sequence[str], what: str = "--set") -> dict[str, Any]:
    """Settings written NAME=VALUE; values are Python literals, true, false, none, or else text.

    Args:
        what: the option, for messages; names after ``--prior-set`` also pass :func:`check_prior_settings`.

    Raises:
        ValueError: no NAME=VALUE, or a name that is given twice.

    >>> parse_settings(["steps=50", "zeta=0.3", "schedule=vp"])
    {'steps': 50, 'zeta': 0.3, 'schedule': 'vp'}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{what} expects NAME=VALUE, got {pair!r}")
        if name in settings:
            raise ValueError(f"{what} {name} is given twice")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # {[]: 1}; brackets without end
            settings[name] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if what == "--prior-set":
        check_prior_settings(settings, what)
    return settings


def check_prior_settings(names: Iterable[str], what: str) -> None:
    """Raise ValueError if a name is not one of the prior's settings but of ``load_prior``; ``what`` holds them."""
    for name in names:
        if name in ("device", "dtype", "channels_last"):
            raise ValueError(f"{what} {name}: not a setting of the prior, but of how it runs")
