"""Leave of each widget in the stored lessons its still: a notebook that is opened shows pictures before it is run.

JupyterLab prefers the live view, and says "model not found" where no kernel has it yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat

VIEW = "application/vnd.jupyter.widget-view+json"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def live(book: nbformat.NotebookNode) -> Iterator[tuple[int, dict[str, object]]]:
    """The numbers of the cells with a live view, from 1, and the bundles that hold it beside other forms."""
    for number, cell in enumerate(book.cells, start=1):
        for output in cell.get("outputs", []):
            if VIEW in output.get("data", {}):
                yield number, output.data


def main() -> None:
    for file in sorted(NOTEBOOKS.rglob("*.ipynb")):
        book = nbformat.read(file, as_version=4)
        if bundles := [bundle for _, bundle in live(book)]:
            for bundle in bundles:
                del bundle[VIEW]
            nbformat.write(book, file)


if __name__ == "__main__":
    main()
