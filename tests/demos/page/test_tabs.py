"""What stands behind the tabs of the demo beside the drive, without a browser."""

import base64
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes, never
from mine import POLICIES, write_module
from PIL import Image
from tiny import random_clip, tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import Start
from demos.driving.visitors import VisitorLeft, Visitors
from demos.page.app import DemoConfig, find_judge, find_task
from demos.page.futures import look_ahead
from demos.page.live_ranking import FIRST_SEED, FreshEpisodes, make_envs, rank_live, recorded_starts
from demos.page.policies import (
    DREAM,
    NOTHING_HAPPENS,
    SIMULATOR,
    RankingSetup,
    find_policies,
    find_worlds,
    run_ranking,
    stored_trials,
)
from demos.page.quality import panels, quality, read_report
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.scores import Scores
from worldmodel.data.video.write import write_video
from worldmodel.envs import make_env
from worldmodel.streaming.state import Observation

VIEWS, SIZE = ("top", "wrist"), (32, 32)
TASK = "pusht-position"
ME = "me"


def policy_folder(folder, **settings):
    torch.manual_seed(0)
    config = {"views": VIEWS, "size": SIZE, "action_dim": 2, "state_dim": 2} | settings
    ClonedPolicy(PolicyConfig(**config)).save(folder)
    return folder


@pytest.fixture
def ranking_setup(tmp_path):
    visitors = Visitors(tmp_path / "out")
    visitors.connect(ME)
    folder = tmp_path / "policies"
    for name in ("a", "b"):
        policy_folder(folder / name, action_noise=float(name == "b"))
    policy_folder(folder / "other-robot", action_dim=3)
    policy_folder(folder / "other-pictures", size=(64, 64))
    trials = Scores("a", np.arange(4), np.array([1.0, 1, 1, 0]), np.zeros(4), np.ones(4, int))
    (folder / "real.json").write_text(json.dumps({"a": trials.to_json()}))
    world = tiny_world(size=SIZE)
    policies, others = find_policies([folder], world)
    assert [other.split(": ", 1)[1] for other in others] == [
        "it has size [64, 64], the world model [32, 32]",
        "it has action_dim 3, the world model 2",
    ]
    judge = LearnedJudge(JudgeShape(VIEWS, SIZE))
    real = stored_trials([folder], policies)
    yield RankingSetup(world, judge, TASK, policies, {}, real, visitors)
    visitors.close()


def test_starts_are_those_of_the_simulator():
    source = FreshEpisodes(TASK, tiny_world(size=SIZE), range(FIRST_SEED, FIRST_SEED + 2))
    observation, _ = make_env(TASK, size=32).reset(seed=FIRST_SEED + 1)
    clip = source.read(1, 0, 1)
    assert (clip.frames[0, 1].numpy() == observation["observation.images.wrist"]).all()
    assert (clip.states[0].numpy() == observation["observation.state"]).all()
    assert source.reset_seed(1) == FIRST_SEED + 1
    with pytest.raises(ValueError, match=r"no \['observation.images.side'\]"):
        FreshEpisodes(TASK, tiny_world(size=SIZE, views=("side",)), range(2))


def test_only_what_fits_is_offered(ranking_setup, tmp_path):
    assert list(ranking_setup.policies) == ["a", "b"]
    assert (ranking_setup.real["a"].score, ranking_setup.real["a"].n) == (0.75, 4) and "b" not in ranking_setup.real
    ranking_setup.world.save(tmp_path / "worlds" / "one")
    ranking_setup.world.save(tmp_path / "worlds" / "two")
    tiny_world(size=(16, 24)).save(tmp_path / "worlds" / "other")
    assert list(find_worlds(tmp_path / "worlds" / "one", ranking_setup.world)) == ["two"]
    judge, remark = find_judge(DemoConfig(), ranking_setup.world)  # the default judge may be left out
    assert judge is None and "Without scores" in remark
    with pytest.raises(ValueError, match=r"judge\.json is missing"):
        find_judge(DemoConfig(judge=tmp_path), ranking_setup.world)
    ranking_setup.judge.save(tmp_path / "judge")
    assert find_judge(DemoConfig(judge=tmp_path / "judge"), ranking_setup.world)[0] is not None
    with pytest.raises(ValueError, match=r"looks at .*\(32, 32\).*the frames to judge are .*\(64, 64\)"):
        find_judge(DemoConfig(judge=tmp_path / "judge"), tiny_world(size=(64, 64)))


