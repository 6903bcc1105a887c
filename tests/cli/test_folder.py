"""``workbench restore`` of folders: every photo as alone, nothing lost to a broken file or an interruption."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import ExifTags, Image

import workbench.folder
from workbench.images import sample_photo, to_pillow

FAST = ("--solver", "ddrm", "--set", "steps=2")


@pytest.fixture
def cat() -> Image.Image:
    return to_pillow(sample_photo("cat", 32))


@pytest.fixture
def many(run, tmp_path):
    """Restores photos into the folder out: exit code, the last line, what was said on the way, summary, records."""

    def call(*arguments: object, out: str = "out") -> SimpleNamespace:
        code, said, errors = run("restore", *arguments, "--out", out, *(() if "--solver" in arguments else FAST))
        with (tmp_path / out / "summary.csv").open(newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        lines = (tmp_path / out / "records.jsonl").read_text().splitlines()[1:]
        return SimpleNamespace(code=code, said=said, errors=errors, rows=rows, records=list(map(json.loads, lines)))

    return call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file).astype(int)


def pictures(folder: Path) -> dict[str, int]:
    """The restored pictures of a folder and when they were written."""
    files = (file for file in folder.rglob("*.png") if file.name != "contact.png")
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


def mixed(folder: Path, cat: Image.Image) -> None:
    """Seven photos of some kinds, two files that are none, and what is not to be looked at."""
    (folder / "sub" / ".thumbs").mkdir(parents=True)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    cat.convert("L").save(folder / "grey.png")
    cat.convert("CMYK").save(folder / "cmyk.jpg")
    cat.crop((0, 0, 32, 24)).save(folder / "turned.JPG", exif=turned)
    cat.rotate(90).save(folder / "sub" / "grey.tif")
    for name in ("twin.png", "twin.jpg", "contact.jpg"):
        cat.save(folder / name)
    (folder / "cut.jpg").write_bytes((folder / "twin.jpg").read_bytes()[:700])
    (folder / "gone.png").symlink_to("nowhere.png")
    for name in ("notes.txt", ".hidden.png", "sub/.thumbs/a.png"):
        (folder / name).write_text("nothing to restore")


RESTORED = {
    "cmyk.jpg": "cmyk.png",
    "contact.jpg": "contact.jpg.png",  # contact.png is the sheet
    "grey.png": "grey.png",
    "sub/grey.tif": "sub/grey.png",
    "turned.JPG": "turned.png",
    "twin.jpg": "twin.jpg.png",
    "twin.png": "twin.png.png",
}
LEFT_OUT = {"cut.jpg": "damaged or truncated image (", "gone.png": "no such file"}


def test_photos_of_every_kind_are_restored_and_others_named(many, cat, tmp_path):
    mixed(tmp_path / "in", cat)
    done = many("in")
    assert done.code == 1
    assert done.said.startswith("7 restored, 2 skipped: cut.jpg (damaged or truncated image (")
    assert done.said.endswith("gone.png (no such file); written to out\n")
    assert "skipped: gone.png: no such file\n" in done.errors
    assert "9/9" in done.errors  # the progress bar
    out = tmp_path / "out"
    assert set(pictures(out)) == set(RESTORED.values())
    assert {p.name for p in out.iterdir() if p.suffix != ".png"} == {".lock", "sub", "records.jsonl", "summary.csv"}
    assert set(done.rows) == {*RESTORED, *LEFT_OUT}
    assert list(done.rows) == sorted(done.rows, key=Path)
    for name, row in done.rows.items():
        assert row["state"] == ("done" if name in RESTORED else "skipped")
        assert row["reason"].startswith(LEFT_OUT.get(name, ""))
        assert (row["reason"], row["psnr"]).count("") == 1
    turned = done.rows["turned.JPG"]
    assert 10 < float(turned["psnr"]) < 50
    assert (turned["size"], turned["evaluations"], turned["lpips"]) == ("32x24", "2", "")
    assert done.rows["cmyk.jpg"]["remark"] == "CMYK converted to RGB"
    assert [Image.open(out / name).mode for name in ("grey.png", "cmyk.png")] == ["L", "RGB"]
    assert Image.open(out / "contact.png").size == (4 * 336, 2 * 192)  # 7 photos, four in a row


@pytest.mark.parametrize(
    "options",
    [
        ("--degrade", "inpaint:0.5", "--noise", 0.05, "--seed", 3, "--set", "eta=0.5"),
        ("--degrade", "none", "--operator", "sr:2", "--size", 24, "--samples", 2),
    ],
)
def test_every_photo_gives_what_it_gives_alone(many, run, cat, tmp_path, options):
    """Whatever was before it, with it in a batch, or after an interruption: two levels are rounding."""
    for name, shade in (("a", 1), ("b", 0.1), ("c", 0.5), ("d", 0.8)):
        cat.rotate(90 * len(name)).point(lambda v, shade=shade: v * shade).save(tmp_path / f"{name}.png")
    together = many("a.png", "b.png", "c.png", "d.png", *options)
    assert (together.code, together.said) == (0, "4 restored; written to out\n")
    for name in "ac":
        assert run("restore", f"{name}.png", "--out", name, *options, *FAST)[0] == 0
        alone = json.loads((tmp_path / name / "metrics.json").read_text())
        (record,) = (record for record in together.records if record["file"] == f"{name}.png")
        assert alone["batch"] == len(record["written"])
        assert record["batch"] == (2 if len(record["written"]) == 2 else 4)
        assert record["consistency"] == pytest.approx(alone["consistency"], rel=1e-3)
        assert len(record.get("samples", ())) == len(record["written"]) - 1
        for goal, own in zip(record["written"], ("restored.png", "restored-2.png"), strict=False):
            assert np.abs(pixels(tmp_path / "out" / goal) - pixels(tmp_path / name / own)).max() <= 1


KILLED = """
import os, sys
import workbench.folder
from workbench.cli import main
save, count = workbench.folder.save_picture, 0
def save_and_die(*arguments):
    global count
    save(*arguments)
    count += 1
    if count == 4:
        os.kill(os.getpid(), 9)
