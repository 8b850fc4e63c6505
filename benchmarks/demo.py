"""Drive the running demo in headless Chromium and measure what a visitor feels.

    python benchmarks/demo.py --quick --out runs/demo.json
    python benchmarks/demo.py --world checkpoints/g1-bottle --data DATA
    python benchmarks/demo.py --screenshots docs/images

First frame: from opening the address to the decoded picture, and to a session that takes keys.
Shown frames/s: pictures decoded while a key is held. Key to pixel: from the browser's keydown event
to the animation frame after the decoded answer. Soak: rounds of visitors who open the page, drive
and leave; resident memory of the server after each round.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from playwright.sync_api import Browser, Page, sync_playwright

from worldmodel.files import write_json
from worldmodel.model.card import table

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 120_000  # milliseconds
KEYS = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
ROUNDS = 4
WATCH = """() => {
  window.delays = [];
  let pressed = null;
  addEventListener("keydown", (event) => { if (!event.repeat) pressed = event.timeStamp; }, true);
  new MutationObserver(() => {
    const begun = pressed;
    pressed = null;
    if (begun !== null) requestAnimationFrame(() => delays.push(performance.now() - begun));
  }).observe(document.querySelector("#count"), { childList: true });
}"""


@dataclass(frozen=True)
class Config:
    """What to measure."""

    world: Path = Path("checkpoints/pusht")
    """Folder of the world model."""
    data: Path | None = None
    """Recorded episodes to start from, for a world model without a simulator."""
    quick: bool = False
    """Shorter: 8 visitors in the soak rather than 20, for seconds rather than a minute each."""
    beside: bool = False
    """Run the simulator beside the dream, too."""
    out: Path | None = None
    """Where to write the figures."""
    screenshots: Path | None = None
    """Only take pictures of every tab, into this folder."""


@contextmanager
def server(world: Path, data: Path | None = None) -> Iterator[tuple[str, int]]:
    """The demo as a process of its own; its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "worldmodel.cli", "demo", "--world", str(world)]
    command += [] if data is None else ["--data", str(data)]
    process = subprocess.Popen([*command, "--no-browser", "--port", str(port)])
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"the demo ended with {process.returncode}")
            try:
                urllib.request.urlopen(address, timeout=10).read()
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.5)
        yield address, process.pid
    finally:
        process.terminate()  # a shell in the background masks SIGINT
        process.wait(60)


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB, as Linux counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def visit(browser: Browser, address: str, **options: object) -> Page:
    """A new visitor whose session has begun."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#count[data-kept]", state="attached")
    return page


def count(page: Page) -> int:
    return int(page.inner_text("#count"))


def set_beside(page: Page, wanted: bool) -> None:
    box = page.get_by_label("simulator beside the dream")
    if box.is_checked() != wanted:
        box.click()
        page.wait_for_selector(".screens.beside" if wanted else ".screens:not(.beside)")


def measure_first_frame(browser: Browser, address: str, repeats: int) -> dict[str, float]:
    """Median seconds from opening the address to the picture, and to a session that takes keys."""
    shown, ready = [], []
    for _ in range(repeats):
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        begun = time.monotonic()
        page.goto(address, wait_until="commit")
        page.wait_for_function("document.querySelector('.dream img')?.naturalWidth > 0")
        shown.append(time.monotonic() - begun)
        page.wait_for_selector("#count[data-kept]", state="attached")
        ready.append(time.monotonic() - begun)
        page.context.close()
    return {"first_frame_s": statistics.median(shown), "session_ready_s": statistics.median(ready)}


def measure_driving(page: Page, *, seconds: float, presses: int) -> dict[str, float]:
    """Frames per second while a key is held, and milliseconds from single presses to pixels."""
    page.keyboard.down("ArrowRight")
    page.wait_for_timeout(1000)  # the first frames warm up
    first, begun = count(page), time.monotonic()
    page.wait_for_timeout(1000 * seconds)
    rate = (count(page) - first) / (time.monotonic() - begun)
    page.keyboard.up("ArrowRight")
    page.evaluate(WATCH)
    for number in range(presses):
        page.keyboard.press(KEYS[number % len(KEYS)], delay=20)
        page.wait_for_function(f"delays.length > {number}")
        page.wait_for_selector('.screens[aria-busy="false"]')
        page.wait_for_timeout(150)
    delays = sorted(page.evaluate("delays"))
    return {
        "shown_frames_per_s": rate,
        "key_to_pixel_ms_median": statistics.median(delays),
        "key_to_pixel_ms_p90": delays[int(0.9 * (len(delays) - 1))],
    }


def soak(browser: Browser, address: str, pid: int, *, visitors: int, seconds: float) -> dict:
    """Rounds of visitors at once; returns memory after each round and every error."""
    memory, errors, frames = [], [], 0
    for _ in range(ROUNDS):
        pages = [visit(browser, address) for _ in range(visitors // ROUNDS)]
        for number, page in enumerate(pages):
            page.keyboard.down(KEYS[number % len(KEYS)])
        time.sleep(seconds)
        for number, page in enumerate(pages):
            page.keyboard.up(KEYS[number % len(KEYS)])
            message = page.inner_text("#message") if page.is_visible("#message") else ""
            errors += page.errors + ([message] if message else [])
            frames += count(page)
            page.context.close()
        time.sleep(2)
        memory.append(resident_mb(pid))
    growth = memory[3] / memory[1] - 1
    return {
        "visitors": visitors,
        "frames": frames,
        "errors": errors,
        "resident_mb": memory,
        "growth_second_to_fourth_round": growth,
    }


def screenshots(browser: Browser, address: str, folder: Path) -> None:
    """The hint, and every tab with something in it, on a laptop and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    page = visit(browser, address)
    page.set_default_timeout(4 * PATIENCE)
    page.wait_for_selector(".truth img[src]")
    take(page, folder, "hint")
    for key, frames in (("ArrowRight", 2), ("ArrowDown", 2)):  # the agent pushes the block
        wanted = count(page) + frames
        page.keyboard.down(key)
        page.wait_for_function(f"Number(document.querySelector('#count').innerText) >= {wanted}")
        page.keyboard.up(key)
        page.wait_for_selector('.screens[aria-busy="false"]')
    for tab, press, wait in (
        ("Drive", None, ".dream img"),
        ("Counterfactuals", "#look", "#fan img"),
        ("Quality", None, ".quality"),
        ("Policies", "#rank", '.board[data-state="done"]'),
    ):
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("tab", name=tab).click()
        if press is not None:
            page.click(press)
        page.wait_for_selector(wait)
        take(page, folder, tab.lower())
    page.context.close()


