"""The demo page, opened in a real browser that may talk to nobody but the page's own server."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
import requests
import torch
from axe import serious_violations
from browser import browser
from driving import arrive, count, hold, look_ahead, open_tab, set_number, settle, wait_for_count
from PIL import Image
from places import ROOT
from tiny import random_clip, tiny_world

from demos.driving.start import Start
from demos.driving.visitors import Visitors
from demos.page.app import DemoConfig, build_page, find_starts, launch
from demos.page.drive import Drive, layout
from worldmodel.data.video.read import count_frames, read_frames
from worldmodel.envs import find_objects
from worldmodel.world_model import WorldModel

DATA = ROOT / "tests" / "data" / "lerobot_v30_pusht"
POLICIES = ROOT / "checkpoints" / "policies" / "pusht-position"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The demo of the shipped PushT world: its address, visitors and folder."""
    out = tmp_path_factory.mktemp("demo")
    torch.set_num_threads(1)
    world = WorldModel.load(ROOT / "checkpoints/pusht").eval()
    judge = ROOT / "checkpoints" / "judges" / "pusht-position"
    page, visitors = build_page(DemoConfig(judge=judge, policies=(POLICIES,)), world, out)
    yield launch(page, visitors, port=None), visitors, out
    page.close()
    visitors.close()


@pytest.fixture(scope="module")
def chromium():
    with browser() as launched:
        yield launched


