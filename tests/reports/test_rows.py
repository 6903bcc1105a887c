"""Rows of a report: what is one row, what is averaged over what, what is marked, and the tables of a paper."""

import csv
import json
import math
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.pipelines.small_project import pipeline_of, report_of
from workbench.evaluation.metrics import FIGURES as METRICS
from workbench.pipelines.identity import commit_of
from workbench.reports.rows import FIGURES, averages, marks, with_methods

JOBS = "- {notebook: restore, parameters: {methods: [pinv, diffpir]}}"
PSNR = {  # by steps (0: pinv), photo and seed
    (0, "cat"): [20.0, 20.2],
    (0, "dog"): [24.0, 24.4],
    (0, "fox"): [28.0, 28.0],
    (3, "cat"): [21.0, 21.2],
    (3, "dog"): [25.2, 25.4],
    (3, "fox"): [28.8, 29.4],
    (60, "cat"): [21.5, 21.9],
    (60, "dog"): [24.8, 25.2],
    (60, "fox"): [29.4, 29.2],
}


def _record(solver: str, photo: str, seed: int = 0, psnr: float | None = 20.0, **more) -> dict:
    scores = dict.fromkeys(FIGURES) | {"psnr": psnr, "evaluations": 5, "seconds": 0.5}
    task = {"operator": "sr:4", "noise": 0.1, "size": [8, 8], "prior": "p", "message": ""}
    environment = {"device": "cpu", "processor": "Fast & Co"}
    facts = {"photo": photo, "seed": seed, "solver": solver, "solver_settings": {}, "environment": environment}
    return {**scores, **task, **facts, **more}


def _records(**more) -> list[dict]:
    """Three photos, two seeds, pinv and two settings of diffpir; pinv twice, as a grid over settings runs it."""
    rows = []
    for steps in (3, 60):
        for seed in (0, 1):
            for photo in ("cat", "dog", "fox"):
                rows.append(_record("pinv", photo, seed, PSNR[0, photo][seed], **more))
                settings = {"steps": steps, "zeta": 0.3}
                values = PSNR[steps, photo]
                rows.append(_record("diffpir", photo, seed, values[seed], solver_settings=settings, **more))
    return rows


def _rows(reference: str = "", records: list[dict] | None = None) -> dict[str, dict]:
    return {row["method"]: row for row in averages(with_methods(records or _records()), reference)}


def test_a_row_is_one_complete_setting_and_photos_count_once():
    rows = _rows()
    assert list(rows) == ["pinv", "diffpir, steps 3", "diffpir, steps 60"]
    assert {(row["photos"], row["seeds"]) for row in rows.values()} == {(3, 2)}
    assert len(with_methods(_records())) == 3 * 3 * 2


def test_a_label_names_what_differs_and_nothing_else():
    for one, other, names in (
        ({"solver_kind": "ddnm"}, {"solver_kind": "deqir"}, ["x, solver ddnm", "x, solver deqir"]),
        (
            {"prior_source": {"sha256": "a" * 64}},
            {"prior_source": {"sha256": "b" * 64}},
            ["x, prior sha256 aaaaaaaa", "x, prior sha256 bbbbbbbb"],
        ),
        ({"environment": {"device": "cpu"}}, {"environment": {"device": "cuda"}}, ["x, device cpu", "x, device cuda"]),
        ({"solver_settings": {"a": [1], "b": 2}}, {"solver_settings": {"a": [2], "b": 2}}, ["x, a [1]", "x, a [2]"]),
        ({"noise": 0.2, "solver_settings": {"a": 1}}, {"solver_settings": {"a": 2}}, ["x", "x"]),  # not in one task
        ({"solver_settings": {"a": 1}}, {"solver_settings": {"a": 1}, "job": "other"}, ["x"]),
    ):
        found = with_methods([_record("x", "cat", **one), _record("x", "cat", **other)])
        assert [row["method"] for row in found] == names


