"""The second task of networks that look at a robot."""

from math import pi

import pytest
import torch

from policy_eval.judge.state_probe import StateProbe

EPISODE = torch.tensor([[0.0, 5.0], [2.0, 5.0], [0.0, 5.0]])
"""The first dim moves by 2 each time and is 2/3 on average, the second never moves."""


def probe(place: float, change: float, *, angles: dict | None = None) -> StateProbe:
    """Reads these constants, whatever the code."""
    made = StateProbe([EPISODE], 3, angles or {})
    for linear, value in ((made.place, place), (made.change, change)):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.constant_(linear.bias, value)
    return made


def test_positions_and_changes_are_in_units_of_the_usual_change():
    codes, states = torch.zeros(1, 2, 3), torch.tensor([[[2 / 3, 5.0], [2 / 3 + 2, 5.0]]])
    # positions are 0 and 1, the change is 1; the dim that never moves counts nothing
    assert probe(0.0, 1.0)(codes, states).item() == pytest.approx((0 + 0.5) / 2)
    assert probe(0.0, 0.0)(codes, states).item() == pytest.approx((0 + 0.5) / 2 + 0.5)


def test_of_an_angle_only_the_change_is_learned_the_short_way_round():
    codes = torch.zeros(1, 2, 3)
    states = torch.tensor([[[pi - 0.5, 5.0], [-pi + 0.5, 5.0]]])  # one further
    found = probe(9.0, 0.0, angles={0: (-pi, pi)})(codes, states).item()
    assert found == pytest.approx((1 / 2) ** 2 / 2, rel=1e-4)
