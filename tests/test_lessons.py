"""What the lessons say of the package: an equation names the function that implements it."""

import importlib
import re
from pathlib import Path

import pytest

from tests.printed import Printed

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").rglob("*.py"))
NAMED = re.compile(r"`(workbench(?:\.\w+)+)(?::(\w+)((?:\.\w+)*))?`")


def test_the_functions_that_lessons_name_exist() -> None:
    named = {lesson: NAMED.findall(lesson.read_text(encoding="utf-8")) for lesson in LESSONS}
    assert all(found or lesson.parent.name != "papers" for lesson, found in named.items())
    for module, name, rest in {found for each in named.values() for found in each}:
        found = importlib.import_module(module)
        if not name:
            continue
        found = getattr(found, name)
        for attribute in rest.split(".")[1:]:
            found = getattr(found, attribute)
        source = getattr(found, "__module__", module)
        assert source == module, f"{name} is imported into {module}, its source is {source}"


@pytest.mark.parametrize(
    ("stored", "printed", "same"),
    [
        ("gain +0.04 ± 0.18", "gain +0.05 ± 0.17", True),
        ("1000 evaluations", "1010 evaluations", True),
        ("1000 evaluations", "1030 evaluations", False),
        ("residual 2.0e-05", "residual 2.1e-05", False),
        ("blue 0.6", "blue 0.59", True),
        ("25.0 dB", "24.7 dB", False),
        ("gain +0.04", "gain -0.04", False),
        ("8 photos", "8 images", False),
    ],
)
def test_two_processors_may_print_figures_that_differ_in_the_last_place(stored: str, printed: str, same: bool) -> None:
    assert (Printed(stored) == Printed(printed)) is same
    assert (Printed(stored) != Printed(printed)) is not same
