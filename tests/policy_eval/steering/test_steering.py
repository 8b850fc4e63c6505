import runpy
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import BENCHMARKS
from square_world import SquareEnv, write_episodes
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.policies.policy import Policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.steering.proposals import jitter, samples
from policy_eval.steering.scorers import Candidates, at_random, by_agreement, by_value, by_verifier, nearest_the_mean
from policy_eval.steering.steered import SteeredPolicy
from worldmodel.data import Clip, open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.envs.policy import begin_episodes


class Still:
    """Plans to stay where it is for two steps."""

    def plan(self, observation):
        return observation["observation.state"][:, None].repeat(1, 2, 1)


def seen(states: list[list[float]]) -> dict[str, torch.Tensor]:
    pictures = torch.zeros(len(states), 16, 16, 3, dtype=torch.uint8)
    views = {f"observation.images.{view}": pictures for view in ("top", "wrist")}
    return views | {"observation.state": torch.tensor(states)}


def imagined(levels: list[list[int]], actions: torch.Tensor | None = None) -> Candidates:
    """Two plans of one stream whose frames have the given grey levels."""
    frames = torch.tensor(levels, dtype=torch.uint8)[..., None, None, None, None]
    frames = frames.expand(-1, -1, 1, 4, 4, 3)
    return Candidates(torch.zeros(1, 2, 1, 2), Clip(frames, actions=actions))


def test_candidates_lie_beside_the_plan():
    plans = torch.arange(12.0).reshape(1, 3, 4)[:, :, :2].repeat(500, 1, 1)
    seeds = torch.arange(500)
    found = jitter(plans, 4, torch.tensor([1.0, 3.0]), seeds, 5)
    assert found.shape == (500, 4, 3, 2)
    assert torch.equal(found[:, 0], plans)
    offset = found[:, 1:] - plans[:, None]
    # One offset for all the steps of a plan, of the given sigma per dimension.
    torch.testing.assert_close(offset[:, :, 0], offset[:, :, 2])
    assert offset[:, :, 0, 0].std().item() == pytest.approx(1.0, rel=0.1)
    assert offset[:, :, 0, 1].std().item() == pytest.approx(3.0, rel=0.1)
    # The stream's seed and the step decide, not the batch.
    assert torch.equal(jitter(plans[:1], 4, torch.tensor([1.0, 3.0]), seeds[7:8], 5)[0], found[7])
    other = jitter(plans, 4, torch.tensor([1.0, 3.0]), seeds, 6)
    assert torch.equal(other[:, 0], plans) and not torch.equal(other[:, 1:], found[:, 1:])


def test_a_value_is_of_the_last_frame_and_a_verifier_takes_the_best():
    bright = lambda frames: frames.float().mean((1, 2, 3, 4)) / 255  # noqa: E731
    judge = lambda seen: Verdict(bright(seen.frames), bright(seen.frames) > 0.5)  # noqa: E731
    candidates = imagined([[255, 51, 102], [0, 204, 0]])
    assert by_value(judge)(candidates).tolist() == [pytest.approx([0.4, 0.0])]
    # The first frame is the present, which is the same for all.
    assert by_verifier(bright)(candidates).tolist() == [pytest.approx([0.4, 0.8])]


def test_agreement_compares_what_is_seen_with_what_was_meant():
    """Seen are (0, 0) and (1, 1); meant were (0, 2) and (1, 1): errors 2 and 0."""
    meant = torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]]])
    decode = lambda clip: torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])  # noqa: E731
    score = by_agreement(decode, lambda clip: clip.actions)
    assert score(imagined([[0, 0], [0, 0]], meant)).tolist() == [[-2.0, 0.0]]


