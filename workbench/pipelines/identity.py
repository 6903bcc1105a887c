"""What a job depends on beside its parameters: what the files that they name hold, and the code that computes. A result
is kept for as long as these are the same; times of files do not matter.

- A string anywhere in the parameters (keys too) names files where it, or a part of it between colons and commas, is the
  path of a file or folder from where the run is started: ``photos:128``, ``sr:4:kernel.npz:k``, ``diffusers:FOLDER``,
  ``shards-{00..05}.tar``. Of a folder every file counts that is not hidden, with its name.
- Python counts by its syntax, without comments, docstrings and layout: the package but for what only shows results, the
  code cells of the notebook, a ``FILE.py`` or ``module:NAME`` of one's own, and what of one's own these import.
- Libraries, Python itself and the hardware do not count, nor what is fetched by name (``hf:USER/NAME``; a ``@REVISION``
  fixes it). The records say what they were.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import json
import os
import re
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.text import write_json

PACKAGE = Path(__file__).parents[1]
SHOWING = {"cli", "commands", "demo", "folder", "recipe", "reports", "terminal", "__main__"}  # no job runs them
MODULE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")
FRESH = 2_000_000_000  # ns: a file changed so lately may change again without a trace in its times


@cache
def code_version() -> str:
    """A hash of what computes: the package's code and shipped weights, and what is registered with it."""
    digest = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.safetensors")]):
        name = file.relative_to(PACKAGE)
        if name.parts[0].removesuffix(".py") not in SHOWING:
            content = code_of(file.read_text(encoding="utf-8")).encode() if file.suffix == ".py" else file.read_bytes()
            digest.update(name.as_posix().encode() + b"\0" + hashlib.sha256(content).digest())
    for group in sorted(name for name in entry_points().groups if name.startswith("workbench.")):
        for entry in sorted(entry_points(group=group)):
            own = module_file(entry.module, Path())
            code = own and Contents(Path()).code(own)
            digest.update(f"{entry} {entry.dist and entry.dist.version} {code}".encode())
    return digest.hexdigest()[:12]


def code_of(text: str) -> str:
    """The syntax of Python source without comments, docstrings and layout; text that is not Python as it is."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    return ast.dump(tree)


def imported(text: str, beside: Path) -> list[Path]:
    """The modules of one's own that Python source imports, as :func:`module_file` finds them."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return []
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return [file for name in sorted(names) if (file := module_file(name, beside)) is not None]


def module_file(name: str, beside: Path) -> Path | None:
    """The file of the module called ``name``, the folder of the package that it belongs to, or None: not found, or of
    this package or a library. Nothing is imported."""
    top = name.partition(".")[0]
    if top == PACKAGE.name:
        return None
    for file in (beside / f"{top}.py", beside / top / "__init__.py"):
        if file.is_file():
            return file.parent if file.name == "__init__.py" else file
    with suppress(ImportError, ValueError):
        spec = find_spec(top)
        places = list(spec.submodule_search_locations or []) if spec else []
        if spec and (places or spec.has_location):
            return own_path(Path(places[0] if places else spec.origin or ""))
    return None


def own_path(path: Path) -> Path | None:
    """``path``, or None if it is this package's or a library's."""
    libraries = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    known = (PACKAGE, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return None if libraries or any(path.is_relative_to(folder) for folder in known) else path


def named_paths(text: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Where in ``text`` (start, end) the path of a file or folder stands, relative to ``folder``: the longest first."""
    cuts = [-1, *(match.start() for match in re.finditer("[:,]", text)), len(text)]
    for start, end in sorted(((i + 1, j) for i in cuts for j in cuts if j > i + 1), key=lambda span: span[0] - span[1]):
        path = os.path.expanduser(text[start:end])
        if path.strip("/ ") and os.path.exists(folder / path):
            yield start, end


class Contents:
    """Hashes of what files hold; each is read once.

    Args:
        folder: where relative paths start.
        kept: a file that keeps the hashes: a file of the same place, size and times is not read again.
    """

    def __init__(self, folder: Path, kept: Path | None = None) -> None:
        self.folder, self.kept = folder, kept
        self._found: dict[Path, str] = {}
        self._known: dict[str, list[Any]] = {}
        self._new = False
        with suppress(OSError, ValueError):
            self._known = dict(json.loads(kept.read_text(encoding="utf-8"))) if kept else {}

    def named(self, value: Any) -> dict[str, str]:
        """The hash of each file, folder and module that the strings in ``value`` name, by its name there."""
        if isinstance(value, dict):
            value = [*value, *value.values()]
        if isinstance(value, list | tuple):
            return {name: digest for each in value for name, digest in self.named(each).items()}
        found: dict[str, str] = {}
        if isinstance(value, str) and len(value) < 4096 and "\0" not in value:
            for start, end in named_paths(value, self.folder):
                found[value[start:end]] = self.of(self.folder / os.path.expanduser(value[start:end]))
            if value.endswith(".tar") and not found:
                for name in sorted(glob.glob(re.sub(r"\{[^{}]*\}", "*", value), root_dir=self.folder)):
                    found[name] = self.of(self.folder / name)
            if (match := MODULE.fullmatch(value)) and (module := module_file(match[1], self.folder)):
                found[value] = self.code(module)
        return found

    def of(self, path: Path) -> str:
        """The hash of a file, or of all files in a folder with their names; of Python see :meth:`code`."""
        if path not in self._found:
            if path.suffix == ".py":
                self._found[path] = self.code(path)
            elif path.is_dir():
                names = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file())
                seen = [name for name in names if not any(part.startswith((".", "__pyc")) for part in name.parts)]
                if self.kept and self.kept.parent.is_relative_to(path):  # results are no input
                    seen = [name for name in seen if not (path / name).is_relative_to(self.kept.parent)]
                self._found[path] = _hash([[name.as_posix(), self._read(path / name)] for name in seen])
            else:
                self._found[path] = self._read(path)
        return self._found[path]

    def code(self, *paths: Path) -> str:
        """The hash of the code in files or packages of one's own, and in all that they import of one's own."""
        found: dict[Path, str] = {}
        waiting = list(paths)
        while waiting:
            path = waiting.pop().resolve()
            for file in path.rglob("*.py") if path.is_dir() else [path]:
                if file not in found:
                    text = file.read_text(encoding="utf-8", errors="replace")
                    found[file] = code_of(text)
                    waiting += imported(text, file.parent)
        return _hash([[file.name, found[file]] for file in sorted(found)])

    def save(self) -> None:
        """Write the file that keeps the hashes, if there are new ones; where that is not possible, it is left."""
        if self.kept and self._new:
            with suppress(OSError):
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.kept, self._known)

    def _read(self, file: Path) -> str:
        try:
            stat = file.stat()
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            place = str(file.absolute())
            if self._known.get(place, [])[:-1] == state:
                return str(self._known[place][-1])
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:  # the job will say so itself
            return str(error.strerror)
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > FRESH:
            self._known[place], self._new = [*state, digest], True
        return digest


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
