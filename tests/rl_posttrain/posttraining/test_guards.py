"""Dreams of held-out windows and what is measured in them."""

from dataclasses import replace
from math import pi

import pytest
import torch
from drawn_episodes import tiny_world as grey_world
from matching import CrossedWorld, grey_episodes, twin_matcher
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.posttraining.guards import HeldOut, dream, object_errors, read_held_out, score
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, open_episodes
from worldmodel.model.psnr import psnr


def held_out(frames: int = 11) -> HeldOut:
    """Two windows of noise: 8 frames of context, and what follows."""
    return HeldOut(random_clip(tiny_world(), frames=frames), (0, 1), "unknown")


def test_a_dream_goes_on_where_the_context_ends():
    world, clip = tiny_world(), held_out().clip
    actions = clip.actions[:, 7:] + 0.5
    found = dream(world, clip, actions, num_steps=2, seed=3)
    expected = world.rollout(clip.head(8), actions, num_steps=2, seeds=3)
    assert torch.equal(found.imagined.frames[:, 1:], expected.frames)
    assert torch.equal(found.imagined.states[:, 1:], expected.states)
    assert torch.equal(found.reference.frames, clip.frames[:, 7:])
    assert torch.equal(found.reference.states, clip.states[:, 7:])
    assert torch.equal(found.imagined.frames[:, 0], clip.frames[:, 7])
    assert torch.equal(found.imagined.actions, actions)


def test_the_error_of_an_angle_is_taken_the_short_way_round():
    """A dream that stays where it is: at 3.1, while the recording turns on to -3.1."""
    world, held = tiny_world(random=False, angles={1: (-pi, pi)}), held_out()
    held.clip.states[..., 1] = 3.1
    held.clip.states[:, 8:, 1] = -3.1
    held.clip.states[..., 0] = 0.5
    found, rollout = score(world, held, rewards={}, dynamics=None, num_steps=1, seed=3)
    dreamed = rollout.imagined.states[:, 1:]
    turned = torch.remainder(dreamed[..., 1] + 3.1 + pi, 2 * pi) - pi
    expected = torch.stack([dreamed[..., 0] - 0.5, turned], dim=-1).norm(dim=-1).mean(dim=1)
    torch.testing.assert_close(found["state_error"], expected)
    assert found["state_error"].max() < 3


def test_the_error_of_actions_is_that_of_the_moments_which_the_recording_shows():
    world, held = tiny_world(), held_out()
    torch.manual_seed(0)
    dynamics = InverseDynamics(InverseDynamicsConfig(world.views, world.size, 2, keypoints=4, code=8, width=8)).eval()
    torch.nn.init.normal_(dynamics.doubt[-1].weight)
    settings = {"rewards": {}, "num_steps": 1, "seed": 3}
    _, rollout = score(world, held, dynamics=None, **settings)
    dynamics.limit.copy_(dynamics.read(rollout.reference).deviation.flatten(0, 1).median(0).values)
    shown, dreamed = dynamics.visible(rollout.reference), dynamics.visible(rollout.imagined)
    assert shown.any() and not torch.equal(shown, dreamed)
    found, rollout = score(world, held, dynamics=dynamics, **settings)
    torch.testing.assert_close(found["action_error"], dynamics.disagreement(rollout.imagined, shown), equal_nan=True)


