"""Check that every notebook and its text twin hold the same cells, every exercise those of its solution. Reads only.

jupytext's own --test, --check and --sync do not do this: the first ignores an edited text file, the others go by the
files' dates, which a fresh clone does not have.
"""

from __future__ import annotations

import sys
from itertools import zip_longest
from pathlib import Path

import exercises
import jupytext
import stills

ROOT = Path(__file__).parents[1]


def problems(folder: Path) -> list[str]:
    """One line for each pair below ``folder`` that is not in step, empty if all are."""
    found = []
    stems = {file.with_suffix("") for file in [*folder.rglob("*.ipynb"), *folder.rglob("*.py")]}
    for stem in sorted(stem for stem in stems if ".ipynb_checkpoints" not in stem.parts):
        pair = [stem.with_suffix(".ipynb"), stem.with_suffix(".py")]
        missing = [file for file in pair if not file.exists()]
        if missing:
            found.append(f"{missing[0]} is missing")
        else:
            found += [f"{stem}: {problem}" for problem in _compare(*pair)]
    return found


def _compare(notebook: Path, text: Path) -> list[str]:
    books = [jupytext.read(notebook), jupytext.read(text)]
    found = []
    for file, book in zip((notebook, text), books, strict=True):
        found += [
            f"cell {number} of {file.name} holds a live widget: scripts/stills.py" for number, _ in stills.live(book)
        ]
        kernel = book.metadata.get("kernelspec", {}).get("name")
        if kernel != "python3":
            found.append(f"the kernel of {file.name} is {kernel!r}, expected 'python3'")
    for number, cells in enumerate(zip_longest(*(book.cells for book in books)), start=1):
        if None in cells:
            found.append(f"{len(books[0].cells)} cells in {notebook.name}, {len(books[1].cells)} in {text.name}")
            break
        kinds, sources, tags = zip(
            *((cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells), strict=True
        )
        for name, values in (("type", kinds), ("source", sources), ("tags", tags)):
            if values[0] != values[1]:
                found.append(f"cell {number} differs in {name}")
    return found


def main() -> int:
    found, stale = problems(ROOT / "notebooks"), exercises.problems()
    for problem in found + stale:
        print(problem, file=sys.stderr)
    if found:
        print("If the .py is right: jupytext --update --to ipynb FILE.py, and run the notebook again.", file=sys.stderr)
    return 1 if found or stale else 0


if __name__ == "__main__":
    sys.exit(main())
