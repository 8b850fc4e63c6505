"""The part on which a policy drives, in a real browser, and what stands behind it."""

import pytest
import torch
from axe import serious_violations
from browser import browser
from driving import arrive, open_tab, set_number
from places import ROOT
from tiny import random_clip, tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import Start
from demos.driving.visitors import VisitorLeft, Visitors
from demos.page.app import DemoConfig, build_page, launch
from demos.page.policies import RankingSetup, find_policies
from demos.page.steering import run_policy
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.steering.saved import SteeredDescription, save_steered
from worldmodel.dreams.verdict import Verdict
from worldmodel.world_model import WorldModel

SIZE = (16, 24)
ME = "me"


def judge(seen):
    """The further to the right, the better; never a success."""
    return Verdict(seen.states[:, 0], torch.zeros(len(seen.states), dtype=torch.bool))


@pytest.fixture
def setup(tmp_path):
    """One policy and one that is steered, with a visitor who drives."""
    torch.manual_seed(0)
    config = PolicyConfig(("top",), SIZE, 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)
    ClonedPolicy(config).save(tmp_path / "policies" / "one")
    world = tiny_world(size=SIZE)
    world.save(tmp_path / "world")
    described = SteeredDescription(str(tmp_path / "policies" / "one"), str(tmp_path / "world"), scorer="random")
    save_steered(described, tmp_path / "policies" / "two")
    policies, others = find_policies([tmp_path / "policies"], world)
    assert list(policies) == ["one", "two"] and others == []
    assert len(find_policies([tmp_path / "policies"], tiny_world(size=(16, 16)))[1]) == 2, "its own policy does not fit"
    visitors = Visitors(tmp_path / "out")
    visitors.connect(ME)
    start = Start(random_clip(world, batch=1, frames=3))
    visitors.work(visitors.enter, ME, lambda: DriveSession(world, start, num_steps=1))
    yield RankingSetup(world, judge, "pusht-position", policies, {}, {}, visitors)
    visitors.close()


def test_the_switch_shows_the_fan(setup):
    """Two frames and the end; three futures, one of them marked, only where the policy is steered."""
    pages = list(run_policy(setup, ME, "one", steered=True, plans=3, frames=2))
    assert [page.count('data-state="busy"') for page in pages] == [1, 1, 0]
    assert 'data-state="done" data-step="2"' in pages[-1] and "not solved" in pages[-1]
    assert 'data-count="3"' in pages[0] and pages[0].count('<figure class="best">') == 1
    alone = list(run_policy(setup, ME, "one", steered=False, plans=3, frames=1))
    assert "futures" not in alone[-1]
    (control, _) = run_policy(setup, ME, "two", steered=True, plans=3, frames=1)
    assert "futures" not in control, "it takes a plan at random and imagines nothing"
    with pytest.raises(ValueError, match="choose among one"):
        next(run_policy(setup, ME, "nobody", steered=True, plans=3, frames=1))


def test_the_drive_of_someone_who_left_ends_at_once(setup):
    running = run_policy(setup, ME, "one", steered=True, plans=2, frames=50)
    next(running)
    setup.visitors.disconnect(ME)
    with pytest.raises(VisitorLeft):
        next(running)


@pytest.mark.slow
def test_a_policy_drives_in_the_browser(tmp_path):
    """The future that it chose has the highest score; without the switch there is none."""
    torch.set_num_threads(1)
    world = WorldModel.load(ROOT / "checkpoints/pusht").eval()
    policy = ROOT / "checkpoints" / "policies" / "pusht-position" / "chunk-4"
    config = DemoConfig(judge=ROOT / "checkpoints" / "judges" / "pusht-position", policies=(policy,))
    page, visitors = build_page(config, world, tmp_path)
    address = launch(page, visitors, port=None)
    with browser() as launched:
        seen = launched.new_page(viewport={"width": 1200, "height": 900})
        arrive(seen, address)
        open_tab(seen, "Policies")
        set_number(seen, "#steered-frames", 5)
        seen.click("#let-it-drive")
        seen.wait_for_selector('.steering[data-state="done"]')
        assert seen.locator("#policy-drive .futures figure").count() == 4
        assert seen.locator("#policy-drive figure.best").count() == 1
        scores = [float(text.split()[-1]) for text in seen.locator("#policy-drive .futures b").all_inner_texts()]
        assert float(seen.inner_text("#policy-drive figure.best b").split()[-1]) == max(scores)
        seen.screenshot(path=tmp_path / "steering.png", full_page=True)
        assert serious_violations(seen) == []
        seen.set_viewport_size({"width": 390, "height": 844})
        assert seen.evaluate("document.documentElement.scrollWidth") <= 390, "sticks out on a phone"
        seen.locator("#steered input").uncheck()
        seen.click("#let-it-drive")
        seen.wait_for_function("!document.querySelector('#policy-drive .futures')")
        seen.wait_for_selector('.steering[data-state="done"]')
        assert seen.mistakes == []
        open_tab(seen, "Drive")
        assert seen.inner_text("#count") == "0", "the drive stays where it is"
    page.close()
    visitors.close()
