"""What the lessons say of the package: an equation names the function that implements it."""

import importlib
import re
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[bp]*/*.py"))
NAMED = re.compile(r"`(workbench(?:\.\w+)*):(\w+)((?:\.\w+)*)`")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda file: file.stem)
def test_the_functions_that_a_lesson_names_exist(lesson: Path) -> None:
    named = NAMED.findall(lesson.read_text(encoding="utf-8"))
    assert named or lesson.parent.name != "papers"
    for module, name, rest in named:
        found = getattr(importlib.import_module(module), name)
        for attribute in rest.split(".")[1:]:
            found = getattr(found, attribute)
        assert found.__module__ == module, f"{name} is imported into {module}, its source is {found.__module__}"
