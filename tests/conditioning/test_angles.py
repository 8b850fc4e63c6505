from dataclasses import replace
from math import pi

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from tiny import random_clip, tiny_world

from conditioning.angles import found_angles, on_the_circle, shortest, wrapped
from conditioning.relative import relative_actions
from policy_eval.judge.inverse_dynamics_training import InverseDynamicsTraining, build
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from rl_posttrain.rewards.agreement import StateAgreement
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip
from worldmodel.training.build import build_world
from worldmodel.training.statistics import action_state_statistics, state_angles

RADIANS = {1: (-pi, pi)}


class LongEpisodes(DrawnEpisodes):
    def states(self, episode, index):
        return torch.stack([index.float() * 100, index.float()], dim=1)


def states(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_differences_of_angles_go_the_short_way_round():
    difference = states([6.2, 6.2], [-6.2, -6.2], [1.0, 1.0])
    expected = states([6.2, 6.2 - 2 * pi], [-6.2, 2 * pi - 6.2], [1.0, 1.0])
    torch.testing.assert_close(shortest(difference, RADIANS), expected)
    assert torch.equal(shortest(difference, {}), difference)
    torch.testing.assert_close(shortest(states([350.0]), {0: (0.0, 360.0)}), states([-10.0]))


def test_states_are_wrapped_into_their_interval():
    torch.testing.assert_close(wrapped(states([4.0, 4.0]), RADIANS), states([4.0, 4.0 - 2 * pi]))
    torch.testing.assert_close(wrapped(states([-10.0]), {0: (0.0, 360.0)}), states([350.0]))


def test_the_network_sees_no_jump():
    circle = on_the_circle(states([0.0, 3.1415], [0.0, -3.1415]), RADIANS)
    assert circle.shape == (2, 2)
    assert (circle[0] - circle[1]).abs().max() < 1e-3
    assert (on_the_circle(states([0.0, 1.0]), RADIANS) - circle[:1]).abs().max() > 0.5


def test_actions_relative_to_an_angle_are_short_displacements():
    found = relative_actions(states([3.1, 5.0]), states([0.0, -3.1]), {0: 1}, angles=RADIANS)
    torch.testing.assert_close(found, states([6.2 - 2 * pi, 5.0]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 3.1, -3.1, -3.0], (-pi, pi)),
        ([6.1, 6.2, 0.1, 0.2], (0.0, 2 * pi)),
        ([170.0, 179.0, -179.0, -170.0], (-180.0, 180.0)),
        ([350.0, 359.0, 1.0], (0.0, 360.0)),
        ([0.0, 0.1, 0.2, 0.3], None),
        ([0.0, 6.0, 0.0, 3.0], None),  # a step of 3 is no smooth angle
        ([0.0, 100.0, 461.0, 100.0], None),
        ([0.0, 0.0, 5.0, 5.0, 0.0], None),  # a gripper
        ([0.0, 300.0, 300.0, 0.0], None),
    ],
)
def test_angles_are_found_by_their_jumps(values, expected):
    found = found_angles([torch.tensor(values)[:, None], torch.tensor(values[:1])[:, None]])
    assert found == ({} if expected is None else {0: pytest.approx(expected)})


class TurningEpisodes(DrawnEpisodes):
    """The second state turns by 0.5 a frame, and wraps at pi; the second action is the next angle."""

    def states(self, episode, index):
        angle = torch.remainder(0.5 * index.float() + pi, 2 * pi) - pi
        return torch.stack([index.float(), angle], dim=1)


def test_statistics_and_the_model_take_the_short_way():
    source = TurningEpisodes([30])
    angles = state_angles(source, "auto")
    assert angles == {1: pytest.approx((-pi, pi))}
    assert state_angles(source, "none") == {}
    assert state_angles(source, (1,)) == angles
    with pytest.raises(ValueError, match="--angles 7 is not one of 2"):
        state_angles(source, (7,))
    with pytest.raises(ValueError, match="state dim 0 is 0 to 2900, more than one turn"):
        state_angles(LongEpisodes([30]), (0,))
    found = action_state_statistics(source, angles=angles).displacement
    torch.testing.assert_close(found.mean, torch.tensor([1.0, 0.5]))
    assert found.std[1] < 1e-3


def test_a_world_with_angles_is_periodic(tmp_path):
    world = tiny_world(angles={1: (-pi, pi)}, relative_to={})
    conditioner = world.conditioner
    conditioner.displacement_scale.copy_(torch.tensor([2.0, 0.5]))
    found = conditioner.displacement(states([2.0, -3.1]), states([0.0, 3.1]))
    torch.testing.assert_close(found, states([1.0, (2 * pi - 6.2) / 0.5]))
    torch.testing.assert_close(conditioner.moved(states([0.0, 3.1]), states([1.0, 0.2])), states([2.0, 3.2 - 2 * pi]))
    clip = random_clip(world, batch=2)
    turned = clip.states.clone()
    turned[..., 1] += 2 * pi
    one, other = (world.conditioner(None, given, (2, 6)).tokens for given in (clip.states, turned))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    world.save(tmp_path)
    assert type(world).load(tmp_path).config == world.config