def test_the_order_grows_policy_by_policy(ranking_setup):
    envs = make_envs(ranking_setup.world, ranking_setup.judge, TASK, trials=3, horizon=2, num_steps=1, simulator=True)
    steps = []
    work = ranking_setup.visitors.work
    seen = list(rank_live(ranking_setup.policies, envs, horizon=2, work=work, stepped=lambda: steps.append(1)))
    assert [(each.acting, len(each.scores)) for each in seen] == [("a", 0), ("b", 1), ("", 2)]
    assert len(steps) == 4  # two steps of each policy, three trials at once
    assert all(score.n == 3 for score in seen[-1].scores.values())
    assert seen[-1].films["a"].frames.shape == (3, 2, 32, 32, 3)


@pytest.mark.parametrize("place", [DREAM, SIMULATOR, NOTHING_HAPPENS])
def test_a_ranking_anywhere(ranking_setup, place):
    *_, board = run_ranking(ranking_setup, ME, ["b", "a"], place, trials=2, horizon=2, num_steps=1)
    assert 'data-state="done"' in board and board.count("<figure>") == 2
    assert "75% <small>" in board and place in board


def test_films_are_as_fast_as_the_robot(ranking_setup):
    """10 frames/s were recorded and every second one is dreamed: 200 ms each."""
    world = tiny_world(size=SIZE, stride=2)
    *_, board = run_ranking(replace(ranking_setup, world=world), ME, ["a"], DREAM, trials=1, horizon=2, num_steps=1)
    encoded = re.search(r"data:image/webp;base64,([^\"]+)", board)[1]
    film = Image.open(io.BytesIO(base64.b64decode(encoded)))
    film.seek(1)
    film.load()
    assert film.info["duration"] == 200


def test_recorded_starts_where_there_is_no_simulator(ranking_setup):
    """A robot that was only recorded: no reset seeds, actions within the range of the data."""
    source = DrawnEpisodes((6, 7, 8), size=SIZE)
    setup = replace(ranking_setup, task=source)
    assert SIMULATOR not in setup.places and setup.most_trials == 3
    assert recorded_starts(source, 3).episodes == (0, 1, 2)
    assert recorded_starts(DrawnEpisodes((6,) * 5, size=SIZE), 2).episodes == (0, 2)
    envs = make_envs(setup.world, setup.judge, source, trials=2, horizon=2, num_steps=1, simulator=False)
    assert envs.single_action_space.high.tolist() == pytest.approx([2.6, 2.6])
    *_, board = run_ranking(setup, ME, ["b", "a"], DREAM, trials=3, horizon=2, num_steps=1)
    assert 'data-state="done"' in board and board.count("<figure>") == 2
    with pytest.raises(ValueError, match="drawn: 3 episodes to start from, got 4 trials"):
        list(run_ranking(setup, ME, ["a"], DREAM, trials=4, horizon=2, num_steps=1))
    with pytest.raises(ValueError, match="no simulator of this robot"):
        make_envs(setup.world, setup.judge, source, trials=1, horizon=1, num_steps=1, simulator=True)


def test_trials_start_from_the_data_if_the_robot_has_no_simulator():
    source, world = DrawnEpisodes((6,)), tiny_world()
    assert find_task(DemoConfig(), world, source) is source
    assert find_task(DemoConfig(), world, None) == "pusht-position"
    assert find_task(DemoConfig(real="pusht"), world, source) == "pusht-position"


def test_the_trials_of_someone_who_left_end_at_once(ranking_setup):
    steps = []

    def stepped():
        steps.append(1)
        if len(steps) == 3:
            ranking_setup.visitors.disconnect(ME)

    setup = replace(ranking_setup, judge=never)
    running = run_ranking(setup, ME, ["a"], DREAM, trials=1, horizon=50, num_steps=1, stepped=stepped)
    assert 'data-state="busy"' in next(running)
    with pytest.raises(VisitorLeft):
        next(running)
    assert len(steps) == 3
    with pytest.raises(VisitorLeft):
        next(run_ranking(ranking_setup, "invented", ["a"], DREAM, trials=1, horizon=1, num_steps=1))