def test_scores_are_those_of_the_dream_under_recorded_actions():
    """The response is the change when each window gets the other's actions."""
    world, held = tiny_world(), held_out()
    settings = {"num_steps": 1, "seed": 3}
    reward = {"first": lambda rollout: rollout.imagined.actions[:, 0, 0]}
    found, rollout = score(world, held, rewards=reward, dynamics=None, **settings)
    recorded = held.clip.actions[:, 7:]
    mine = dream(world, held.clip, recorded, **settings)
    other = dream(world, held.clip, recorded.flip(0), **settings)
    assert torch.equal(rollout.imagined.frames, mine.imagined.frames)
    truth = held.clip.frames[:, 8:]
    torch.testing.assert_close(found["psnr"], psnr(mine.imagined.frames[:, 1:], truth).mean(dim=(1, 2)))
    change = (
        (mine.imagined.frames[:, 1:].float() - other.imagined.frames[:, 1:].float()).abs().mean(dim=(1, 2, 3, 4, 5))
    )
    torch.testing.assert_close(found["response"], change)
    assert change.min() > 0
    torch.testing.assert_close(found["reward.first"], held.clip.actions[:, 7, 0])
    error = (mine.imagined.states[:, 1:] - held.clip.states[:, 8:]).norm(dim=-1).mean(dim=1)
    torch.testing.assert_close(found["state_error"], error)
    alone = HeldOut(held.clip.map(lambda tensor: tensor[:1]), (0,), "unknown")
    backwards = dream(world, alone.clip, recorded[:1].flip(1), **settings).imagined.frames[:, 1:]
    change = (mine.imagined.frames[:1, 1:].float() - backwards.float()).abs().mean()
    assert score(world, alone, rewards={}, dynamics=None, **settings)[0]["response"].item() == pytest.approx(
        change.item(), abs=0.5
    )


def test_a_reward_of_maps_is_measured_by_its_mean_and_sees_the_recorded_successes():
    world, held, seen = tiny_world(), held_out(), []
    flags = torch.zeros(2, 10, dtype=torch.bool)
    flags[0, 7], flags[1, 6] = True, True  # the action after the context of 8 frames is the eighth
    held = replace(held, clip=replace(held.clip, successes=flags))

    def map_of(rollout):
        seen.append(rollout)
        return torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])[:, :, None, None, None]

    found, _ = score(world, held, rewards={"mine": map_of}, dynamics=None, num_steps=1, seed=3)
    assert found["reward.mine"].tolist() == [3.0, 0.0]
    assert seen[0].reference.successes.tolist() == [[True, False, False], [False] * 3]
    assert seen[0].imagined.successes is None


def test_objects_are_looked_for_in_their_own_camera():
    """The camera from above shows the truth, the wrist camera nothing: the objects are where they should be."""
    source = open_episodes(LEROBOT_V30, (64, 64))
    assert source.views == ("top", "wrist")
    clip = source.read(0, 0, 10).map(lambda tensor: tensor[None])
    held = HeldOut(clip, (0,), "pusht")
    late = Clip(clip.frames[:, 7:], clip.actions[:, 7:])
    blind = late.frames.clone()
    blind[:, :, 1] = 0
    found = object_errors(held, Rollout(replace(late, frames=blind), late), source.views)
    assert set(found) == {"agent", "block"}
    assert all(errors.shape == (1, 2) and errors.max() == 0 for errors in found.values())
    blind[:, :, 0] = 0
    lost = object_errors(held, Rollout(replace(late, frames=blind), late), source.views)
    assert all((errors == 32).all() for errors in lost.values())
    assert object_errors(replace(held, robot_type="unknown"), Rollout(late, late), source.views) == {}
    assert object_errors(held, Rollout(late, late), ("wrist",)) == {}


def test_cameras_that_tell_two_stories_are_noticed():
    """In the crossed world the first frame shows the wrist camera of another episode."""
    world, source = grey_world(), grey_episodes()
    held, matcher = read_held_out(world, source, range(6), horizon=1, starts=1), twin_matcher()
    settings = {"rewards": {}, "dynamics": None, "num_steps": 1, "seed": 0}
    assert "cross_view" not in score(world, held, **settings)[0]
    assert score(world, held, matcher=matcher, **settings)[0]["cross_view"].tolist() == [1.0] * 6
    crossed = score(CrossedWorld(world.config).eval(), held, matcher=matcher, **settings)[0]["cross_view"]
    assert crossed.mean() < 0.7
    lonely = replace(held, clip=replace(held.clip, view_mask=torch.tensor([[True, False]]).repeat(6, 1)))
    assert score(world, lonely, matcher=matcher, **settings)[0]["cross_view"].isnan().all()


def test_a_held_out_window_knows_its_horizon():
    assert held_out(frames=11).horizon == 3
