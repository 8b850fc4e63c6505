"""How streams begin and go on: their seeds and their states."""

import pytest
import torch
from tiny import random_clip, tiny_world

from worldmodel.streaming.advance import seed_of_each


def test_a_whole_number_seeds_the_streams_one_after_the_other():
    assert seed_of_each(5, 3).tolist() == [5, 6, 7]
    assert seed_of_each([9, 2], 2).tolist() == [9, 2]
    with pytest.raises(ValueError, match="got 2 seeds for 3 streams"):
        seed_of_each([9, 2], 3)


@pytest.mark.parametrize("fast", [True, False])
def test_a_predicted_displacement_is_in_units_of_its_scale(fast):
    """This world predicts that each state moves by 2 of its deviations, of 0.25 and 3."""
    world = tiny_world(random=False)
    world.fast = fast
    torch.nn.init.constant_(world.dit.state_out.bias, 2.0)
    world.conditioner.displacement_scale.copy_(torch.tensor([0.25, 3.0]))
    clip = random_clip(world, frames=3)
    seen = world.rollout(clip, clip.actions, num_steps=1)
    moved = seen.states - clip.states[:, -1:]
    expected = torch.tensor([[0.5, 6.0], [1.0, 12.0]]).expand(2, 2, 2)
    torch.testing.assert_close(moved, expected, atol=0.05, rtol=0.02)
