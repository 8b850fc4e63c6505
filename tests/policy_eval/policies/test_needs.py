import re

import numpy as np
import pytest
from gymnasium import spaces
from square_world import square_policy

from policy_eval.policies.needs import Needs, check_fits, same_aspect, shares
from policy_eval.policies.policy import CallablePolicy

SEEN = spaces.Dict(
    {
        "observation.images.top": spaces.Box(0, 255, (48, 64, 3), np.uint8),
        "observation.images.wrist": spaces.Box(0, 255, (16, 16, 3), np.uint8),
        "observation.state": spaces.Box(-1, 1, (2,), np.float32),
    }
)
ACTIONS = spaces.Box(np.float32([0, -1]), np.float32([512, 1]))


class Needy(CallablePolicy):
    def __init__(self, **needs):
        super().__init__(lambda observation: observation["observation.state"])
        bounds = {name: tuple(map(float, needs[name])) for name in ("action_low", "action_high") if name in needs}
        self.needs = Needs(**needs | bounds)


def said(tasks=None, **needs) -> str:
    """What `check_fits` says about a policy, empty if it fits."""
    try:
        check_fits(Needy(**needs), SEEN, ACTIONS, "mine", tasks)
    except ValueError as error:
        return str(error).removeprefix("policy mine does not fit: ")
    return ""


def test_a_policy_that_states_nothing_is_not_checked():
    check_fits(CallablePolicy(lambda observation: observation["observation.state"]), SEEN, ACTIONS, "mine")
    assert said() == ""


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"views": {"top": (48, 64), "wrist": (0, 0)}}, ""),
        ({"views": {"front": (48, 64)}}, "it needs the camera front, there is top, wrist"),
        ({"views": {"top": (64, 48)}}, "it needs pictures of top of 64 x 48, they are 48 x 64"),
        ({"views": {"top": (96, 128)}}, "it needs pictures of top of 96 x 128, they are 48 x 64"),
        ({"views": {"top": (96, 128)}, "resizes": True}, ""),
        (
            {"views": {"top": (96, 96)}, "resizes": True},
            "it needs pictures of top with the aspect ratio of 96 x 96, they are 48 x 64",
        ),
        ({"state_dim": 0}, ""),
        ({"state_dim": 2}, ""),
        ({"state_dim": 7}, "it needs observation.state with 7 dims, there are 2"),
        ({"action_dim": 2}, ""),
        ({"action_dim": 7}, "its actions have 7 dims, the action space 2"),
        ({"action_dim": 2, "action_low": (100, -0.2), "action_high": (300, 0.2)}, ""),
        ({"action_dim": 2, "action_low": (-100, -10), "action_high": (900, 10)}, ""),
        (
            {"action_dim": 2, "action_low": (0, -11), "action_high": (512, 11)},
            "dim 1 of its actions has the range -11..11, that of the action space is -1..1",
        ),
        (
            {"action_dim": 2, "action_low": (-30, -1), "action_high": (-1, 1)},
            "dim 0 of its actions has the range -30..-1, that of the action space is 0..512",
        ),
        ({"action_dim": 2, "action_low": (0, -0.5), "action_high": (1, 0.5)}, ""),
        (
            {"action_dim": 2, "action_low": (0, -0.01), "action_high": (1, 0.01)},
            "dim 0 of its actions has the range 0..1, that of the action space is 0..512",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_both_values(needs, message):
    assert said(**needs) == message


def test_all_mismatches_are_in_one_line():
    needs = {"views": {"front": (1, 1), "wrist": (8, 8)}, "state_dim": 3, "action_dim": 4, "task": True}
    line = said(["push", ""], **needs)
    assert line == (
        "it needs the camera front, there is top, wrist; it needs pictures of wrist of 8 x 8, they are 16 x 16; "
        "it needs observation.state with 3 dims, there are 2; its actions have 4 dims, the action space 2; "
        "it needs the task in words, 1 of 2 episodes have none"
    )
    assert said(["push", "lift"], task=True) == said(task=True) == ""


def test_a_space_without_bounds_takes_every_range():
    policy = Needy(action_dim=2, action_low=(0, 0), action_high=(0.001, 9999))
    check_fits(policy, SEEN, spaces.Box(-np.inf, np.inf, (2,)), "mine")


def test_a_dim_that_the_data_never_moves_is_not_compared():
    policy = Needy(action_dim=2, action_low=(-1, -1), action_high=(1, 1))
    check_fits(policy, SEEN, spaces.Box(np.float32([-1, 3]), np.float32([1, 3])), "mine")


def test_the_share_of_a_range():
    """Half, a quarter and nothing of a range, and ranges of one value inside and outside."""
    low, high = np.array([-1.0, 0.0, 3.0, 0.5, 2.0]), np.array([1.0, 4.0, 5.0, 0.5, 2.0])
    assert shares(low, high, spaces.Box(0, 1, (5,))).tolist() == [0.5, 0.25, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((64, 64), (96, 96), True),
        ((48, 64), (480, 640), True),
        ((64, 85), (480, 640), True),
        ((480, 640), (64, 86), True),
        ((64, 84), (480, 640), False),
        ((64, 64), (480, 640), False),
        ((640, 480), (480, 640), False),
    ],
)
def test_the_same_aspect_ratio_up_to_a_pixel(first, second, same):
    assert same_aspect(first, second) == same


def test_a_cloned_policy_states_its_needs():
    assert square_policy().needs == Needs(views={"top": (16, 16)}, state_dim=2, action_dim=2)
    with pytest.raises(ValueError, match=re.escape("it needs pictures of top of 16 x 16, they are 48 x 64")):
        check_fits(square_policy(), SEEN, ACTIONS, "clone")


def test_needs_are_checked_themselves():
    policy = CallablePolicy(lambda observation: observation["observation.state"])
    policy.needs = {"action_dim": 2}
    with pytest.raises(
        ValueError, match=r"policy mine: its attribute needs is \{'action_dim': 2\}, expected an object of"
    ):
        check_fits(policy, SEEN, ACTIONS, "mine")
    for bounds in ({"action_low": (0.0, 0.0)}, {"action_low": (0.0, 0.0), "action_high": (1.0,)}):
        with pytest.raises(ValueError, match="needs: action_dim is 2, action_low has 2 numbers, action_high"):
            Needs(action_dim=2, **bounds)
