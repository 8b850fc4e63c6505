"""How cameras are weighed, and how weights are averaged."""

import pytest
import torch
from drawn_episodes import DrawnEpisodes

from worldmodel.model.dit import DiTConfig
from worldmodel.training import build
from worldmodel.training.build import build_world, view_weight
from worldmodel.training.checkpoint import MovingAverage

DIT = DiTConfig(width=16, patch=8, encoder_depth=1, decoder_depth=1, head_width=8)


class Unequal(DrawnEpisodes):
    """The second camera's grey changes three times as fast as the first one's."""

    def frames(self, episode, index):
        frames = super().frames(episode, index).clone()
        frames[:, 1] = frames[:, 1] * 3
        return frames


def test_a_camera_weighs_by_one_over_its_change():
    """Greys rise by 4 and by 12 levels a frame, on the scale of 127.5; the mean weight is 1."""
    source = Unequal([6, 6, 6], lambda episode, frame: 10 + 4 * frame)
    first, second = 1 / ((4 / 127.5) ** 2 + 1e-4), 1 / ((12 / 127.5) ** 2 + 1e-4)
    mean = (first + second) / 2
    expected = torch.tensor([first / mean, second / mean])
    torch.testing.assert_close(view_weight(source, [0, 1], 1), expected)
    torch.testing.assert_close(view_weight(source, [0, 1, 2], 1, num_episodes=1), expected)
    first, second = 1 / ((8 / 127.5) ** 2 + 1e-4), 1 / ((24 / 127.5) ** 2 + 1e-4)
    assert view_weight(source, [0], 2)[0].item() == pytest.approx(2 * first / (first + second))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_long_episode_is_compared_in_pieces(stride, monkeypatch):
    """Greys jump now and then, so that a change forgotten or counted twice between two pieces shows."""
    source = Unequal([23, 9], lambda episode, frame: (7 * frame * frame) % 60)
    whole = view_weight(source, [0, 1], stride)
    for frames in (1, 4, 5):
        monkeypatch.setattr(build, "PIECE_FRAMES", frames)
        torch.testing.assert_close(view_weight(source, [0, 1], stride), whole)


def test_a_world_model_is_built_with_the_statistics_of_its_training_episodes():
    """Episodes 0 and 1 are trained on, episode 2 is not: its actions lie far away."""
    source = Unequal([6, 6, 6], lambda e, t: 10 + 4 * t, action=lambda e, t: (t + 0.0) if e < 2 else t + 1000.0)
    settings = {"dit": DIT, "injection": "adaln", "relative_to": {}, "use_actions": True, "codec": None, "init": None}
    world = build_world(source, [0, 1], stride=1, **settings)
    torch.testing.assert_close(world.view_weight, view_weight(source, [0, 1], 1))
    assert world.view_weight[0] > 1 > world.view_weight[1]
    low, high = (world.conditioner.action_center + sign * world.conditioner.action_scale for sign in (-1, 1))
    assert (low >= 0).all() and (high <= 4).all()  # actions are 0 to 4
    # states are (frame, episode): the first moves by 1 a frame
    center, scale = world.conditioner.state_center[0].item(), world.conditioner.state_scale[0].item()
    assert (center, scale) == pytest.approx((2.5, 2.5), abs=0.1)
    assert world.train_data[0]["episodes"] == [0, 1] and world.train_data[0]["name"] == "drawn"
    silent = build_world(source, [0, 1], stride=1, **{**settings, "use_actions": False})
    assert silent.action_dim == 0 and silent.state_dim == 2
    assert build_world(source, [0], stride=2, **settings).conditioner.action_center.shape == (4,)


def test_the_average_of_weights_warms_up_and_can_be_shown():
    """After updates 0 and 1 the decay is 1 / 10 and 2 / 11, and in the end what was asked for."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = MovingAverage(model, 0.5)
    model.weight.data.fill_(1.0)
    average.update(model, 0)
    assert average.shadow[0].item() == pytest.approx(0.9)
    average.update(model, 1)
    assert average.shadow[0].item() == pytest.approx(1 - 0.1 * 2 / 11)
    average.shadow[0].zero_()
    average.update(model, 1000)
    assert average.shadow[0].item() == pytest.approx(0.5)
    with average.shown(model):
        assert (model.weight.item(), average.shadow[0].item()) == (0.5, 1.0)
    assert (model.weight.item(), average.shadow[0].item()) == (1.0, 0.5)


def test_a_world_notes_that_actions_were_dropped(tmp_path):
    source = DrawnEpisodes([6, 6], lambda episode, frame: 10 + 4 * frame)
    settings = {"stride": 1, "injection": "token", "relative_to": {}, "use_actions": True, "codec": None, "init": None}
    always = build_world(source, [0], dit=DIT, **settings)
    dropped = build_world(source, [0], dit=DIT, action_dropout=0.25, **settings)
    assert "action_dropout" not in always.train_data[0] and not always.knows_no_action
    assert dropped.train_data[0]["action_dropout"] == 0.25 and dropped.knows_no_action
