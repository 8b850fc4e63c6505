"""The pad: one button for each direction of each action dim, and the key of the keyboard that presses it.

Keys are known by their place (`KeyboardEvent.code`), not by what is printed on them, so every layout and input
method works. The script of the page writes on the buttons what the visitor's own layout has there.
"""

import html
import re
from collections.abc import Mapping, Sequence

from demos.driving.session import KEYS

ARROWS = {"up": "&#9650;", "down": "&#9660;", "left": "&#9664;", "right": "&#9654;"}
OTHER_ARROWS = "WASD"
"""Keys in whose places you can press up, left, down and right, too."""


def code_of(key: str) -> str:
    """The place of a key on the keyboard, as browsers name it: `ArrowUp` of `up`, `KeyF` of `f`."""
    return f"Arrow{key.title()}" if key in ARROWS else f"Key{key.upper()}"


def groups_of(names: Sequence[str]) -> list[list[int]]:
    """The action dims in groups; the keys drive one group at a time.

    A robot with as many dims as there are pairs of keys, or fewer, is one group. Otherwise a new group begins where
    the names change between the left and the right side, and where all keys are used.

    Args:
        names: Names of the action dims.
    """
    if len(names) <= len(KEYS):
        return [list(range(len(names)))]
    groups: list[list[int]] = []
    for dim, name in enumerate(names):
        new = not groups or len(groups[-1]) == len(KEYS) or _side(name) != _side(names[dim - 1])
        if new:
            groups.append([])
        groups[-1].append(dim)
    return groups


def _side(name: str) -> str:
    """The side of the robot that a name speaks of, `left` or `right`; empty if of none."""
    found = re.search(r"left|right", name.lower())
    return found[0] if found else ""


def pad(bindings: Mapping[str, tuple[int, int]], names: Sequence[str]) -> str:
    """All groups of buttons, the first one visible, and buttons that choose a group if there are several.

    Args:
        bindings: The session's name of a key -> action dim and sign.
        names: Names of the action dims.
    """
    keys = {place: key for key, place in bindings.items()}
    groups = groups_of(names)
    parts = [_group(number, dims, keys, names) for number, dims in enumerate(groups)]
    choice = _choice(groups, names) if len(groups) > 1 else ""
    return f'<div class="pad" role="group" aria-label="steering">{choice}{"".join(parts)}</div>'


def _choice(groups: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    buttons = []
    for number, dims in enumerate(groups):
        about = html.escape(f"{names[dims[0]]} to {names[dims[-1]]}")
        buttons.append(
            f'<button type="button" class="choose" data-choose="{number}" aria-pressed="{str(not number).lower()}" '
            f'aria-label="group {number + 1}: {about}" title="{about}">{number + 1}</button>'
        )
    return (
        f'<div class="groups" role="group" aria-label="which actions the keys drive">{"".join(buttons)}</div>'
        f'<span class="note">{len(names)} actions; number keys choose the group</span>'
    )


def _group(number: int, dims: Sequence[int], keys: Mapping[tuple[int, int], str], names: Sequence[str]) -> str:
    arrows, pairs = [], []
    for dim, pair in zip(dims, KEYS, strict=False):
        buttons = [_button(keys[dim, sign], key, names[dim], sign) for key, sign in zip(pair, (-1, 1), strict=True)]
        if pair[0] in ARROWS:
            arrows += buttons
        else:
            pairs.append(f'<div class="pair"><span>{html.escape(names[dim])}</span>{"".join(buttons)}</div>')
    label = arrow_keys([names[dim] for dim in dims])
    others = " ".join(f'<kbd data-code="Key{letter}">{letter}</kbd>' for letter in OTHER_ARROWS)
    return (
        f'<div class="group" data-group="{number}"{" hidden" if number else ""}><span class="axes">{label}</span>'
        f'<div class="arrows">{"".join(arrows)}</div><span class="note">arrow keys, or {others}</span>'
        f"{''.join(pairs)}</div>"
    )


def arrow_keys(names: Sequence[str]) -> str:
    """The arrow keys, drawn, with what they drive: the first two of `names`."""
    return "".join(
        f'<span class="drives">{"".join(f"<kbd>{ARROWS[key]}</kbd>" for key in pair)} {html.escape(name)}</span>'
        for pair, name in zip(KEYS[:2], names, strict=False)
    )


def _button(name: str, key: str, action: str, sign: int) -> str:
    """A button that presses the session's key `name`, labelled by the key of the keyboard."""
    about = f"{html.escape(action)} {'+' if sign > 0 else '-'}"
    place = key if key in ARROWS else ""
    return (
        f'<button type="button" class="key {place}" data-key="{name}" data-code="{code_of(key)}" '
        f'aria-label="{about}, key {key}" title="{about}">{ARROWS.get(key, key.upper())}</button>'
    )
