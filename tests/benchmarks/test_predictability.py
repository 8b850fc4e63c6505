"""How predictable the block is: what slips in the simulator, and what is said of dreams that are known."""

import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from places import BENCHMARKS

from worldmodel.fidelity.windows import Window

sys.path.insert(0, str(BENCHMARKS))
script = pytest.importorskip("predictability")
tables = pytest.importorskip("predictability_dreams")

FRAMES, SEEDS = 62, (11, 12, 13)
WINDOWS = [Window(episode, start) for episode in range(3) for start in (0, 4)]


def actions_after_the_block(env, seed):
    """The agent runs after the block, but not to the walls, so that it is pushed now and then."""
    env.reset(seed=seed)
    for number in range(FRAMES - 1):
        target = env.block_centre + 60 * np.array([np.cos(number / 9), np.sin(number / 9)])
        target = np.float32(target.clip(130, 380))
        yield target
        env.step(target)


class Played(DrawnEpisodes):
    """Episodes of PushT that the simulator plays and draws; no video is packed, so replays are exact."""

    def __init__(self):
        super().__init__([FRAMES] * 3, size=(64, 64), views=("top",), reset_seeds=SEEDS, robot_type="pusht")
        self.env = script.Physics()
        self.told = [torch.tensor(np.stack(list(actions_after_the_block(self.env, seed)))) for seed in SEEDS]
        self.played = []
        for seed, told in zip(SEEDS, self.told, strict=True):
            self.played.append(script.replay(self.env, seed, told.numpy(), 0, lambda env: None))

    def frames(self, episode, index):
        drawn = [self.env.drawn(self.played[episode][i]).copy() for i in index.tolist()]
        return torch.from_numpy(np.stack(drawn))[:, None]

    def states(self, episode, index):
        return torch.from_numpy(self.played[episode][index.numpy(), :2]).float()

    def read(self, episode, start, stop, stride=1):
        clip = super().read(episode, start, stop, stride)
        clip.actions[:] = self.told[episode][start : stop - 1]
        return clip


@pytest.fixture(scope="module")
def source():
    return Played()


@pytest.fixture(scope="module")
def truth(source):
    return script.truth_of(source.env, source, range(3))


def test_block_and_agent_slip_by_what_was_asked_for():
    env = script.Physics()
    env.reset(seed=3)
    centre, angle, agent = env.block_centre, env.block.angle, env.agent_position
    script.slip(env, script.Slip(block=0.5), np.random.default_rng(0))
    assert np.linalg.norm(env.block_centre - centre) == pytest.approx(4) and env.block.angle == angle
    assert (env.agent_position == agent).all()
    centre = env.block_centre
    script.slip(env, script.Slip(turn=2.0), np.random.default_rng(0))
    assert abs(np.degrees(env.block.angle - angle)) == pytest.approx(2)
    assert env.block_centre == pytest.approx(centre)  # it turns about its centre of gravity
    script.slip(env, script.Slip(agent=0.25), np.random.default_rng(0))
    assert np.linalg.norm(env.agent_position - agent) == pytest.approx(2)


def test_a_replay_repeats_the_episode_until_something_slips(source):
    told, played = source.told[0].numpy(), source.played[0]
    exact = script.replay(source.env, SEEDS[0], told[:40], 15, lambda env: None)
    assert np.array_equal(exact, played[15:41])

    def slipped(again):
        rng = np.random.default_rng(0)
        change = partial(script.slip, how=script.Slip(block=0.1), rng=rng)
        return script.replay(source.env, SEEDS[0], told[:40], 15, change, again=again)

    once, always = slipped(False), slipped(True)
    assert np.linalg.norm(once[0, 2:4] - played[15, 2:4]) == pytest.approx(0.8)
    pushed = np.flatnonzero(np.abs(np.diff(once[:, 2:], axis=0)).max(1) > 0.02)
    assert len(pushed) and np.array_equal(always[: pushed[0] + 1], once[: pushed[0] + 1])
    assert np.linalg.norm((always - once)[pushed[0] + 1, 2:4]) == pytest.approx(0.8)


def test_a_recording_of_something_else_is_refused(source):
    class Elsewhere(Played):
        def __init__(self):
            self.__dict__.update(source.__dict__)

        def states(self, episode, index):
            return super().states(episode, index) + 0.5

    with pytest.raises(ValueError, match=r"^drawn: the replay of episode 1 is up to 0\.5 units off$"):
        script.truth_of(source.env, Elsewhere(), [1])


def test_an_exact_replay_has_no_error_and_a_slip_has_its_own(source, truth, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "SLIPS", {"nothing": script.Slip(), "far": script.Slip(block=1.0)})
    rows = script.Rows(script.Predictability(data=tmp_path, out=tmp_path, draws=1), source, WINDOWS)
    script.add_slips(rows, source.env, source, truth)
    script.add_world(rows, source.env, source, truth, rows.frames[:, 8:])
    report = rows.report()
    for name in ("nothing", script.WORLD):
        assert report[name]["error_px"] == {str(h): 0.0 for h in script.HORIZONS}
    assert 0.5 < report["far"]["error_px"]["1"] < 2
    assert report[script.FROM_DREAM] == report[script.FROM_RECORDING]
    assert report[script.FROM_DREAM]["error_px"]["5"] < 0.2
    text = script.slip_tables(report, script.NAMES, script.HORIZONS, script.TITLES)
    assert "| nothing | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 |" in text and "while it moves" in text


