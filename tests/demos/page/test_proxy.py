"""The page behind a reverse proxy with https and a path prefix, in a real browser; and who may drive there."""

import socket
import time
from contextlib import ExitStack

import httpx
import pytest
import torch
from browser import browser
from driving import arrive, begin_ranking, hold, look_ahead, open_tab
from places import ROOT
from reverse_proxy import reverse_proxy

from demos.page.app import DemoConfig, build_page, launch
from worldmodel.world_model import WorldModel

PREFIX = "/robots/demo"
LIMIT = 3

pytestmark = pytest.mark.slow
ONE_PROXY = pytest.mark.parametrize("served", ["forwarded headers"], indirect=True)
"""For what does not depend on how the page knows its address."""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module", params=["forwarded headers", "whole address"])
def served(request, tmp_path_factory):
    """The demo of the shipped PushT world: its address in front of the proxy and behind it, and its visitors."""
    out, port = tmp_path_factory.mktemp("demo"), free_port()
    plain = request.param == "whole address"
    torch.set_num_threads(1)
    world = WorldModel.load(ROOT / "checkpoints/pusht").eval()
    config = DemoConfig(
        judge=ROOT / "checkpoints/judges/pusht-position",
        policies=(ROOT / "checkpoints/policies/pusht-position",),
        visitors=LIMIT,
    )
    page, visitors = build_page(config, world, out)
    public = f"https://localhost:{port}{PREFIX}"
    with ExitStack() as stack:
        behind = []
        stack.enter_context(reverse_proxy(port, behind, PREFIX, tmp_path_factory.mktemp("proxy"), plain=plain))
        behind.append(launch(page, visitors, port=None, root_path=public if plain else PREFIX).rstrip("/"))
        yield f"{public}/", behind[0], visitors
        page.close()
        visitors.close()


@pytest.fixture(scope="module")
def chromium():
    with browser() as launched:
        yield launched


@pytest.fixture
def visit(served, chromium):
    """Opens the page through the proxy; notes what goes wrong in the browser and what is asked of others."""
    contexts = []

    def open_page(**options):
        contexts.append(chromium.new_context(ignore_https_errors=True, accept_downloads=True, **options))
        page = contexts[-1].new_page()
        page.on(
            "request", lambda sent: sent.url.startswith((served[0], "data:", "blob:")) or page.mistakes.append(sent.url)
        )
        arrive(page, served[0])
        return page

    yield open_page
    for context in contexts:
        context.close()
    wait_until(lambda: len(served[2]) == 0)


def wait_until(condition, seconds=60.0):
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < seconds:
        time.sleep(0.02)
    assert condition(), "it did not happen in time"
    return time.monotonic() - begun


def test_it_drives_saves_looks_ahead_and_ranks(served, visit, tmp_path):
    page = visit()
    hold(page, "ArrowRight", 3)
    page.click('[data-do="save"]')
    page.wait_for_selector("#files a")
    with page.expect_download() as download:
        page.locator("#files a").first.click()
    download.value.save_as(tmp_path / "dream.mp4")
    assert (tmp_path / "dream.mp4").stat().st_size > 1000
    look_ahead(page, 3, 2)
    begin_ranking(page, 2, 5)
    page.wait_for_selector('.board[data-state="done"]')
    assert page.locator(".board tbody tr").count() == 3
    open_tab(page, "Quality")
    page.wait_for_selector(".quality h2")
    assert page.mistakes == []


@ONE_PROXY
def test_the_trials_of_someone_who_left_end_at_once(served, visit):
    _, _, visitors = served
    page = visit()
    begin_ranking(page, 40, 100)
    page.wait_for_selector('.board[data-state="busy"]')
    page.wait_for_timeout(500)
    page.context.close()
    gone = wait_until(lambda: len(visitors) == 0, 20)
    other = visit()
    begun = time.monotonic()
    begin_ranking(other, 1, 5)
    other.wait_for_selector('.board[data-state="done"]')
    print(f"the place was free after {gone:.2f} s, the next ranking ran {time.monotonic() - begun:.1f} s later")
    assert other.mistakes == []


@ONE_PROXY
def test_invented_names_do_not_lock_the_page(served, visit):
    _, behind, visitors = served
    component = next(
        each["id"]
        for each in httpx.get(f"{behind}/config").json()["components"]
        if each["props"].get("elem_id") == "drive"
    )

    def start(name):
        dials = '"num_steps": 2, "speed": 0.5, "seed": 0, "beside": false'
        body = {"session_hash": name, "component_id": component, "fn_name": "command"}
        body["data"] = f'{{"visitor": "{name}", "do": "start", {dials}}}'
        return httpx.post(f"{behind}/gradio_api/component_server/", json=body, timeout=60).json()

    for number in range(5 * LIMIT):
        assert "the connection of this page has ended" in start(f"invented{number}")["error"]
    assert len(visitors) == 0
    pages = [visit() for _ in range(LIMIT)]
    assert len(visitors) == LIMIT
    with httpx.stream("GET", f"{behind}/gradio_api/heartbeat/onemore", timeout=60):
        wait_until(lambda: visitors.is_here("onemore"))
        assert "3 visitors are driving already" in start("onemore")["error"]
        pages[0].context.close()
        wait_until(lambda: len(visitors) == LIMIT - 1)
        assert start("onemore")["step"] == 0
    wait_until(lambda: not visitors.is_here("onemore"))
    hold(pages[1], "d")
    assert pages[1].mistakes == []


def test_the_address_without_a_slash_leads_to_the_page(served):
    public, _, _ = served
    got = httpx.get(public.rstrip("/"), verify=False, follow_redirects=True)
    assert got.status_code == 200 and "window.driving" in got.text


def press(page, code, key, **more):
    """A press of a key as a keyboard of another layout sends it."""
    page.evaluate(
        """async ([code, key, more]) => {
          for (const kind of ["keydown", "keyup"]) {
            document.body.dispatchEvent(new KeyboardEvent(kind, { code, key, bubbles: true, ...more }));
            await new Promise((resolve) => setTimeout(resolve, 60));
          }
        }""",
        [code, key, more],
    )


@ONE_PROXY
def test_every_layout_steers(served, visit):
    page = visit()
    for code, key, more, shown in (
        ("ArrowRight", "ArrowRight", {}, "D"),
        ("KeyD", "Process", {"isComposing": True}, "D"),  # an input method
        ("KeyD", "\u0432", {}, "\u0412"),  # Cyrillic
        ("KeyD", "\u03b4", {}, "\u0394"),  # Greek
        ("KeyD", "e", {}, "E"),  # Dvorak
    ):
        before = int(page.inner_text("#count"))
        press(page, code, key, **more)
        page.wait_for_function(f"Number(document.querySelector('#count').innerText) > {before}")
        assert page.inner_text('kbd[data-code="KeyD"]') == shown, "what is printed on the visitor's key"
        page.wait_for_selector('.screens[aria-busy="false"]')
    assert page.mistakes == []
