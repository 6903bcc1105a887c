"""The page's endpoints as ``gradio_client`` sees them, and what the downloaded recipe makes on another machine."""

import json
import subprocess
import sys
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from PIL import Image, ImageDraw
from scipy.io import savemat

from tests.demo.visitor import SMALL, defaults, pixels, raw_call, refusal, save, unpack, visit
from workbench.images import sample_photo, save_image

# Runs the command line in each folder named: the files of one program, without starting torch again for each.
RUN_EACH = """
import os, sys
from workbench.cli import main
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.argv = ["workbench", "restore", "run.json", "--out", "again"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, folder
"""


@pytest.fixture(scope="module")
def photo(folder) -> Any:
    save_image(sample_photo("coffee", 96), folder / "coffee.png")
    return handle_file(str(folder / "coffee.png"))


def test_the_named_endpoints_are_these_and_say_what_they_take(client):
    described = client.view_api(print_info=False, return_format="dict")
    assert described["unnamed_endpoints"] == {}
    problem = ["photo", "fit", "side", "across", "down", "came", "degradation", "noise"]
    problem += ["painting", "mask", "seed", "kernel"]
    rows = [f"{what}_{number}" for number in (1, 2, 3, 4) for what in ("solver", "prior", "settings")]
    endpoints = described["named_endpoints"]
    assert {name: [p["parameter_name"] for p in about["parameters"]] for name, about in endpoints.items()} == {
        "/restore": [*problem, *rows, "samples"],
        "/degrade": problem,
        "/estimate_noise": problem,
        "/before_after": ["before", "after"],
        "/methods": [],
    }
    assert all(p["parameter_has_default"] for name in ("/restore", "/degrade") for p in endpoints[name]["parameters"])
    for about in endpoints.values():
        assert about["description"]
        assert not any(returned["label"].startswith("value_") for returned in about["returns"])


def test_restore_tells_how_far_it_is_and_ends_with_everything(server, client, photo, folder):
    stranger = visit(server.url, folder)
    assert "restore first" in refusal(stranger, "/before_after", before="Degraded", after="Degraded")
    values = SMALL | {"solver_2": "diffpir", "settings_1": "steps=12", "settings_2": "steps=100"}
    # The second takes several times the quarter of a second after which the page hears of it.
    told = list(client.submit(photo=photo, **values, api_name="/restore"))
    statuses = [status for _, status, *_ in told]
    assert statuses[0].startswith("Method 1 of 2: diffpir")
    assert any(status.startswith("Method 2 of 2") for status in statuses)
    assert statuses[-1] == "Done."
    assert all("data:image/png;base64," in board for board, *_ in told)
    board, _, scores, curves, archive, recipe, before, after, slider, gap = told[-1]
    assert board.count("<figure>") >= 4
    names = ["diffpir, photo-control (DSM)", "diffpir, photo-mupet (MUPET)"]
    assert [row[0] for row in scores["data"]] == [*names, "Method 2 − method 1"]
    assert all(5 < float(row[1]) < 40 for row in scores["data"][:2])
    assert "EfficientNet-Lite2 distance ↓" in scores["headers"]
    assert curves.lstrip().startswith("<svg")
    names = [name for name, _ in before["choices"]]
    assert names == [name for name, _ in after["choices"]]
    assert len(names) == 4
    assert {pixels(path).shape for path in slider} == {(32, 32, 3)}
    files = {path.name for path in unpack(archive, folder / "all").iterdir()}
    assert len(files) == 5
    assert {"original.png", "degraded.png", "run.json"} <= files
    assert recipe.strip() == (folder / "all" / "run.json").read_text().strip()

    # The slider shows any two of these pictures.
    assert f"Difference: {names[3]} − {names[2]}" in gap
    (original, restored), gap = client.predict("Original", names[2], api_name="/before_after")
    assert f"Difference: {names[2]} − Original" in gap
    assert np.array_equal(pixels(original), pixels(folder / "all" / "original.png"))
    assert np.array_equal(pixels(restored), pixels(next((folder / "all").glob("1-*.png"))))
    assert "not in the list" in refusal(client, "/before_after", before="Original", after="../../etc/passwd")