def test_of_the_agreement_only_what_is_visible_counts():
    """Errors are 2 and 0, then 3 and 1; of the third plan nothing is visible, so it gets the mean of the others."""
    meant = torch.tensor([[[0.0, 2.0]], [[3.0, 1.0]], [[9.0, 9.0]]])
    shown = torch.tensor([[[True, True]], [[False, True]], [[False, False]]])
    candidates = Candidates(torch.zeros(1, 3, 1, 2), Clip(torch.zeros(3, 2, 1, 1, 1, 3, dtype=torch.uint8), meant))
    score = by_agreement(lambda clip: torch.zeros(3, 1, 2), lambda clip: clip.actions, lambda clip: shown)
    assert score(candidates).tolist() == [[-2.0, -1.0, -1.5]]
    blind = by_agreement(
        lambda clip: torch.zeros(3, 1, 2), lambda clip: clip.actions, lambda clip: torch.zeros_like(shown)
    )
    assert blind(candidates).tolist() == [[0.0, 0.0, 0.0]]


def test_controls_look_at_the_plans_alone():
    plans = torch.tensor([0.0, 1.0, 8.0]).reshape(1, 3, 1, 1)
    # The mean is 3: 3, 2 and 5 away.
    assert nearest_the_mean(Candidates(plans)).tolist() == [[-9.0, -4.0, -25.0]]
    many = Candidates(torch.zeros(900, 3, 1, 1), seeds=torch.arange(900), step=2)
    chosen = at_random(many)
    assert chosen.argmax(1).bincount(minlength=3).min() > 250
    alone = replace(many, plans=many.plans[7:8], seeds=many.seeds[7:8])
    assert torch.equal(at_random(alone), chosen[7:8]) and not torch.equal(
        at_random(replace(alone, step=3)), chosen[7:8]
    )
    with pytest.raises(ValueError, match="give SteeredPolicy a world"):
        by_verifier(lambda frames: frames)(many)


def test_a_scorer_is_told_streams_and_step():
    """A plan has two steps, so the second choice is made at step 2."""
    told = []
    one = SteeredPolicy(Still(), lambda c: told.append((c.seeds.tolist(), c.step)) or at_random(c), k=2, sigma=1.0)
    one.reset([3, 4])
    for _ in range(3):
        one.act(seen([[1.0, 1.0], [5.0, 5.0]]))
    assert told == [([3, 4], 0), ([3, 4], 2)]


