"""The training monitor for JupyterLab: what it says of logs as they grow, of damaged ones, and by itself."""

import asyncio

import numpy as np
import pytest
from PIL import Image

from tests.test_widgets import PHOTO, lines, live, pixels, run_folder, shown
from workbench.widgets import training_monitor


def test_a_monitor_reads_a_run_again_by_its_button(tmp_path):
    tool = training_monitor(tmp_path)
    assert "no line yet" in tool.note.value
    run_folder(tmp_path / "resume", [100, 200])  # a job of a pipeline trains there
    with (tmp_path / "resume" / "log.jsonl").open("a") as file:
        file.write('{"step": 300, "ima')  # being written
    tool.controls["refresh"].click()
    assert [list(values) for values in lines(tool)["loss"]] == [[100, 200], [0.01, 0.005]]
    assert tool.note.value.startswith("step 200 of 400, 80 images per second, 0 minutes left, last line ")
    (tmp_path / "resume" / "samples").mkdir()
    Image.fromarray(pixels(PHOTO)).save(tmp_path / "resume" / "samples" / "0000200.png")
    tool.controls["refresh"].click()
    assert np.array_equal(shown(tool)["samples at step 200"], pixels(PHOTO))
    with pytest.raises(ValueError, match=r"folder must be that of a training run, got .*none"):
        training_monitor(tmp_path / "none")


def test_a_monitor_shows_what_it_can_of_a_damaged_run(tmp_path):
    for damage, shown_steps, said in (
        (b'{"step": 150, "lo}\n', [100, 200], "80 images per second, 0 minutes left, last line 0 s ago, 1 damaged"),
        (b'{"step": 100, "images": 800, "seconds": 10.0, "loss": 0.5}\n', [100, 100, 200], "step 200 of 400"),
        (b'{"step": 150, "images": 1200, "seconds": 15.0, "loss": null}\n', [100, 150, 200], "step 200 of 400"),
        (b'{"step": null, "images": 1200, "seconds": 15.0, "loss": 0.5}\n', [100, 200], "1 damaged"),
    ):
        run_folder(tmp_path, [100])
        (tmp_path / "log.jsonl").write_bytes((tmp_path / "log.jsonl").read_bytes() + damage)
        run_folder(tmp_path, [200])
        assert list(lines(tool := training_monitor(tmp_path))["loss"][0]) == shown_steps
        assert said in tool.note.value
        (tmp_path / "log.jsonl").unlink()
    run_folder(tmp_path, [100, 100])  # no time passed: nothing is said of the rest
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0000100.png").write_bytes(b"half")
    for settings in ("[400]", '{"settings.steps": null}'):
        (tmp_path / "settings.json").write_text(settings)
        assert training_monitor(tmp_path).note.value.startswith("step 100 (of how many, no settings.json says)")
    (tmp_path / "settings.json").write_text("")
    assert (tool := training_monitor(tmp_path)).note.value.startswith("step 100 (of how many, no settings.json says),")
    assert len(live(tool)) == 1


def test_a_monitor_follows_a_run_by_itself_until_it_is_over(tmp_path):
    run_folder(tmp_path, [100])

    async def watch():
        tool = training_monitor(tmp_path, every=0.01)
        run_folder(tmp_path, [200, 300, 400])
        async with asyncio.timeout(10):
            while "step 400" not in tool.note.value:
                await asyncio.sleep(0.01)
        assert not tool.controls["follow"].value
        tool.looking.cancel()

    asyncio.run(watch())
