"""Code of one's own by its name: ``FILE.py:NAME`` or ``package.module:NAME``, and what installed packages register.

A package offers solvers, priors and operators by entry points of the groups ``workbench.solvers``, ``workbench.priors``
and ``workbench.operators``, such as ``mine = "package.module:NAME"``. Naming code runs it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import reduce
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from workbench.text import unknown

T = TypeVar("T")
Source = dict[str, str]
_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_FORM = re.compile(rf"(?:(?P<file>.+\.py)|(?P<module>{_NAME})):(?P<name>{_NAME})")
_ELSEWHERE = ("<", sys.prefix, sys.base_prefix, str(Path(__file__).parent))  # lines there say nothing of one's own code
_sources: dict[str, Source] = {}  # of the files that were run, by the name of their module

place_of: Callable[[str | Path], Path] = Path  # where a FILE.py lies; a job's folder is not where it was started


def named(text: str) -> bool:
    """Whether ``text`` is FILE.py:NAME, or module:NAME of a package that is there. Other uses of colons go first."""
    match = _FORM.fullmatch(text.strip())
    if match is None or match["file"]:
        return match is not None
    package = match["module"].partition(".")[0]
    return package in sys.modules or importlib.util.find_spec(package) is not None


def imported(text: str) -> tuple[Any, Source]:
    """What ``FILE.py:NAME`` or ``package.module:NAME`` names, and ``file`` and ``sha256`` of the code.

    A file is run once for each content; modules beside it can be imported by it.

    Raises:
        ValueError: no such file, module or name (the nearest is named), or what the code raises, with its line.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected FILE.py:NAME or package.module:NAME, got {text!r}")
    with telling(text):
        module = _run(match["file"]) if match["file"] else importlib.import_module(match["module"])
    try:
        return reduce(getattr, match["name"].split("."), module), _source(module)
    except AttributeError:
        defined = [
            name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__
        ]
        raise ValueError(f"{text}: {unknown('name', match['name'], defined)}") from None


def source_of(thing: object) -> Source:
    """``file`` and ``sha256`` of the code of an object, class or function; empty for this package and without file."""
    code = thing if isinstance(thing, type | FunctionType) else type(thing)
    module = sys.modules.get(code.__module__)
    return {} if module is None or code.__module__.startswith("workbench.") else _source(module)


@contextmanager
def telling(text: str) -> Iterator[None]:
    """What the block, code of one's own, raises becomes a ValueError of one line: ``text``, the error, its place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = f"{text}: {kind}{' '.join(str(error).split())}".rstrip(": ")
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_ELSEWHERE)]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        raise ValueError(reason.removeprefix(f"{text}: {text}: ") + place) from error


def what(thing: object) -> str:
    """``thing`` in messages about things of the wrong kind."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"


class Registry(MutableMapping[str, T]):
    """Things by name, and those that installed packages register as ``workbench.KIND``.

    Packages are looked at when it is first read, for they import this one. What cannot be used is left out, and named
    with its error in a warning.

    Args:
        take: makes a thing of the name and what stands for it, ``package.module:NAME``; raises ValueError.
    """

    def __init__(self, kind: str, take: Callable[[str, str], T], shipped: Mapping[str, T] | None = None) -> None:
        self.kind, self.take, self.known, self.looked = kind, take, dict(shipped or {}), False

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self.known[name] = thing

    def __delitem__(self, name: str) -> None:
        del self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, T]:
        if not self.looked:
            self.looked = True
            for entry in entry_points(group=f"workbench.{self.kind}"):
                try:
                    thing = self.take(entry.name, entry.value)
                    if self.known.setdefault(entry.name, thing) is not thing:
                        raise ValueError("the name is taken")
                except ValueError as error:
                    package = entry.dist.name if entry.dist else entry.value
                    warnings.warn(f"{entry.name}, {self.kind} of {package}, left out: {error}", stacklevel=3)
        return self.known


def _run(file: str) -> ModuleType:
    path = place_of(Path(file).expanduser()).resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    name = f"{path.stem}-{hashlib.sha256(bytes(path) + content).hexdigest()[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        # Dataclasses and annotations are looked up there. What is installed goes before what lies beside the file.
        sys.modules[name] = module
        sys.path += [str(path.parent)] if str(path.parent) not in sys.path else []
        _sources[name] = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}
        try:
            exec(compile(content, str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _source(module: ModuleType) -> Source:
    file = Path(getattr(module, "__file__", None) or "")
    if module.__name__ in _sources or not file.is_file():
        return _sources.get(module.__name__, {})
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
