"""Which keys drive which actions, and what is written on the buttons."""

import re

from demos.driving.session import KEYS, key_bindings
from demos.page.futures import titles
from demos.page.pad import code_of, groups_of, pad

G1 = [
    f"k{side}{part}{n}" for part, count in (("Arm", 7), ("Hand", 6)) for side in ("Left", "Right") for n in range(count)
]


def test_keys_are_known_by_their_place():
    assert [code_of(key) for key in ("up", "left", "f")] == ["ArrowUp", "ArrowLeft", "KeyF"]


def test_groups_of_actions():
    assert groups_of(["x", "y"]) == [[0, 1]]
    assert groups_of([f"left {n}" if n < 6 else f"right {n}" for n in range(12)]) == [list(range(12))]
    assert [len(dims) for dims in groups_of(G1)] == [7, 7, 6, 6]
    assert [len(dims) for dims in groups_of([f"dim {n}" for n in range(26)])] == [12, 12, 2]
    assert [dim for dims in groups_of(G1) for dim in dims] == list(range(26))


def buttons(text):
    """(session's key, place of the key, description) of every button."""
    return re.findall(r'data-key="(\S+)" data-code="(\w+)" aria-label="([^"]+), key', text)


def test_every_action_has_two_keys_in_its_group():
    text = pad(key_bindings(26), G1)
    groups = text.split("data-group=")[1:]
    assert [len(buttons(group)) for group in groups] == [14, 14, 12, 12]
    assert ["hidden" in group.split(">")[0] for group in groups] == [False, True, True, True]
    for group in groups:
        codes = [code for _, code, _ in buttons(group)]
        assert codes[:4] == ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"] and len(set(codes)) == len(codes)
    bindings = key_bindings(26)
    for key, _, about in buttons(text):
        dim, sign = bindings[key]
        assert about == f"{G1[dim]} {'+' if sign > 0 else '-'}"
    assert text.count("data-choose=") == 4 and "kLeftArm0 to kLeftArm6" in text


def test_one_group_needs_no_choice():
    names = ["x <i>", *map(str, range(11))]
    text = pad(key_bindings(12), names)
    assert "data-choose" not in text and "x &lt;i&gt; +" in text
    assert [code for _, code, _ in buttons(text)] == [code_of(key) for pair in KEYS for key in pair]


def test_futures_are_named_by_actions_where_keys_change_their_meaning():
    assert titles(key_bindings(2), ["x", "y"]) == {}
    named = titles(key_bindings(26), G1)
    assert (named["hold left"], named["hold 13+"]) == ("kLeftArm0 -", "kRightArm5 +")
