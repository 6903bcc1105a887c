"""Files of visitors: what they bring, what they take home, and how all of it goes.

It goes when a visitor leaves, after a while, and when the server ends.
"""

import os
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from workbench.demo.compare import Board
from workbench.images import save_image, to_pillow
from workbench.recipe import folder_name, save_recipe

PREFIX = "workbench-demo-"
FOLDERS = 3  # of one purpose, kept for a visitor
FETCHING = 60  # seconds in which further ones may still be on their way
COMMAND = "workbench restore run.json --out again"
MASK = "mask.png"


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
        self._busy: set[Path] = set()  # folders in which something is being made

    def settle(self) -> None:
        """What lies in the folder now belongs to the page (sample photos) and stays."""
        self._own = set(self.root.rglob("*"))

    def folder(self, session: str, purpose: str) -> Path:
        """A new folder of ``session`` with a name that nobody guesses.

        Of its earlier ones for this ``purpose`` few stay, beside those of the last minute: a client may ask for many
        results at once, and fetch them one by one.
        """
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        with self._lock:
            folders = self._folders.setdefault(session, {}).setdefault(purpose, [])
            folders.append(folder)
            limit = time.time() - FETCHING
            old = [path for path in folders[:-FOLDERS] if path not in self._busy and _used(path) < limit]
            folders[:] = [path for path in folders if path not in old]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return folder

    @contextmanager
    def making(self, folder: Path) -> Iterator[None]:
        """What lies in ``folder`` stays meanwhile, however long it takes, and its time begins at the end."""
        self._busy.add(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # its visitor left
                for path in (folder, *folder.iterdir()):
                    os.utime(path)
            self._busy.discard(folder)

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
            if path in self._own or not self._busy.isdisjoint((path, path.parent)):
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


def _used(path: Path) -> float:
    """When ``path`` was changed last; 0: it is gone."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()  # Gradio's folder for this one file


@dataclass(frozen=True)
class Export:
    """Files of one comparison.

    Attributes:
        archive: the zip file with everything.
        pictures: name on the page -> PNG, all of one size, for the slider.
        recipe: the text of run.json.
    """

    archive: Path
    pictures: dict[str, Path]
    recipe: str


def export(board: Board, folder: Path) -> Export:
    """Write the pictures of ``board`` and run.json into ``folder``, and a zip file of them.

    What failed is left out. A mask or kernel lies in ``folder`` already; in run.json file names are relative,
    so that it works wherever the zip file is unpacked.
    """
    degraded, recipe = board.degraded, board.recipe
    came = degraded.original is None
    done = [panel for panel in board.panels if panel.state == "done"]
    photo = folder / ("photo.png" if came else "original.png")
    save_image(board.photo, photo)
    pictures = {} if came else {"Original": photo}
    for number, panel in enumerate(done, 1):
        stem = folder_name(number, panel.method)
        assert panel.images is not None
        for k in range(len(panel.images)):
            save_image(panel.images[k : k + 1], folder / (f"{stem}.png" if k == 0 else f"{stem}-{k + 1}.png"))
        pictures[f"{number}. {panel.method.label}"] = folder / f"{stem}.png"
    save_image(degraded.picture[:1], folder / "degraded.png")
    pictures = {"Degraded": _enlarged(board, folder), **pictures}

    def public(value: Any) -> Any:
        """``value`` without the server's folders."""
        return value.replace(f"{folder}/", "").replace(str(Path.home()), "~") if isinstance(value, str) else value

    records = [record for panel in done for record in panel.records]
    news = {
        "photo": photo.name,
        "degrade": public(recipe.degrade),
        "operator": public(recipe.operator),
        "results": [{key: public(value) for key, value in record.items()} for record in records],
        "methods": tuple(panel.method for panel in done),  # one that cannot would stop the command too
        "reproduce": COMMAND,
        "workbench": version("restoration-workbench"),
    }
    save_recipe(recipe.model_copy(update=news), folder / "run.json")

    archive = folder / "comparison.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:  # PNG is compressed already
        for file in sorted(folder.iterdir()):
            if file != archive and not file.name.startswith("view-"):
                package.write(file, file.name)
    return Export(archive, pictures, (folder / "run.json").read_text())


def _enlarged(board: Board, folder: Path) -> Path:
    """The degraded picture at the size of the result, its pixels as they are."""
    shown = to_pillow(board.degraded.picture[:1]).convert("RGB")
    height, width = board.degraded.op.image_shape(board.degraded.y.shape)[-2:]
    path = folder / "view-degraded.png"
    shown.resize((width, height), Image.Resampling.NEAREST).save(path)
    return path
