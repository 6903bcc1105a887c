"""Serving the page: a proxy in front, the end of a server, the command line, and more visitors than the queue takes."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import handle_file

from tests.demo.conftest import Server, free_port
from tests.demo.proxy import behind_proxy
from tests.demo.visitor import SMALL, pixels, visit

WEIGHTS = Path(__file__).parents[2] / "workbench" / "models" / "weights" / "photo.safetensors"


@pytest.fixture(scope="module")
def under_path(launch) -> Iterator[tuple[Server, str]]:
    server = launch("--root-path", "demo/", "--prior", f"mine={WEIGHTS}")
    with behind_proxy(server.url, "/demo", free_port()) as address:
        yield server, address


def test_the_page_and_all_it_loads_lie_under_the_path(under_path):
    _, address = under_path
    page = httpx.get(f"{address}/")
    assert page.status_code == 200
    assert httpx.get(f"{address}/config").json()["root"] == address
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert loaded
    for link in loaded:
        if link == "/manifest.json":  # Gradio writes it so, whatever the path: an app icon for phones, of no use here
            continue
        where = httpx.URL(f"{address}/").join(link)
        assert str(where).startswith(address), link
        assert httpx.get(where).status_code == 200, link


def test_uploads_runs_and_downloads_work_under_the_path(under_path, photo, folder):
    _, address = under_path
    client = visit(f"{address}/", folder)
    told = list(client.submit(photo=handle_file(str(photo)), **SMALL, prior_1="mine", api_name="/restore"))
    assert told[-1][1] == "Done."
    assert {pixels(path).shape for path in told[-1][-2]} == {(32, 32, 3)}
    assert Path(told[-1][4]).stat().st_size > 1000
    assert "mine" in client.predict(api_name="/methods")["priors"]


def test_terminating_the_server_removes_everything(under_path):
    server, _ = under_path
    assert server.leftovers()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) in (0, 130, -signal.SIGTERM)
    assert not server.files.exists()


def test_what_cannot_be_served_is_said_in_a_line_and_leaves_nothing(server, tmp_path):
    (tmp_path / "no weights.safetensors").write_bytes(b"no weights")
    (tmp_path / "elsewhere").mkdir()
    port = server.url.rpartition(":")[2]
    cases = {  # options, and what is said
        "cannot serve on 127.0.0.1": ["--port", port],
        "no weights.safetensors": ["--prior", f"mine={tmp_path / 'no weights.safetensors'}"],
        "each name once": ["--prior", "a=x", "--prior", "a=y"],
    }
    command = [Path(sys.executable).with_name("workbench"), "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "elsewhere")}
    for words, options in cases.items():
        done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, timeout=90)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr
    assert not list((tmp_path / "elsewhere").glob("workbench-demo-*"))


# More visitors at once than the queue takes: a fast version of benchmarks/demo_load.py.

CLIENTS, QUEUE = 8, 5


@pytest.fixture(scope="module")
def demo_load():
    file = Path(__file__).parents[2] / "benchmarks" / "demo_load.py"
    spec = importlib.util.spec_from_file_location("demo_load", file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "demo_load", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def busy(launch):
    """A server that takes a running visitor and a few waiting ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "1")
        return launch("--waiting", str(QUEUE))


def test_more_visitors_at_once_than_the_queue_takes(busy, demo_load):
    process = psutil.Process(busy.process.pid)
    demo_load.load(busy.url, process, busy.files, clients=1, requests=1, steps=1)  # reads networks, imports
    measured = demo_load.load(busy.url, process, busy.files, clients=CLIENTS, requests=1, steps=1)
    assert measured.alive
    assert len(measured.visits) == CLIENTS
    assert QUEUE <= len(measured.served) < CLIENTS
    assert {visit.refused for visit in measured.visits} == {"", "Queue is full! Please try again."}
    assert all(visit.places == sorted(visit.places, reverse=True) for visit in measured.visits)
    places = {place for visit in measured.visits for place in visit.places}
    assert {0, 2, 4} <= places
    assert measured.files[1] == measured.files[0]
    assert measured.memory[2] < measured.memory[0] + 200
    assert "served" in demo_load.table(measured, CLIENTS)

    after = demo_load.load(busy.url, process, busy.files, clients=1, requests=1, steps=1)  # the server is as before
    assert len(after.served) == 1
    assert after.files[1] == after.files[0]
