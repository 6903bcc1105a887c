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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from workbench.text import unknown

T = TypeVar("T")
_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_FORM = re.compile(rf"(?:.+\.py|(?P<module>{_NAME})):{_NAME}")
_ELSEWHERE = ("<", sys.prefix, sys.base_prefix, str(Path(__file__).parent))  # lines there say nothing of one's own code
_installed: set[str] = set()
_sources: dict[str, dict[str, str]] = {}  # of the files that were run, by the name of their module

place_of: Callable[[str | Path], Path] = Path  # where a FILE.py lies; a job's folder is not where it was started


def named(text: str) -> bool:
    """Whether ``text`` is FILE.py:NAME, or module:NAME of a package that is there. Other uses of colons go first."""
    match = _FORM.fullmatch(text.strip())
    package = match["module"].partition(".")[0] if match and match["module"] else "sys"
    return match is not None and (package in sys.modules or importlib.util.find_spec(package) is not None)


def imported(text: str) -> tuple[Any, dict[str, str]]:
    """What ``FILE.py:NAME`` or ``package.module:NAME`` names, and ``file`` and ``sha256`` of the code.

    A file is run once for each content; it can import modules beside it, ``import helper`` or ``from . import helper``.

    Raises:
        ValueError: no such file, module or name (the nearest is named), or what the code raises, with its line.
    """
    place, _, name = text.strip().rpartition(":")
    with telling(text):
        module = _run(place) if place.endswith(".py") else importlib.import_module(place)
    try:
        return reduce(getattr, name.split("."), module), _source(module)
    except AttributeError:
        own = [key for key, thing in vars(module).items() if _made(thing, module)]
        raise ValueError(f"{text}: {unknown('name', name, own)}") from None


def _made(thing: object, module: ModuleType) -> bool:
    """Whether ``module`` defines ``thing``, or it is an object of this package's classes: a Noise, a prior."""
    return getattr(thing, "__module__", None) == module.__name__ or type(thing).__module__.startswith("workbench.")


def source_of(thing: object) -> dict[str, str]:
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
        raise ValueError(reason.removeprefix(f"{text}: {text}: ") + _place(error)) from error


def told(error: Exception, *kinds: type[Exception]) -> str:
    """One line on ``error``: its text if it is one of ``kinds``, else what code of one's own raised, and where.

    Raises:
        Exception: ``error`` itself, if it is neither: a bug of this package, whose traceback is wanted.
    """
    text = " ".join(str(error).split())
    if isinstance(error, kinds):
        return text
    if not (place := _place(error)):
        raise error
    return f"{type(error).__name__}: {text}{place}"


def _place(error: BaseException) -> str:
    """The last line of one's own that ``error`` came through, " (my.py, line 3)"; empty if there is none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_ELSEWHERE)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def install(kind: str, known: dict[str, T], take: Callable[[str, str], T]) -> dict[str, T]:
    """``known`` with what installed packages register as ``workbench.KIND``; once, and late: they import this package.

    ``take`` makes a thing of its name and ``package.module:NAME``. What cannot be used is named in a warning.
    """
    entries = () if kind in _installed else entry_points(group=f"workbench.{kind}")
    _installed.add(kind)
    for entry in entries:
        try:
            imported(entry.value)
            thing = take(entry.name, entry.value)
            if known.setdefault(entry.name, thing) is not thing:
                raise ValueError("the name is taken")
        except ValueError as error:
            package = entry.dist.name if entry.dist else entry.value
            warnings.warn(f"{entry.name}, {kind} of {package}, left out: {error}", stacklevel=2)
    return known


def _run(file: str) -> ModuleType:
    path = place_of(Path(file).expanduser()).resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    digest = hashlib.sha256(content).hexdigest()
    name = f"{path}-{digest}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        # Dataclasses and annotations are looked up there. What is installed goes before what lies beside the file.
        sys.modules[name] = module
        module.__package__ = folder = str(path.parent)
        sys.path += [folder] if folder not in sys.path else []
        if folder not in sys.modules:  # the package of relative imports
            sys.modules[folder] = ModuleType(folder)
            sys.modules[folder].__path__ = [folder]
        _sources[name] = {"file": path.name, "sha256": digest}
        try:
            exec(compile(content, str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _source(module: ModuleType) -> dict[str, str]:
    file = Path(getattr(module, "__file__", None) or "")
    if module.__name__ in _sources or not file.is_file():
        return _sources.get(module.__name__, {})
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
