"""The site builds without a warning and without a network, and its pages work in a browser, wide and narrow."""

import functools
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe import serious_violations
from browser import browser
from places import ROOT

pytestmark = pytest.mark.slow

LOADED = {"script": "src", "img": "src", "source": "src", "video": "src", "iframe": "src", "link": "href"}
NOT_LOADED = ("canonical", "prev", "next")  # what a `link` says about a page
KINDS = ("index.html", "concepts/data_flow.html", "tutorials/your_robot.html", "api/rl_posttrain.html", "serving.html")
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        said = tag == "link" and values.get("rel") in NOT_LOADED
        if LOADED.get(tag) in values and not said:
            self.loads.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, **NO_NETWORK, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """Every page but that of the error 404, whose links begin at the root of the site."""
    found = {str(file.relative_to(site)): Page(file.read_text()) for file in site.rglob("*.html")}
    found.pop("404.html")
    assert len(found) > 25
    return found


def test_no_link_is_dead(site, pages):
    dead = []
    for name, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = os.path.normpath(os.path.join(os.path.dirname(name), unquote(parts.path))) if parts.path else name
            target = f"{target}/index.html".removeprefix("./") if (site / target).is_dir() else target
            anchor = unquote(parts.fragment)
            missing = anchor and target in pages and anchor not in pages[target].anchors
            if missing or not (site / target).is_file():
                dead.append(f"{name}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert [load for page in pages.values() for load in page.loads if urlsplit(load).netloc] == []
    styles = {file.name: file.read_text() for file in site.rglob("*.css")}
    assert len(styles) > 2
    elsewhere = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")
    assert [name for name, text in styles.items() if elsewhere.search(text)] == []


def test_every_public_name_has_an_anchor(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    named = re.findall(
        r"^::: ([\w.]+)$", "".join(p.read_text() for p in (ROOT / "docs/api").glob("*.md")), re.MULTILINE
    )
    assert len(named) > 80
    assert [name for name in named if name not in anchors] == []


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


PHONE, LAPTOP = {"width": 390, "height": 900}, {"width": 1440, "height": 900}


def fits(page):
    """Whether nothing sticks out on the right, once the page has its new layout."""
    from playwright.sync_api import TimeoutError as TooLong

    try:
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=3000)
    except TooLong:
        return False
    return True


def test_pages_fit_work_and_can_be_read_by_all(pages, address):
    """Every page at two widths; one of each kind in light and dark, too, by axe-core."""
    mistakes = []
    with browser() as launched:
        page = launched.new_page(viewport=PHONE, color_scheme="dark")
        page.on("console", lambda message: mistakes.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith((address, "data:")) else mistakes.append(asked.url)
        )
        for name in sorted(pages):
            page.goto(address + name, wait_until="load")
            for size in (PHONE, LAPTOP):
                page.set_viewport_size(size)
                if not fits(page):
                    mistakes.append(f"{name} is wider than {size['width']} pixels")
        for scheme, size in (("dark", PHONE), ("light", LAPTOP)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            for name in KINDS:
                page.goto(address + name, wait_until="networkidle")
                mistakes += [f"{name}, {scheme}: {each}" for each in serious_violations(page)]
    assert set(KINDS) <= set(pages)
    assert mistakes == []
