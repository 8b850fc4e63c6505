"""Absolute targets as displacements, by hand."""

import pytest
import torch

from conditioning.relative import check_relative_to, relative_actions


def test_the_state_is_subtracted_from_the_targets_alone():
    actions = torch.tensor([[[10.0, 20.0, 1.0], [11.0, 22.0, 0.0]]])  # two chunks of one frame
    states = torch.tensor([[[5.0, 7.0]]])  # one for both
    found = relative_actions(actions, states, {0: 1, 1: 0})
    assert found.tolist() == [[[3.0, 15.0, 1.0], [4.0, 17.0, 0.0]]]
    assert actions[0, 0, 0] == 10, "the actions themselves stay"


def test_long_displacements_are_shortened_together():
    """A displacement (3, 4) is 5 long; a cap of 2.5 halves it. One of (0.3, 0.4) stays."""
    actions = torch.tensor([[4.0, 6.0, 9.0], [1.3, 2.4, 9.0]])
    found = relative_actions(actions, torch.tensor([[1.0, 2.0]]), {0: 0, 1: 1}, cap=2.5)
    torch.testing.assert_close(found, torch.tensor([[1.5, 2.0, 9.0], [0.3, 0.4, 9.0]]))
    assert torch.equal(relative_actions(actions, torch.zeros(1, 2), {}, cap=0.1), actions)


@pytest.mark.parametrize("pairs", [{2: 0}, {0: 3}, {-1: 0}, {0: -1}])
def test_a_dim_that_the_data_lack_is_named(pairs):
    check_relative_to({1: 2}, data="set", action_dim=2, state_dim=3)
    ((action, state),) = pairs.items()
    message = f"set: relative_to has {action}: {state}, the data has 2 action dims and 3 state dims"
    with pytest.raises(ValueError, match=message):
        check_relative_to(pairs, data="set", action_dim=2, state_dim=3)
