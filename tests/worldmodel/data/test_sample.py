"""Random clips of a data set: which frames they hold, and what decides on them."""

import pytest
import torch
from drawn_episodes import DrawnEpisodes

from worldmodel.data.sample import sample_clips, split_episodes

SOURCE = DrawnEpisodes([30, 30, 30], lambda episode, frame: frame, action=lambda episode, frame: 100 * episode + frame)


def drawn(**settings) -> torch.Tensor:
    """Index of every frame, which is its grey, of a batch of clips."""
    options = {"batch": 8, "length": 3, "stride": 1, "seed": 0, "index": 0, "episodes": range(3)}
    return sample_clips(SOURCE, **{**options, **settings}).frames[:, :, 0, 0, 0, 0].int()


def test_a_batch_is_a_function_of_seed_and_index():
    assert torch.equal(drawn(), drawn())
    assert not torch.equal(drawn(), drawn(seed=1)) and not torch.equal(drawn(), drawn(index=1))
    assert not torch.equal(drawn(seed=1), drawn(index=1))


@pytest.mark.parametrize(("stride", "gap"), [(1, 1), (1, 5), (3, 1), (3, 4)])
def test_frames_are_strides_apart_and_the_second_a_gap_after_the_first(stride, gap):
    frames = drawn(stride=stride, gap=gap, length=4)
    assert (frames.diff(dim=1) == torch.tensor([gap * stride, stride, stride])).all()
    assert frames.max() < 30


def test_actions_are_those_at_the_frames_of_the_chosen_episodes():
    settings = {"batch": 16, "length": 3, "stride": 1, "seed": 0, "index": 0}
    clip = sample_clips(SOURCE, episodes=[2], gap=4, **settings)
    first, second, _ = clip.frames[:, :, 0, 0, 0, 0].unbind(1)
    assert torch.equal(clip.actions[:, :, 0], torch.stack([200.0 + first, 200.0 + second], dim=1))
    assert (clip.states[:, :, 1] == 2).all()
    every = sample_clips(SOURCE, episodes=range(3), **{**settings, "batch": 64})
    assert set(every.states[:, 0, 1].tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(("total", "held_out"), [(1, 0), (2, 1), (5, 1), (12, 2), (40, 8), (200, 8)])
def test_a_small_data_set_holds_fewer_episodes_out(total, held_out):
    train, rest = split_episodes(DrawnEpisodes([5] * total), None)
    assert (len(train), list(rest)) == (total - held_out, list(range(total - held_out, total)))


def test_as_many_episodes_are_held_out_as_asked_for():
    train, rest = split_episodes(SOURCE, 2)
    assert (list(train), list(rest)) == ([0], [1, 2])
    with pytest.raises(ValueError, match="3 episodes, of which --validation-episodes 3 are held out"):
        split_episodes(SOURCE, 3)
