"""A reverse proxy as sites have it: shows a server under a path, which it strips from what it passes on."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

KEPT_BACK = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}


def proxy_app(target: str, prefix: str) -> Starlette:
    """Passes requests below ``prefix`` on to ``target``; nothing else exists."""
    client = httpx.AsyncClient(base_url=target, timeout=60)

    async def forward(request: Request) -> Response:
        url = httpx.URL(path="/" + request.path_params["path"], query=request.url.query.encode())
        headers = {name: value for name, value in request.headers.items() if name not in KEPT_BACK}
        headers |= {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        sent = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await client.send(sent, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in KEPT_BACK}

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        return StreamingResponse(body(), answer.status_code, kept)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await client.aclose()

    methods = ["GET", "HEAD", "POST", "DELETE", "PUT"]
    return Starlette(routes=[Route(f"{prefix}/{{path:path}}", forward, methods=methods)], lifespan=lifespan)


@contextmanager
def behind_proxy(target: str, prefix: str, port: int) -> Iterator[str]:
    """The address at which ``target`` is shown, for as long as the block runs."""
    config = uvicorn.Config(proxy_app(target, prefix), port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}{prefix}"
    server.should_exit = True
    thread.join(timeout=10)
