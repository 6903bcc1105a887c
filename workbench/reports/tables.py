"""The tables of a report: methods by tasks, as HTML and as LaTeX; one line per photo, method and seed for the CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.evaluation.metrics import FIGURES as METRICS
from workbench.evaluation.metrics import as_text
from workbench.reports.comparison import distinct, with_margin
from workbench.reports.rows import FIGURES, SCORES, prior_facts

COLUMNS = (
    *("photo", "size", "operator", "noise", "solver", *FIGURES, "effnet2", "haarpsi", "prior", "seed", "job"),
    *("method", "solver_kind", "tile", "overlap", "commit", "code"),
)
LEVELS = ("operator", "noise", "size", "prior")
MARKS = (
    "Bold: the best, where the 95 % interval of its paired difference from every other method excludes 0; otherwise "
    "the best and all that it cannot be told from are underlined."
)
NOTE = (
    "Mean ± half of its 95 % confidence interval over the photos, in brackets the standard deviation over photos; "
    f"seeds are averaged within a photo first. {MARKS}"
)
_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "\n": " "}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {sign: f"${name}$" for sign, name in {"−": "-", "±": r"\pm", "×": r"\times", "↑": r"\uparrow"}.items()}
    | {"↓": r"$\downarrow$", "‖": r"$\Vert$"}
)


def overview(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Methods (rows) by tasks (columns) as HTML, by the heading of each measured score; nothing for a single task."""
    tables = {}
    for key in measured_scores(groups) if len(groups) > 1 else ():
        texts, marks = _frames([(_heading(group, groups), group, key) for group in groups], "mean")
        style = texts.style.set_td_classes(marks).format(escape="html")
        style = style.format_index(escape="html", axis="index").format_index(escape="html", axis="columns")
        tables[METRICS[key].column] = style.to_html(table_uuid=key, cell_ids=False)
    return tables


def latex(groups: Sequence[Mapping[str, Any]], name: str) -> str:
    """The same for a paper, with booktabs: a table per score, or one of all scores of a single task, and for each a
    table of the differences from the reference.

    Args:
        name: of the pipeline, for labels (``tab:NAME-psnr``).
    """
    headings = {key: METRICS[key].column.replace(" *", "") for key in measured_scores(groups)}
    if len(groups) > 1:
        parts = {key: [(_heading(group, groups), group, key) for group in groups] for key in headings}
    else:
        parts = {"scores": [((heading,), group, key) for group in groups for key, heading in headings.items()]}
    references = distinct(group["averages"][0]["reference"] for group in groups)
    other = references[0] if len(references) == 1 else "the method that is marked so"
    note = f"Difference from {other}, paired by photo, ± half of its 95 % confidence interval."
    tables = ["% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}.\n"]
    for part, columns in parts.items():
        start = f"{headings[part]}: {common_facts(groups)}." if part in headings else f"{common_facts(groups)}."
        tables.append(_as_latex(_frames(columns, "full"), f"{start} {NOTE}", f"tab:{name}-{part}"))
        if references != [None]:
            differences = _frames(columns, "difference")
            tables.append(_as_latex(differences, f"{start} {note}", f"tab:{name}-{part}-difference"))
    return "\n".join(tables)


def long_rows(records: Sequence[Mapping[str, Any]], code: str) -> list[dict[str, Any]]:
    """One row per photo, method and seed: ``COLUMNS``, and as ``setting.NAME``, ``prior.NAME``, ``environment.NAME``
    every setting of solver and prior, versions and hardware."""
    rows = []
    for record in records:
        parts = {
            "setting": record["solver_settings"],
            "prior": prior_facts(record),
            "environment": record["environment"],
        }
        more = {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
        rows.append({column: record.get(column) for column in COLUMNS} | {"code": code} | more)
    return rows


def _frames(columns: Sequence[tuple[tuple[str, ...], Mapping[str, Any], str]], what: str) -> list[pd.DataFrame]:
    """Texts and marks of a table of methods by ``columns`` (heading, group, score).

    Args:
        what: ``mean`` with its margin, that in ``full`` with the standard deviation, or the ``difference``.
    """
    cells = [{row["method"]: _cell(row, key, what) for row in group["averages"]} for _, group, key in columns]
    methods = distinct(method for own in cells for method in own)
    heads = [head for head, _, _ in columns]
    *upper, last = zip(*heads, strict=True)
    names = [""] * len(upper) + ["Method"]
    index = pd.MultiIndex.from_arrays([*upper, last], names=names) if upper else pd.Index(last, name="Method")
    return [
        pd.DataFrame(
            [[own.get(method, ("", ""))[part] for own in cells] for method in methods],
            index=methods,
            columns=index,
        )
        for part in (0, 1)
    ]


def _cell(row: Mapping[str, Any], key: str, what: str) -> tuple[str, str]:
    """Text and mark."""
    spread, metric = row["spread"][key], METRICS[key]
    if what == "difference":
        is_reference = row["method"] == row["reference"]
        return "reference" if is_reference else with_margin(spread["difference"], metric, signed=True), ""
    text = with_margin(spread["interval"], metric)
    if what == "full" and not pd.isna(spread["std"]):
        text += f" ({as_text(spread['std'], key)})"
    return text, spread["mark"]


def _as_latex(frames: Sequence[pd.DataFrame], caption: str, label: str) -> str:
    texts, marks = frames
    commands = marks.replace({"best": "textbf:--rwrap;", "level": "underline:--rwrap;"}).to_numpy()
    style = texts.style.format(_tex).format_index(_tex, axis="index").format_index(_tex, axis="columns")
    return style.apply(lambda _: commands, axis=None).to_latex(
        hrules=True,
        caption=_tex(caption),
        label=label,
        column_format="l" + "r" * texts.shape[1],
        multicol_align="c",
        position="tbp",
        position_float="centering",
    )


def measured_scores(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """The scores that some row has."""
    rows = [row for group in groups for row in group["averages"]]
    return [key for key in SCORES if any(row["spread"][key]["interval"] for row in rows)]


def _heading(group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What tells the group from the others, level by level."""
    return tuple(as_fact(group, key) for key in LEVELS if len({other[key] for other in groups}) > 1)


def common_facts(groups: Sequence[Mapping[str, Any]]) -> str:
    """What all groups have in common, and the number of photos and seeds."""
    facts = [as_fact(groups[0], key) for key in LEVELS if groups[0][key] and len({group[key] for group in groups}) == 1]
    rows = [row for group in groups for row in group["averages"]]
    return ", ".join([*facts, *(count([row[what] for row in rows], what) for what in ("photos", "seeds"))])


def as_fact(group: Mapping[str, Any], key: str) -> str:
    """What the group's ``key`` of ``LEVELS`` is, for people."""
    if key == "noise":
        return f"noise {group[key]:g}" if group[key] else "no noise"
    return str(group[key])


def count(numbers: Sequence[int], what: str) -> str:
    """Such as "1 photo" or "2 to 3 photos"."""
    low, high = min(numbers), max(numbers)
    return f"{low if low == high else f'{low} to {high}'} {what.removesuffix('s') if high == 1 else what}"


def _tex(text: str) -> str:
    return text.translate(_TEX)
