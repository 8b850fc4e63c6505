"""Debian's Chromium without windows, or with them where there is no other, for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""The shell has no windows and needs a third less processor time for the same pages."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser of Playwright, closed at the end; skips the test where there is none.

    The test process gives up a real-time priority first, which the browser would inherit: its waiting loops
    then keep both cores busy for ever.
    """
    if CHROMIUM is None:
        pytest.skip("needs the system package chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()
