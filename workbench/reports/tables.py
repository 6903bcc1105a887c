"""The tables of a report: methods by tasks, as HTML and as LaTeX; one line per photo, method and seed for the CSV."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.evaluation.metrics import FIGURES as METRICS
from workbench.evaluation.metrics import as_text
from workbench.reports.comparison import distinct, with_margin
from workbench.reports.rows import FIGURES, SCORES, prior_facts

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

COLUMNS = (
    *("photo", "size", "operator", "noise", "solver", *FIGURES, "effnet2", "haarpsi", "prior", "seed", "job"),
    *("method", "solver_kind", "tile", "overlap", "commit", "code"),
)
MARKS = (
    "Bold: the best, where the 95 % interval of its paired difference from every other method excludes 0; otherwise "
    "the best and all that it cannot be told from are underlined."
)
CAPTIONS = {
    "mean": "Mean ± half of its 95 % confidence interval over the photos (standard deviation over photos); seeds are "
    f"averaged within a photo first; a dash where a photo has no score. {MARKS}",
    "difference": "Paired difference from {}, ± half of its 95 % confidence interval over the photos; how many have "
    "both scores, where it is not all of them.",
    "seeds": "Standard deviation over seeds, averaged over the photos.",
}
_LATEX = {"hrules": True, "multicol_align": "c", "position": "tbp", "position_float": "centering"}
_GREEK = "αalpha βbeta γgamma δdelta εvarepsilon ζzeta ηeta θtheta λlambda μmu ρrho σsigma τtau ωomega"
_TEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {sign: f"{{{sign}}}" for sign in "[*"}  # after the end of a row they would be its option
    | {pair[0]: f"$\\{pair[1:]}$" for pair in _GREEK.split()}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "\n": " "}
    | {sign: f"${sign}$" for sign in "|<>"}
    | {"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
)


def as_html(groups: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Methods (rows) by tasks (columns), or by scores of a single task: title -> caption -> table."""
    found: dict[str, dict[str, str]] = {}
    for number, (title, caption, style) in enumerate(_tables(groups, _html)):
        found.setdefault(title, {})[caption] = style.to_html(table_uuid=str(number), cell_ids=False)
    return found


def as_latex(groups: Sequence[Mapping[str, Any]], name: str) -> str:
    """The same for a paper, with booktabs and labels ``tab:NAME-1``, ...; ``name`` is the pipeline's."""
    texts = ["% Needs \\usepackage{booktabs}.\n"]
    for number, (title, caption, style) in enumerate(_tables(groups, _tex), start=1):
        columns = "l" + "r" * len(style.columns)
        label, said = f"tab:{name}-{number}", _tex(f"{title}. {caption}")
        texts.append(style.to_latex(caption=said, label=label, column_format=columns, **_LATEX))
    return "\n".join(texts)


def long_rows(records: Sequence[Mapping[str, Any]], code: str) -> list[dict[str, Any]]:
    """One row per photo, method and seed: ``COLUMNS``, and as ``setting.NAME``, ``prior.NAME``, ``environment.NAME``
    every setting of solver and prior, versions and hardware; ``solver.file``, ``operator.sha256``, ... of one's own."""
    rows = []
    for record in records:
        parts = {"setting": record["solver_settings"], "prior": prior_facts(record)}
        parts |= {name: record.get(f"{name}_source", {}) for name in ("solver", "operator")}
        parts["environment"] = record["environment"]
        more = {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
        rows.append({column: record.get(column) for column in COLUMNS} | {"code": code} | more)
    return rows


def count(numbers: Sequence[int], what: str) -> str:
    """Such as "1 photo" or "2 to 3 photos"."""
    low, high = min(numbers), max(numbers)
    return f"{low if low == high else f'{low} to {high}'} {what.removesuffix('s') if high == 1 else what}"


def _tables(groups: Sequence[Mapping[str, Any]], escape: Callable[[str], str]) -> Iterator[tuple[str, str, Styler]]:
    """Title, caption and table, of each score or of all scores of one task."""
    rows = [row for group in groups for row in group["averages"]]
    scores = [key for key in SCORES if any(row["spread"][key]["interval"] for row in rows)]
    if not scores:
        return
    levels = {level: [group["levels"][level] for group in groups] for level in groups[0]["levels"]}
    common = [texts[0] for texts in levels.values() if texts[0] and len(set(texts)) == 1]
    said = ", ".join([*common, *(count([row[what] for row in rows], what) for what in ("photos", "seeds"))])
    names = {key: METRICS[key].column.replace(" *", "").replace("\n", " ") for key in scores}
    heads = zip(*(texts for texts in levels.values() if len(set(texts)) > 1), strict=True)
    told = list(zip(heads, groups, strict=True)) if len(groups) > 1 else []
    parts = {f"{name}: {said}": [(*each, key) for each in told] for key, name in names.items()}
    if len(groups) == 1:
        parts = {said: [((name,), groups[0], key) for key, name in names.items()]}
    references, methods = (distinct(row[key] for row in rows) for key in ("reference", "method"))
    compared = references != [None] and len(methods) > 1
    shown = {"mean": True, "difference": compared, "seeds": max(row["seeds"] for row in rows) > 1}
    for title, columns in parts.items():
        for what in filter(shown.get, shown):
            other = references[0] if len(references) == 1 else "the method that is marked so"
            yield title, CAPTIONS[what].format(other), _table(columns, what, escape)


def _table(
    columns: Sequence[tuple[tuple[str, ...], Mapping[str, Any], str]], what: str, escape: Callable[[str], str]
) -> Styler:
    """Methods by columns (heading by level, group, score), marked by classes in HTML and by commands in LaTeX."""
    cells = [{row["method"]: _cell(row, key, what) for row in group["averages"]} for _, group, key in columns]
    methods = distinct(method for own in cells for method in own)
    *upper, last = zip(*(head for head, _, _ in columns), strict=True)
    names = [""] * len(upper) + ["Method"]
    index = pd.MultiIndex.from_arrays([*upper, last], names=names) if upper else pd.Index(last, name="Method")
    texts, marks = (
        pd.DataFrame([[own.get(method, ("", ""))[part] for own in cells] for method in methods], methods, index)
        for part in (0, 1)
    )
    style = texts.style.format(escape).format_index(escape, axis=0).format_index(escape, axis=1).set_td_classes(marks)
    commands = marks.replace({"best": "textbf:--rwrap;", "level": "underline:--rwrap;"})
    return style.apply(lambda _: commands.to_numpy(), axis=None) if escape is _tex else style


def _cell(row: Mapping[str, Any], key: str, what: str) -> tuple[str, str]:
    """Text and mark."""
    spread, metric = row["spread"][key], METRICS[key]
    if what == "seeds":
        return as_text(spread["seeds"], key), ""
    if what == "difference":
        if row["method"] == row["reference"]:
            return "reference", ""
        both = (spread["difference"] or {}).get("n", 0)
        told = f" ({both} of {count([spread['photos']], 'photos')})" if 0 < both < spread["photos"] else ""
        return with_margin(spread["difference"], metric, signed=True) + told, ""
    deviation = "" if pd.isna(spread["std"]) else f" ({as_text(spread['std'], key)})"
    return with_margin(spread["interval"], metric) + deviation, spread["mark"]


def _html(text: str) -> str:
    return html.escape(text).replace(" ± ", "\u00a0±\u00a0")  # lines break before the standard deviation


def _tex(text: str) -> str:
    return text.translate(_TEX)
