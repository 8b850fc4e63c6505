import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldmodel.envs import make_env
from worldmodel.envs.episode import LONGEST_EPISODE, act_out
from worldmodel.envs.protocol import begin, describe, episode_limit, succeeded

PICTURE = spaces.Box(0, 255, (8, 12, 3), np.uint8)
CAMERA = "observation.images.front"


class Plain(gymnasium.Env):
    """Counts steps and shows the count; success at the third step, the end at the fifth."""

    metadata = {"render_fps": 5}  # noqa: RUF012
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict({CAMERA: PICTURE})
    ends = "truncated"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.look(), {}

    def step(self, action):
        self.count += 1
        over = self.count == 5
        info = {"success": self.count >= 3}
        return (
            self.look(),
            float(self.count),
            over and self.ends == "terminated",
            over and self.ends == "truncated",
            info,
        )

    def look(self):
        return {CAMERA: np.full((8, 12, 3), self.count, np.uint8)}


def with_attributes(**attributes) -> gymnasium.Env:
    return type("Changed", (Plain,), attributes)()


def still(observation: dict) -> np.ndarray:
    return np.zeros(2)


def shown(episode) -> list[int]:
    return episode.frames["front"][:, 0, 0, 0].tolist()


def play(env: gymnasium.Env, length: int | None = None, stop_on_success: bool | None = None):
    return act_out(env, begin(env, 0), still, length=length, stop_on_success=stop_on_success)


def test_everything_but_the_spaces_has_a_default():
    facts = describe(Plain())
    assert facts.name == f"{__name__}:Plain"
    assert (facts.task, facts.fps, facts.views) == ("", 5, {"front": (8, 12)})
    assert (facts.action_names, facts.state_names) == (("action_0", "action_1"), ())
    assert facts.stops_on_success is None
    assert episode_limit(Plain(), "random") is None
    assert describe(Plain(), "my:Own").name == "my:Own"


def test_an_attribute_takes_the_place_of_a_default():
    state = spaces.Box(0, 1, (3,), np.float32)
    env = with_attributes(
        name="counter",
        task="Count.",
        action_names=("x", "y"),
        stops_on_success=True,
        observation_space=spaces.Dict({CAMERA: PICTURE, "observation.state": state}),
    )
    facts = describe(env)
    assert (facts.name, facts.task, facts.action_names) == ("counter", "Count.", ("x", "y"))
    assert facts.state_names == ("state_0", "state_1", "state_2")
    assert facts.stops_on_success is True


def test_attributes_inside_a_wrapper_count():
    env = gymnasium.wrappers.TransformAction(with_attributes(task="Count.", time_limit=7), lambda action: action, None)
    assert describe(env).task == "Count."
    assert episode_limit(env, "random") == 7


def test_the_limit_of_an_episode():
    assert episode_limit(with_attributes(time_limit=7), "play") == 7
    assert episode_limit(with_attributes(time_limit=7, episode_steps=9), "play") == 9
    by_behaviour = with_attributes(episode_steps=lambda self, behaviour: len(behaviour))
    assert episode_limit(by_behaviour, "play") == 4
    registered = Plain()
    registered.spec = gymnasium.envs.registration.EnvSpec("Plain-v0", entry_point=Plain, max_episode_steps=11)
    assert episode_limit(registered, "play") == 11
    assert episode_limit(make_env("pusht"), "play") == 120
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match=f"are {wrong}, expected a whole number of at least 1"):
            episode_limit(with_attributes(time_limit=wrong), "play")


@pytest.mark.parametrize(
    ("terminated", "info", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"success": False}, False),
        (False, {"success": True}, True),
        (False, {"is_success": True}, True),
        (True, {"is_success": np.False_}, False),
        (False, {"success": False, "is_success": 1.0}, True),
    ],
)
def test_what_a_success_is(terminated, info, expected):
    assert succeeded(terminated, info) is expected


def test_an_episode_ends_when_the_environment_says_so():
    truncated = play(with_attributes(ends="truncated"))
    assert shown(truncated) == [0, 1, 2, 3, 4]
    assert truncated.successes.tolist() == [False, False, True, True, True]
    assert truncated.states is None
    terminated = play(with_attributes(ends="terminated"))
    assert shown(terminated) == [0, 1, 2, 3, 4, 5]  # the last row shows how it ended
    assert terminated.rewards.tolist() == [1, 2, 3, 4, 5, 5]
    assert terminated.successes.tolist() == [False, False, True, True, True, True]


