"""Fidelity that counts only near the recording, on frames drawn by hand."""

from dataclasses import replace

import pytest
import torch
from places import LEROBOT_V30
from tiny import tiny_world
from torch.nn.functional import avg_pool2d

from rl_posttrain.rewards.fidelity import Fidelity
from rl_posttrain.rewards.on_track import OnTrack
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, open_episodes

AGENT, BLOCK = (65, 105, 225), (119, 136, 153)
REWARD = OnTrack(Fidelity(), "pusht", 0)


def scene(agent: list[int], *, block=True) -> torch.Tensor:
    """One clip on white: the agent at the given columns, frame by frame (`None`: erased), and a block that rests."""
    frames = torch.full((len(agent), 64, 64, 3), 255, dtype=torch.uint8)
    for frame, column in zip(frames, agent, strict=True):
        if block:
            frame[40:52, 20:36] = torch.tensor(BLOCK, dtype=torch.uint8)
        if column is not None:
            frame[10:16, column : column + 6] = torch.tensor(AGENT, dtype=torch.uint8)
    return frames[None, :, None]


def blurred(frames: torch.Tensor) -> torch.Tensor:
    """Every pixel is the mean of the 3 x 3 around it, from the second frame on."""
    late = frames[0, 1:, 0].permute(0, 3, 1, 2).float()
    late = avg_pool2d(late, 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat([frames[:, :1], late.permute(0, 2, 3, 1).round().to(torch.uint8)[None, :, None]], dim=1)


TRUTH = scene([10, 20, 30])


def score(imagined: torch.Tensor, reward: OnTrack = REWARD) -> float:
    return reward(Rollout(Clip(imagined), Clip(TRUTH))).item()


def test_sharp_and_right_beats_blurred_beats_erased_beats_frozen():
    values = [score(x) for x in (TRUTH, blurred(TRUTH), scene([10, None, None]), scene([10, 10, 10]))]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4
    assert values[0] == pytest.approx(1 + 50 / 32, abs=1e-3)
    # both frames of the erased dream lose 1
    plain = Fidelity()(Rollout(Clip(scene([10, None, None])), Clip(TRUTH))).item()
    assert values[2] == pytest.approx(plain - 1, abs=1e-3)


def test_an_object_may_be_a_little_off():
    plain = Fidelity()(Rollout(Clip(scene([10, 23, 33])), Clip(TRUTH))).item()
    assert score(scene([10, 23, 33])) == pytest.approx(plain)
    late = Fidelity()(Rollout(Clip(scene([10, 20, 35])), Clip(TRUTH))).item()
    assert score(scene([10, 20, 35])) == pytest.approx(late - 0.5)


def test_a_group_that_begins_after_the_drift_has_no_contrast():
    assert score(scene([16, 20, 30])) == score(scene([16, None, None])) == 0
    assert score(scene([10, 20, 30], block=False)) == 0  # the block is gone already


def test_a_map_says_in_which_frame_the_object_was_lost():
    reward = replace(REWARD, fidelity=Fidelity(credit="cell", cell=16))
    pair = Rollout(Clip(scene([10, 20, None])), Clip(TRUTH))
    lost = reward.fidelity(pair) - reward(pair)
    assert lost.shape == (1, 2, 1, 4, 4) and (lost[:, 0] == 0).all() and (lost[:, 1] == 1).all()


def test_without_objects_the_state_decides():
    world, source = tiny_world(views=("front", "wrist")), open_episodes(LEROBOT_V30, (16, 24))
    world.conditioner.displacement_scale.copy_(torch.tensor([1.0, 2.0]))
    reward = OnTrack.of(Fidelity(), world, source)
    assert reward.view is None
    truth = torch.zeros(1, 3, 2)
    frames = torch.zeros(1, 3, 2, 16, 16, 3, dtype=torch.uint8)
    near = [[4.0, 0.0], [0.0, 8.0], [4.5, 0.0]]  # 4 / 1, 8 / 2 and 4.5 / 1, root mean square over two dims: 2.8 and 3.2
    found = reward.near(Clip(frames, states=torch.tensor([near])), Clip(frames, states=truth))
    assert found.tolist() == [[True, True, False]]
    with pytest.raises(ValueError, match=r"--reward.on-track: needs objects that can be found or a state; .*v30"):
        OnTrack.of(Fidelity(), tiny_world(views=("front", "wrist"), state_dim=0, relative_to={}), source)


def test_pusht_is_known_by_its_objects():
    source = replace(open_episodes(LEROBOT_V30, (16, 24)), robot_type="pusht")
    assert OnTrack.of(Fidelity(), tiny_world(views=("wrist", "top")), source).view == 1