def test_the_futures_of_someone_who_left_end_at_once(ranking_setup):
    visitors, world = ranking_setup.visitors, ranking_setup.world
    start = Start(random_clip(world, batch=1, frames=3))
    looked = []

    def judge(observation):
        looked.append(observation)

    class Leaving(DriveSession):
        """The visitor leaves while the futures begin."""

        @property
        def now(self):
            visitors.disconnect(ME)
            return super().now

    visitors.work(visitors.enter, ME, lambda: Leaving(world, start, num_steps=1))
    numbers = {"k": 2, "horizon": 50, "seed": 0}
    with pytest.raises(VisitorLeft):
        visitors.work(lambda: look_ahead(visitors, ME, judge, ("x", "y"), **numbers))
    assert looked == []


def test_judges_and_policies_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = write_module(tmp_path, POLICIES + "\n\ndef judge(observation):\n    return [True]\n")
    world = tiny_world(size=SIZE)
    judge, remark = find_judge(DemoConfig(judge=f"{module}:judge"), world)
    seen = Observation(torch.zeros(1, 2, *SIZE, 3, dtype=torch.uint8), None)
    assert judge(seen).successes.tolist() == [True] and f"from {module}:judge" in remark
    assert find_policies([f"{module}:right", f"{module}:left"], world)[0] == {
        "right": f"{module}:right",
        "left": f"{module}:left",
    }
    with pytest.raises(ValueError, match="there is no module nowhere"):
        find_judge(DemoConfig(judge="nowhere:judge"), world)


def test_wrong_choices_are_named(ranking_setup):
    good = {"trials": 1, "horizon": 1, "num_steps": 1}
    for chosen, place, numbers, message in (
        (["../a"], DREAM, {}, "choose among"),
        (["a"], "elsewhere", {}, "choose among"),
        ([], DREAM, {}, "at least one policy"),
        (["a"], DREAM, {"trials": 0}, "1 to 40 trials"),
        (["a"], DREAM, {"horizon": 101}, "1 to 100 steps, got 1 of 101"),
    ):
        with pytest.raises(ValueError, match=message):
            list(run_ranking(ranking_setup, ME, chosen, place, **good | numbers))


def report(psnr):
    """A fidelity report of one camera and one object at two horizons."""
    line = {"1": psnr, "5": psnr - 2}
    camera = {"psnr": line, "ssim": {"1": None, "5": None}, "lpips": {"1": None, "5": None}}
    thing = {"error_px": {"1": 0.5, "5": 2.0}, "missing": {"1": 0.0, "5": None}}
    return {
        "cameras": {"top": camera},
        "objects": {"block": thing},
        "copy_last": {"cameras": {}, "top": camera, "objects": {"block": thing}},
        "action_following": {"shuffled": {"psnr_gap": {"1": 0.5, "5": 3.0}}},
        "intervals": {
            "cameras": {"top": {"psnr": {"5": [psnr - 3, psnr - 1]}}},
            "copy_last": {"top": {"psnr": {"5": [psnr - 3, psnr - 1]}}},
            "action_following": {"shuffled": {"psnr_gap": {"5": [2.0, 4.0]}}},
        },
        "metadata": {"windows": 4, "episodes": 2, "data": "held <out>", "num_steps": 2},
    }


def test_panels_of_a_report():
    lines = panels({"before": report(30.0), "after": report(31.0)})
    assert set(lines) == {
        ("camera top", "psnr"),
        ("block", "error_px"),
        ("block", "missing"),
        ("action following", "psnr_gap"),
    }
    assert lines["camera top", "psnr"]["after"] == {"1": 31.0, "5": 29.0}
    assert list(lines["action following", "psnr_gap"]) == ["shuffled, before", "shuffled, after"]


def test_quality_says_what_there_is(tmp_path):
    world, after = tmp_path / "world", tmp_path / "after"
    world.mkdir()
    assert "worldmodel fidelity --world" in quality(world, after)
    (world / "fidelity.json").write_text(json.dumps(report(30.0)))
    page = quality(world, after)
    assert page.count("<img") == 4 and "28.0" in page and "held &lt;out&gt;" in page
    assert "Post-training" not in page and "The dreams follow the actions" in page
    after.mkdir()
    (after / "fidelity.json").write_text(json.dumps(report(31.0)))
    write_video(after / "videos" / "held_out_0.mp4", np.zeros((3, 32, 32, 3), np.uint8), 10.0)
    page = quality(world, after)
    assert page.count("<img") == 8 and page.count("<video") == 1
    (world / "fidelity.json").write_text("{}")
    with pytest.raises(ValueError, match=r"fidelity.json: not a fidelity report"):
        read_report(world)
