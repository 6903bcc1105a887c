"""The served page from outside: files, connections, more visitors than the queue takes, and what is left behind."""

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import program
from tests.demo.conftest import Server
from tests.demo.visitor import defaults, join, raw_call, started, until, upload, visiting
from workbench.demo.files import make_root

REPOSITORY = Path(__file__).parents[2]
WAITING = 5  # visitors in the queue

# Runs inside the server before all else: what is connected to or looked up goes into a file.
WATCH = """
import os, sys
_log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_events = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"}
def _watch(event, arguments):
    if event in _events:
        what = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        os.write(_log, f"{event} {what!r}\\n".encode())
sys.addaudithook(_watch)
"""


@pytest.fixture(scope="module")
def watched(launch, folder) -> Iterator[tuple[Server, Path]]:
    """A server whose every outgoing connection is written down, and the file in which that is; killed at the end."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(folder / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("WATCHED", str(folder / "connections"))
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "1")
        patch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
        server = launch("--waiting", str(WAITING))
    yield server, folder / "connections"
    server.process.kill()


@pytest.fixture(scope="module")
def server(watched) -> Server:
    return watched[0]


def restored(server: Server, session: str, photo: dict[str, Any], **values: Any) -> dict[str, Any]:
    """How the small comparison ends that ``session`` asks for."""
    return join(server.url, session, "restore", small(photo) | values)


def small(photo: dict[str, Any]) -> dict[str, Any]:
    return {"photo": photo, "side": 32, "settings1": "steps=2", "solver2": "none"}


def left(server: Server, before: list[Path]) -> list[Path]:
    """Files that were not there ``before``."""
    return [path for path in server.leftovers() if path not in before]


# What a visitor can read.

OUTSIDE = [
    "/etc/passwd",
    "//etc/passwd",
    str(REPOSITORY / "README.md"),
    "README.md",
    ".git/config",
    "{files}/../../etc/passwd",
    "{files}/%2e%2e/%2e%2e/etc/passwd",
    "{files}/..%2f..%2fetc%2fpasswd",
    "{files}/",
    "file:///etc/passwd",
    "https://example.org/x.png",
    "HTTP://127.0.0.1:1/x",
    "http:/127.0.0.1:1/x",
    "ftp://127.0.0.1:1/x",
]
PROXIED = ["http://127.0.0.1:1/", "https://example.hf.space/x", "//127.0.0.1:1/"]
OTHERS = ["/static/../../../etc/passwd", "/assets/..%2f..%2f..%2fetc%2fpasswd"]
OTHERS += ["/gradio_api/component_server", "/custom_component/x/y/z"]


def test_nothing_outside_is_served_nor_fetched_and_headers_keep_the_browser_here(server):
    paths = [f"{start}file={path.format(files=server.files)}" for path in OUTSIDE for start in ("/gradio_api/", "/")]
    paths += [f"{start}proxy={url}" for url in PROXIED for start in ("/gradio_api/", "/")]
    for path in [*paths, *OTHERS]:
        status, body = raw_get(server, path)
        assert status in (400, 403, 404, 405), (path, status, body[:100])
        assert b"root:" not in body, path
    headers = httpx.get(server.url).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def raw_get(server: Server, path: str) -> tuple[int, bytes]:
    """Status and body of ``path`` exactly as written: clients tidy up what attackers do not."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


FOREIGN_FILES = [
    {"path": "/etc/passwd"},
    {"path": "../../etc/passwd"},
    {"path": "https://example.org/x.png"},
    {"path": "x.png", "url": "http://127.0.0.1:1/x.png"},
    {"path": None, "url": "https://example.org/x.png"},
    {"path": None, "url": "file:///etc/passwd"},
]


