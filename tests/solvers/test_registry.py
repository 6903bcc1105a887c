"""The registry of solvers: names, settings, and what each refuses."""

import math
from dataclasses import FrozenInstanceError

import pytest

from tests.solvers.solver_problems import curved_prior, problem
from workbench.solvers import SOLVERS, DeqIR, DiffPIR, describe_solvers, make_solver


def test_the_registry_makes_and_describes():
    assert make_solver("deqir", steps=7) == DeqIR(steps=7)
    described = describe_solvers()
    assert [name for name, _, _ in described] == list(SOLVERS)
    assert all(line and "\n" not in line and paper for _, line, paper in described)
    with pytest.raises(FrozenInstanceError):
        make_solver("deqir").steps = 1


def test_unknown_names_and_settings_name_the_nearest():
    with pytest.raises(ValueError, match="unknown solver 'diffpri', did you mean 'diffpir'"):
        make_solver("diffpri")
    with pytest.raises(ValueError, match="unknown setting of ddnm 'step', did you mean 'steps'"):
        make_solver("ddnm", step=3)
    with pytest.raises(ValueError, match="unknown setting of pinv 'steps'"):
        make_solver("pinv", steps=3)


BAD = {  # beside the limits of each: test_limits.py
    "diffpir": {"sigma_start": 0.001},
    "pnp-reg": {"memory": 3},
    "map-gd": {"max_steps": 2.5, "step_size": "0.5", "memory": None},  # numbers are asked for
    "latino": {"delta": None, "clip": "no", "schedule": 3},
    "cm4ir": {"first": 999, "seen_sign": 0, "deltas": [0.1]},
}


def test_bad_settings_are_refused():
    for name, settings in BAD.items():
        for setting, value in settings.items():
            with pytest.raises(ValueError, match=f"{setting} must be"):
                make_solver(name, **{setting: value})


@pytest.mark.parametrize("name", ["ddnm", "ddrm", "dps", "deqir"])
def test_a_prior_that_does_not_suit_is_refused(name):
    """DiffPIR starts from a first estimate and does with the noise levels that there are."""
    op, y = problem()
    with pytest.raises(ValueError, match=r"knows noise up to 0.2: use diffpir"):
        make_solver(name)(y, op, curved_prior(sigma_max=0.2))
    with pytest.raises(ValueError, match="takes sides that are multiples of 4, got 6x6"):
        make_solver(name)(y, op, curved_prior(multiple=4))
    assert DiffPIR(5, schedule="vp")(y, op, curved_prior(sigma_max=0.2)).image.isfinite().all()


def test_levels_that_do_not_suit_diffpir_are_refused():
    op, y = problem()
    expected = "expected 3 positive levels"
    for schedule, message in (
        ("karras", "schedule must be 'geometric', 'vp' or a list"),
        *((levels, expected) for levels in ([1.0, 0.5], [1.0, 2.0, 0.5], [1.0, 0.5, 0.0], [1.0, math.nan, 0.1])),
        ([900.0, 1.0, 0.1], "knows noise up to sigma = 500, the schedule starts at 900"),
    ):
        with pytest.raises(ValueError, match=message):
            DiffPIR(3, schedule=schedule)(y, op, curved_prior())
