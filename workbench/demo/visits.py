"""What visitors leave on disk, and how it goes: when they leave, after a while, and when the server ends."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import psutil

PREFIX = "workbench-demo-"
FOLDERS = 3  # of one purpose, kept for a visitor


def make_root() -> Path:
    """A new folder for everything visitors bring, readable by this user alone; those of servers that died are removed.

    A server that is killed cannot clean up behind itself: the next one does.
    """
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{PREFIX}*"):
        number = old.name.removeprefix(PREFIX).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(old, ignore_errors=True)  # another user's stays: not ours to remove
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


class Visits:
    """The files of each visitor (session), all below ``root``.

    Args:
        root: where Gradio keeps files too.
        keep: seconds after its last use until a file goes, though its visitor is still there.
    """

    def __init__(self, root: Path, keep: float) -> None:
        self.root, self.keep = root, keep
        self._lock = threading.Lock()
        self._files: dict[str, set[Path]] = {}
        self._folders: dict[str, dict[str, list[Path]]] = {}
        self._own: set[Path] = set()

    def settle(self) -> None:
        """What lies in the folder now belongs to the page (sample photos) and stays."""
        self._own = set(self.root.rglob("*"))

    def folder(self, session: str, purpose: str) -> Path:
        """A new folder of ``session`` with a name that nobody guesses.

        Of its earlier ones for this ``purpose`` few stay: their files may be on their way to the visitor still.
        """
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        with self._lock:
            folders = self._folders.setdefault(session, {}).setdefault(purpose, [])
            folders.append(folder)
            old = [folders.pop(0) for _ in range(len(folders) - FOLDERS)]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return folder

    def uses(self, session: str, path: str | Path) -> None:
        """``session`` brought or uses the file ``path``; a file used stays a while longer.

        Raises:
            ValueError: it is gone already.
        """
        path = Path(path)
        if path in self._own:
            return
        with self._lock:
            self._files.setdefault(session, set()).add(path)
        try:
            os.utime(path)
        except FileNotFoundError:
            raise ValueError(
                f"the photo is no longer here: the server keeps photos for {self.keep / 60:g} minutes; choose it again"
            ) from None

    def brought(self, session: str, paths: Iterable[str]) -> None:
        """``session`` brought these files, which are not looked at again."""
        with self._lock:
            self._files.setdefault(session, set()).update({Path(path) for path in paths} - self._own)

    def leave(self, session: str) -> None:
        """The visitor closed the page: everything of theirs goes."""
        with self._lock:
            files = self._files.pop(session, set())
            others = set().union(*self._files.values())  # one file for all who uploaded the same bytes
            paths = [*(files - others), *chain(*self._folders.pop(session, {}).values())]
        for path in paths:
            _remove(path)

    def sweep(self) -> None:
        """Remove what was not used for ``keep`` seconds, and empty folders."""
        limit = time.time() - self.keep
        for path in sorted(self.root.rglob("*"), reverse=True):  # files before their folders
            if path in self._own:
                continue
            try:
                if path.stat().st_mtime < limit:
                    path.rmdir() if path.is_dir() else path.unlink()
            except OSError:  # gone meanwhile, or a folder that is not empty
                continue
        with self._lock:  # sessions of which nothing is left
            for session in {*self._files, *self._folders}:
                paths = [*self._files.get(session, ()), *chain(*self._folders.get(session, {}).values())]
                if not any(path.exists() for path in paths):
                    self._files.pop(session, None)
                    self._folders.pop(session, None)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()  # Gradio's folder for this one file