def test_a_new_world_knows_the_angles_of_its_data(capsys):
    source = TurningEpisodes([30, 30])
    settings = {"stride": 1, "injection": "adaln", "use_actions": True, "codec": None, "init": None}
    dit = tiny_world().config.dit
    world = build_world(source, [0], dit=dit, relative_to={}, **settings)
    assert world.config.conditioner.angles == {1: pytest.approx((-pi, pi))}
    assert "state dim 1 is an angle that wraps from 3.142 to -3.142" in capsys.readouterr().out
    torch.testing.assert_close(world.conditioner.displacement_scale, torch.tensor([1.0, 0.5]))
    plain = build_world(source, [0], dit=dit, relative_to={}, angles="none", **settings)
    assert plain.config.conditioner.angles == {} and plain.conditioner.displacement_scale[1] > 1


def test_agreement_of_states_does_not_punish_a_wrap():
    def clip(angle):
        return Clip(torch.zeros(1, 2, 1, 2, 2, 3, dtype=torch.uint8), states=torch.tensor([[[0.0, 0.0], [0.0, angle]]]))

    rollout = Rollout(imagined=clip(3.1), reference=clip(-3.1))
    scale = torch.ones(2)
    assert StateAgreement(scale, RADIANS)(rollout).item() == pytest.approx(-((2 * pi - 6.2) ** 2) / 2, rel=1e-4)
    assert StateAgreement(scale)(rollout).item() == pytest.approx(-(6.2**2) / 2, rel=1e-4)


def test_a_policy_commands_angles_within_their_interval():
    settings = {"views": ("top",), "size": (16, 16), "action_dim": 2, "state_dim": 2, "relative_to": {0: 1}}
    policy = ClonedPolicy(PolicyConfig(**settings, angles=RADIANS))
    commands = policy.commands(torch.tensor([[[0.2, 5.0]]]), states([0.0, 3.1]))
    torch.testing.assert_close(commands, torch.tensor([[[3.3 - 2 * pi, 5.0]]]))


def test_inverse_dynamics_decode_every_action_of_a_stride_relative_to_its_state(tmp_path):
    world = tiny_world(views=("top", "wrist"), size=(16, 16), stride=3, relative_to={1: 1}, angles={1: (-pi, pi)})
    source = TurningEpisodes([30])
    dynamics = build(InverseDynamicsTraining(tmp_path, tmp_path, cap=1.0), source, range(1), world)
    assert dynamics.config.relative_to == {1: 1, 3: 1, 5: 1}
    assert dynamics.config.angles == {1: (-pi, pi)}
    assert build(InverseDynamicsTraining(tmp_path, tmp_path), source, range(1), None).config.angles == {
        1: pytest.approx((-pi, pi))
    }
    clip = source.read(0, 0, 28, 3).map(lambda tensor: tensor[None])
    commanded = dynamics.commanded(clip)[0]
    wanted = clip.actions[0, 4].clone()
    wanted[1::2] = torch.remainder(wanted[1::2] - clip.states[0, 4, 1] + pi, 2 * pi) - pi
    scale = (dynamics.config.cap / wanted[1::2].norm()).clamp_max(1)
    torch.testing.assert_close(commanded[4, 1::2], wanted[1::2] * scale)


def test_advice_about_actions_that_turn(capsys):
    class Both(TurningEpisodes):
        def read(self, episode, start, stop, stride=1):
            clip = super().read(episode, start, stop, stride)
            return replace(clip, actions=clip.states[1:])

    settings = {"stride": 1, "injection": "adaln", "use_actions": True, "codec": None, "init": None}
    dit = tiny_world().config.dit
    build_world(Both([30, 30]), [0], dit=dit, relative_to={}, **settings)
    assert "action dim 1 jumps by a whole turn, too; --relative-to 1 STATE" in capsys.readouterr().out
    build_world(Both([30, 30]), [0], dit=dit, relative_to={1: 1}, **settings)
    assert "action dim" not in capsys.readouterr().out
    build_world(Both([30, 30]), [0], dit=dit, relative_to={1: 1}, angles="none", **settings)
    assert "action dim 1 jumps by a whole turn, too; --angles 1" in capsys.readouterr().out


def test_the_conditioner_takes_the_short_way_from_an_angle():
    world = tiny_world(angles=RADIANS, relative_to={0: 1})
    found = world.conditioner.relative(torch.tensor([[[3.1, 5.0]]]), torch.tensor([[[0.0, -3.1]]]))
    torch.testing.assert_close(found, torch.tensor([[[6.2 - 2 * pi, 5.0]]]))
