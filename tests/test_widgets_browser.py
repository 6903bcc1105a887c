"""The tools in JupyterLab, in a real browser: a slider is moved and the picture changes. Where none runs, a still."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.demo.browser import CHROMIUM, needs_chromium
from tests.demo.conftest import free_port

SETUP = """
from workbench.images import sample_photo
from workbench.models import load_prior
from workbench.restore import degrade, restore
from workbench.solvers import DDNM
from workbench.widgets import *
photo, prior, steps = sample_photo("astronaut", 128), load_prior("photo"), []
result = restore(degrade(photo, "sr:4", 0.02), DDNM(steps=4), prior, callback=steps.append)
"""
TOOLS = {  # title -> cell, and the slider that is moved
    "operator": ("operator_explorer(photo)", "σ along rows, pixels"),
    "player": ("restoration_player(result, steps)", "Iteration"),
    "prior": ("prior_inspector(prior, photo)", "σ, images in [0, 1]"),
    "comparison": ("comparison({'degraded': result.degraded.picture, 'DDNM': result}, photo)", "Zoom"),
    "monitor": ("training_monitor('run', every=0.5)", ""),
}
pytestmark = needs_chromium
LONG = 45_000  # milliseconds
LINE = {"images": 80, "seconds": 1.0, "loss": 0.5}


def _write(folder: Path) -> None:
    """A notebook with a cell for each tool, beside the folder of a run."""
    (folder / "run").mkdir()
    (folder / "run" / "settings.json").write_text(json.dumps({"settings.steps": 400}))
    (folder / "run" / "log.jsonl").write_text(json.dumps({"step": 100, **LINE}) + "\n")
    cells = [nbformat.v4.new_code_cell(text) for text in (SETUP, *(cell for cell, _ in TOOLS.values()))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "tools.ipynb")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of JupyterLab in a folder with the notebook, with nobody's settings."""
    _write(tmp_path)
    port, own = free_port(), tmp_path / "own"
    (own / "labconfig").mkdir(parents=True)
    silent = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (own / "labconfig" / "page_config.json").write_text(json.dumps(silent))
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    options = ("--no-browser", "--allow-root", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True")
    command = [sys.executable, "-m", "jupyterlab", *options, f"--port={port}", "--IdentityProvider.token="]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={tmp_path}"],
            stdout=log,
            stderr=log,
            env={**os.environ, **dict.fromkeys(places, str(own)), "JUPYTER_PREFER_ENV_PATH": "1"},
        )
    started = time.monotonic()
    while "is running at" not in (tmp_path / "log").read_text():
        if process.poll() is not None or time.monotonic() - started > 60:
            pytest.fail(f"JupyterLab did not come up: {(tmp_path / 'log').read_text()}")
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(LONG)
        yield page
        browser.close()


def test_sliders_move_pictures_in_jupyterlab(lab: str, page: Page, tmp_path: Path) -> None:
    page.goto(f"{lab}/lab/tree/tools.ipynb")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")  # not to wait for it
    for number, (_, label) in enumerate(TOOLS.values(), start=1):
        cell = page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{number}']")
        cell.scroll_into_view_if_needed()
        picture = cell.locator(".widget-image").first
        expect(picture).to_be_visible(timeout=LONG)
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 850
        before = picture.get_attribute("src")
        if label:
            slider = cell.locator(".widget-hslider", has_text=re.compile(re.escape(label)))
            slider.locator(".noUi-handle").press("ArrowLeft" if label == "Iteration" else "ArrowRight")
        else:  # nobody touches the monitor: the run goes on
            with (tmp_path / "run" / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": 200, **LINE, "loss": 0.1}) + "\n")
        expect(picture).not_to_have_attribute("src", before or "", timeout=LONG)
