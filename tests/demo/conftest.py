"""A server as a visitor meets it: a process of its own, on a port of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.demo.browser import CAMERA, CHROMIUM, PATIENCE, Demo
from tests.demo.visitor import visit
from workbench.images import sample_photo, save_image


@dataclass(frozen=True)
class Server:
    """A running ``workbench demo``: its address, its process, and the folder in which it keeps files."""

    url: str
    process: subprocess.Popen[bytes]
    files: Path

    def leftovers(self) -> list[Path]:
        """All files below its folder."""
        # Unlike Path.rglob, os.walk does not mind folders that vanish meanwhile.
        return sorted(Path(folder, name) for folder, _, names in os.walk(self.files) for name in names)


Launch = Callable[..., Server]
SCREEN: ViewportSize = {"width": 1400, "height": 1000}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Starts a server with further options of ``workbench demo``; all are stopped at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Server:
        folder = tmp_path_factory.mktemp("server")
        port = free_port()
        started = time.monotonic()
        command = [Path(sys.executable).with_name("workbench"), "demo", "--port", str(port), *options]
        log = folder / "log"  # a pipe that nobody reads would stop the server once it is full
        with log.open("w") as said:
            process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder)}
            )
        running.append(process)
        while not re.search(r"The demo is at http", log.read_text()):
            if process.poll() is not None and "Cannot find empty port" in log.read_text():
                return start(*options)  # another program took the port meanwhile
            if process.poll() is not None or time.monotonic() - started > 120:
                pytest.fail(f"the server did not come up: {log.read_text()}")
            time.sleep(0.05)
        files = next(path for path in folder.iterdir() if path.name.startswith("workbench-demo-"))
        return Server(f"http://127.0.0.1:{port}", process, files)

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def server(launch: Launch) -> Server:
    """One server for all tests of a module that do not mind."""
    return launch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a visitor."""
    return tmp_path_factory.mktemp("visitor")


@pytest.fixture(scope="module")
def client(server: Server, folder: Path) -> Client:
    """A visitor with ``gradio_client``, whose downloads go to the folder."""
    return visit(server.url, folder)


@pytest.fixture(scope="module")
def photo(folder: Path) -> Path:
    save_image(sample_photo("coffee", 64), folder / "coffee.png")
    return folder / "coffee.png"


@pytest.fixture(scope="module")
def context(server: Server) -> Iterator[BrowserContext]:
    """A browser of one visitor; for one module, since Playwright keeps the thread's event loop to itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CAMERA)
        context = browser.new_context(viewport=SCREEN, permissions=["camera"])
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Page]:
    """A new one each time: after a run that was watched, a busy machine draws the same tab too slowly to be used."""
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture
def fresh(tab: Page) -> Iterator[Demo]:
    """The page before it is opened. Whatever a test does, the browser has nothing to complain about, and asks nobody
    else."""
    demo = Demo(tab)
    yield demo
    demo.leave()
    assert demo.complaints == []
    assert demo.elsewhere == []


@pytest.fixture
def demo(fresh: Demo, server: Server) -> Demo:
    """The page, just opened."""
    fresh.open(server.url)
    return fresh
