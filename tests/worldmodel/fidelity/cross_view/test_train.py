"""Training of a matcher: its batches, its loss, and what it refuses."""

import math

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from matching import grey_episodes, twin_matcher
from places import LEROBOT_V30

from worldmodel.data import open_episodes
from worldmodel.fidelity.cross_view.agreement import agreement
from worldmodel.fidelity.cross_view.train import check_unseen, draw_moments, find_matcher, matching_loss, train_matcher


def test_a_batch_has_two_moments_of_each_drawn_episode():
    source = grey_episodes()
    clip = draw_moments(source, seed=3, index=5)
    assert clip.frames.shape == (64, 1, 2, 16, 16, 3)
    episodes = (clip.frames[:, 0, 0, 0, 0, 0].int() - 20) // 40
    assert torch.equal(episodes[::2], episodes[1::2]) and len(episodes.unique()) == 6
    assert torch.equal(draw_moments(source, seed=3, index=5).frames, clip.frames)
    assert not torch.equal(draw_moments(source, seed=3, index=6).frames, clip.frames)
    assert not torch.equal(draw_moments(source, seed=4, index=5).frames, clip.frames)


def test_the_loss_is_the_cross_entropy_of_the_right_moment():
    """Scale 2, two moments with similarities 1 and 0: -log(e^2 / (e^2 + 1))."""
    codes = torch.eye(2)[:, None].repeat(1, 2, 1)
    expected = math.log(1 + math.exp(-2))
    assert matching_loss(codes, None, torch.tensor(2.0)).item() == pytest.approx(expected)
    swapped = torch.stack([codes[:, 0], codes.flip(0)[:, 1]], dim=1)
    assert matching_loss(swapped, None, torch.tensor(2.0)).item() == pytest.approx(2 + expected)


def test_each_camera_is_looked_for_in_the_other():
    """The first camera of both moments looks alike: in this direction nothing is told apart, log 2."""
    codes = torch.stack([torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)], dim=1)
    held_first, held_second = math.log((1 + math.e**2) / math.e), math.log(2)
    assert matching_loss(codes, None, torch.tensor(2.0)).item() == pytest.approx((held_first + held_second) / 2)


def test_moments_without_both_cameras_are_left_out_of_the_loss():
    codes = torch.eye(3)[:, None].repeat(1, 2, 1)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    found = matching_loss(codes, mask, torch.tensor(2.0)).item()
    assert found == pytest.approx(matching_loss(codes[::2], None, torch.tensor(2.0)).item())
    assert matching_loss(codes, torch.tensor([[True, False]] * 3), torch.tensor(2.0)).item() == 0


def scores_of(matcher):
    """Agreement of cameras that show the same, and of those of two episodes."""
    source = grey_episodes(name="mine")
    frames = torch.stack([source.read(episode, 4, 6).frames for episode in range(len(source))])
    episodes = torch.arange(len(source))
    own = agreement(matcher.codes(frames), episodes).mean().item()
    frames[:, :, 1] = frames[:, :, 1].roll(3, dims=0)
    return own, agreement(matcher.codes(frames), episodes).mean().item()


def test_a_swapped_camera_is_noticed():
    own, swapped = scores_of(twin_matcher())
    assert own == 1.0 and swapped < 0.7


@pytest.mark.slow
def test_a_matcher_learns_which_pictures_belong_together():
    own, swapped = scores_of(train_matcher(grey_episodes(name="other"), steps=60, seed=0, device="cpu"))
    assert own > 0.9 and swapped < 0.7


def test_weights_and_batches_depend_on_the_seed(monkeypatch):
    monkeypatch.setattr("worldmodel.fidelity.cross_view.train.MOMENTS", 4)
    first, again, other = (train_matcher(grey_episodes(), steps=1, seed=seed, device="cpu") for seed in (1, 1, 2))
    weights = [each.encoders[0].head[0].weight for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not first.training


def test_what_is_measured_must_not_have_been_seen():
    source = grey_episodes(name="mine")
    notes = [{"fingerprint": "mine", "episodes": [1, 2, 4], "robot_type": "drawn", "reset_seeds": None}]
    check_unseen("m", notes, source, [0, 3])
    with pytest.raises(ValueError, match=r"^m: episodes 2, 4 of mine are to be measured, but the network"):
        check_unseen("m", notes, source, [0, 2, 4])


def test_recordings_and_folders_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("worldmodel.fidelity.cross_view.train.MOMENTS", 4)
    source = open_episodes(LEROBOT_V30, (16, 16))
    settings = {"steps": 1, "seed": 0, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match=r"episodes 1 of .* are to be measured"):
        find_matcher(LEROBOT_V30, source, [1], **settings)
    matcher = find_matcher(LEROBOT_V30, source, [], **settings)
    assert matcher.config.views == ("top", "wrist") and len(matcher.train_data[0]["episodes"]) == len(source)
    matcher.save(tmp_path)
    assert find_matcher(tmp_path, source, [], **settings).train_data == matcher.train_data
    with pytest.raises(ValueError, match=r"episodes 0 of .* are to be measured"):
        find_matcher(tmp_path, source, [0], **settings)


def test_too_little_to_compare_is_refused():
    with pytest.raises(
        ValueError, match=r"drawn: cameras \('top',\); --cross-view compares cameras and needs at least 2"
    ):
        train_matcher(DrawnEpisodes([9, 9], views=("top",)), steps=1, seed=0, device="cpu")
    with pytest.raises(ValueError, match=r"1 episodes and --cross-view-steps 3; a matcher needs at least 2 and 1"):
        train_matcher(DrawnEpisodes([9]), steps=3, seed=0, device="cpu")
    with pytest.raises(ValueError, match=r"--cross-view-steps 0"):
        train_matcher(DrawnEpisodes([9, 9]), steps=0, seed=0, device="cpu")
