"""The papers' own tables (``published.yaml``), for reports to show beside measured figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAME = "published.yaml"


@dataclass(frozen=True)
class Published:
    """One table of a paper. ``rows`` start with the entries for ``labels``, then one figure (or None) per column."""

    id: str
    paper: str
    table: str
    caption: str
    labels: list[str]
    columns: list[str]
    rows: list[list[Any]]
    notes: list[str]

    def figures(self, *labels: str) -> list[tuple[list[str], dict[str, float | None]]]:
        """The rows that begin with ``labels``: what names them beyond that, and their figures by column."""
        width, given = len(self.labels), len(labels)
        return [
            ([str(label) for label in row[given:width]], dict(zip(self.columns, row[width:], strict=True)))
            for row in self.rows
            if tuple(row[:given]) == labels
        ]


def read_published(path: Path) -> dict[str, Published]:
    """Every table of a ``published.yaml``, by id."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        table["id"]: Published(**{"notes": []} | table | {"paper": content["papers"][table["paper"]]})
        for table in content["tables"]
    }


def find_published(*places: Path) -> Path | None:
    """The nearest ``published.yaml``, or ``pipelines/published.yaml``, in or above one of ``places``."""
    folders = [folder for place in places for folder in (place, *place.parents)]
    files = (file for folder in folders for file in (folder / NAME, folder / "pipelines" / NAME))
    return next((file for file in files if file.is_file()), None)
