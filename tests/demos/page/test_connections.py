"""The layer between the web server and Gradio, with an application of one line inside."""

import asyncio
from types import SimpleNamespace

import pytest

from demos.driving.visitors import Visitors
from demos.page.connections import Connections, check_root_path, prefix_of
from demos.page.icon import MANIFEST, OwnIcon


def ask(layer, path, method="GET"):
    """The messages that come back."""
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        await layer({"type": "http", "method": method, "path": path, "raw_path": path.encode()}, None, send)

    asyncio.run(run())
    return sent


@pytest.fixture
def inside(tmp_path):
    """Notes who was here during each request, and the paths that arrive."""
    visitors = Visitors(tmp_path)
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["path"], sorted(visitors._connections)))

    yield SimpleNamespace(visitors=visitors, seen=seen, app=app)
    visitors.close()


def test_a_visitor_is_here_while_the_page_holds_its_request(inside):
    layer = Connections(inside.app, inside.visitors)
    ask(layer, "/gradio_api/heartbeat/abc")
    ask(layer, "/gradio_api/heartbeat/abc", method="HEAD")
    ask(layer, "/gradio_api/heartbeat/a.b")
    ask(layer, "/gradio_api/heartbeat/" + "a" * 65)
    ask(layer, "/config")
    assert [here for _, here in inside.seen] == [["abc"], [], [], [], []]
    assert not inside.visitors.is_here("abc")


def test_an_error_inside_ends_the_visit_too(inside):
    async def fail(scope, receive, send):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ask(Connections(fail, inside.visitors), "/gradio_api/heartbeat/abc")
    assert not inside.visitors.is_here("abc")


def test_a_proxy_may_keep_or_remove_its_prefix(inside):
    layer = Connections(inside.app, inside.visitors, "/robots/demo")
    for path in ("/robots/demo/", "/robots/demo/gradio_api/heartbeat/abc", "/config", "/robots/demonstration"):
        ask(layer, path)
    assert inside.seen == [
        ("/", []),
        ("/gradio_api/heartbeat/abc", ["abc"]),
        ("/config", []),
        ("/robots/demonstration", []),
    ]
    start, _ = ask(layer, "/robots/demo")
    assert (start["status"], start["headers"]) == (307, [(b"location", b"/robots/demo/")])


def test_root_paths():
    for good, prefix in (
        ("", ""),
        ("/demo", "/demo"),
        ("/a/b", "/a/b"),
        ("https://host:8443/demo", "/demo"),
        ("http://host", ""),
    ):
        check_root_path(good)
        assert prefix_of(good) == prefix
    for wrong in ("demo", "/demo/", "//demo", "https://host/demo/", "/a b", "ftp://host/demo", "/demo?x=1"):
        with pytest.raises(ValueError, match=r"--root-path: expected /PREFIX .* got"):
            check_root_path(wrong)


def test_the_page_brings_its_icon():
    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"999")]})
        await send({"type": "http.response.body", "body": b"<head>" + MANIFEST[:9], "more_body": True})
        await send({"type": "http.response.body", "body": MANIFEST[9:] + b"</head>"})

    start, body = ask(OwnIcon(page), "/")
    assert MANIFEST not in body["body"] and b'<link rel="icon" href="data:image/svg+xml,' in body["body"]
    assert start["headers"] == [(b"content-length", str(len(body["body"])).encode())]
    assert len(ask(OwnIcon(page), "/other")) == 3
