"""Limits of settings: every one that a type of the package declares is kept."""

import re
from dataclasses import MISSING, fields
from inspect import isabstract

import pytest

import workbench.trainers  # noqa: F401  # and with it whatever has settings
from workbench.limits import Limited, _checks
from workbench.text import fits

BEYOND = {
    "at least 1": 0,
    "at least 0": -1,
    "in [0, 1]": 1.1,
    "in [0, 1)": 1.0,
    "in (0, 1]": 0.0,
    "in (0, 1)": 1.0,
    "in (0, 2]": 2.1,
    "positive and finite": 0.0,
    "finite and >= 0": float("nan"),
}
NEEDED = {"steps": 1, "loss": len, "factor": 0.5, "every": 1}  # settings without a default


def kinds(base: type) -> list[type]:
    below = [kind for each in base.__subclasses__() for kind in (each, *kinds(each))]
    ours = [kind for kind in below if kind.__module__.startswith("workbench.")]
    concrete = [kind for kind in ours if "__dataclass_fields__" in vars(kind) and not isabstract(kind)]
    return [kind for kind in concrete if any(limits for _, _, limits in _checks(kind))]


@pytest.mark.parametrize("kind", kinds(Limited), ids=lambda kind: kind.__name__)
def test_a_setting_beyond_its_limit_is_refused_by_its_name(kind: type) -> None:
    """A name that is none of those known, where it is one of some."""
    needed = {each.name: NEEDED[each.name] for each in fields(kind) if each.default is each.default_factory is MISSING}
    for field, hint, limits in _checks(kind):
        for _, limit in limits:
            wrong = BEYOND.get(limit.text, "?")
            assert fits(wrong, hint), f"{limit.text}: say in BEYOND what is beyond it"
            with pytest.raises(ValueError, match=rf"^{field.name} must be {re.escape(limit.text)}, got"):
                kind(**needed | {field.name: wrong})
