"""The package's layers: what a module imports when it is imported lies in its own layer or below it."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "workbench"
LAYERS = (  # from the bottom; the packages of one layer do not import one another
    {"text", "random", "photo_file", "noise_level", "machine"},
    {"images", "limits", "own"},
    {"operators"},
    {"models"},
    {"data", "evaluation", "deepinv_bridge"},
    {"solvers"},
    {"trainers", "fitting", "plots"},
    {"records", "exam", "noise"},
    {"measurement"},
    {"restore", "provenance"},
    {"recipe", "pipelines"},
    {"reports", "demo", "terminal", "folder", "widgets"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(file: Path) -> set[str]:
    """The parts of the package that ``file`` imports at its top level; imports inside functions and those for type
    checkers alone come later, when everything is there."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("workbench.")}


def test_nothing_imports_upwards():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in imports(file) if own != "__init__" else ():
            if other != own and LEVEL[other] >= LEVEL[own]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {other}")
    assert wrong == []


def test_every_part_has_a_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == set(LEVEL)