workbench.folder.save_picture = save_and_die
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_and_does_nothing_twice(many, cat, tmp_path):
    """Killed when the fourth picture was written and its record was not."""
    (tmp_path / "in").mkdir()
    for number in range(8):
        cat.resize((16 + number, 16)).save(tmp_path / "in" / f"{number}.png")
    arguments = ("restore", "in", "--out", "out", *FAST)
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = pictures(tmp_path / "out")
    assert len(before) == 4
    assert not (tmp_path / "out" / "summary.csv").exists()
    with (tmp_path / "out" / "records.jsonl").open("ab") as file:
        file.write(b'3\n{"file": "3.png", "st\xff')  # a line that the system did not finish, and damage
    after = many("in")
    assert (after.code, after.said) == (0, "8 restored (3 of them before); written to out\n")
    assert [record["file"] for record in after.records] == [f"{number}.png" for number in range(8)]
    assert {row["state"] for row in after.rows.values()} == {"done"}
    now = pictures(tmp_path / "out")
    assert {name for name in now if before.get(name) == now[name]} == {"0.png", "1.png", "2.png"}
    assert [file.name for file in (tmp_path / "out").iterdir() if file.name.startswith(".")] == [".lock"]
    again = many("in")
    assert again.said.startswith("8 restored (8 of them before);")
    assert pictures(tmp_path / "out") == now
    cat.crop((0, 0, 20, 16)).save(tmp_path / "in" / "2.png")  # another photo now
    (tmp_path / "out" / "5.png").unlink()
    assert many("in").said.startswith("8 restored (6 of them before);")
    assert pixels(tmp_path / "out" / "2.png").shape == (16, 20, 3)


def test_what_fails_is_named_and_the_others_go_on(many, cat, tmp_path, monkeypatch):
    """A mask that fits one size only; memory that is too short for the others together; then for one of them at all."""
    (tmp_path / "in").mkdir()
    Image.fromarray((np.arange(32)[:, None] < 4).repeat(32, 1)).save(tmp_path / "mask.png")
    for name in "abd":
        cat.save(tmp_path / "in" / f"{name}.png")
    cat.resize((24, 24)).save(tmp_path / "in" / "c.png")
    run_method = workbench.folder.run_method

    def short_of_memory(degraded, *rest):
        if len(degraded.y) > 1 or len(asked) == 3:
            asked.append(len(degraded.y))
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        asked.append(1)
        return run_method(degraded, *rest)

    asked: list[int] = []
    monkeypatch.setattr(workbench.folder, "run_method", short_of_memory)
    done = many("in", "--degrade", "none", "--operator", "mask:mask.png")
    assert asked == [2, 1, 1, 1]
    assert done.code == 1
    assert done.said.startswith("2 restored, 2 failed: c.png ('mask:mask.png' (mask:FILE): ")
    assert "the mask has 32x32 pixels" in done.rows["c.png"]["reason"]
    assert done.rows["d.png"]["reason"] == "CUDA out of memory. Tried to allocate"
    assert [done.rows[f"{name}.png"]["state"] for name in "abcd"] == ["done", "done", "failed", "failed"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = many("in", "--degrade", "none", "--operator", "mask:mask.png")
    assert again.said.startswith("3 restored (2 of them before), 1 failed: c.png")


def test_an_interruption_leaves_what_is_done_and_a_closed_folder_is_named(run, many, cat, tmp_path, monkeypatch):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("closed"))
    for number in range(3):
        cat.resize((16 + number, 16)).save(tmp_path / "in" / f"{number}.png")
    read = workbench.folder.read_photo

    def interrupted(path, *rest, **options):
        if path.name == "2.png":
            raise KeyboardInterrupt
        return read(path, *rest, **options)

    monkeypatch.setattr(workbench.folder, "read_photo", interrupted)
    assert run("restore", "in", "--out", "out", *FAST)[:2] == (130, "")
    monkeypatch.setattr(workbench.folder, "read_photo", read)
    assert re.match(r"3 restored \(.*, 1 skipped: closed \(is a folder", many("in").said)