def test_photos_are_told_apart_by_file_and_joined_over_jobs():
    records = [_record("a", "one/cat.png", job="1"), _record("a", "two/cat.png", job="1")]
    records += [_record("b", photo, job="2") for photo in ("one/cat.png", "two/cat.png")]
    assert [row["photos"] for row in averages(with_methods(records), "")] == [2, 2]
    assert len({row["task"] for row in with_methods([_record("a", "cat"), _record("a", "cat", size=[16, 16])])}) == 2


def test_deviations_and_intervals_are_over_photos():
    row = _rows("pinv")["diffpir, steps 3"]
    photos = np.array([np.mean(PSNR[3, name]) for name in ("cat", "dog", "fox")])
    spread = row["spread"]["psnr"]
    assert row["psnr"] == pytest.approx(photos.mean())
    assert spread["std"] == pytest.approx(photos.std(ddof=1))
    low, high = stats.t.interval(0.95, 2, photos.mean(), stats.sem(photos))
    assert (spread["interval"]["low"], spread["interval"]["high"]) == pytest.approx((low, high))
    assert spread["seeds"] == pytest.approx(np.mean([np.std(PSNR[3, n], ddof=1) for n in ("cat", "dog", "fox")]))
    gains = photos - [np.mean(PSNR[0, name]) for name in ("cat", "dog", "fox")]
    test = stats.ttest_1samp(gains, 0).confidence_interval()
    found = spread["difference"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((gains.mean(), test.low, test.high))
    assert row["spread"]["lpips"]["interval"] is None


def test_the_reference_is_the_one_named_or_the_best_by_psnr():
    assert {row["reference"] for row in _rows().values()} == {"diffpir, steps 60"}
    assert {row["reference"] for row in _rows("pinv").values()} == {"pinv"}
    assert {row["reference"] for row in _rows("diffpir").values()} == {"diffpir, steps 3"}
    assert {row["reference"] for row in _rows("ddnm").values()} == {None}


def test_a_difference_counts_the_photos_that_both_have(tmp_path):
    """Without the cat of diffpir: its mean is none, and the difference over dog and fox says that it is."""
    records = [r for r in _records() if r["solver_settings"] != {"steps": 3, "zeta": 0.3}]
    lost = [r | {"psnr": None} if (r["solver"], r["photo"]) == ("diffpir", "cat") else r for r in records]
    page, out = _reported(tmp_path, lost, reference="pinv")
    row = _rows("pinv", lost)["diffpir"]
    assert math.isnan(row["psnr"])
    gains = [np.mean(PSNR[60, name]) - np.mean(PSNR[0, name]) for name in ("dog", "fox")]
    assert row["spread"]["psnr"]["difference"]["mean"] == pytest.approx(np.mean(gains))
    assert f"{np.mean(gains):+.2f}" in page.text
    assert page.text.count("(2 of 3 photos)") == 1
    assert "(2 of 3 photos)" in (out / "table.tex").read_text()
    (tmp_path / "all").mkdir()
    assert "of 3 photos" not in _reported(tmp_path / "all", records, reference="pinv")[0].text


def test_bold_is_only_what_is_not_chance():
    level = {"diffpir, steps 3": "level", "diffpir, steps 60": "level", "pinv": ""}  # 1.07 above pinv, 0.02 apart
    assert {name: row["spread"]["psnr"]["mark"] for name, row in _rows().items()} == level
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.5, 2.6, 3.4], "c": [0.0, 5.0, math.nan]})
    assert marks(table[["a", "b"]], METRICS["psnr"]) == {"b": "best"}
    assert marks(table[["a", "b"]], METRICS["lpips"]) == {"a": "best"}
    assert marks(table[["a", "b", "c"]], METRICS["lpips"]) == {"a": "level", "c": "level"}
    assert marks(table[["a"]], METRICS["psnr"]) == {}
    assert marks(table[["a", "b"]][:1], METRICS["psnr"]) == {}  # one photo tells nothing of chance


