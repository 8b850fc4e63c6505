"""Driving to a goal: every frame is brighter than the one before by the action, and so is the judge's distance."""

import pytest
from brightness import by_brightness, grey
from drawn_episodes import TellingWorld, tiny_world
from tiny import random_clip

from demos.driving import go_there
from demos.driving.go_there import GoThere
from demos.driving.session import DriveSession
from demos.driving.start import Start
from demos.driving.visitors import Visitors
from demos.page.drive import Drive, layout
from demos.page.goals import Goals, find_goal_judge
from worldmodel.data.clip import Clip

ME = "me"


@pytest.fixture
def session():
    """A dream that begins at brightness 100; a push of 1 is one grey level."""
    world = TellingWorld(tiny_world(relative=False).config).eval()
    clip = random_clip(world, batch=1, frames=1)
    return DriveSession(world, Start(Clip(grey(100)[None], None, clip.states)), num_steps=1, speed=1.0)


def level(session) -> int:
    return int(session.now.frames[0, 0, 0, 0])


@pytest.mark.parametrize("goal", [112, 91])
def test_the_planner_drives_to_the_goal_and_stops_there(session, goal):
    drive = GoThere(by_brightness(grey(goal), farthest=40))
    away = [drive.steps(session.now)]
    while drive.step(session):
        away.append(drive.steps(session.now))
        assert len(away) < 60
    assert abs(level(session) - goal) <= 1 and away[-1] < 1.5 and session.num_frames == len(away) - 1
    assert not drive.step(session), "there is nothing left to do"
    before = level(session)
    session.undo()
    assert level(session) != before, "a planned frame can be taken back"


def test_a_plan_is_carried_out_up_to_its_best_frame(session):
    """Brightness grows by at most 1 a frame: the goal 3 levels off is best reached by the third frame of a held key."""
    _, near = GoThere(by_brightness(grey(103), farthest=40)).choose(session)
    _, far = GoThere(by_brightness(grey(130), farthest=40)).choose(session)
    assert (near, far) == (3, 4)


def test_a_drive_ends_where_it_comes_no_nearer(session, monkeypatch):
    """More than 40 levels are all the same to the judge, so no frame is nearer than the first."""
    monkeypatch.setattr(go_there, "PATIENCE", 3)
    drive = GoThere(by_brightness(grey(250), farthest=40))
    assert [drive.step(session) for _ in range(4)] == [True, True, True, False]
    assert session.num_frames == 3 and drive.step(session), "and can go on when asked again"


def test_the_goal_outlives_a_new_start_and_the_plan_does_not(session, tmp_path):
    visitors = Visitors(tmp_path)
    visitors.connect(ME)
    goals = Goals(by_brightness(grey(0), farthest=40), visitors)
    with pytest.raises(ValueError, match="there is no goal yet"):
        goals.go(ME, session)
    for _ in range(3):
        session.step(["right"])
    assert len(goals.set(ME, session)["goal"]) == 2
    session.reset()
    assert level(session) == 100
    told = goals.go(ME, session)
    assert told["going"] and told["nearness"].endswith("away")
    goals.stop(ME)
    while goals.go(ME, session)["going"]:
        assert session.num_frames < 40
    assert abs(level(session) - 103) <= 1 and goals.go(ME, session) == {"going": False, "nearness": "reached"}
    visitors.close()


def test_the_page_offers_goals_where_there_is_a_judge(session, tmp_path):
    visitors = Visitors(tmp_path)
    visitors.connect(ME)
    judge = by_brightness(grey(0), farthest=40)
    assert find_goal_judge(judge, session.world) is judge
    assert find_goal_judge(None, session.world) is None, "the shipped one looks at other pictures"
    options = (session.world, [session.start], visitors, ("x", "y"), None)
    drive, without = Drive(*options, Goals(judge, visitors)), Drive(*options)
    assert 'data-do="go"' in layout(drive) and 'data-do="go"' not in layout(without)
    ask = '{{"visitor": "me", "do": "{}", "num_steps": 1, "speed": 1.0, "seed": 0, "beside": false, "keys": ["right"]}}'
    for do in ("start", "step", "goal", "reset"):
        assert "error" not in drive.command(ask.format(do))
    said = drive.command(ask.format("go"))
    assert said["step"] in (0, 1) and set(said) == {"step", "panels", "going", "nearness"}
    assert without.command(ask.format("start")) and "no command 'go'" in without.command(ask.format("go"))["error"]
    visitors.close()
