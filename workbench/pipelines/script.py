"""A job notebook as a plain script, for machines without Jupyter and papermill:

    python -m workbench.pipelines.script notebooks/jobs/train_mupet.py alpha=0.0 steps=1000 'data=["photos"]'

Parameters are written NAME=VALUE with Python literals as values; those left out keep the notebook's defaults. Files are
relative to the working directory, and figures are not shown.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.text import check_labels, parse_settings


def run_script(file: Path, pairs: Sequence[str]) -> dict[str, Any]:
    """Run the jupytext script ``file`` with the parameters ``pairs`` and return what it defined.

    Raises:
        ValueError: no cell with the tag "parameters", a pair that is no NAME=VALUE, or an unknown parameter.
    """
    text = file.read_text(encoding="utf-8")
    match = re.search(r'^# %% tags=\["parameters"\]\n.*?(?=^# %%)', text, re.M | re.S)
    if match is None:
        raise ValueError(f'{file}: expected a cell with tags=["parameters"], as job notebooks have')
    values: dict[str, Any] = {"__name__": "__main__"}
    exec(match.group(), values)
    settings = parse_settings(pairs, "parameters")
    check_labels(file.name, settings, "parameter", (name for name in values if not name.startswith("_")))
    values |= settings
    # Empty lines keep the line numbers of error messages right.
    exec(compile("\n" * text.count("\n", 0, match.end()) + text[match.end() :], str(file), "exec"), values)
    return values


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    run_script(Path(sys.argv[1]), sys.argv[2:])
