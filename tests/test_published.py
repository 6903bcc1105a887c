"""The transcribed tables: well formed, plausible, and consistent with what the papers say twice."""

import re
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = yaml.safe_load((Path(__file__).parents[1] / "pipelines" / "published.yaml").read_text(encoding="utf-8"))
TABLES: dict[str, dict[str, Any]] = {table["id"]: table for table in PUBLISHED["tables"]}


BOUNDS = {"PSNR": (9, 50), "SSIM": (0.1, 1), "LPIPS": (0, 1), "FID": (0, 170), "NFEs": (1, 1000)}


def test_tables_are_there_well_formed_and_within_their_metrics():
    counts = {paper: sum(t["paper"] == paper for t in TABLES.values()) for paper in PUBLISHED["papers"]}
    assert counts == {"mupet": 2, "deqir": 5, "mtdeq": 2, "ud2m": 10}
    assert len(TABLES) == len(PUBLISHED["tables"])
    for table in TABLES.values():
        assert set(table) <= {"id", "paper", "table", "caption", "labels", "columns", "rows", "notes"}
        labels, columns = len(table["labels"]), table["columns"]
        assert len({tuple(row[:labels]) for row in table["rows"]}) == len(table["rows"])
        assert len(set(columns)) == len(columns)
        for row in table["rows"]:
            for column, value in zip(columns, row[labels:], strict=True):
                low, high = BOUNDS.get(column.split()[-1], (-1e9, 1e9))
                assert value is None or (type(value) in (int, float) and low <= value <= high), (table["id"], row)


def test_the_transcription_holds_every_figure_of_the_papers(shared):
    """Where the papers are at hand: every number of every table stands in the extracted text of that paper."""
    for table in TABLES.values():
        text = (shared / "papers" / f"{table['paper']}.md").read_text(encoding="utf-8")
        numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
        for row in table["rows"]:
            for value in row[len(table["labels"]) :]:
                assert value is None or value < 1e-3 or float(value) in numbers, (table["id"], row, value)
