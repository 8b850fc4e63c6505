from dataclasses import replace

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from places import LEROBOT_V21, LEROBOT_V30

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning, _warn
from worldmodel.data.joined import JoinedSource
from worldmodel.data.options import DataOptions, chosen_episodes, intact_episodes, ranges


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("2", [0, 1]),
        ("2,", None),
        ("2:3", [2]),
        ("4:", [4, 5]),
        (":2", [0, 1]),
        ("0:2,5", [0, 1, 5]),
        ("5, 0:2", [5, 0, 1]),
        ("0:2,1", None),
        ("3:3", None),
        ("0:7", None),
        ("7", None),
        ("0", None),
        ("-1", None),
        ("a", None),
        ("1:2:3", None),
    ],
)
def test_episodes_are_chosen_by_number_and_range(text, expected):
    if expected is None:
        with pytest.raises(ValueError, match=f"--episodes {text}"):
            chosen_episodes("data", 6, text)
    else:
        assert chosen_episodes("data", 6, text) == expected


def test_all_broken_episodes_are_named_in_one_line():
    broken = {number: f"file {number} is missing" for number in (1, 2, 3, 5, 7, 8)}
    with pytest.raises(ValueError, match="data: episodes 1-3, 5, 7-8 of 9 are broken") as error:
        intact_episodes("data", range(9), broken, DataOptions())
    message = str(error.value)
    assert "file 1 is missing" in message and "and 1 more" in message and "--skip-broken" in message
    assert "\n" not in message


def test_broken_episodes_are_left_out_when_asked_for():
    kept, notes = intact_episodes("data", [0, 2, 3], {2: "cut", 7: "cut"}, DataOptions(skip_broken=True))
    assert kept == [0, 3]
    assert notes == ["episode 2 of 3 is broken and left out (2: cut)"]
    assert intact_episodes("data", [0, 3], {2: "cut"}, DataOptions()) == ([0, 3], [])
    with pytest.raises(ValueError, match="episodes 0-1 of 2 are broken"):
        intact_episodes("data", [0, 1], {0: "cut", 1: "cut"}, DataOptions(skip_broken=True))


def test_ranges():
    assert ranges([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7"


def test_notes_are_warned_about_and_the_rest_is_counted():
    source = replace(open_episodes(LEROBOT_V30), notes=("a", "b", "c", "d"))
    with pytest.warns(DataWarning, match=r"a; b; c; and 1 more, worldmodel info .* lists them"):
        _warn(source)


def test_two_data_sets_are_one():
    first, second = open_episodes(LEROBOT_V21), open_episodes(LEROBOT_V30)
    joined = open_episodes([LEROBOT_V21, str(LEROBOT_V30)])
    assert joined.lengths == (*first.lengths, *second.lengths)
    last = len(joined) - 1
    found, expected = joined.read(last, 2, 9, 2), second.read(len(second) - 1, 2, 9, 2)
    assert torch.equal(found.frames, expected.frames) and torch.equal(found.actions, expected.actions)
    assert joined.origins == (*first.origins, *second.origins)
    assert joined.task(last) == second.task(len(second) - 1)
    assert joined.reset_seed(last) == second.reset_seed(len(second) - 1)
    assert joined.fingerprint not in (first.fingerprint, second.fingerprint)
    with pytest.raises(ValueError, match=f"episode {last + 1} is not within"):
        joined.read(last + 1, 0, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": ("top",)}, "views"),
        ({"robot_type": "another"}, "robot_type"),
        ({"size": (8, 8)}, "size"),
        ({"pixel_mask": torch.zeros(2, 16, 16, dtype=torch.bool)}, "letterbox.*--size"),
    ],
)
def test_data_sets_that_differ_are_not_joined(change, words):
    with pytest.raises(ValueError, match=words):
        JoinedSource([DrawnEpisodes([3]), DrawnEpisodes([4], **change)])


def test_no_data_set_is_refused():
    with pytest.raises(ValueError, match="no data set"):
        open_episodes([])


def test_an_episode_is_not_joined_with_itself():
    with pytest.raises(ValueError, match=f"{LEROBOT_V21}: episode 1 is in {LEROBOT_V21}, too"):
        JoinedSource([open_episodes(LEROBOT_V21), open_episodes(LEROBOT_V21, options=DataOptions(episodes="1:2"))])
