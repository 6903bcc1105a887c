"""More visitors at once than the queue takes: a fast version of benchmarks/demo_load.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import psutil
import pytest

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
