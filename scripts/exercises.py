"""Write the exercises, notebooks/exercises/NAME, from the solved ones, notebooks/exercises/solved/NAME.py.

In a solved exercise the lines between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` (the marks of nbgrader) are the
solution. Their cells have the tag "solution" and ``source_hidden``, so that JupyterLab folds them. In the exercise one
line that raises NotImplementedError stands in their place, and the cells are open. check_notebooks.py sees to it that
the two are in step.
"""

from __future__ import annotations

import re
from pathlib import Path

from jupytext.cli import jupytext

FOLDER = Path(__file__).parents[1] / "notebooks" / "exercises"
HIDDEN = 'tags=["solution"] jupyter={"source_hidden": true}'
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n", re.M | re.S)
STUB = r'\1raise NotImplementedError("your turn: write this part in place of this line")' + "\n"


def unsolved(text: str) -> str:
    """The exercise of a solved one, both jupytext's percent format. Links lose the folder they need no longer climb.

    Raises:
        ValueError: a cell with a solution is not hidden, or the other way round; marks that do not pair.
    """
    for cell in re.split(r"^(?=# %%)", text, flags=re.M):
        first, marks = cell.partition("\n")[0], re.findall(r"### (BEGIN|END) SOLUTION\n", cell)
        if marks != ["BEGIN", "END"] * (len(marks) // 2) or bool(marks) != (HIDDEN in first):
            raise ValueError(f"expected paired marks of a solution in cells with {HIDDEN} alone, got cell {first!r}")
    return SOLUTION.sub(STUB, text).replace(f" {HIDDEN}", "").replace("](../../", "](../")


def problems(folder: Path = FOLDER) -> list[str]:
    """One line for each exercise below ``folder`` that is not what its solved twin says, empty if all are."""
    found = []
    for solved in sorted((folder / "solved").glob("*.py")):
        exercise = folder / solved.name
        if not exercise.exists() or exercise.read_text(encoding="utf-8") != unsolved(
            solved.read_text(encoding="utf-8")
        ):
            found.append(f"{exercise} is not the exercise of solved/{solved.name}: python scripts/exercises.py")
    solved_names = {path.name for path in (folder / "solved").glob("*.py")}
    return found + [f"{path} has no solved twin" for path in folder.glob("*.py") if path.name not in solved_names]


def main() -> None:
    for solved in sorted((FOLDER / "solved").glob("*.py")):
        exercise = FOLDER / solved.name
        exercise.write_text(unsolved(solved.read_text(encoding="utf-8")), encoding="utf-8")
        jupytext(["--quiet", "--update", "--to", "ipynb", str(exercise)])


if __name__ == "__main__":
    main()
