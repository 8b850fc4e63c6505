"""Visitors: one session for each connected page, none for an invented name."""

import asyncio
import threading

import pytest
from tiny import random_clip, tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import Start
from demos.driving.visitors import VisitorLeft, Visitors


@pytest.fixture
def begin():
    world = tiny_world()
    start = Start(random_clip(world, batch=1, frames=3))
    return lambda: DriveSession(world, start, num_steps=1)


def test_visitors_come_and_go(tmp_path, begin):
    now = [0.0]
    visitors = Visitors(tmp_path, limit=2, idle_seconds=10.0, clock=lambda: now[0])
    for name in ("a1", "b2", "c3"):
        visitors.connect(name)
    first = visitors.work(visitors.enter, "a1", begin)
    visitors.enter("b2", begin).step(["left"])
    assert (first.num_frames, visitors.session("b2").num_frames) == (0, 1)
    with pytest.raises(ValueError, match="2 visitors are driving already"):
        visitors.enter("c3", begin)
    now[0] = 8.0
    visitors.session("b2")
    now[0] = 12.0  # a1 has done nothing for 12 s
    visitors.enter("c3", begin)
    with pytest.raises(ValueError, match="has ended"):
        visitors.session("a1")
    visitors.files("b2").mkdir()
    visitors.leave("b2")
    assert len(visitors) == 1 and not visitors.files("b2").exists()
    visitors.close()
    assert len(visitors) == 0


def test_invented_names_get_no_session(tmp_path, begin):
    visitors = Visitors(tmp_path, limit=2)
    for number in range(5):
        with pytest.raises(VisitorLeft, match="load the page anew"):
            visitors.work(visitors.enter, f"invented{number}", begin)
    for wrong in ("../b2", "", "a" * 65, "b-2", "\u00e9"):
        with pytest.raises(ValueError, match="1 to 64 letters and digits"):
            visitors.connect(wrong)
    visitors.connect("real")
    visitors.work(visitors.enter, "real", begin)
    assert len(visitors) == 1
    visitors.close()


def test_who_leaves_frees_the_place_at_once(tmp_path, begin):
    visitors = Visitors(tmp_path, limit=1)
    visitors.connect("a")
    visitors.connect("a")  # a second connection under the same name, as after a short break
    visitors.work(visitors.enter, "a", begin)
    visitors.disconnect("a")
    assert visitors.is_here("a") and visitors.work(len, visitors) == 1
    visitors.disconnect("a")
    assert not visitors.is_here("a")
    visitors.connect("b")
    visitors.work(visitors.enter, "b", begin)  # not turned away: the place is free
    assert len(visitors) == 1
    with pytest.raises(VisitorLeft):
        visitors.work(visitors.session, "a")
    visitors.close()
    visitors.disconnect("b")  # a page that closes after the server is no error


def test_who_leaves_while_the_thread_works_gets_no_session(tmp_path, begin):
    visitors = Visitors(tmp_path)
    visitors.connect("a")
    held, gone = threading.Event(), threading.Event()

    def slow():
        held.set()
        gone.wait(5)

    threading.Thread(target=visitors.work, args=(slow,)).start()
    held.wait(5)
    visitors.disconnect("a")
    gone.set()
    with pytest.raises(VisitorLeft):
        visitors.work(visitors.enter, "a", begin)
    assert len(visitors) == 0
    visitors.close()


def test_a_page_is_awaited(tmp_path):
    visitors = Visitors(tmp_path)

    async def arrive():
        waiting = asyncio.create_task(visitors.arrival("a", seconds=5))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        visitors.connect("a")
        await waiting

    asyncio.run(arrive())
    with pytest.raises(VisitorLeft):
        asyncio.run(visitors.arrival("invented", seconds=0.05))
    visitors.close()
