"""Files of visitors: whose they are, when they go, and what stays."""

import os
import time
from pathlib import Path

import pytest

from workbench.demo.files import Visits


@pytest.fixture
def visits(tmp_path) -> Visits:
    return Visits(tmp_path, keep=60)


def brought(visits: Visits, name: str, age: float = 0) -> Path:
    """A file as Gradio keeps uploads, last used ``age`` seconds ago."""
    path = visits.root / f"hash of {name}" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"photo")
    then = time.time() - age
    for each in (path, path.parent):
        os.utime(each, (then, then))
    return path


def test_leaving_removes_a_visitor_s_files_and_no_one_else_s(visits):
    mine, theirs, both, painted = (brought(visits, name) for name in ("a", "b", "c", "layer"))
    for who, file in (("me", mine), ("they", theirs), ("me", both), ("they", both)):
        visits.uses(who, file)
    visits.brought("me", [str(painted)])
    folders = [visits.folder(who, what) for who in ("me", "they") for what in ("preview", "results")]
    (folders[0] / "file").write_text("x")
    for who in ("me", "me", "nobody"):
        visits.leave(who)
        assert not any(path.exists() for path in (mine.parent, painted, *folders[:2]))
        assert all(path.exists() for path in (theirs, both, *folders[2:]))
    visits.leave("they")
    assert not any(path.exists() for path in (theirs, both))


def test_of_the_folders_for_one_purpose_the_last_three_stay_and_those_of_the_last_minute(visits):
    results = visits.folder("me", "results")
    previews = [visits.folder("me", "preview") for _ in range(6)]  # as of a client that asks for many at once
    assert len(set(previews)) == 6
    assert all(folder.exists() for folder in previews)
    then = time.time() - 61
    for folder in (results, *previews[:2], previews[-1]):
        os.utime(folder, (then, then))
    previews.append(visits.folder("me", "preview"))
    assert [folder.exists() for folder in previews] == [False, False, True, True, True, True, True]
    assert results.exists()


def test_what_is_being_made_stays_however_long_it_takes(visits):
    folder = visits.folder("me", "results")
    (folder / "mask.png").write_text("x")
    then = time.time() - 100
    with visits.making(folder):
        for path in (folder / "mask.png", folder):
            os.utime(path, (then, then))
        visits.sweep()
        for _ in range(5):
            visits.folder("me", "results")
        assert (folder / "mask.png").exists()
    visits.sweep()
    assert (folder / "mask.png").exists()  # its time has just begun
    for path in (folder / "mask.png", folder):
        os.utime(path, (then, then))
    visits.sweep()
    assert not (folder / "mask.png").exists()
    gone = visits.folder("me", "results")
    with visits.making(gone):
        visits.leave("me")
    assert not gone.exists()


def test_what_was_not_used_for_long_is_swept(visits):
    old, new = brought(visits, "old", age=100), brought(visits, "new", age=30)
    folder = visits.folder("me", "results")
    (folder / "picture.png").write_text("x")
    then = time.time() - 100
    os.utime(folder / "picture.png", (then, then))
    visits.sweep()
    assert not old.exists()
    assert not (folder / "picture.png").exists()
    assert new.exists()
    os.utime(old.parent, (then, then))
    visits.sweep()
    assert not old.parent.exists()


def test_use_keeps_a_file_and_what_is_gone_is_said(visits):
    used = brought(visits, "used", age=100)
    visits.uses("me", used)
    visits.sweep()
    assert used.exists()
    used.unlink()
    with pytest.raises(ValueError, match="no longer here: the server keeps photos for 1 minutes"):
        visits.uses("me", used)


def test_the_page_s_own_files_stay(visits):
    sample = brought(visits, "sample", age=10**6)
    visits.settle()
    visits.uses("me", sample)
    visits.leave("me")
    visits.sweep()
    assert sample.exists()
