"""A job notebook as a plain script, for machines without Jupyter and papermill:

    python -m workbench.pipelines.script notebooks/jobs/train_mupet.py alpha=0.0 steps=1000 'data=["photos"]'

Parameters are written NAME=VALUE with Python literals as values; those left out keep the notebook's defaults. Files are
relative to the working directory, and figures are not shown.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from workbench.text import check_labels, fits, parse_settings, type_name

EXAMPLES = {list: '["a", "b"]', dict: '{"a": 1}', str: '"a"', bool: "true", int: "3", float: "0.5"}


def run_script(file: Path, pairs: Sequence[str]) -> dict[str, Any]:
    """Run the jupytext script ``file`` with the parameters ``pairs`` and return what it defined.

    Raises:
        ValueError: no cell with the tag "parameters", a pair that is no NAME=VALUE, an unknown parameter, or a value of
            another kind than the notebook says.
    """
    text = file.read_text(encoding="utf-8")
    match = re.search(r'^# %% tags=\["parameters"\]\n.*?(?=^# %%)', text, re.M | re.S)
    if match is None:
        raise ValueError(f'{file}: expected a cell with tags=["parameters"], as job notebooks have')
    values: dict[str, Any] = {"__name__": "__main__", "__annotations__": {}}
    exec(compile(match.group(), str(file), "exec", dont_inherit=True), values)  # annotations as types, not as text
    settings = parse_settings(pairs, "parameters")
    check_labels(file.name, settings, "parameter", (name for name in values if not name.startswith("_")))
    for name, value in settings.items():
        if not fits(value, kind := values["__annotations__"].get(name, type(values[name]))):
            first = get_args(kind)[0] if isinstance(kind, UnionType) else kind
            example = shlex.quote(f"{name}={EXAMPLES.get(get_origin(first) or first, 'VALUE')}")
            said = f"{file.name}: {name} must be {type_name(kind)}, got {value!r}"
            raise ValueError(f"{said}; write it as in {example}")
    values |= settings
    # Empty lines keep the line numbers of error messages right.
    exec(compile("\n" * text.count("\n", 0, match.end()) + text[match.end() :], str(file), "exec"), values)
    return values


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    run_script(Path(sys.argv[1]), sys.argv[2:])