@pytest.fixture
def visit(chromium):
    """Opens the demo as a new visitor, who notes every request to elsewhere and every mistake."""
    contexts = []

    def open_page(address, **options):
        contexts.append(chromium.new_context(accept_downloads=True, **options))
        page = contexts[-1].new_page()
        page.strangers = []

        def allow_own_server_only(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                page.strangers.append(route.request.url)
                route.abort()

        page.route("**/*", allow_own_server_only)
        arrive(page, address)
        return page

    yield open_page
    for context in contexts:
        context.close()


def decoded(source):
    """The pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def shown(page, kind="dream"):
    """The pictures of a kind, one per camera, as they are on the page."""
    return [decoded(image.get_attribute("src")) for image in page.query_selector_all(f".{kind} img")]


def agent(page, kind="dream"):
    """Where the agent is in the top camera, (x, y) in pixels."""
    return find_objects("pusht", shown(page, kind)[0])["agent"].position


def wait_for_start(page, index):
    """Choose a start from the gallery and wait until it is shown."""
    wanted = page.locator("[data-start] img").nth(index).get_attribute("src")
    page.locator("[data-start]").nth(index).click()
    page.wait_for_function(
        "src => document.querySelector('.dream img').src === src && document.querySelector('#count').innerText === '0'",
        arg=wanted,
    )


def test_driving(served, visit, tmp_path):
    page = visit(served[0])
    wait_for_start(page, 5)  # the agent below the block, with room to the right
    start = agent(page)
    page.keyboard.down("ArrowRight")
    page.wait_for_timeout(3000)
    wait_for_count(page, 5)
    page.keyboard.up("ArrowRight")
    settle(page)
    moved = agent(page, "truth") - start
    assert moved[0] > 3 and abs(moved[1]) < moved[0] / 3, "the simulator goes where the key says"
    dreamed = count(page)

    wait_for_start(page, 5)
    page.keyboard.press("ArrowDown", delay=50)
    wait_for_count(page, 1)
    page.keyboard.press("ArrowDown", delay=50)
    wait_for_count(page, 2)
    assert dreamed >= 5 and page.mistakes == [] and page.strangers == []


def test_the_dream_follows_the_keys(served, visit):
    page = visit(served[0])
    for key, axis, sign in (("d", 0, 1), ("ArrowDown", 1, 1)):
        wait_for_start(page, 5)
        before = agent(page)
        page.keyboard.down(key)
        wait_for_count(page, 2)
        page.keyboard.up(key)
        settle(page)
        moved = agent(page) - before
        assert sign * moved[axis] > 1, f"{key} moved the agent by {moved} pixels"
        assert sign * moved[axis] > abs(moved[1 - axis])


def test_undo_and_reset(served, visit):
    page = visit(served[0])
    page.keyboard.down("ArrowRight")
    wait_for_count(page, 2)
    page.keyboard.up("ArrowRight")
    settle(page)
    between, kept = count(page), shown(page)
    page.locator('[data-key="up"]').hover()
    page.mouse.down()
    wait_for_count(page, between + 2)
    page.mouse.up()
    settle(page)
    stopped = count(page)
    page.wait_for_timeout(300)
    assert count(page) == stopped, "nothing moves when nobody steers"
    page.click('[data-do="undo"]')
    page.wait_for_function(f"document.querySelector('#count').innerText === '{between}'")
    assert all((a == b).all() for a, b in zip(shown(page), kept, strict=True))
    page.click('[data-do="reset"]')
    page.wait_for_function("document.querySelector('#count').innerText === '0'")
    page.click('[data-do="undo"]')
    page.wait_for_selector("#message:has-text('no move left')")
    page.click('[data-do="play"]')  # goes on after a mistake, with nobody at the keys
    wait_for_count(page, 2)
    page.click('[data-do="play"]')
    assert page.inner_text("#message") == ""


def test_recordings_are_downloaded(served, visit, tmp_path):
    page = visit(served[0])
    page.click('[data-do="save"]')
    page.wait_for_selector("#message:has-text('steer first')")
    page.keyboard.down("ArrowLeft")
    wait_for_count(page, 3)
    page.keyboard.up("ArrowLeft")
    settle(page)
    page.click('[data-do="save"]')
    page.wait_for_selector("#files a")
    files = {}
    for link in page.query_selector_all("#files a"):
        with page.expect_download() as download:
            link.click()
        files[link.inner_text()] = tmp_path / link.inner_text()
        download.value.save_as(files[link.inner_text()])
    assert count_frames(files["dream.mp4"]) == count(page) + 1
    last = read_frames(files["dream.mp4"], [count(page)])[0]
    assert last.std() > 10, "not an empty picture"
    shutil.unpack_archive(files["dream-lerobot.zip"], tmp_path)
    assert (tmp_path / "dream" / "meta" / "info.json").is_file()


def test_two_visitors_do_not_mix_and_are_freed(served, visit):
    address, visitors, _ = served
    first, second = visit(address), visit(address)
    wait_for_start(second, 3)
    first.keyboard.down("ArrowRight")
    second.keyboard.down("ArrowUp")
    wait_for_count(first, 4)
    wait_for_count(second, 2)
    first.keyboard.up("ArrowRight")
    second.keyboard.up("ArrowUp")
    second.click('[data-do="reset"]')
    second.wait_for_function("document.querySelector('#count').innerText === '0'")
    assert count(first) >= 4
    start = decoded(second.locator("[data-start] img").nth(3).get_attribute("src"))
    assert (shown(second)[0] == start).all()
    first.context.close()
    for _ in range(600):
        if len(visitors) == 1:
            break
        second.wait_for_timeout(100)
    assert len(visitors) == 1, "a visitor who left is freed"
    second.keyboard.press("ArrowUp", delay=50)
    wait_for_count(second, 1)
    assert first.mistakes == second.mistakes == []


def test_futures_fan_out(served, visit):
    page = visit(served[0])
    look_ahead(page, 5, 3)
    figures = page.query_selector_all("#fan figure")
    assert [figure.inner_text().split("\n")[0] for figure in figures][-1] == "rest"
    films = {figure.query_selector("img").get_attribute("src") for figure in figures}
    assert len(figures) == len(films) == 5, "other actions, other films"
    assert page.locator("#fan figure.best").count() == 1
    scores = [float(text.split()[-1]) for text in page.locator("#fan figure b").all_inner_texts()]
    best = float(page.inner_text("#fan figure.best b").split()[-1])
    assert best == max(scores)
    open_tab(page, "Drive")
    assert count(page) == 0 and page.mistakes == []


def test_policies_are_ranked(served, visit):
    page = visit(served[0])
    open_tab(page, "Policies")
    set_number(page, "#trials", 2)
    set_number(page, "#horizon", 5)
    page.locator("#chosen input:checked").last.uncheck()
    page.click("#rank")
    page.wait_for_selector('.board[data-state="done"]')
    names = [file.parent.name for file in sorted(POLICIES.glob("*/policy.json"))][:2]
    rows = page.locator(".board tbody tr").all_inner_texts()
    assert sorted(row.split("\t")[0].split(". ")[1] for row in rows) == sorted(names)
    assert all("%" in row for row in rows)
    assert page.locator(".board figure img").count() == len(names)
    while page.locator("#chosen input:checked").count():
        page.locator("#chosen input:checked").first.uncheck()
    page.click("#rank")
    page.wait_for_selector("text=choose at least one policy")
    page.locator("#chosen input").first.check()  # the page goes on
    page.get_by_label("the simulator itself").check()
    page.click("#rank")
    page.wait_for_selector("text=Acting in: the simulator itself")
    page.wait_for_selector('.board[data-state="done"]')
    open_tab(page, "Quality")
    page.wait_for_selector(".quality h2")
    assert page.mistakes == [] and page.strangers == []


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LAPTOP = {"viewport": {"width": 1440, "height": 900}}


def test_the_hint_leaves_with_the_first_key(served, visit):
    page = visit(served[0], **LAPTOP)
    assert "Hold an arrow key." in page.inner_text(".hint") and page.locator(".hint kbd").count() == 4
    assert page.eval_on_selector(".hint .by-key", "e => getComputedStyle(e).color") == "rgb(255, 255, 255)", "on black"
    picture, over = (page.locator(place).bounding_box() for place in (".dream .cameras", ".hint"))
    assert picture["y"] < over["y"] and over["y"] + over["height"] < picture["y"] + picture["height"]
    page.keyboard.press("p")  # steers nothing
    assert page.locator(".hint").count() == 1
    hold(page, "ArrowRight", 1)
    assert page.locator(".hint").count() == 0
    page.click('[data-do="reset"]')
    settle(page)
    assert page.locator(".hint").count() == 0 and page.mistakes == []


@pytest.mark.parametrize(("device", "scheme"), [(PHONE, "dark"), (LAPTOP, "light")], ids=["phone", "laptop"])
def test_everybody_can_use_every_tab(device, scheme, served, visit):
    """No tab sticks out, breaks a serious rule of axe-core, or complains in the console."""
    page = visit(served[0], color_scheme=scheme, **device)
    width = device["viewport"]["width"]
    assert serious_violations(page) == [], "with the hint"
    hold(page, "ArrowRight", 1)
    for name in ("Drive", "Counterfactuals", "Policies", "Quality"):
        if name == "Counterfactuals":
            look_ahead(page, 2, 1)
        open_tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} sticks out"
        assert serious_violations(page) == [], name
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")
    assert page.mistakes == []


def test_a_phone(served, visit):
    page = visit(served[0], **PHONE)
    assert "Hold an arrow button below." in page.inner_text(".hint")
    page.tap('[data-key="right"]')
    wait_for_count(page, 1)
    assert page.locator(".hint").count() == 0
    for image in page.query_selector_all(".drive img"):
        assert image.get_attribute("alt")
    assert all(button.inner_text() for button in page.query_selector_all(".drive button.act"))


def test_keys_are_found_by_focus_too(served, visit):
    page = visit(served[0])
    page.focus('[data-key="left"]')
    page.keyboard.down("Enter")
    wait_for_count(page, 2)
    page.keyboard.up("Enter")
    settle(page)
    page.get_by_label("simulator beside the dream").click()
    page.wait_for_selector(".screens:not(.beside)")
    page.keyboard.press("ArrowRight", delay=50)  # a box with a tick leaves the keys alone
    wait_for_count(page, 1)
    settle(page)
    page.focus("#dials input[type=number]")
    steps = count(page)
    page.keyboard.press("ArrowUp")  # changes the number and does not steer
    page.wait_for_timeout(300)
    assert count(page) == steps


def test_only_the_output_folder_is_served(served):
    address, _, out = served
    (out / "x1").mkdir(exist_ok=True)
    (out / "x1" / "dream.mp4").write_text("mine")
    assert requests.get(f"{address}gradio_api/file={out}/x1/dream.mp4").text == "mine"
    for path in (ROOT / "pyproject.toml", out.parent, f"{out}/../x", "/etc/passwd"):
        assert requests.get(f"{address}gradio_api/file={path}").status_code in (403, 404)
    upload = {"files": ("big.bin", b"many bytes")}
    assert requests.post(f"{address}gradio_api/upload", files=upload).status_code >= 400


def test_wrong_commands_are_messages(served):
    _, visitors, _ = served
    world = tiny_world(size=(32, 32))
    starts, fresh, source = find_starts(DemoConfig(data=DATA, real="pusht"), world)
    assert source.name == str(DATA)
    visitors.connect("v")
    drive = Drive(world, starts, visitors, ("x", "y"), fresh)
    good = '"visitor": "v", "num_steps": 2, "speed": 0.5, "seed": 0, "beside": false'
    strange, invented = (good.replace('"v"', f'"{name}"') for name in ("../v", "invented"))
    wrong = {
        "no json": "is JSON",
        "[]": "JSON object",
        "{" + " " * 3000 + "}": "at most 2000",
        '{"do": "step"}': "visitor is of type str",
        f'{{{good}, "do": "step"}}': "this session has ended",
        f'{{{good}, "do": "start", "index": 99}}': "start is 0 to 7, got 99",
        f'{{{good}, "do": "start", "index": true}}': "index is of type int, got True",
        f'{{{good.replace("0.5", "7")}, "do": "start"}}': "speed is above 0",
        f'{{{good.replace(": 2", ": 200")}, "do": "start"}}': "num_steps is one of",
        f'{{{strange}, "do": "start"}}': "connection of this page has ended",
        f'{{{invented}, "do": "start"}}': "connection of this page has ended",
    }
    for text, message in wrong.items():
        assert message in drive.command(text)["error"], text
    assert drive.command(f'{{{good}, "do": "start", "index": 7}}')["step"] == 0
    for fields, message in (('"do": "fly"', "no command 'fly'"), ('"do": "step", "keys": ["p"]', "keys")):
        assert message in drive.command(f"{{{good}, {fields}}}")["error"]
    assert drive.command(f'{{{good}, "do": "step", "keys": ["up"]}}')["step"] == 1
    visitors.disconnect("v")


def test_any_world(tmp_path):
    """Three cameras, seven action dims, no simulator: the page needs no change."""
    world = tiny_world(views=("a", "b", "c <i>"), action_dim=7, state_dim=0, relative_to={})
    start = Start(random_clip(world, batch=1))
    names = tuple(f"joint {number}" for number in range(7))
    text = layout(Drive(world, [start], Visitors(tmp_path), names, None))
    assert text.count("data-key=") == 14 and text.count("data-start=") == 1
    assert "c &lt;i&gt;" in text and "joint 6 +" in text and "New start" not in text
