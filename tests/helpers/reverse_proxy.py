"""A reverse proxy with https and a path prefix, as one stands before a public page."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
ONE_HOP = ("host", "connection", "content-length", "transfer-encoding", "keep-alive")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Key and self-signed certificate of localhost."""
    key, signed = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", signed], check=True, capture_output=True)
    return key, signed


@contextmanager
def reverse_proxy(port: int, backend: list[str], prefix: str, folder: Path, *, plain: bool = False) -> Iterator[None]:
    """Serve what `backend[0]` serves at https://localhost:PORT + prefix while the context is open.

    Args:
        port: Port on this machine.
        backend: The address behind, without a slash at its end; may be filled in later.
        prefix: Path prefix.
        folder: For the certificate.
        plain: Say nothing of the address in front and keep the prefix, as the shortest nginx configuration does; by
            default the prefix is removed and X-Forwarded-Host and -Proto are sent.
    """
    # A connection kept open may be closed by the server just when it is used again: each request opens its own.
    client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_keepalive_connections=0))

    async def answer(request: Request) -> Response:
        path = request.url.path
        if not (path == prefix or path.startswith(f"{prefix}/")):
            return Response("not the page", status_code=404)
        headers = [(name, value) for name, value in request.headers.items() if name not in ONE_HOP]
        if not plain:
            path = path.removeprefix(prefix) or "/"
            headers += [("x-forwarded-host", request.headers["host"]), ("x-forwarded-proto", "https")]
        query = f"?{request.url.query}" if request.url.query else ""
        sent = client.build_request(
            request.method, f"{backend[0]}{path}{query}", headers=headers, content=await request.body()
        )
        got = await client.send(sent, stream=True)
        kept = {name: value for name, value in got.headers.items() if name not in ONE_HOP}
        return StreamingResponse(got.aiter_raw(), got.status_code, kept, background=BackgroundTask(got.aclose))

    key, signed = certificate(folder)
    app = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=port, log_level="error", lifespan="off", ssl_keyfile=str(key), ssl_certfile=str(signed)
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the proxy did not start"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
