"""Many visitors at once: how long they wait, what they see of the queue, what the server needs and keeps.

    python benchmarks/demo_load.py --clients 20 --requests 2
    python benchmarks/demo_load.py --clients 20 --waiting 5

Starts a server of its own on this machine; every client asks for the page's default comparison with few steps.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from gradio_client import Client

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # the argument of Client alone does not keep it from reporting home


@dataclass
class Visit:
    """One request.

    Attributes:
        places: seen in the queue, in order, each once.
        seconds: until the result, or the refusal.
        refused: with which words; empty: it was not.
    """

    places: list[int] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    seconds: float = 0.0
    refused: str = ""


@dataclass
class Load:
    """What :func:`load` measured; memory in MB."""

    visits: list[Visit]
    seconds: float
    memory: tuple[float, float, float]  # before, at most, after
    files: tuple[int, int]  # before, and after all left
    alive: bool

    @property
    def served(self) -> list[Visit]:
        """Those that got a result."""
        return [visit for visit in self.visits if not visit.refused]


def load(url: str, process: psutil.Process, folder: Path, clients: int, requests: int, steps: int = 5) -> Load:
    """Let ``clients`` visit the page at ``url`` at once, ``requests`` times each.

    Args:
        folder: where the server keeps files.
    """
    visits: list[Visit] = []
    connected = [Client(url, verbose=False, analytics_enabled=False, download_files=False) for _ in range(clients)]
    gate = threading.Barrier(clients + 1)

    def visit(number: int) -> None:
        gate.wait()
        for _ in range(requests):
            visits.append(_ask(connected[number], side=32 + 8 * (number % 3), steps=steps))

    before, files = _memory(process), _files(folder)
    threads = [threading.Thread(target=visit, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    begun, most = time.monotonic(), before
    while any(thread.is_alive() for thread in threads):
        most = max(most, _memory(process))
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    for client in connected:
        client.close()
    end = time.monotonic() + 20
    while _files(folder) > files and time.monotonic() < end:
        time.sleep(0.2)
    alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return Load(visits, seconds, (before, most, _memory(process)), (files, _files(folder)), alive)


def _ask(client: Client, side: int, steps: int) -> Visit:
    visit, begun = Visit(), time.monotonic()
    settings = {f"settings_{number}": f"steps={steps}" for number in (1, 2)}
    job = client.submit(side=side, **settings, api_name="/restore")
    while not job.done():
        status = job.status()
        if status.rank is not None and status.queue_size and visit.places[-1:] != [status.rank]:
            visit.places.append(status.rank)
            visit.sizes.add(status.queue_size)
        time.sleep(0.02)
    visit.seconds = time.monotonic() - begun
    error = job.exception()
    if error is not None:
        visit.refused = str(error) or type(error).__name__
    elif job.outputs()[-1][1] != "Done.":
        visit.refused = f"ended with {job.outputs()[-1][1]}"
    return visit


def _memory(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def _files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def table(measured: Load, clients: int) -> str:
    """``measured`` as lines of name and value."""
    waits = sorted(visit.seconds for visit in measured.served) or [float("nan")]
    falling = sum(visit.places == sorted(visit.places, reverse=True) for visit in measured.visits)
    waited = [visit.places for visit in measured.visits if visit.places]
    words = sorted({visit.refused for visit in measured.visits if visit.refused})
    rows = {
        "clients": clients,
        "requests": len(measured.visits),
        "served": len(measured.served),
        "refused": len(measured.visits) - len(measured.served),
        "refused with": "; ".join(words) or "-",
        "seconds in all": f"{measured.seconds:.1f}",
        "until the result, min / median / max": f"{waits[0]:.1f} / {statistics.median(waits):.1f} / {waits[-1]:.1f} s",
        "saw a place in the queue": f"{len(waited)}, at most {max((max(p) for p in waited), default=0) + 1}",
        "saw it only fall": f"{falling} of {len(measured.visits)}",
        "server memory before / most / after": " / ".join(f"{value:.0f}" for value in measured.memory) + " MB",
        "files before / after all left": " / ".join(map(str, measured.files)),
        "server alive": measured.alive,
    }
    return "\n".join(f"{name:38} {value}" for name, value in rows.items())


@contextmanager
def served(*options: str) -> Iterator[tuple[str, psutil.Process, Path]]:
    """A server with ``options`` of ``workbench demo``: its address, process and folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from workbench.cli import main; main()", "demo", "--port", port, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": folder, "GRADIO_HEARTBEAT_INTERVAL": "1"},
        )
        try:
            while not re.search("The demo is at", (Path(folder) / "log").read_text()):
                if process.poll() is not None:
                    raise SystemExit((Path(folder) / "log").read_text())
                time.sleep(0.1)
            files = next(Path(folder).glob("workbench-demo-*"))
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid), files
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--waiting", type=int, default=40, help="the server's limit of its queue")
    arguments = parser.parse_args()
    with served("--waiting", str(arguments.waiting)) as (url, process, folder):
        load(url, process, folder, clients=1, requests=1)  # the first run loads what later ones share
        measured = load(url, process, folder, arguments.clients, arguments.requests, arguments.steps)
    print(table(measured, arguments.clients))


if __name__ == "__main__":
    main()
