"""Make a frame the goal and go there, in a real browser."""

import pytest
import torch
from axe import serious_violations
from browser import browser
from driving import arrive, count, hold, settle
from places import ROOT

from demos.page.app import DemoConfig, build_page, launch
from worldmodel.files import SHIPPED
from worldmodel.world_model import WorldModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The demo of the shipped PushT world."""
    torch.set_num_threads(1)
    world = WorldModel.load(ROOT / SHIPPED / "pusht").eval()
    page, visitors = build_page(DemoConfig(policies=()), world, tmp_path_factory.mktemp("demo"))
    yield launch(page, visitors, port=None)
    page.close()
    visitors.close()


@pytest.fixture(scope="module")
def chromium():
    with browser() as launched:
        yield launched


def nearness(page) -> str:
    return page.inner_text("#nearness")


def test_the_planner_goes_to_the_frame_that_was_made_the_goal(address, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    arrive(page, address)
    page.click('[data-do="go"]')
    page.wait_for_function("document.querySelector('#message').innerText.includes('there is no goal yet')")
    page.locator("[data-start]").nth(1).click()  # with room below
    page.wait_for_function("document.querySelector('#message').innerText === ''")
    settle(page)
    hold(page, "ArrowDown", 6)
    page.click('[data-do="goal"]')
    page.wait_for_selector("#goal:not([hidden])")
    settle(page)
    goal = page.locator(".dream img").first.get_attribute("src")
    assert page.locator("#goal img").first.get_attribute("src") == goal and nearness(page) == "this frame"
    page.click('[data-do="reset"]')
    page.wait_for_function("document.querySelector('#count').innerText === '0'")
    page.click('[data-do="go"]')
    page.wait_for_function("document.querySelector('#nearness').innerText === 'reached'")
    page.wait_for_selector('[data-do="go"][aria-pressed="false"]')
    settle(page)
    took = count(page)
    assert 1 <= took <= 150
    page.wait_for_timeout(1000)
    assert count(page) == took, "it stops at the goal"
    assert serious_violations(page) == [] and page.mistakes == []


def test_a_key_takes_the_wheel_back(address, chromium):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    arrive(page, address)
    hold(page, "ArrowLeft", 12)
    page.click('[data-do="goal"]')
    page.wait_for_selector("#goal:not([hidden])")
    page.locator("[data-start]").nth(3).click()
    page.wait_for_function("document.querySelector('#count').innerText === '0'")
    page.click('[data-do="go"]')
    page.wait_for_selector('[data-do="go"][aria-pressed="true"]')
    hold(page, "ArrowUp", 2)
    page.wait_for_selector('[data-do="go"][aria-pressed="false"]')
    settle(page)
    before = count(page)
    page.wait_for_timeout(1000)
    assert count(page) == before and page.mistakes == []