@pytest.mark.parametrize("where", ["photo", "layers", "kernel"])
def test_files_that_were_not_uploaded_are_refused(where, server, client):
    values = defaults(client, "/degrade") | {"degradation": "mask" if where == "layers" else "blur:1"}
    for foreign in FOREIGN_FILES:
        file = foreign | {"orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        painting = {"painting": {"background": None, "layers": [file], "composite": None}}
        given = values | (painting if where == "layers" else {where: file})
        last = raw_call(server.url, "degrade", list(given.values()))
        assert "root:" not in last
        assert '"error"' in last


# What is left behind.


def test_who_leaves_takes_everything_along(server, photo):
    """...of folders with names that nobody guesses and modes that nobody else reads."""
    before, earlier = server.leftovers(), {*server.files.iterdir()}
    with visiting(server.url) as session:
        assert restored(server, session, upload(server.url, photo))["success"]
        assert len(server.leftovers()) >= len(before) + 5
        made = [path for path in {*server.files.iterdir()} - earlier if re.fullmatch(r"[0-9a-f]{32}", path.name)]
        assert made
        assert all(path.stat().st_mode & 0o077 == 0 for path in [server.files, *made])
    assert until(lambda: left(server, before) == [] and not any(path.exists() for path in made), 8)


def test_who_leaves_during_a_run_stops_it(server, photo):
    before = server.leftovers()
    with visiting(server.url) as session:
        long = small(upload(server.url, photo)) | {"side": 128, "settings1": "steps=1000"}
        started(server.url, session, "restore", long)
        with httpx.stream("GET", f"{server.url}/gradio_api/queue/data?session_hash={session}", timeout=30) as events:
            assert any("process_generating" in line for line in events.iter_lines())
    with visiting(server.url) as other:
        begun = time.monotonic()
        assert restored(server, other, upload(server.url, photo))["success"]
        assert time.monotonic() - begun < 30  # the thousand steps would take more than a minute
    assert until(lambda: left(server, before) == [], 10), left(server, before)


# More visitors at once than the queue takes: a fast version of benchmarks/demo_load.py.

CLIENTS = 8


def test_more_visitors_at_once_than_the_queue_takes(server):
    demo_load = program("benchmarks", "demo_load")
    process = psutil.Process(server.process.pid)
    demo_load.load(server.url, process, server.files, clients=1, requests=1, steps=1)  # reads networks, imports
    measured = demo_load.load(server.url, process, server.files, clients=CLIENTS, requests=1, steps=1)
    assert measured.alive
    assert len(measured.visits) == CLIENTS
    assert WAITING <= len(measured.served) < CLIENTS
    assert {visit.refused for visit in measured.visits} == {"", "Queue is full! Please try again."}
    assert all(visit.places == sorted(visit.places, reverse=True) for visit in measured.visits)
    places = {place for visit in measured.visits for place in visit.places}
    assert {0, 2, 4} <= places
    assert measured.files[1] == measured.files[0]
    assert measured.memory[2] < measured.memory[0] + 200
    assert "served" in demo_load.table(measured, CLIENTS)

    after = demo_load.load(server.url, process, server.files, clients=1, requests=1, steps=1)  # the server is as before
    assert len(after.served) == 1
    assert after.files[1] == after.files[0]


# At the end, of all that happened above.


def test_the_server_connected_to_nothing_but_this_machine(watched):
    server, log = watched
    assert server.process.poll() is None
    lines = log.read_text().splitlines()
    assert any("127.0.0.1" in line for line in lines)  # Gradio looks whether its own page is up
    elsewhere = [
        line
        for line in lines
        if not re.search(r" '(127\.0\.0\.1|localhost|::1|http://127\.0\.0\.1:)", line)
        and not re.search(r" \('(127\.0\.0\.1|::1)'", line)
    ]
    assert not elsewhere


def test_a_killed_server_is_cleaned_up_behind_by_the_next(watched, monkeypatch):
    server, _ = watched
    monkeypatch.setattr(tempfile, "tempdir", str(server.files.parent))
    living = make_root()
    assert server.files.exists()  # of a server that runs
    server.process.kill()
    server.process.wait(timeout=10)
    assert server.files.exists()
    new = make_root()
    assert not server.files.exists()
    assert living.exists()
    assert new.stat().st_mode & 0o077 == 0
