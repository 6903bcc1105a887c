"""What tests of the served page share: a visitor with ``gradio_client``, and the words of a refusal."""

import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # the argument of Client alone does not keep it from reporting home
# One method, two steps: seconds, not minutes.
SMALL: dict[str, Any] = {"side": 32, "settings_1": "steps=2", "solver_2": "none"}
# What a visitor must never read: words of Python, of Gradio, of the server's log, and its folders.
FOREIGN = re.compile(r"went wrong on the server|upstream Gradio app|Traceback|Error\b|workbench-demo-|\n")


def visit(url: str, folder: Path) -> Client:
    """A visitor whose downloads go to ``folder``; tells nobody."""
    client = Client(url, verbose=False, analytics_enabled=False, download_files=folder)
    assert not client.analytics_enabled
    return client


def refusal(client: Client, api_name: str = "/degrade", **values: Any) -> str:
    """What is said instead of a result; one sentence, for people."""
    try:
        result = client.predict(**values, api_name=api_name)
    except Exception as error:  # gradio_client raises AppError, ValueError or bare Exception
        said = str(error)
    else:
        raise AssertionError(f"expected a refusal, got {str(result)[:300]}")
    assert said, "refused without a word"
    assert not FOREIGN.search(said), said
    return said


def raw_call(url: str, name: str, values: list[Any], seconds: float = 20) -> str:
    """The last event of endpoint ``name`` called over HTTP with ``values``, which may be what no client sends (NaN)."""
    body = json.dumps({"data": values})
    head = {"content-type": "application/json"}
    joined = httpx.post(f"{url}/gradio_api/call/{name}", content=body, headers=head, timeout=seconds)
    assert joined.status_code == 200, joined.text
    with httpx.stream("GET", f"{url}/gradio_api/call/{name}/{joined.json()['event_id']}", timeout=seconds) as answer:
        return [line for line in answer.iter_lines() if line][-1]


def defaults(client: Client, name: str) -> dict[str, Any]:
    """Parameter -> value of an endpoint as the page opens, files as the server has them."""
    values = {}
    for parameter in client.view_api(print_info=False, return_format="dict")["named_endpoints"][name]["parameters"]:
        value = parameter["parameter_default"]
        values[parameter["parameter_name"]] = value
        if isinstance(value, dict) and "url" in value:
            values[parameter["parameter_name"]] = {key: value[key] for key in ("path", "orig_name", "meta")}
    return values


def save(array: np.ndarray, path: Path) -> Any:
    """``array`` uint8 as a picture in ``path``, ready to be uploaded."""
    Image.fromarray(array).save(path)
    return handle_file(str(path))


def unpack(archive: str, folder: Path) -> Path:
    """The files of the zip ``archive`` in ``folder``."""
    with zipfile.ZipFile(archive) as package:
        assert package.testzip() is None
        package.extractall(folder)
    return folder


def pixels(path: str | Path) -> np.ndarray:
    """The picture in ``path``, uint8."""
    return np.asarray(Image.open(path))


def join(url: str, session: str, name: str, values: dict[str, Any], seconds: float = 30) -> dict[str, Any]:
    """Ask for ``name`` as a browser with this ``session`` does; the message with which it ends.

    Args:
        values: parameters by their place in the page; what is left out stands as the page has it.
    """
    started(url, session, name, values)
    with httpx.stream("GET", f"{url}/gradio_api/queue/data?session_hash={session}", timeout=seconds) as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_completed":
                    return message
    raise AssertionError("no answer")


def started(url: str, session: str, name: str, values: dict[str, Any]) -> None:
    """Ask for ``name`` and wait for nothing."""
    config = httpx.get(f"{url}/config").json()
    asked = next(d for d in config["dependencies"] if d["api_name"] == name)
    props = {c["id"]: c["props"] for c in config["components"]}
    controls = [props[number] for number in asked["inputs"]]
    known = {control.get("elem_id"): control.get("value") for control in controls}
    assert set(values) <= set(known), set(values) - set(known)
    body = {"data": list((known | values).values()), "fn_index": asked["id"], "session_hash": session}
    answer = httpx.post(f"{url}/gradio_api/queue/join", json=body)
    assert answer.status_code == 200, answer.text


def upload(url: str, path: Path) -> dict[str, Any]:
    """Upload the file ``path``: what stands for it in a request."""
    with open(path, "rb") as file:
        answer = httpx.post(f"{url}/gradio_api/upload", files={"files": (path.name, file)})
    assert answer.status_code == 200, answer.text
    return {"path": answer.json()[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def until(happened: Callable[[], bool], seconds: float) -> bool:
    """Whether it ``happened`` within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.05)
    return happened()


@contextmanager
def visiting(url: str) -> Iterator[str]:
    """A session with a browser's heartbeat: open while the page is."""
    session = f"session{time.monotonic_ns()}"
    with httpx.Client(timeout=30) as http, http.stream("GET", f"{url}/gradio_api/heartbeat/{session}") as stream:
        beats = stream.iter_raw()
        next(beats)
        yield session
