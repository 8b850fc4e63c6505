"""The table of world models: what is measured in a world that knows, and in one that copies."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes, TellingWorld, tiny_world
from places import BENCHMARKS, LEROBOT_V30, ROOT
from run_page import write_files
from tiny import random_clip

from policy_eval.evaluation import evaluate
from worldmodel.data import open_episodes
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import as_verdict
from worldmodel.fidelity.scores import ScoreTable
from worldmodel.fidelity.windows import Window

sys.path.insert(0, str(BENCHMARKS))
leaderboard = pytest.importorskip("leaderboard")
worlds = pytest.importorskip("leaderboard_worlds")

CPU = torch.device("cpu")


def config(tmp_path, **settings):
    return leaderboard.Leaderboard(data=tmp_path / "data", out=tmp_path / "out", **settings)


def brighter(episode, frame):
    return 60 + (1 + 2 * (episode % 2)) * frame


def test_a_world_is_named_by_folder_control_or_module(tmp_path, monkeypatch):
    tiny_world().save(tmp_path / "world")
    folder = str(tmp_path / "world")
    assert type(worlds.load_entrant(folder, CPU)).__name__ == "WorldModel"
    assert isinstance(worlds.load_entrant(f"copy-last:{folder}", CPU), CopyLastWorld)
    assert isinstance(worlds.load_entrant(f"hold:{folder}", CPU), worlds.HoldingWorld)
    write_files(ROOT / "docs" / "extend" / "rival.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    rival = worlds.load_entrant("rival:Rival", CPU)
    assert rival.views == ("top", "wrist") and rival.size == (64, 64)
    (tmp_path / "half.py").write_text("class Half:\n    views = ('top',)\n    size = (8, 8)\n")
    with pytest.raises(
        ValueError, match=r"^world half:Half: it has no fps, no stride, no action_dim, no state_dim, no"
    ):
        worlds.load_entrant("half:Half", CPU)


def test_the_control_without_actions_asks_the_robot_to_stay():
    world = tiny_world()
    clip = random_clip(world, batch=2, frames=8)
    stream = worlds.HoldingWorld(world).stream(clip, seeds=[0, 1])
    expected = world.stream(clip, seeds=[0, 1]).step(clip.states[:, -1], num_steps=1)
    found = stream.step(torch.full((2, 2), 99.0), num_steps=1)
    assert torch.equal(found.frames, expected.frames) and torch.equal(stream.observation.states, expected.states)
    stream.reset(torch.tensor([1]), clip.rows([0]), seeds=[0])
    assert torch.equal(stream.observation.frames[1], clip.frames[0, -1])


def test_policies_act_in_a_world_of_another_kind(tmp_path, monkeypatch):
    """The world of docs/extend/rival.md has no more than it must; the policy could say what it will do next."""

    class Still:
        def reset(self, seeds):
            self.asked = 0

        def act(self, observation):
            self.asked += 1
            return observation["observation.state"]

        def ahead(self):
            return []

    write_files(ROOT / "docs" / "extend" / "rival.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    starts, policy = Starts(open_episodes(LEROBOT_V30, (64, 64)), [0, 1]), Still()
    never = lambda seen: torch.zeros(len(seen.frames)).bool()  # noqa: E731
    judge = lambda seen: as_verdict(never(seen), len(seen.frames))  # noqa: E731
    world = worlds.load_entrant("rival:Rival", CPU)
    env = DreamEnv(world, starts, judge, num_envs=2, horizon=3, autoreset_mode="DISABLED")
    found = evaluate(policy, env, horizon=3)
    assert found.outcomes.tolist() == [0, 0] and found.steps.tolist() == [3, 3] and policy.asked == 3


def test_dreams_follow_the_actions_of_their_own_window_or_of_another(tmp_path):
    """Frames brighten by the action; window 0 under the actions of window 1 brightens by 3 in place of 1."""
    source = DrawnEpisodes([40, 40], brighter, action=lambda e, t: 1 + 2 * (e % 2) + 0 * t)
    world = TellingWorld(tiny_world(relative=False).config).eval()
    windows = [Window(0, 0), Window(1, 0)]
    mine, seconds = leaderboard.dreamed(world, source, windows, windows, config(tmp_path, clock="cpu"))
    other, _ = leaderboard.dreamed(world, source, windows, windows[::-1], config(tmp_path))
    assert mine[:, [0, 24], 0, 0, 0, 0].tolist() == [[68, 92], [84, 156]] and seconds > 0
    assert other[:, [0, 24], 0, 0, 0, 0].tolist() == [[70, 142], [82, 106]]
    scores, truth = ScoreTable(), torch.stack([source.read(e, 0, 33).frames for e in (0, 1)])
    leaderboard.add_scores(scores, source, truth, mine, other)
    found = scores.summary(np.array([0, 1]), seed=0)
    levels = {10: 20, 25: 50}
    for horizon, off in levels.items():
        gap = 50 + 20 * np.log10(off / 255)
        assert found["action_gap"][str(horizon)] == pytest.approx(gap, rel=1e-4)
    assert found["masked_psnr"]["25"] == pytest.approx(50) and found["object_error_px"]["10"] is None


def test_objects_are_compared_in_their_camera():
    source = open_episodes(LEROBOT_V30, (64, 64))
    frames = source.read(0, 0, 34).frames[None]
    at = frames[:, [17, 32]]
    assert leaderboard.object_errors(source, frames, at).tolist() == [[0.0, 0.0]]
    assert leaderboard.object_errors(source, frames, torch.zeros_like(at)).tolist() == [[32.0, 32.0]]


def test_figures_of_other_settings_are_not_mixed(tmp_path):
    mine = config(tmp_path, windows=3)
    leaderboard.check_settings(mine)
    leaderboard.check_settings(replace(mine, only=("ours",), worlds={"ours": "a"}))
    with pytest.raises(ValueError, match=r"settings.json: windows is 3, now it is 4; choose another --out"):
        leaderboard.check_settings(replace(mine, windows=4))


def test_a_world_that_knows_the_recordings_is_refused(tmp_path):
    source, world = open_episodes(LEROBOT_V30), tiny_world(size=(64, 64))
    world.train_data = [
        {"fingerprint": source.fingerprint, "episodes": [2, 3], "robot_type": "pusht", "reset_seeds": None}
    ]
    with pytest.raises(ValueError, match=r"the world mine was trained on 2 of its"):
        leaderboard.open_data(replace(config(tmp_path), data=LEROBOT_V30), "mine", world)
    leaderboard.open_data(replace(config(tmp_path), data=LEROBOT_V30), "theirs", tiny_world(size=(64, 64)))


def test_the_table_is_sorted_by_the_correlation():
    def result(r, speed):
        by_horizon = {"10": 20.0, "25": None}
        metrics = dict.fromkeys(("masked_psnr", "object_error_px", "action_gap"), by_horizon)
        ends = {name: {"10": [19.0, 21.0], "25": None} for name in metrics}
        pearson = None if r is None else {"value": r, "low": r - 0.1, "high": r + 0.05}
        return {"dreams": {**metrics, "intervals": ends, "frames_per_second": speed}, "pearson": pearson}

    found = {"worse": result(0.5, 40.2), "none": result(None, 9.0), "better": result(0.9, 10.0)}
    lines = leaderboard.rows(json.loads(json.dumps(found))).splitlines()
    assert lines[0].endswith("| action gap, dB, at 25 | r over policies | frames/s |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| better", "| worse", "| none"]
    assert lines[2].endswith("| 20.0 [19.0, 21.0] | - | 0.90 [0.80, 0.95] | 10 |")
    assert lines[4].endswith("| - | - | 9 |")
