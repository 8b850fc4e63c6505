"""The icon of the page, which is part of the page itself."""

from typing import Any

ICON = (
    b"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' "
    b"height='16' rx='4' fill='%232563eb'/%3E%3Cpath d='M6 4l5 4-5 4z' fill='white'/%3E%3C/svg%3E"
)
MANIFEST = b'<link rel="manifest" href="/manifest.json" />'


class OwnIcon:
    """An ASGI application around Gradio's, whose page names its icon instead of a manifest.

    Gradio's page lets browsers ask for `/favicon.ico` and `/manifest.json` at the top of the server. Behind a proxy
    with a path prefix these are not Gradio's, and browsers report errors.

    Args:
        app: The application inside.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            return await self.app(scope, receive, send)
        start: dict[str, Any] = {}
        body = b""

        async def collect(message: dict[str, Any]) -> None:
            """Hold the parts of the page back, and send the whole page with the icon in it."""
            nonlocal body
            if message["type"] == "http.response.start":
                return start.update(message)
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            page = body.replace(MANIFEST, b'<link rel="icon" href="%s" />' % ICON)
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send(start | {"headers": [*headers, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, collect)