def test_the_downloaded_recipe_gives_the_same_pictures_to_the_last_bit(client, photo, folder):
    """Comparisons of all kinds, downloaded, unpacked and made again by the command line."""
    layer = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(layer).rectangle((10, 12, 40, 30), fill=(255, 45, 85, 255))
    layer.save(folder / "layer.png")
    painting = {"background": None, "layers": [handle_file(str(folder / "layer.png"))], "composite": None}
    mask = np.zeros((96, 96), dtype=np.uint8)  # of the photo's size, so cropped and resized with it
    mask[24:57, 15:42] = 255
    uploaded = save(mask, folder / "a mask.png")
    motion = np.diag([50, 100, 150, 200, 255]).astype(np.uint8)
    drawn = save(motion, folder / "a kernel.png")
    savemat(folder / "estimated.mat", {"psf": motion / motion.sum()})
    estimated = handle_file(str(folder / "estimated.mat"))
    ddnm = {"solver_2": "ddnm", "prior_2": "photo", "settings_2": "steps=2 eta=0.85"}
    cases: dict[str, dict[str, Any]] = {
        "three samples": {"samples": 3, "degradation": "inpaint:0.6", "seed": 7, "noise": "poisson:20"} | ddnm,
        "painted mask": {"degradation": "mask", "painting": painting},
        "mask file": {"degradation": "oldphoto", "mask": uploaded},
        # Its side is no multiple of what the network takes.
        "kernel": {"degradation": "sr:2:bicubic", "kernel": drawn, "side": 42, "fit": "resize"},
        "kernel, came degraded": {"came": True, "fit": "crop", "degradation": "blur", "kernel": estimated},
    }
    for name, values in cases.items():
        result = client.predict(**({"photo": photo} | SMALL | values), api_name="/restore")
        assert result[1] == "Done.", name
        unpack(result[4], folder / name)
    folders = {name: folder / name for name in cases}
    done = subprocess.run([sys.executable, "-c", RUN_EACH, *folders.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for home in folders.values():
        recipe = json.loads((home / "run.json").read_text())
        assert recipe["reproduce"] == "workbench restore run.json --out again"
        again = [*(home / "again").rglob("restored*.png")]
        assert len(again) == len(recipe["methods"]) * recipe["samples"]
        for made in again:
            ours = home / f"{made.parent.name}{made.stem.removeprefix('restored')}.png"
            assert np.array_equal(pixels(made), pixels(ours)), made
        for degraded in (home / "again").rglob("degraded.png"):
            assert np.array_equal(pixels(degraded), pixels(home / "degraded.png")), degraded


def test_noise_is_estimated_whatever_stands_in_its_place(client, photo):
    expected = client.predict(photo=photo, side=32, api_name="/estimate_noise")
    assert 0 < float(expected[0]) < 0.1
    for noise in ("", "auto", -1):
        assert client.predict(photo=photo, side=32, noise=noise, api_name="/estimate_noise") == expected


def test_what_was_refused_left_no_traceback_in_the_log(server, client, photo):
    for values, words in (
        ({"noise": -1}, "got -1.0"),
        ({"prior_1": "/etc/passwd"}, "choices"),
        ({"fit": "stretch"}, ""),
        ({"samples": []}, ""),
        ({"degradation": {}}, ""),
        ({"solver_1": ["pinv"]}, "a list was sent"),
        ({"photo": "coffee.png"}, "handle_file"),
        ({"solver_1": "none"}, "at least one method"),
    ):
        assert words in refusal(client, "/restore", **({"photo": photo} | SMALL | values))
    for name in ("noise", "across", "samples"):
        values = defaults(client, "/restore") | SMALL | {name: float("nan")}
        said = json.loads(raw_call(server.url, "restore", list(values.values())).removeprefix("data: "))
        assert "nan" in said["error"]
    raw_call(server.url, "restore", [1, 2])
    asked = {"data": [None] * 12, "session_hash": "x"}  # outside the queue, as a browser does
    answer = httpx.post(f"{server.url}/gradio_api/run/degrade", json=asked)
    assert (answer.status_code, "the side in pixels" in answer.json()["error"]) == (422, True)
    assert "Traceback" not in (server.files.parent / "log").read_text()
