"""Environments and behaviours of somebody else, through `worldmodel record`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mine import ENV, POLICIES, write_module

from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.envs import has_simulator, make_env, make_simulator
from worldmodel.envs.behaviour import random_actions
from worldmodel.envs.policy import CallablePolicy, ask, resolve_policy
from worldmodel.envs.protocol import describe
from worldmodel.envs.scripts import scripts_of


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def square(here) -> str:
    return f"{write_module(here, ENV)}:Square"


@pytest.fixture
def policies(here) -> str:
    return write_module(here, POLICIES)


def record(*flags: str) -> int:
    return main(["record", *flags, "--workers", "1"])


def read(folder: str, episode: int = 0):
    source = open_episodes(folder)
    return source.read(episode, 0, source.lengths[episode])


def test_a_recording_of_a_foreign_environment_is_a_data_set(square, capsys):
    assert record(square, "--out", "data", "--episodes", "3", "--seed", "2") == 0
    said = f"{square} has no script, so smooth random actions are recorded; you can pass your own behaviour"
    assert said in capsys.readouterr().out.replace("\n", " ")
    source = open_episodes("data")
    assert (source.robot_type, source.fps, source.views, source.lengths) == (square, 10, ("top",), (12, 12, 12))
    assert (source.action_dim, source.state_dim, source.task(0)) == (2, 0, "")
    assert [source.reset_seed(episode) for episode in range(3)] == [200000, 200001, 200002]
    env = make_env(source.robot_type)
    for episode in range(3):
        first = env.reset(seed=source.reset_seed(episode))[0]["observation.images.top"]
        assert np.abs(read("data", episode).frames[0, 0].numpy() - first.astype(float)).mean() < 4
    assert json.loads(Path("data/recording.json").read_text())["behaviour"] == "random"


def test_frames_follow_the_recorded_actions(square, policies):
    """The environment draws into the same array again and again; the square goes right by 2."""
    assert record(square, "--out", "data", "--episodes", "1", "--behaviour", f"{policies}:right") == 0
    clip = read("data")
    assert clip.actions.tolist() == [[1.0, 0.0]] * 11
    columns = (clip.frames[:, 0, :, :, 0] > 130).float().amax(1).argmax(1).tolist()
    assert columns == [min(columns[0] + 2 * step, 12) for step in range(12)]
    assert clip.successes.tolist() == [column >= 10 for column in columns[1:]]


def test_an_episode_that_terminates_shows_how_it_ended(square, policies):
    ending = square.replace(":Square", ":Ending")
    assert record(ending, "--out", "data", "--episodes", "1", "--behaviour", f"{policies}:right") == 0
    clip = read("data")
    assert clip.successes.tolist() == [False] * (len(clip.successes) - 1) + [True]
    assert (clip.frames[-1, 0, :, :, 0] > 130).float().amax(0).argmax() >= 10


def test_a_behaviour_may_watch_the_simulator(square, policies):
    assert record(square, "--out", "data", "--episodes", "1", "--behaviour", f"{policies}:Watching") == 0
    place = (read("data").frames[-1, 0, :, :, 0] > 130).nonzero().amin(0)
    assert place.tolist() == [8, 8]


def test_a_behaviour_begins_with_the_reset_seed(square, policies):
    assert record(square, "--out", "data", "--episodes", "3", "--behaviour", f"{policies}:Chance") == 0
    assert [float(read("data", seed).actions[0, 0]) for seed in range(3)] == [-1.0, 0.0, 1.0]


def test_the_horizon_ends_an_episode(square):
    assert record(square, "--out", "data", "--episodes", "1", "--horizon", "5") == 0
    assert open_episodes("data").lengths == (5,)


def test_random_actions_are_smooth_reach_everything_and_repeat(square):
    space = make_env("pusht").action_space

    def draw(seed: int) -> np.ndarray:
        actions = random_actions(space, np.random.default_rng(seed))
        return np.array([next(actions) for _ in range(2000)])

    drawn = draw(0)
    np.testing.assert_array_equal(drawn, draw(0))
    assert (drawn != draw(1)).any()
    assert drawn.min() == 0 and drawn.max() == 512
    assert abs(drawn.mean() - 256) < 40
    steps = np.abs(np.diff(drawn, axis=0))
    assert steps.mean() < 60 < 512 / 6  # independent draws are 512 / 3 apart


def test_our_environments_can_be_random_too(here):
    assert record("pusht", "--out", "data", "--episodes", "1", "--horizon", "3", "--behaviour", "random") == 0
    assert open_episodes("data").lengths == (3,)


def test_a_class_derived_from_ours_has_its_scripts_and_its_own_name(here):
    text = "from worldmodel.envs.pusht.env import PushT\nclass Mine(PushT):\n    pass\n"
    name = f"{write_module(here, text)}:Mine"
    assert scripts_of(make_env(name)) == "worldmodel.envs.pusht.expert"
    assert record(name, "--out", "data", "--episodes", "1", "--horizon", "2", "--behaviour", "play") == 0
    assert open_episodes("data").robot_type == name


def test_a_recording_continues_unless_the_source_text_has_changed(square, capsys):
    flags = (square, "--out", "data", "--episodes", "2")
    assert record(*flags) == 0
    assert record(*flags) == 0
    assert "is complete" in capsys.readouterr().out
    assert record(*flags, "--horizon", "5") == 2
    assert "with horizon = None, you asked for 5" in capsys.readouterr().err
    with Path(f"{square.partition(':')[0]}.py").open("a") as file:
        file.write("# another line\n")
    assert record(*flags) == 2
    assert f"made before the file of {square} changed; choose another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_find_the_module_and_record_the_same(square, policies):
    """Two fresh processes import module and behaviour from the current folder.

    libx264 on pictures this small does not give the same bytes on a busy machine: some levels of grey.
    """
    flags = (square, "--episodes", "4", "--behaviour", f"{policies}:Chance")
    assert main(["record", *flags, "--out", "two", "--workers", "2"]) == 0
    assert record(*flags, "--out", "one") == 0
    for episode in range(4):
        one, two = read("one", episode), read("two", episode)
        assert (one.frames.int() - two.frames.int()).abs().max() < 32 and (one.actions == two.actions).all()


def test_options_reach_the_classes_that_take_them(square, here):
    sized = write_module(
        here, ENV.replace("def reset", "def __init__(self, *, size=16):\n        self.size = size\n\n    def reset", 1)
    )
    assert make_env(f"{sized}:Square", size=20).size == 20
    assert make_simulator(f"{sized}:Square", size=20, time_limit=3).size == 20
    assert describe(make_simulator(square, size=20)).views == {"top": (16, 16)}
    assert make_simulator("pusht", size=32, time_limit=3).time_limit == 3


def test_where_there_is_a_simulator(square):
    assert has_simulator(square) and has_simulator("pusht") and has_simulator("metaworld:push-v3")
    assert not any(has_simulator(name) for name in ("", "so100", "nowhere:Square", "aloha: bimanual"))


@pytest.mark.parametrize("name, module", [("pusht", "gym_pusht"), ("pusht", "cv2"), ("metaworld:push-v3", "mujoco")])
def test_there_is_no_simulator_without_its_packages(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    assert not has_simulator(name)
    with pytest.raises(ValueError, match=f"^environment {name} needs the Python package {module}, which is not "):
        make_env(name)


ENVIRONMENTS = [
    (
        "pushtt",
        "there is no environment 'pushtt'; known are pusht, pusht-position, pusht-rope, pusht-sand, metaworld:TASK, "
        "libero:SUITE/TASK, ",
    ),
    ("pushtt", "and module:Class for one of yours; did you mean 'pusht'?"),
    ("nowhere:Square", "environment nowhere:Square: there is no module nowhere, neither in "),
    ("MODULE:Squar", "has no 'Squar'; did you mean 'Square'?"),
    ("MODULE:np", "expected a class derived from gymnasium.Env, found the module numpy"),
    ("POLICIES:right", "expected a class derived from gymnasium.Env, found the function right"),
    ("POLICIES:Left", "expected a class derived from gymnasium.Env, found the class Left"),
    ("gymnasium:Env", "environment gymnasium:Env: an environment has reset and step; the class Env has no reset"),
]


@pytest.mark.parametrize(("name", "message"), ENVIRONMENTS)
def test_a_wrong_environment_is_one_line(square, policies, capsys, name, message):
    name = name.replace("MODULE", square.partition(":")[0]).replace("POLICIES", policies)
    assert record(name, "--out", "data") == 2
    error = capsys.readouterr().err
    assert error.startswith("worldmodel record: ") and error.count("\n") == 1
    assert message in error
    assert not Path("data").exists()


FLAGS = [
    (("--behaviour", "exprt"), "there is no behaviour 'exprt'; known are mixture, play, noisy, expert, random, and "),
    (("--behaviour", "exprt"), "module:name for one of yours; did you mean 'expert'?"),
    (("--behaviour", "expert"), "has no script, so no behaviour 'expert'; pass --behaviour random, or module:name"),
    (("--behaviour", "mixture"), "has no script, so no behaviour 'mixture'"),
    (("--behaviour", "nowhere:act"), "behaviour nowhere:act: there is no module nowhere"),
    (("--behaviour", "POLICIES:rihgt"), "has no 'rihgt'; did you mean 'right'?"),
    (("--behaviour", "POLICIES:Deaf"), "a behaviour has reset and act; an object of the class Deaf has no reset"),
    (("--behaviour", "POLICIES:Needy"), "the class Needy is made without arguments, but takes (size); name a function"),
    (("--behaviour", "POLICIES:two"), "found the function two with the arguments (observation, info)"),
    (("--behaviour", "POLICIES:number"), "expected an object with reset and act, or a function of the observation, "),
    (("--behaviour", "POLICIES:number"), "found an object of the class int"),
    (
        ("--behaviour", "POLICIES:Lists"),
        "a policy returns a torch.Tensor of the shape (n, a), here with n = 1, got list",
    ),
    (("--size", "32"), "you asked for size, but the class Square takes no options"),
    (("--shift", "camera"), "you asked for shift, but the class Square takes no options"),
    (("--horizon", "0"), "horizon is at least 1, got 0"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS)
def test_a_wrong_option_is_one_line(square, policies, capsys, flags, message):
    flags = [flag.replace("POLICIES", policies) for flag in flags]
    assert record(square, "--out", "data", "--episodes", "1", *flags) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("recording ")]  # its progress
    assert len(lines) == 1 and lines[0].startswith("worldmodel record: ") and message in lines[0]


def test_random_actions_need_bounds(here, capsys):
    endless = ENV.replace("spaces.Box(-1, 1, (2,)", "spaces.Box(-np.inf, np.inf, (2,)")
    assert record(f"{write_module(here, endless)}:Square", "--out", "data") == 2
    assert "the behaviour random needs an action space with bounds" in capsys.readouterr().err


def test_every_kind_of_policy_resolves(policies):
    observation = {"observation.images.top": np.zeros((4, 4, 3), np.uint8)}
    assert isinstance(resolve_policy(f"{policies}:right"), CallablePolicy)
    for name, action in (("right", 1.0), ("left", -1.0), ("Left", -1.0), ("make_left", -1.0)):
        policy = resolve_policy(f"{policies}:{name}")
        policy.reset([0])
        assert ask(policy, observation).tolist() == [action, 0.0]