def test_the_best_plan_is_carried_out_to_its_end():
    """Of plans to stay, x + 3 and x - 1 the scorer takes the rightmost."""
    rightmost = lambda candidates: candidates.plans[..., -1, 0]  # noqa: E731
    one = SteeredPolicy(Still(), rightmost, k=6, sigma=2.0)
    assert isinstance(one, Policy)
    one.reset([3, 4])
    first = one.act(seen([[1.0, 1.0], [5.0, 5.0]]))
    best = jitter(torch.tensor([[[1.0, 1.0]], [[5.0, 5.0]]]), 6, 2.0, torch.tensor([3, 4]), 0)
    torch.testing.assert_close(first[:, 0], best[:, :, 0, 0].amax(1))
    assert torch.equal(one.act(seen([[9.0, 9.0], [9.0, 9.0]])), first)
    assert not torch.equal(one.act(seen([[9.0, 9.0], [9.0, 9.0]])), first)
    alone = SteeredPolicy(Still(), rightmost, k=1, sigma=2.0)
    alone.reset([3])
    assert alone.act(seen([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="at least 1, got 0, 8 and 4"):
        SteeredPolicy(Still(), rightmost, k=0, sigma=1.0)


def test_a_choice_is_kept(tmp_path):
    """The scores of the last decision and the plan that they lead to; a new one only when the plan is over."""
    rightmost = lambda candidates: candidates.plans[..., -1, 0]  # noqa: E731
    one = SteeredPolicy(Still(), rightmost, k=3, sigma=2.0)
    assert one.choice is None
    one.reset([3])
    action = one.act(seen([[1.0, 1.0]]))
    kept = one.choice
    assert kept.scores.argmax(1).tolist() == kept.best.tolist()
    assert torch.equal(kept.plans[:, 0], action)
    one.act(seen([[1.0, 1.0]]))
    assert one.choice is kept
    one.act(seen([[1.0, 1.0]]))
    assert one.choice is not kept


class Chance(Still):
    """Samples to the left of its plan, one step further for each; notes how it was asked."""

    def sample(self, observation, k, seeds, step):
        self.asked = k, seeds.tolist(), step
        return self.plan(observation)[:, None] - torch.arange(1.0, k + 1).reshape(1, k, 1, 1)


def test_samples_of_a_stochastic_policy_stand_beside_its_plan():
    policy, seeds = Chance(), torch.tensor([3, 4])
    found = samples(policy, seen([[1.0, 1.0], [5.0, 5.0]]), 3, 9.0, seeds, 7)
    assert found[:, :, 0, 0].tolist() == [[1.0, 0.0, -1.0], [5.0, 4.0, 3.0]] and policy.asked == (2, [3, 4], 7)
    assert samples(Still(), seen([[1.0, 1.0]]), 1, 9.0, seeds[:1], 0).tolist() == [[[[1.0, 1.0]] * 2]]
    with pytest.raises(ValueError, match=r"needs a policy with a method sample, .* the class Still has none"):
        samples(Still(), seen([[1.0, 1.0]]), 2, 9.0, seeds[:1], 0)


def test_the_scorer_reads_the_task_of_every_plan():
    """Two streams, three plans each; the judge reads six tasks."""
    looked = []

    def judge(seen):
        looked.append(seen.task)
        return Verdict(torch.zeros(6), torch.zeros(6, dtype=torch.bool))

    one = SteeredPolicy(Still(), by_value(judge), tiny_world(size=(16, 16)), k=3, sigma=1.0, lookahead=1)
    begin_episodes(one, [3, 4], ["push", "pull"])
    one.act(seen([[1.0, 1.0], [5.0, 5.0]]))
    assert looked == [("push",) * 3 + ("pull",) * 3]


def test_futures_are_those_of_the_world():
    """Two streams, three plans: the same frames as `imagine` shows for the same actions."""
    world = tiny_world(size=(16, 16))
    looked = []

    def keep(candidates: Candidates) -> torch.Tensor:
        looked.append(candidates)
        return nearest_the_mean(candidates)

    one = SteeredPolicy(Still(), keep, world, k=3, sigma=1.0, lookahead=3, context=2, num_steps=1)
    one.reset([3, 4])
    states = [[[1.0, 1.0], [5.0, 5.0]], [[2.0, 1.0], [5.0, 4.0]], [[2.0, 2.0], [6.0, 4.0]]]
    chosen = [one.act(seen(each)) for each in states]
    clip = looked[-1].imagined
    assert clip.frames.shape == (6, 4, 2, 16, 16, 3) and clip.actions.shape == (6, 3, 2)
    torch.testing.assert_close(clip.actions[:, :2], looked[-1].plans.flatten(0, 1))
    # After its plan the policy stays where the dream has taken it.
    torch.testing.assert_close(clip.actions[:, 2], clip.states[:, 2])
    last = [seen(each)["observation.state"] for each in states[1:]]
    context = Clip(
        frames=torch.zeros(2, 2, 2, 16, 16, 3, dtype=torch.uint8),
        actions=chosen[1][:, None],
        states=torch.stack(last, 1),
    )
    own = clip.actions.unflatten(0, (2, 3))[:, 0]
    expected = world.rollout(context, own, num_steps=1, seeds=[3, 4])
    dreamed = clip.frames.unflatten(0, (2, 3))[:, 0, 1:]
    assert (dreamed.int() - expected.frames.int()).abs().max() <= 1
    # Products of six streams and of two round differently, and a state feeds on the last one.
    followed = clip.states.unflatten(0, (2, 3))[:, 0, 1:]
    torch.testing.assert_close(followed, expected.states, atol=1e-3, rtol=1e-3)


def test_plans_are_held_over_the_stride_of_the_world():
    """Two streams, one plan: the frames are those of a world that takes each action three times."""
    world = tiny_world(size=(16, 16), stride=3)
    looked = []

    def keep(candidates: Candidates) -> torch.Tensor:
        looked.append(candidates)
        return nearest_the_mean(candidates)

    one = SteeredPolicy(Still(), keep, world, k=1, sigma=0.0, lookahead=2, context=2, num_steps=1)
    one.reset([3, 4])
    states = [[[1.0, 9.0], [5.0, 0.0]], [[2.0, 8.0], [5.0, 1.0]], [[2.0, 9.0], [6.0, 1.0]]]
    chosen = [one.act(seen(each)) for each in states]
    clip = looked[-1].imagined
    context = Clip(
        frames=torch.zeros(2, 2, 2, 16, 16, 3, dtype=torch.uint8),
        actions=chosen[1].repeat(1, 3)[:, None],
        states=torch.stack([seen(each)["observation.state"] for each in states[1:]], 1),
    )
    expected = world.rollout(context, clip.actions.repeat(1, 1, 3), num_steps=1, seeds=[3, 4])
    assert (clip.frames[:, 1:].int() - expected.frames.int()).abs().max() <= 1
    torch.testing.assert_close(clip.states[:, 1:], expected.states, atol=1e-3, rtol=1e-3)


def test_a_dream_begins_after_the_actions_that_were_carried_out():
    """Of the last three frames: the two actions between them, not earlier ones and not the one to be chosen."""
    world = tiny_world(size=(16, 16))
    looked = []

    def keep(candidates: Candidates) -> torch.Tensor:
        looked.append(candidates)
        return nearest_the_mean(candidates)

    one = SteeredPolicy(Still(), keep, world, k=1, sigma=0.0, lookahead=2, context=3, num_steps=1)
    one.reset([3])
    states = [[9.0, 9.0], [1.0, 1.0], [6.0, 2.0], [2.0, 8.0], [4.0, 4.0]]
    chosen = torch.stack([one.act(seen([each]))[0] for each in states])
    # plans of two steps: chosen anew with the first, third and fifth observation
    assert chosen.tolist() == [[9, 9], [9, 9], [6, 2], [6, 2], [4, 4]] and len(looked) == 3
    context = Clip(
        frames=torch.zeros(1, 3, 2, 16, 16, 3, dtype=torch.uint8),
        actions=chosen[None, 2:4],
        states=torch.tensor([states[2:]]),
    )
    clip = looked[-1].imagined
    expected = world.rollout(context, torch.tensor([[[4.0, 4.0], [4.0, 4.0]]]), num_steps=1, seeds=[3])
    assert (clip.frames[:, 1:].int() - expected.frames.int()).abs().max() <= 1
    torch.testing.assert_close(clip.states[:, 1:], expected.states, atol=1e-3, rtol=1e-3)
    elsewhere = world.rollout(
        replace(context, actions=chosen[None, 1:3]), torch.full((1, 2, 2), 4.0), num_steps=1, seeds=[3]
    )
    assert (clip.states[:, 1:] - elsewhere.states).abs().max() > 0.01


def test_streams_go_on_as_before_when_others_have_ended():
    """The second of three ends in the middle of a plan: context, seeds, tasks and plans of the others are the same."""
    world = tiny_world(size=(16, 16))
    tasks = []

    def furthest(candidates: Candidates) -> torch.Tensor:
        tasks.append(candidates.imagined.task)
        return candidates.imagined.states[:, -1, 0].reshape(candidates.plans.shape[:2])

    one = SteeredPolicy(Still(), furthest, world, k=2, sigma=1.0, lookahead=1, context=3, num_steps=1)
    states = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(1)) * 10
    begin_episodes(one, [3, 4, 5], ["a", "b", "c"])
    expected = torch.stack([one.act(seen(each.tolist())) for each in states])[:, [0, 2]]
    begin_episodes(one, [3, 4, 5], ["a", "b", "c"])
    found = [one.act(seen(each.tolist()))[[0, 2]] for each in states[:3]]
    one.keep([0, 2])
    found += [one.act(seen(each[[0, 2]].tolist())) for each in states[3:]]
    torch.testing.assert_close(torch.stack(found), expected)
    assert tasks[-1] == ("a", "a", "c", "c")


def test_a_steered_policy_lets_its_policy_forget_too():
    class Told(Still):
        def keep(self, streams):
            self.kept = streams

    one = SteeredPolicy(Told(), nearest_the_mean, k=1, sigma=1.0)
    one.reset([3, 4])
    one.keep([1])
    assert one.policy.kept == [1] and one.act(seen([[5.0, 6.0]])).tolist() == [[5.0, 6.0]]


def test_steering_by_the_truth_solves_what_the_policy_does_not(tmp_path):
    """The scorer prefers plans to the right; the policy alone never moves."""
    starts = Starts(open_episodes(write_episodes(tmp_path / "data", 4)))
    envs = RealEnvs(SquareEnv, starts, num_envs=4)
    rightmost = lambda candidates: candidates.plans[..., -1, 0]  # noqa: E731
    alone = SteeredPolicy(Still(), rightmost, k=1, sigma=2.0)
    steered = SteeredPolicy(Still(), rightmost, k=8, sigma=2.0)
    assert evaluate(alone, envs, horizon=16).mean == 0.0
    assert evaluate(steered, envs, horizon=16).mean == 1.0


def test_a_cloned_policy_can_be_steered():
    torch.manual_seed(0)
    config = PolicyConfig(("top",), (16, 16), 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)
    policy = ClonedPolicy(config).eval()
    world = tiny_world(size=(16, 16), random=False)
    judge = lambda seen: Verdict(seen.states[:, 0], seen.states[:, 0] > 9)  # noqa: E731
    one = SteeredPolicy(policy, by_value(judge), world, k=4, sigma=1.0, lookahead=3, num_steps=1)
    one.reset([0])
    assert one.act(seen([[1.0, 1.0]])).shape == (1, 2)
    # Planning leaves the policy's own queue alone.
    policy.reset([0])
    own = policy.act(seen([[1.0, 1.0]]))
    policy.plan(seen([[7.0, 7.0]]))
    torch.testing.assert_close(policy.plan(seen([[1.0, 1.0]]))[:, 0], own)
    assert len(policy.queue) == 1


def test_a_scorer_of_the_last_frame_needs_none_between():
    """Plans of two actions and a lookahead of three: of the dreamed frames the second and the third are looked at."""
    torch.manual_seed(0)
    config = PolicyConfig(("top",), (16, 16), 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)
    policy = ClonedPolicy(config).eval()
    world = tiny_world(views=("top",), size=(16, 16))
    judge = lambda seen: Verdict(seen.frames.float().mean((1, 2, 3, 4)), seen.states[:, 0] > 9)  # noqa: E731
    found = []
    for between in (True, False):
        one = SteeredPolicy(policy, by_value(judge), world, k=4, sigma=1.0, lookahead=3, num_steps=1, between=between)
        one.reset([0])
        one.act(seen([[1.0, 1.0]]))
        found.append(one.choice)
    every, ends = (each.candidates.imagined for each in found)
    assert (every.frames.shape[1], ends.frames.shape[1]) == (4, 3) and ends.actions is None
    assert torch.equal(every.frames[:, [0, 2, 3]], ends.frames)
    assert torch.equal(found[0].scores, found[1].scores) and torch.equal(found[0].best, found[1].best)


def test_the_benchmark_compares_with_any_row(capsys, monkeypatch):
    """Of four shared starts `value` solves three and `alone` one: 0.50 more, n is 4."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    show = runpy.run_path(str(BENCHMARKS / "steering.py"))["show"]
    solved = {"alone": [0, 0, 1, 0], "value": [1, 1, 1, 0]}
    seeds, returns, steps = np.arange(4), np.zeros(4), np.ones(4, np.int64)
    found = {name: Scores(name, seeds, np.array(outcomes, float), returns, steps) for name, outcomes in solved.items()}
    show(found, ["alone", "value", "missing"])
    head, _, alone, value = capsys.readouterr().out.splitlines()
    assert "minus alone | minus value |" in head
    assert "| alone | 0.25 | 4 | - | -0.50 [" in alone and "| value | 0.75 | 4 | +0.50 [" in value
