"""Which photos there are at some paths, and what their restorations are called."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.data.sources import SUFFIXES, images_below

PHOTOS = SUFFIXES | {".gif", ".pgm", ".jfif", ".jp2", ".avif", ".heic"}  # what Pillow cannot read is named at least
SHEET = re.compile(r"contact(-\d+)?\.png")  # thumbnails, beside the restorations


@dataclass(frozen=True)
class Source:
    """A photo: its ``name`` below the folder that was given, its file, by whose ``stamp`` a change is told, and the
    names of its restorations."""

    name: str
    path: Path
    stamp: str
    written: list[str]


def find_photos(paths: Sequence[Path], out: Path, samples: int = 1) -> list[Source]:
    """The photos at ``paths``: files, and sorted what folders hold, except what is hidden or in ``out``.

    ``sub/name.jpg`` becomes ``sub/name.png``, further samples ``sub/name-2.png``, ...; where another photo would have
    that name, ``sub/name.jpg.png``.

    Raises:
        ValueError: a path without photos, two restorations of one name, or one that would replace a photo.
    """
    found: dict[Path, str] = {}
    others = [path for path in paths if path.resolve() != out.resolve()]  # PHOTO may be a *
    if not others:
        raise ValueError(f"{out} is the folder of the photos: choose another --out")
    for path in others:
        if path.is_dir():
            found |= {file.absolute(): file.relative_to(path).as_posix() for file in _below(path, out)}
        elif not path.exists() or path.suffix.lower() == ".json":
            raise ValueError(f"{path}: " + ("a recipe is restored by itself" if path.exists() else "no such file"))
        else:
            found[path.absolute()] = path.name
    suffixes = [".png", *(f"-{number}.png" for number in range(2, samples + 1))]
    short = {name: [str(Path(name).with_suffix("")) + suffix for suffix in suffixes] for name in found.values()}
    whole = {name: [name + suffix for suffix in suffixes] for name in found.values()}
    uses = Counter(each.lower() for names in (*short.values(), *whole.values()) for each in names)
    photos = []
    for path, name in found.items():
        free = all(uses[each.lower()] == 1 and not SHEET.fullmatch(each) for each in short[name])
        photos.append(Source(name, path, stamp_of(path), short[name] if free else whole[name]))
    goals = Counter([*found, *((out / each).absolute() for photo in photos for each in photo.written)])
    if twice := [goal for goal, count in goals.items() if count > 1]:
        raise ValueError(f"{twice[0]} would be written twice, or replace a photo: choose another --out")
    return photos


def _below(folder: Path, out: Path) -> list[Path]:
    """The photos below ``folder``, sorted, none of those below ``out``. Raises ValueError if there are none."""
    top, results = folder.resolve(), out.resolve()
    own = results.relative_to(top) if results.is_relative_to(top) else None
    files = [file for file in images_below(folder, PHOTOS) if own not in file.relative_to(folder).parents]
    if not files:
        raise ValueError(f"no photos below {folder} (looked for {', '.join(sorted(PHOTOS))})")
    return files


def stamp_of(path: Path) -> str:
    """What changes when a file does: its size and time; empty if there is none."""
    return f"{path.stat().st_size} bytes, {path.stat().st_mtime_ns}" if path.is_file() else ""
