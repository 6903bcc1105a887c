"""What the lessons say of the package: an equation names the function that implements it."""

import importlib
import re
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").rglob("*.py"))
NAMED = re.compile(r"`(workbench(?:\.\w+)+)(?::(\w+)((?:\.\w+)*))?`")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda file: file.stem)
def test_the_functions_that_a_lesson_names_exist(lesson: Path) -> None:
    named = NAMED.findall(lesson.read_text(encoding="utf-8"))
    assert named or lesson.parent.name != "papers"
    for module, name, rest in named:
        found = importlib.import_module(module)
        if not name:
            continue
        found = getattr(found, name)
        for attribute in rest.split(".")[1:]:
            found = getattr(found, attribute)
        source = getattr(found, "__module__", module)
        assert source == module, f"{name} is imported into {module}, its source is {source}"
