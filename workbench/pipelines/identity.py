"""What a job depends on beside its parameters: what the files that they name hold, and the code that computes.

docs/guide.md says what counts.
"""

import ast
import glob
import hashlib
import json
import os
import re
import subprocess
import sysconfig
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
MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@cache
def code_version() -> str:
    """A hash of what computes: the package's code and shipped weights, and what is registered with it."""
    parts: list[Any] = []
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.safetensors")]):
        name = file.relative_to(PACKAGE)
        if name.parts[0].removesuffix(".py") not in SHOWING:
            content = code_of(file.read_text("utf-8")).encode() if file.suffix == ".py" else file.read_bytes()
            parts.append([name.as_posix(), hashlib.sha256(content).hexdigest()])
    for group in sorted(name for name in entry_points().groups if name.startswith("workbench.")):
        for entry in sorted(entry_points(group=group)):
            own = module_file(entry.module, Path())
            parts.append([str(entry), entry.dist and entry.dist.version, own and Contents(Path()).code(own)])
    return hash_of(parts)[:12]


def commit_of(folder: Path) -> str | None:
    """The git commit of the working tree that ``folder`` is in, with "+changes" where files that git knows differ from
    it; None where there is no commit or no git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


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


def value_of(tree: ast.AnnAssign) -> Any:
    """What is assigned, as JSON has it, or its constants where that is no literal of JSON."""
    with suppress(ValueError, TypeError):
        return json.loads(json.dumps(ast.literal_eval(tree.value or tree)))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def imported(text: str, beside: Path) -> list[Path]:
    """The modules of one's own that Python source imports, as :func:`module_file` finds them."""
    names: set[str] = set()
    with suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {getattr(node, "module", None) or alias.name for alias in node.names}
    return [file for name in sorted(names) if (file := module_file(name, beside)) is not None]


def data_beside(text: str, beside: Path) -> list[Path]:
    """The files beside, or in a folder beside, that strings in Python source name."""
    names: set[str] = set()
    with suppress(SyntaxError, ValueError):
        constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        names = {value for value in constants if isinstance(value, str) and value}
    folders = [beside, *(beside / name for name in sorted(names) if os.path.isdir(beside / name))]
    return sorted({folder / name for folder in folders for name in names if os.path.isfile(folder / name)})


def module_file(name: str, beside: Path) -> Path | None:
    """The file of the module called ``name``, the folder of its package, or None if not one's own. Imports nothing."""
    top = name.partition(".")[0]
    for file, own in ((beside / f"{top}.py",) * 2, (beside / top / "__init__.py", beside / top)):
        if file.is_file():
            return own_path(own)
    with suppress(ImportError, ValueError):
        spec = find_spec(top)
        if (spec and (places := list(spec.submodule_search_locations or []))) or (spec and spec.has_location):
            return own_path(Path(places[0] if places else spec.origin or PACKAGE))
    return own_path(beside / top) if (beside / top).is_dir() else None


def own_path(path: Path) -> Path | None:
    """``path``, or None if it is this package's or a library's."""
    libraries = {"site-packages", "dist-packages"}.intersection(path.parts)
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
        self._known: dict[str, str] = {}
        with suppress(OSError, ValueError):
            self._known = dict(json.loads(kept.read_text("utf-8"))) if kept else {}
        self._before = len(self._known)

    def named(self, value: Any) -> dict[str, str]:
        """The hash of each file, folder and module that the strings in ``value`` name, by its name there."""
        if isinstance(value, dict):
            value = [*value, *value.values()]
        if isinstance(value, list | tuple):
            return {name: digest for each in value for name, digest in self.named(each).items()}
        if not isinstance(value, str) or len(value) > 4096:
            return {}
        names = [value[start:end] for start, end in named_paths(value, self.folder)]
        if value.endswith(".tar"):
            pattern = value if "*" in value else glob.escape(value)  # as the shards are found
            names += glob.glob(re.sub(r"\{[^{}]*\}", "*", pattern), root_dir=self.folder)
        found = {name: self.of(self.folder / os.path.expanduser(name)) for name in names}
        module = MODULE.fullmatch(value) and module_file(value.partition(":")[0], self.folder)
        return found | ({value: self.code(module)} if module else {})

    def of(self, path: Path) -> str:
        """The hash of a file, or of all files in a folder with their names; of Python see :meth:`code`."""
        if path not in self._found:
            if path.is_dir():
                names = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
                seen = [name for name in names if not any(part.startswith((".", "__pyc")) for part in name.parts)]
                self._found[path] = hash_of([[name.as_posix(), self._read(path / name)] for name in seen])
            else:
                self._found[path] = self.code(path) if path.suffix == ".py" else self._read(path)
        return self._found[path]

    def code(self, *paths: Path) -> str:
        """The hash of the code in files or packages of one's own, of all that they import of one's own, and of the
        files (weights, masks) that they name."""
        found: dict[Path, str] = {}
        waiting = list(paths)
        while waiting:
            path = waiting.pop().resolve()
            for file in path.rglob("*.py") if path.is_dir() else [path]:
                if file not in found:
                    text = file.read_text(encoding="utf-8", errors="replace")
                    found[file] = code_of(text)
                    waiting += imported(text, file.parent)
                    for data in data_beside(text, file.parent):
                        if data.suffix == ".py":
                            waiting.append(data)
                        else:
                            found[data] = self._read(data)
        return hash_of([[file.name, found[file]] for file in sorted(found)])

    def save(self) -> None:
        """Write the file that keeps the hashes, if there are new ones; where that is not possible, it is left."""
        if self.kept and len(self._known) > self._before:
            with suppress(OSError):
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.kept, self._known)

    def _read(self, file: Path) -> str:
        try:
            stat = file.stat()
            # The time of the last change of any kind cannot be set, as that of the content can.
            state = f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
            if state not in self._known:
                with file.open("rb") as opened:
                    self._known[state] = hashlib.file_digest(opened, "sha256").hexdigest()
            return self._known[state]
        except OSError as error:  # the job will say so itself
            return str(error.strerror)


def hash_of(content: Any) -> str:
    """Of what JSON holds, else of its text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
