"""The layer between the web server and Gradio: who is connected, and the prefix of a proxy."""

import re
from typing import Any

from demos.driving.visitors import LONGEST_NAME, Visitors

HEARTBEAT = re.compile(rf"/gradio_api/heartbeat/([A-Za-z0-9]{{1,{LONGEST_NAME}}})")
"""A page keeps the answer to this request open until it is closed; the last part is its session."""


def check_root_path(text: str) -> None:
    """Raise a `ValueError` if `text` is neither empty nor `/prefix` nor an address with such a prefix."""
    if text and not re.fullmatch(r"(https?://[^/\s?#]+)?(/[^/\s?#]+)*", text):
        raise ValueError(
            "--root-path: expected /PREFIX without a slash at its end, or a whole address such as "
            f"https://HOST/PREFIX, got {text!r}"
        )


def prefix_of(root_path: str) -> str:
    """The prefix of the paths under a root path, which may be a whole address: `/demo` of `https://host/demo`."""
    return re.sub(r"^https?://[^/]+", "", root_path)


class Connections:
    """An ASGI application around another one that tells `visitors` whose page is connected.

    A reverse proxy may remove its path prefix from requests or leave it there: both work.

    Args:
        app: The application inside.
        visitors: Is told about every page that connects or leaves.
        prefix: Path under which a proxy shows the page, as `/demo`; empty without one.
    """

    def __init__(self, app: Any, visitors: Visitors, prefix: str = ""):
        self.app, self.visitors, self.prefix = app, visitors, prefix

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self.prefix and scope["path"] == self.prefix:
            return await _redirect(send, f"{self.prefix}/")
        if self.prefix and scope["path"].startswith(f"{self.prefix}/"):
            path = scope["path"].removeprefix(self.prefix)
            scope = scope | {"path": path, "raw_path": path.encode()}
        page = HEARTBEAT.fullmatch(scope["path"])
        if page is None or scope["method"] != "GET":
            return await self.app(scope, receive, send)
        self.visitors.connect(page[1])
        try:
            await self.app(scope, receive, send)
        finally:
            self.visitors.disconnect(page[1])


async def _redirect(send: Any, target: str) -> None:
    """Send the browser elsewhere: relative addresses on the page need the slash at the end."""
    await send({"type": "http.response.start", "status": 307, "headers": [(b"location", target.encode())]})
    await send({"type": "http.response.body", "body": b""})