def test_an_episode_ends_at_its_limit():
    assert shown(play(with_attributes(ends="terminated"), length=2)) == [0, 1]
    assert shown(play(with_attributes(ends="terminated"), length=5)) == [0, 1, 2, 3, 4, 5]


def test_an_environment_that_can_be_stepped_on_is():
    """Success comes with the third step; three more are recorded, or all of them."""
    env = with_attributes(ends="terminated")
    assert len(play(env, length=9, stop_on_success=True).actions) == 6
    assert len(play(env, length=9, stop_on_success=False).actions) == 9


def test_an_environment_that_never_ends_is_named():
    env = with_attributes(ends="never", look=lambda self: {CAMERA: np.zeros((8, 12, 3), np.uint8)})
    with pytest.raises(ValueError, match=f"has not ended after {LONGEST_EPISODE} steps; let step return truncated"):
        play(env)


def test_pictures_that_the_environment_draws_over_are_kept():
    class Overdrawn(Plain):
        picture = np.zeros((8, 12, 3), np.uint8)

        def look(self):
            self.picture[:] = self.count
            return {CAMERA: self.picture}

    assert shown(play(Overdrawn())) == [0, 1, 2, 3, 4]


def test_actions_are_cut_to_the_action_space():
    env = Plain()
    episode = act_out(env, begin(env, 0), lambda seen: np.array([3.0, -0.5]), length=1)
    assert episode.actions.tolist() == [[1.0, -0.5]]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"observation_space": PICTURE},
            r"observation_space is Box\(0, 255, .*, expected a Dict with observation.images",
        ),
        ({"observation_space": spaces.Dict()}, r"observation_space has \[\], expected a Dict with"),
        (
            {"observation_space": spaces.Dict({"pixels": PICTURE})},
            r"has 'pixels': Box of uint8 \(8, 12, 3\), expected a Dict with observation.images.CAMERA",
        ),
        (
            {"observation_space": spaces.Dict({CAMERA: spaces.Box(0, 1, (8, 12, 3), np.float32)})},
            r"has 'observation.images.front': Box of float32 \(8, 12, 3\), expected",
        ),
        (
            {"observation_space": spaces.Dict({CAMERA: spaces.Box(0, 255, (3, 8, 12), np.uint8)})},
            r"Box of uint8 \(3, 8, 12\), expected a Dict with observation.images.CAMERA \(uint8, height width 3\)",
        ),
        (
            {
                "observation_space": spaces.Dict(
                    {CAMERA: PICTURE, "observation.state": spaces.Box(0, 1, (2,), np.float64)}
                )
            },
            r"has 'observation.state': Box of float64 \(2,\), expected",
        ),
        (
            {"action_space": spaces.Discrete(4)},
            r"action_space is Discrete\(4\), expected a Box of floats with one axis",
        ),
        ({"action_space": spaces.Box(0, 9, (2,), np.int64)}, "expected a Box of floats with one axis"),
        ({"metadata": {}}, r'metadata\["render_fps"\], the frames per second, is None, expected a whole number'),
        ({"metadata": {"render_fps": 0.5}}, "is 0.5, expected a whole number of at least 1"),
        ({"task": 3}, "its attribute task is 3, expected the task in words"),
        ({"action_names": ("x",)}, r"action_names are \('x',\), but there are 2 dims"),
        ({"step": gymnasium.Env.step}, "has reset and step; the class Changed has no step"),
        ({"reset": gymnasium.Env.reset}, "has reset and step; the class Changed has no reset"),
    ],
)
def test_what_an_environment_lacks_is_named(attributes, message):
    with pytest.raises(ValueError, match=message) as caught:
        describe(with_attributes(**attributes), "my:Own")
    assert str(caught.value).startswith("environment my:Own: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda self: np.zeros(3), r"reset returns ndarray, its observation space has \['observation.images.front'\]"),
        (lambda self: {"front": 0}, r"reset returns \['front'\], its observation space has"),
        (
            lambda self: {CAMERA: np.zeros((8, 12, 3))},
            r"observation.images.front is float64 \(8, 12, 3\), its observation space says uint8 \(8, 12, 3\)",
        ),
        (lambda self: {CAMERA: np.zeros((8, 9, 3), np.uint8)}, r"is uint8 \(8, 9, 3\), its observation space says"),
        (lambda self: {CAMERA: [0]}, "observation.images.front is list, its observation space says"),
    ],
)
def test_an_observation_that_is_not_of_its_space_is_refused(look, message):
    with pytest.raises(ValueError, match=message):
        begin(with_attributes(look=look), 0)
