"""Serving the page: limits, queue, files, and no way out."""

import errno
import os
import shutil
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.demo.files import Visits, make_root
from workbench.demo.problem import Limits

PATIENCE = 4  # seconds in which the first visitor has the processor
SWEEP = 30  # seconds between looks for files that are due, at most
# Everything comes from this server; styles and scripts inside the page are how Gradio works.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'"
)


class NoWayOut:
    """Refuses the addresses by which Gradio fetches pages for a visitor; has browsers load nothing from elsewhere.

    What Gradio answers with 500 though only the input was wrong is 422, as elsewhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].lower()
        if "/proxy=" in path or "/file=http:" in path or "/file=https:" in path:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server fetches nothing from the web"})
            return

        failed: list[Message] = []  # the beginning of an answer, until its first words are known

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *headers, (b"referrer-policy", b"same-origin")]
                if message["status"] == 500:
                    failed.append(message)
                    return
            while failed:
                if b'"title":"Error"' in message.get("body", b""):  # not endpoints.FAULT
                    failed[0]["status"] = 422
                await send(failed.pop())
            await send(message)

        with suppress(ClientDisconnect):  # a page that is closed while it uploads
            await self.app(scope, receive, answer)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
    priors: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    inbrowser: bool = False,
) -> None:
    """Serve the page until interrupted; then remove all that visitors brought.

    Args:
        root_path: the path under which a reverse proxy shows the page, such as "/demo".
        priors: name on the page -> what ``load_prior`` takes; besides those shipped.

    Raises:
        ValueError: the port is taken, or a prior cannot be read.
    """
    if root_path and "://" not in root_path:
        root_path = f"/{root_path.strip('/')}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop cleans up too
    root = make_root()
    try:
        socket.create_server((host, port), family=socket.getaddrinfo(host, port)[0][0]).close()  # Gradio hides why not
        page, visits = make_page(root, priors or {}, limits or Limits())
        os.chdir(root)  # messages of Gradio show relative names as lying here
        address = start(page, visits, limits or Limits(), host, port, root_path, inbrowser)
        print(f"The demo is at {address.rstrip('/')}{root_path} until you press Ctrl-C.", flush=True)
        page.block_thread()
    except (OSError, UnicodeError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = "the port is taken, --port takes another" if taken else getattr(error, "strerror", None) or error
        raise ValueError(f"cannot serve on {host}:{port}: {reason}") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)


def make_page(root: Path, priors: Mapping[str, str], limits: Limits) -> tuple[Any, Visits]:
    """The page (``gr.Blocks``) with its files below ``root``, and its visits.

    Raises:
        ValueError: one of ``priors`` cannot be read, or has the name of a shipped one.
    """
    # Read when gradio is imported.
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from workbench.demo.page import build_page
    from workbench.demo.session import Sessions
    from workbench.models import available_priors
    from workbench.recipe import Method

    visits = Visits(root, keep=60 * limits.keep_minutes)
    shipped = available_priors()
    for name, source in priors.items():
        if name in shipped and source != name:  # recipes made by the page would load the shipped one
            raise ValueError(f"{name} is the name of a shipped prior: give {source} another")
    sessions = Sessions(limits, {name: name for name in shipped} | dict(priors), visits)
    for name in priors:
        sessions.prior(Method(solver="pinv", prior=name))  # what is wrong with it is said before anybody waits
    page = build_page(sessions)
    return page, visits


def start(
    page: Any, visits: Visits, limits: Limits, host: str, port: int, root_path: str = "", inbrowser: bool = False
) -> str:
    """Start serving and return the page's address; visitors' files are swept from now on."""
    import gradio as gr

    from workbench.demo.board import asset

    visits.settle()
    page.queue(max_size=limits.waiting, default_concurrency_limit=1)
    page._queue.sleep_when_free = 0.05  # as on Windows; every millisecond, as elsewhere, takes 7 % of a core
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path or None,
        max_file_size=round(limits.upload_megabytes * 1e6),
        prevent_thread_lock=True,
        show_error=True,  # what Gradio refuses before a function of ours sees it is said too
        inbrowser=inbrowser,
        share=False,
        ssr_mode=False,
        quiet=True,
        footer_links=["api", "settings"],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=asset("page.css"),
        app_kwargs={"middleware": [Middleware(NoWayOut)]},
    )
    threading.Thread(target=_sweep, args=(visits,), daemon=True).start()
    warming = threading.Timer(PATIENCE, _warm)
    warming.daemon = True
    warming.start()
    return address


def _warm() -> None:
    """Load what the first restoration would wait for, once the page is up."""
    from workbench.evaluation.metrics import score
    from workbench.images import sample_photo

    photo = sample_photo("cat", 32)
    score(photo, photo)


def _sweep(visits: Visits) -> None:
    while visits.root.exists():
        with suppress(OSError):  # a folder that went meanwhile, with its visitor: seen again next time
            visits.sweep()
        threading.Event().wait(min(SWEEP, visits.keep / 2))