def take(page: Page, folder: Path, name: str) -> None:
    """Take `demo-NAME-WIDTH.png` at two widths."""
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(1000)
        file = folder / f"demo-{name}-{width}.png"
        page.screenshot(path=file, full_page=True)
        shrink(file)


def shrink(file: Path) -> None:
    """Store a picture with 128 colours, which is a third of its size."""
    from PIL import Image

    Image.open(file).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


def markdown(figures: Mapping[str, Any]) -> str:
    """The table that is printed, with what was aimed at."""
    soak = figures["soak"]
    rows = [
        ["first frame, s", f"{figures['first_frame_s']:.2f}", "at most 1"],
        ["frames/s while a key is held", f"{figures['shown_frames_per_s']:.1f}", "at least 10"],
        ["key to pixel, median, ms", f"{figures['key_to_pixel_ms_median']:.0f}", "at most 250"],
        ["key to pixel, 90th percentile, ms", f"{figures['key_to_pixel_ms_p90']:.0f}", "-"],
        [f"errors of {soak['visitors']} visitors, {soak['frames']} frames", str(len(soak["errors"])), "0"],
        ["memory, second to fourth round", f"{soak['growth_second_to_fourth_round']:+.1%}", "at most +5%"],
        ["load of the machine at the beginning", f"{figures['load_average']:.1f}", "-"],
    ]
    return table(["figure", "measured", "aim"], rows)


def main(config: Config) -> None:
    """Measure and print a Markdown table, or take the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("this needs Debian's package chromium")
    with server(config.world, config.data) as (address, pid), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        if config.screenshots is not None:
            screenshots(browser, address, config.screenshots)
            return
        figures = {"load_average": os.getloadavg()[0], "beside": config.beside}
        figures |= measure_first_frame(browser, address, 3 if config.quick else 7)
        page = visit(browser, address)
        if config.data is None:
            set_beside(page, config.beside)
        figures |= measure_driving(page, seconds=5, presses=20 if config.quick else 60)
        page.context.close()
        visitors, seconds = (8, 5.0) if config.quick else (20, 70.0)
        figures["soak"] = soak(browser, address, pid, visitors=visitors, seconds=seconds)
        browser.close()
    print(markdown(figures))
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, figures)


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.FlagCreatePairsOff,)))
