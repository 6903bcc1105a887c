"""Serving the page: a proxy in front, the end of a server, and the command line."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import handle_file

from tests.demo.conftest import Server, free_port
from tests.demo.proxy import behind_proxy
from tests.demo.visitor import SMALL, pixels, visit
from workbench.demo.problem import Limits
from workbench.demo.server import make_page, serve

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


def test_what_cannot_be_served_is_said_in_a_line_and_leaves_nothing(server, tmp_path, run, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "no weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"no weights\.safetensors"):
        make_page(tmp_path, {"mine": str(tmp_path / "no weights.safetensors")}, Limits())
    with pytest.raises(ValueError, match="photo is the name of a shipped prior"):
        make_page(tmp_path, {"photo": WEIGHTS}, Limits())
    assert "each name once" in run("demo", "--prior", "a=x", "--prior", "a=y")[2]
    for host, message in (("nonsense..", "label empty"), ("203.0.113.1", "Cannot assign requested address")):
        with pytest.raises(ValueError, match=f"cannot serve on {host}:1234: .*{message}"):
            serve(host=host, port=1234)
    (tmp_path / "elsewhere").mkdir()
    command = [Path(sys.executable).with_name("workbench"), "demo", "--port", server.url.rpartition(":")[2]]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "elsewhere")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot serve on 127.0.0.1" in done.stderr
    assert not list((tmp_path / "elsewhere").glob("workbench-demo-*"))
