"""The flow head: what it learns, that its samples repeat, and that plans are carried out as the configuration says."""

import json
from dataclasses import replace

import pytest
import torch
from square_world import write_episodes

from policy_eval.policies.cloned import DRAWS, ClonedPolicy, FlowPolicy, PolicyConfig, make_policy
from policy_eval.policies.flow_head import FlowHead, level_features
from worldmodel.cli import main
from worldmodel.streaming.noise import stream_noise

LOOKS = {"views": ("top",), "size": (16, 16), "action_dim": 2, "state_dim": 2}


def flow_policy(**settings) -> FlowPolicy:
    torch.manual_seed(0)
    return make_policy(PolicyConfig(**LOOKS | {"chunk": 3, "head": "flow"} | settings)).eval()


def seen(states: list[list[float]]) -> dict[str, torch.Tensor]:
    pictures = torch.zeros(len(states), 16, 16, 3, dtype=torch.uint8)
    return {"observation.images.top": pictures, "observation.state": torch.tensor(states)}


def test_a_flow_learns_both_of_two_plans_where_a_regression_learns_their_mean():
    """Half of the demonstrators go left and half right; the last of the two actions goes back."""
    torch.manual_seed(0)
    head = FlowHead(1, chunk=2, action_dim=1, width=32, num_steps=5)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    side = torch.tensor([-1.0, 1.0]).repeat(16)[:, None, None]
    plans = torch.cat([side, -side], 1)
    features = torch.zeros(len(plans), 1)
    for _ in range(200):
        loss = head.loss(features, plans, torch.randn(32, 2, 2, 1), torch.rand(32, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        drawn = head.plans(torch.zeros(200, 1), torch.randn(200, 2, 1))
    assert (drawn[:, 0].abs() - 1).abs().median() < 0.15
    assert (drawn[:, 0] * drawn[:, 1] < 0).float().mean() > 0.9
    assert 0.3 < (drawn[:, 0] > 0).float().mean() < 0.7


def test_the_flow_loss_is_the_squared_distance_to_the_clean_plan():
    """A head that always predicts 0.5 is 0.5 from a plan of ones, and 1.5 from one of minus ones, at every level."""
    head = FlowHead(1, chunk=2, action_dim=1, width=8, num_steps=2)
    head.out[-1].weight.data.zero_()
    head.out[-1].bias.data.fill_(0.5)
    plans = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 2, 1)
    losses = head.loss(torch.zeros(2, 1), plans, torch.randn(2, 3, 2, 1), torch.rand(2, 3))
    torch.testing.assert_close(losses, torch.tensor([0.25, 2.25]))
    torch.testing.assert_close(head.plans(torch.zeros(2, 1), torch.randn(2, 2, 1)), torch.full((2, 2, 1), 0.5))


def test_a_plan_at_level_one_is_clean_and_at_level_zero_noise():
    """Noise does not matter at level 1, and the plan does not matter at level 0."""
    head = FlowHead(1, chunk=2, action_dim=1, width=8, num_steps=2)
    seen_, plans, other = torch.zeros(1, 1), torch.randn(1, 2, 1), torch.randn(1, 2, 1)
    noise, tau = torch.randn(2, 1, 1, 2, 1), torch.ones(1, 1)
    assert torch.equal(head.loss(seen_, plans, noise[0], tau), head.loss(seen_, plans, noise[1], tau))
    predicted = head(head.seen(seen_), noise[0, :, 0], torch.zeros(1))
    for each in (plans, other):
        expected = (predicted - each).square().mean((1, 2))
        torch.testing.assert_close(head.loss(seen_, each, noise[0], 0 * tau), expected)


def test_levels_are_told_apart():
    """A half turn and a full turn at tau = 1; a quarter turn and a half turn at tau = 0.5."""
    features = level_features(torch.tensor([0.0, 0.5, 1.0]))
    assert features.shape == (3, 8)
    torch.testing.assert_close(
        features[:, 4:6], torch.tensor([[1.0, 1.0], [0.0, -1.0], [-1.0, 1.0]]), atol=1e-6, rtol=0
    )


def test_losses_repeat_with_the_generator_and_average_several_draws():
    one = flow_policy()
    features, plans = torch.randn(2, one.num_features), torch.zeros(2, 3, 2)
    first, again, other = (one.loss(features, plans, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == (2,) and torch.equal(first, again) and not torch.equal(first, other)
    generator = torch.Generator().manual_seed(0)
    noise, tau = torch.randn(2, DRAWS, 3, 2, generator=generator), torch.rand(2, DRAWS, generator=generator)
    alone = [one.head.loss(features[i : i + 1], plans[i : i + 1], noise[i : i + 1], tau[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(first, torch.cat(alone))


def test_samples_are_functions_of_what_was_seen_the_seed_and_the_step():
    one = flow_policy(relative_to={0: 0})
    observation = seen([[1.0, 5.0], [1.0, 5.0], [100.0, 5.0]])
    drawn = one.sample(observation, 4, torch.tensor([3, 4, 3]), 0)
    assert drawn.shape == (3, 4, 3, 2)
    alone = one.sample(seen([[1.0, 5.0]]), 4, torch.tensor([4]), 0)
    torch.testing.assert_close(alone[0], drawn[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(drawn[0], drawn[1]) and not torch.allclose(drawn[0, 0], drawn[0, 1])
    assert not torch.allclose(one.sample(observation, 4, torch.tensor([3, 4, 3]), 1), drawn)
    assert (drawn[2, ..., 0] > 50).all() and (drawn[:2, ..., 0] < 50).all()


def test_a_sample_is_the_plan_of_its_noise():
    one = flow_policy(replan_after=2)
    one.action_std.copy_(torch.tensor([2.0, 3.0]))
    observation, seeds = seen([[1.0, 5.0], [2.0, 0.0]]), torch.tensor([7, 8])
    noise = stream_noise(seeds, torch.tensor([5, 5]), [4, 3, 2])
    features = one.features(torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8), observation["observation.state"])
    drawn = one.sample(observation, 4, seeds, 5)
    for index in range(4):
        expected = one.plans(features, noise[:, index]) * one.action_std
        torch.testing.assert_close(drawn[:, index], expected[:, :2], atol=1e-5, rtol=1e-4)


def test_some_of_a_plan_is_carried_out():
    """Two of three actions, then the policy looks again."""
    for head in ("regression", "flow"):
        one = flow_policy(head=head, replan_after=2)
        one.reset([0])
        near, far = seen([[1.0, 1.0]]), seen([[9.0, 9.0]])
        done = [one.act(near), one.act(far), one.act(far)]
        assert one.plan(near).shape == (1, 2, 2)
        one.reset([0])
        again = [one.act(near), one.act(near)]
        torch.testing.assert_close(torch.stack(done[:2]), torch.stack(again))
        assert not torch.equal(done[2], done[0])


def test_a_flow_carries_out_a_sample_of_its_seed_and_step():
    one, near = flow_policy(replan_after=1), seen([[1.0, 1.0], [1.0, 1.0]])
    one.reset([4, 5])
    for step in range(2):
        expected = one.sample(near, 1, torch.tensor([4, 5]), step)[:, 0, 0]
        torch.testing.assert_close(one.act(near), expected)
    assert not torch.allclose(one.act(near), one.plan(near)[:, 0])
    features = one.features(torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8), near["observation.state"])
    torch.testing.assert_close(one.plan(near), one.plans(features, torch.zeros(2, 3, 2))[:, :1])


def test_a_saved_flow_acts_alike(tmp_path):
    one = flow_policy(flow_steps=2)
    one.save(tmp_path, dtype=torch.float32)
    again = ClonedPolicy.load(tmp_path)
    assert isinstance(again, FlowPolicy) and again.config == one.config and again.head.num_steps == 2
    seeds = torch.tensor([1])
    torch.testing.assert_close(
        again.sample(seen([[1.0, 2.0]]), 3, seeds, 0), one.sample(seen([[1.0, 2.0]]), 3, seeds, 0)
    )


def test_a_policy_folder_of_before_is_a_regression(tmp_path):
    """`policy.json` without the newer fields."""
    ClonedPolicy(PolicyConfig(**LOOKS)).save(tmp_path)
    file = tmp_path / "policy.json"
    values = json.loads(file.read_text())
    for name in ("head", "replan_after", "flow_steps"):
        del values["config"][name]
    file.write_text(json.dumps(values))
    assert type(ClonedPolicy.load(tmp_path)) is ClonedPolicy


def test_plans_that_cannot_be_carried_out_are_refused(tmp_path):
    for change, message in (
        ({"replan_after": 4}, "replan_after is 1 to 3, which is the chunk, got 4"),
        ({"replan_after": 0}, "got 0"),
        ({"flow_steps": 0}, "flow_steps are at least 1, got 3 and 0"),
    ):
        one = flow_policy()
        one.config = replace(one.config, **change)
        one.save(tmp_path)
        with pytest.raises(ValueError, match=message) as caught:
            ClonedPolicy.load(tmp_path)
        assert str(tmp_path) in str(caught.value)
    for kind, head in ((ClonedPolicy, "flow"), (FlowPolicy, "regression")):
        with pytest.raises(ValueError, match=f"head is {head}, {kind.__name__} has"):
            kind(PolicyConfig(**LOOKS, head=head))


def test_the_command_clones_a_flow(tmp_path, capsys):
    data = write_episodes(tmp_path / "data", 2)
    options = ("--head", "flow", "--chunk", "3", "--replan-after", "2", "--flow-steps", "4")
    assert main(["clone", "--data", str(data), "--out", str(tmp_path / "p"), "--steps", "3", *options]) == 0
    policy = ClonedPolicy.load(tmp_path / "p")
    assert (policy.config.chunk, policy.config.carried, policy.head.num_steps) == (3, 2, 4)
    call = ["clone", "--data", str(data), "--out", str(tmp_path / "q"), "--replan-after", "2"]
    assert main(call) == 2 and "replan_after is 1 to 1, which is the chunk, got 2" in capsys.readouterr().err