def _reported(folder, records, **extra):
    pipeline, out = pipeline_of(folder, JOBS, **extra), folder / "out"
    job = out / "jobs" / pipeline.jobs[0].id
    job.mkdir(parents=True)
    result = {
        "job": job.name,
        "parameters": {"prior_settings": {"weights": "raw"}},
        "commit": "abc",
        "records": records,
    }
    (job / "result.json").write_text(json.dumps(result))
    return report_of(pipeline, out), out


def test_a_second_axis_makes_columns(tmp_path):
    records = [row for operator in ("sr:4", "blur_50%") for noise in (0.1, 0.0)
               for row in _records(operator=operator, noise=noise)]  # fmt: skip
    page, out = _reported(tmp_path, records, reference="pinv")
    tex = (out / "table.tex").read_text()
    assert r" & \multicolumn{2}{c}{sr:4} & \multicolumn{2}{c}{blur\_50\%} \\" in tex
    assert r"Method & noise 0.1 & no noise & noise 0.1 & no noise \\" in tex
    best = r"\underline{25.33 $\pm$ 9.47 (3.81)}"
    assert " & ".join(["diffpir, steps 60", *[best] * 4]) + r" \\" in tex
    assert r"\begin{tabular}{lrrrr}" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 3  # means, differences, seeds of the one score
    assert r"\caption{PSNR, dB $\uparrow$: 8$\times$8, 3 photos, 2 seeds. Paired difference from pinv, $\pm$" in tex
    assert re.search(r'<th[^>]* colspan="2"[^>]*>sr:4</th>', page.html)
    assert "blur_50%" in page.text
    assert page.text.count("diffpir, steps 60") >= 3 + 4


def test_labels_are_text_in_latex_and_html(tmp_path):
    label = r"[<i>a_b&c\{x}^~#$%*|σ</i>"
    page, out = _reported(tmp_path, [_record(label, "cat"), _record(label, "dog", psnr=21.0)])
    assert (
        "\n{[}" + r"$<$i$>$a\_b\&c\textbackslash{}\{x\}\textasciicircum{}\textasciitilde{}"
        r"\#\$\%{*}$|$$\sigma$$<$/i$>$ & 20.50" in (out / "table.tex").read_text()
    )
    assert "<i>" not in page.html
    assert label in page.text


def test_the_csv_has_every_setting_seed_photo_and_commit(tmp_path):
    _, out = _reported(tmp_path, _records())
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 18 == len({(line["photo"], line["method"], line["seed"]) for line in lines})
    last = lines[-1]
    assert (last["method"], last["setting.steps"], last["setting.zeta"]) == ("diffpir, steps 60", "60", "0.3")
    assert (last["commit"], last["prior.weights"], last["environment.processor"]) == ("abc", "raw", "Fast & Co")
    assert lines[0]["setting.steps"] == ""
    assert len({line["code"] for line in lines}) == 1 != len(lines[0]["code"])


def test_a_reference_is_a_method_of_the_pipeline(tmp_path):
    with pytest.raises(ValueError, match=r"p\.yaml: reference: unknown method 'pniv', did you mean 'pinv'\?"):
        pipeline_of(tmp_path, JOBS, reference="pniv")
    assert pipeline_of(tmp_path, JOBS, reference='"diffpir, steps 3"').reference == "diffpir, steps 3"


def test_a_commit_says_whether_files_were_changed(tmp_path):
    assert commit_of(tmp_path) is None
    (tmp_path / "a.py").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "a.py"], ["commit", "-qm", "one"], ["tag", "-am", "one", "v1"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    commit = commit_of(tmp_path)
    assert len(commit) == 40
    (tmp_path / "new.txt").write_text("not known to git")
    assert commit_of(tmp_path) == commit
    (tmp_path / "a.py").write_text("2")
    assert commit_of(tmp_path) == f"{commit}+changes"