def test_a_row_is_made_once(source, tmp_path):
    rows = script.Rows(script.Predictability(data=tmp_path, out=tmp_path), source, WINDOWS)
    draws = []

    def pictures(draw):
        draws.append(draw)
        return rows.frames[:, [tables.LAST_CONTEXT + draw + h - 1 for h in script.HORIZONS]]

    rows.add("early and right", pictures, draws=2)
    again = script.Rows(rows.config, source, WINDOWS)
    again.add("early and right", pictures, draws=2)
    assert draws == [0, 1] and again.report() == rows.report()
    early = rows.errors(pictures(0))["error_px"].nanmean(0)[-1]
    assert rows.report()["early and right"]["error_px"]["50"] == pytest.approx(float(early) / 2)


def test_the_state_is_read_off_a_picture(source):
    state = source.played[0][30]
    off = state + np.array([3.0, -2.0, 4.0, 3.0, 0.06])
    found = tables.read_state(source.env, source.env.drawn(off), state)
    assert found == pytest.approx(off, abs=0.3) and found[4] == pytest.approx(off[4], abs=0.005)
    source.env.put(found)
    assert source.env.state == pytest.approx(found)


def test_motion_is_that_of_the_corners_in_pixels_of_64():
    corners = np.array([[-30.0, 0.0], [30.0, 0.0]])
    states = np.array([[0, 0, 100, 100, 0], [9, 9, 108, 100, 0], [9, 9, 108, 100, 0.1]], float)
    motion = tables.Truth(np.zeros((2, 2)), states, corners).motion(0, 2)
    assert motion == pytest.approx([1.0, 60 * np.sin(0.05) / 8])


def test_frames_are_told_apart_by_the_motion_of_the_block():
    groups = tables.groups_of(np.array([0.01, 0.2, 0.2, 0.8]), np.array([0.3, 0.01, 0.3, 0.01]))
    assert [group.tolist() for group in groups.values()] == [
        [True, False, False, False],
        [False, True, False, True],
        [False, True, True, False],
        [False, False, False, True],
    ]


def row_of(text, name):
    """The cells of a row without intervals."""
    return re.sub(r" \[[^]]*\]", "", next(line for line in text.splitlines() if line.startswith(f"| {name}"))).split(
        " | "
    )


def test_one_frame_that_is_right_and_one_that_stands_still(source, truth):
    windows = [Window(episode, start) for episode in range(3) for start in range(0, 50, 7)]
    frames = tables.recorded(source, windows, 1)[:, tables.LAST_CONTEXT :]
    right, still = (tables.one_frame_table(source, windows, truth, frames[:, [i]], source.env, 0) for i in (1, 0))
    fast = row_of(right, "it is pushed by 0.5 px or more")
    assert int(fast[1]) > 3 and fast[3:5] == ["0.00", "1.00"] and fast[7] == "0.00 |"
    assert fast[5] == fast[6] and float(fast[5]) < 0.2
    fast = row_of(still, "it is pushed by 0.5 px or more")
    assert fast[2] == fast[3] != "0.00" and fast[4] == "0.00"
    assert float(fast[5]) > 1 > float(fast[6])
    assert row_of(still, "the block rests")[4] == "-"


def test_the_error_of_a_dream_that_stands_still_grows_in_pushes(source, truth):
    frames = tables.recorded(source, WINDOWS, 50)
    right, still = frames[:, 8:], frames[:, [tables.LAST_CONTEXT]].expand(-1, 50, -1, -1, -1)
    text = tables.growth_table(source, WINDOWS, truth, right, 0)
    assert row_of(text, "it is pushed by 0.5 px or more")[2:] == ["0.00", "0.00", "+0.00 |"]
    text = tables.growth_table(source, WINDOWS, truth, still, 0)
    fast, rests = (row_of(text, name) for name in ("it is pushed by 0.5 px or more", "the block rests"))
    assert float(fast[2]) > 0.1 > abs(float(rests[2])) and float(fast[3]) > 0.1
    cells = [line.split(" | ") for line in tables.pushed_table(source, WINDOWS, truth, still, 0).splitlines()[4:]]
    assert sum(int(cell[1]) for cell in cells) == len(WINDOWS)
    assert all(cell[2] == cell[3] for cell in cells)


def test_the_object_of_push_is_moved_by_pixels_of_the_picture():
    try:
        import worldmodel.envs.metaworld.headless  # noqa: F401
    except ValueError as error:  # it names the package that is missing
        pytest.skip(str(error))
    push = pytest.importorskip("predictability_push")
    env = push.Physics("metaworld:push-v3", time_limit=10**6)
    actions = np.zeros((12, 4), np.float32)
    still, moved = (push.replayed(env, 5, actions, 9, px, 0.7) for px in (0.0, 0.5))
    assert np.array_equal(still, push.replayed(env, 5, actions, 9, 0.0, 0.0)) and len(still) == 3
    assert np.linalg.norm(moved[0] - still[0]) == pytest.approx(0.5, abs=0.03)