def test_results_of_other_settings_are_not_mixed(many, refused, cat, tmp_path):
    for name in "ab":
        cat.save(tmp_path / f"{name}.png")
    photos = ("a.png", "b.png")
    many(*photos)
    for options, difference in (
        (("--solver", "pinv"), "solver ddrm, not pinv"),
        ((*FAST[:3], "steps=3"), "ddrm steps 2, not 3"),
        ((*FAST, "--size", 16), "size None, not 16"),
    ):
        said = refused("restore", *photos, "--out", "out", *options)
        assert said == f"workbench: out holds results of other settings ({difference}): choose another --out\n"
    assert many(*photos, "--set", "eta=0.85").said.startswith("2 restored (2 of them before)")  # the default
    # A kernel is told by its file too.
    np.savez(tmp_path / "k.npz", small=np.ones((3, 3)), large=np.ones((5, 5)))
    assert many(*photos, "--degrade", "blur:k.npz:small", out="blurred").code == 0
    np.savez(tmp_path / "k.npz", small=np.eye(3))
    said = refused("restore", *photos, "--degrade", "blur:k.npz:small", "--out", "blurred", *FAST)
    assert "(mask or kernel " in said


def test_settings_by_which_nothing_was_restored_may_be_mended(many, cat, tmp_path):
    for name in "ab":
        cat.save(tmp_path / f"{name}.png")
    wrong = ("--solver", "ddnm", "--set", "steps=2000")
    assert many("a.png", "b.png", *wrong).said.startswith("0 restored, 2 failed: a.png (steps must be")
    assert many("a.png", "b.png", *wrong[:3], "steps=2").said.startswith("2 restored; written")


def test_two_runs_do_not_write_into_one_folder(many, refused, cat, tmp_path):
    for name in ("a", "b"):
        cat.save(tmp_path / f"{name}.png")
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):  # as another process holds it
        said = refused("restore", "a.png", "b.png", "--out", "out", *FAST)
    assert said == "workbench: out: another run is writing there\n"
    assert many("a.png", "b.png").code == 0


# What follows restore, and the line that it ends with; nothing is written.
BAD = {
    "in empty": r"no photos below empty \(looked for .*\.jpg",
    "in run.json": "run.json: a recipe is restored by itself",
    "in --initial in/a.png": "--initial is for one photo",
    "in --out in": "in is the folder of the photos: choose another --out",
    "in other/a.png": r"out/a\.png\.png would be written twice, or replace a photo",
    "in/a.jpg b.png --out other": r"other/a\.png is there, and none of these results",
    "in --out full": r"full/contact\.png is there, and none of these results",
    "in --degrade none --operator inpaint:0.8": "drawn at random",
    "in --degrade jpeg:10": "ddrm needs a linear operator",
    "in --tile 30": "tiles of photo must be positive multiples of 8, got 30",
}


def test_what_cannot_work_is_refused_at_once(refused, cat, tmp_path):
    for folder in ("in", "other", "empty", "full"):
        (tmp_path / folder).mkdir()
    for name in ("in/a.png", "in/a.jpg", "other/a.png", "b.png", "full/contact.png"):
        cat.save(tmp_path / name)
    (tmp_path / "run.json").write_text("{}")
    for arguments, message in BAD.items():
        out = () if "--out" in arguments else ("--out", "out")
        assert re.search(message, refused("restore", *arguments.split(), *out, *FAST)), arguments
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".jsonl", ".csv")]


def test_results_inside_the_folder_are_no_photos_and_names_without_text_are_written(many, cat, tmp_path):
    name = os.fsdecode(b"Gr\xf6\xdf" + 246 * b"e" + b".png")  # of a system with another encoding, and long
    cat.save(tmp_path / name)
    assert many(".", out="deep/out").said.startswith("1 restored; written")
    second = many(".", out="deep/out")
    assert second.said.startswith("1 restored (1 of them before)")
    assert list(second.rows) == [f"Gr??{246 * 'e'}.png"]
    assert set(pictures(tmp_path / "deep" / "out")) == {name}
