"""What is shown belongs together, and says what the comparison is about."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from tests.demo.test_page import drawn, problem
from tests.demo.test_page import photo as photo
from tests.demo.test_page import sessions as sessions
from workbench.demo.endpoints import endpoints
from workbench.demo.files import Visits
from workbench.demo.problem import Limits, Problem, Row
from workbench.demo.session import Sessions
from workbench.demo.view import AMPLIFY, board_html, score_table
from workbench.images import load_image

ROWS = [Row("pinv", "photo"), Row("ddnm", "photo", "steps=2")]


def test_results_of_other_methods_settings_or_samples_are_told_apart(sessions, photo):
    """A preview that comes late hides none, one of another problem does; a run that is refused leaves what is shown."""
    wanted = problem(photo)
    assert not sessions.shows_results_of(wanted, "session")
    assert not sessions.shows_results_of_others(ROWS, 1, "session")  # none are shown
    list(sessions.restore(wanted, ROWS, 1, "session"))
    right = {"problem": wanted, "rows": ROWS, "samples": 1, "session": "session"}
    for bad in ({"problem": problem(photo, degradation="sr:0")}, {"samples": 0}, {"rows": [Row("magic", "photo")]}):
        with pytest.raises(ValueError, match=r"sr:0|samples|magic"):
            list(sessions.restore(**(right | bad)))
        assert sessions.shows_results_of(wanted, "session")
        assert not sessions.shows_results_of_others(ROWS, 1, "session")
    for rows, samples in ((ROWS[:1], 1), ([ROWS[0], Row("ddnm", "photo", "steps=3")], 1), (ROWS, 2)):
        assert sessions.shows_results_of_others(rows, samples, "session")
    assert not sessions.shows_results_of_others(ROWS[:1], 1, "another")
    assert not sessions.shows_results_of(wanted, "another")
    assert not sessions.shows_results_of(problem(photo, noise=0.2), "session")
    assert not sessions.shows_results_of_others(ROWS[:1], 1, "session")  # a preview took their place
    assert not sessions.shows_results_of(wanted, "session")


def test_what_was_changed_during_a_run_and_back_is_shown(sessions, photo):
    run = sessions.restore(problem(photo), ROWS, 1, "session")
    next(run)
    assert not sessions.shows_results_of(problem(photo, noise=0.2), "session")
    list(run)
    assert sessions.shows_results_of(problem(photo), "session")


def test_a_run_whose_visitor_left_ends_there(sessions, photo):
    run = sessions.restore(problem(photo), [Row("diffpir", "photo", "steps=1000")], 1, "session")
    next(board for board, _ in run if board.panels[0].index)  # it is under way
    sessions.leave("session")
    assert list(run) == []  # nor an error, for want of a folder to write to


def answer(sessions: Sessions, asked: Problem, rows: list[Row], samples: int = 1) -> tuple[object, ...]:
    """What the page shows at the end: whether results are hidden, pictures, status, whether details are, the rest."""
    rows = [*rows, *[Row("none", "photo")] * 4][:4]
    values = [getattr(asked, field.name) for field in fields(asked)]
    request = SimpleNamespace(session_hash="session")
    *_, last = endpoints(sessions)["restore"](request, *values, *(part for row in rows for part in row), samples)
    return last


def test_what_ran_out_of_time_is_not_done(tmp_path, photo):
    sessions = Sessions(Limits(seconds=0), {"photo": "photo"}, Visits(tmp_path, keep=60))
    _, _, status, *_ = answer(sessions, problem(photo), ROWS[1:])
    said = "ddnm, photo (DSM): out of time; take fewer steps or a smaller picture"
    assert status == f'<p class="error" role="alert">{said}</p>'


def test_the_slider_opens_on_the_first_two_methods_or_on_what_one_made_of_the_photo(sessions, photo):
    for rows, before, after in (
        (ROWS, "1. pinv, photo (DSM)", "2. ddnm, photo (DSM)"),
        (ROWS[:1], "Degraded", "1. pinv, photo (DSM)"),
    ):
        *_, left, right, shown, gap, pictures = answer(sessions, problem(photo), rows)
        assert (left.value, right.value) == (before, after)
        assert shown == (pictures[before], pictures[after])
        largest = float((load_image(shown[1]) - load_image(shown[0])).abs().max())
        assert f"largest {largest:.4f}" in gap


def test_the_table_compares_the_first_two_methods_sample_by_sample_and_the_board_shows_where_they_differ(
    sessions, photo
):
    *_, (board, _) = sessions.restore(problem(photo), [*ROWS, ROWS[0]], 3, "session")
    gains = [b["psnr"] - a["psnr"] for a, b in zip(*(panel.records for panel in board.panels[:2]), strict=True)]
    row = score_table(board).iloc[3]
    assert row["Method"] == "Method 2 − method 1"
    mean, _, half = row["PSNR ↑"].replace("−", "-").partition(" ± ")
    assert float(mean) == pytest.approx(sum(gains) / 3, abs=0.005)
    assert half
    shown, name = board_html(board), board.panels[1].method.label
    (first, difference), (original,) = drawn(shown, name), drawn(shown, "Original")
    gap = AMPLIFY * abs(first.astype(float) - original)
    assert abs(difference - gap.clip(0, 255)).max() <= 2 * AMPLIFY  # of rounding
    seeds = [drawn(shown, f"seed {seed}")[1].astype(float) for seed in range(3)]
    assert (seeds[0] == first).all()  # the one that is scored
    spread = (AMPLIFY * np.std(seeds, axis=0, ddof=1)).clip(0, 255)
    assert abs(drawn(shown, "Spread")[1] - spread).max() <= 2 * AMPLIFY
