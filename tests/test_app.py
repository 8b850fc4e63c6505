"""The demo page, opened in a real browser that may talk to nobody but the page's own server."""

import shutil

import pytest
from tiny import tiny_world

from demos.app import DemoConfig, Pace, build_page, launch

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def address():
    page = build_page(DemoConfig(), tiny_world(size=(32, 32)))
    yield launch(page, port=None, browser=False, block=False)
    page.close()


@pytest.fixture
def browser_page(address):
    """The page with its start frames shown, and a list of every request to elsewhere."""
    if CHROMIUM is None:
        pytest.skip("needs the system package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(120_000)  # milliseconds, for a machine with other work to do
        page.strangers = []

        def allow_own_server_only(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                page.strangers.append(route.request.url)
                route.abort()

        page.route("**/*", allow_own_server_only)
        page.goto(address)
        page.wait_for_selector(".screens img")
        yield page
        browser.close()


def pictures(page):
    return [image.get_attribute("src") for image in page.query_selector_all(".screens img")]


def count(page):
    return int(page.inner_text("#count"))


def wait_for_count(page, at_least):
    page.wait_for_function(f"Number(document.querySelector('#count').innerText) >= {at_least}")


def test_driving(browser_page):
    page = browser_page
    start = pictures(page)
    assert len(start) == 2
    assert all(source.startswith("data:image/png;base64,") for source in start)

    page.keyboard.press("ArrowRight")  # a tap is one frame or more
    wait_for_count(page, 1)
    assert all(new != old for new, old in zip(pictures(page), start, strict=True))

    page.keyboard.down("ArrowUp")  # holding goes on and on
    wait_for_count(page, count(page) + 3)
    page.keyboard.up("ArrowUp")
    assert "frames/s" in page.inner_text(".status")

    page.wait_for_timeout(300)
    stopped = count(page)
    page.wait_for_timeout(300)
    assert count(page) == stopped

    page.locator('#pad [data-key="down"]').hover()
    page.mouse.down()
    wait_for_count(page, stopped + 2)
    page.mouse.up()

    page.click("#reset")
    page.wait_for_function("document.querySelector('#count').innerText === '0'")
    assert pictures(page) == start

    page.locator("#starts button").nth(2).click()
    page.wait_for_function(
        "src => document.querySelector('.screens img').src !== src", arg=start[0]
    )
    assert count(page) == 0
    assert page.strangers == []


def test_pace_leaves_pauses_out():
    pace = Pace()
    rates = [pace.tick(now) for now in (0.0, 0.1, 0.2, 5.0, 5.25)]
    assert rates == pytest.approx([0, 10, 10, 0, 4])
