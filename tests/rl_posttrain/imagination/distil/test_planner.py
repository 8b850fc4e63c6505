"""What a planner finds in dreams of the square, and what the policy is taught."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from square_world import SquareWorld, right_edge, square_policy, write_episodes

from policy_eval.policies.cloned import ClonedPolicy, make_policy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.config import DistilConfig
from rl_posttrain.imagination.distil.dreams import Dreams
from rl_posttrain.imagination.distil.lessons import Lessons, fit_head, soft_targets, with_successes
from rl_posttrain.imagination.distil.planner import imagined_scores, label_dreams, propose
from rl_posttrain.imagination.distil.train import distil, one_round
from rl_posttrain.imagination.dreams import Setting, prepare
from worldmodel.data import open_episodes
from worldmodel.dreams.world import begin
from worldmodel.files import read_weights
from worldmodel.streaming.noise import mix_seed


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def config(data: Path, out: Path, **settings) -> ImagineConfig:
    small = {"streams": 8, "horizon": 6, "context": 1, "validation_starts": 4, "validation_horizon": 6}
    return ImagineConfig("", Path(), Path(), data, out, method="distil", **{**small, **settings})


def planner(**changes) -> ClonedPolicy:
    """Plans of two actions that hardly move; one standard deviation is a pixel."""
    torch.manual_seed(0)
    plain = square_policy()
    policy = make_policy(replace(plain.config, chunk=2, **changes)).eval()
    policy.action_mean.copy_(torch.tensor([0.2, 0.0]))
    policy.state_mean.fill_(5.0)
    policy.state_std.fill_(3.0)
    return policy


def setting_of(options: ImagineConfig, data: Path) -> Setting:
    return prepare(options, SquareWorld(), right_edge, open_episodes(data))


def test_soft_targets_by_hand():
    """Offsets from the mean are -1, 1 and -2, 2, so sigma is sqrt(2.5); the first row's ratio is e^(2 / sigma)."""
    found = soft_targets(torch.tensor([[4.0, 6.0], [1.0, 5.0]]), 0.5)
    sigma = 2.5**0.5
    assert (found[0, 1] / found[0, 0]).log().item() == pytest.approx(2 / (0.5 * sigma), rel=1e-4)
    assert (found[1, 1] / found[1, 0]).log().item() == pytest.approx(4 / (0.5 * sigma), rel=1e-4)
    assert soft_targets(torch.full((2, 4), 3.0), 0.5).tolist() == [[0.25] * 4] * 2


def test_what_succeeded_counts_more():
    weights = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    found = with_successes(weights, torch.tensor([1, 1]), torch.tensor([True, False]), 0.4)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.7], [0.5, 0.5]]))


@pytest.mark.parametrize("head", ["regression", "flow"])
def test_the_first_plan_is_the_policys_own(head, data, tmp_path):
    """The others of a regression lie apart by one offset for all actions of a plan; those of a flow are samples."""
    policy = planner(head=head)
    features = torch.randn(3, policy.num_features, generator=torch.Generator().manual_seed(0))
    options = config(data, tmp_path, distil=DistilConfig(plans=3, sigma=0.5))
    plans = propose(policy, features, options, torch.Generator().manual_seed(1))
    own = policy.plans(features)
    torch.testing.assert_close(plans[:, 0], own)
    offset = plans[:, 1:] - own[:, None]
    same = torch.allclose(offset[..., 0, :], offset[..., 1, :], atol=1e-5)
    assert same == (head == "regression") and offset.abs().min() > 0
    near = replace(options, distil=replace(options.distil, sigma=1.0))
    wider = propose(policy, features, near, torch.Generator().manual_seed(1))[:, 1:] - own[:, None]
    if head == "regression":
        torch.testing.assert_close(wider, 2 * offset)


def test_a_plan_that_goes_right_scores_more_and_the_stream_stays(data, tmp_path):
    """From x the reward is (x + moved) / 10; the plan is two actions and the policy goes on for one more."""
    options = config(data, tmp_path, distil=DistilConfig(lookahead=3))
    setting, policy = setting_of(options, data), planner()
    clips = [setting.source.read(episode, 0, 1) for episode in (0, 1)]
    stream = begin(setting.world, clips, [1, 2])
    before = stream.observation.states.clone()
    plans = torch.zeros(2, 2, 2, 2)
    plans[:, 0, :, 0], plans[:, 1, :, 0] = -1.2, 1.8  # displacements of -1 and 2
    scores = imagined_scores(options, setting, policy, stream, plans)
    assert (scores[:, 1] > scores[:, 0] + 0.05).all() and len(setting.world.told) == 3
    assert torch.equal(stream.observation.states, before)
    told = torch.stack(setting.world.told[:2], 1)[:, :, 0]
    expected = (before[:, :1] + torch.tensor([[-1.0, 2.0]])).clamp(setting.bounds[0][0], setting.bounds[1][0])
    torch.testing.assert_close(told[:, 0], expected.flatten())
    near = replace(setting, reward_scale=2.0)
    torch.testing.assert_close(imagined_scores(options, near, policy, stream, plans), 2 * scores)
    x = torch.full((2,), 9.5)
    stream.observation = replace(stream.observation, states=torch.stack([x, before[:, 1]], 1))
    solved = imagined_scores(options, setting, policy, stream, plans)
    assert (solved[:, 1] > 2).all() and (solved[:, 0] < 1).all()  # 1 for the success, and the reward at the end


def test_dreams_are_labelled_and_followed_by_others(data, tmp_path):
    """A stream that follows the planner goes right; a policy that hardly moves does not succeed by itself."""
    options = config(data, tmp_path, distil=DistilConfig(plans=8, sigma=3.0, lookahead=2, followed=0.5), horizon=12)
    setting, policy = setting_of(options, data), planner()
    clips = [setting.source.read(episode, 0, 1) for episode in range(8)]
    lessons, shown = label_dreams(options, setting, policy, cycle(clips), 1)
    assert shown["solved_alone"] == 0 < shown["solved"] and shown["gain"] > 0
    assert len(lessons.weights) == 8 * 6
    torch.testing.assert_close(lessons.weights.sum(1), torch.ones(len(lessons.weights)))
    target = (lessons.weights[..., None, None] * lessons.plans).sum(1)
    assert (target - lessons.plans[:, 0])[:, :, 0].mean() > 0.3  # to the right
    again, _ = label_dreams(options, setting, policy, cycle(clips), 1)
    assert torch.equal(again.plans, lessons.plans)
    other, _ = label_dreams(options, setting, policy, cycle(clips), 2)
    assert not torch.equal(other.plans[:8], lessons.plans[:8])
    clear = replace(options, distil=replace(options.distil, filtered=1.0))
    found, shown = label_dreams(clear, setting, policy, cycle(clips), 1)
    surest = found.weights.amax(1).view(6, 8)  # 1 where the plan that was carried out led to a success
    assert shown["solved"] == 0.5 and (surest[0, :4] == 1).all() and (surest[:, 4:] < 1).all()


def test_a_solved_dream_makes_room_for_the_next(data, tmp_path):
    """Of three streams the middle one reaches the edge; the fourth clip goes on there, as dream 3."""
    setting = setting_of(config(data, tmp_path), data)
    clips = [setting.source.read(episode, frame, frame + 1) for episode, frame in ((0, 0), (1, 2), (2, 0), (4, 1))]
    dreams = Dreams(setting, iter(clips), 3, seed=5)
    seen, reset = [], dreams.stream.reset

    def noted(streams, context, *, seeds):
        seen.append((streams, seeds))
        reset(streams, context, seeds=seeds)

    dreams.stream.reset = noted
    still = dreams.stream.observation.states.clone()
    edge = still.clone()
    edge[1, 0] = 12
    dreams.stream.observation = replace(dreams.stream.observation, states=still.index_fill(0, torch.tensor([1]), 9.5))
    dreams.go_on(torch.stack([edge, edge], 1), num_steps=1)
    assert dreams.solved.tolist() == [False, True, False, False] and dreams.current.tolist() == [0, 3, 2]
    assert seen == [([1], [mix_seed(5, 3)])]
    torch.testing.assert_close(dreams.stream.observation.states[1], clips[3].states[0])
    dreams.stream.observation = replace(dreams.stream.observation, states=still.index_fill(0, torch.tensor([1]), 9.5))
    dreams.starts = iter(clips[:1])
    dreams.go_on(edge[:, None], num_steps=1)
    assert dreams.solved.tolist() == [False, True, False, True, False] and dreams.current.tolist() == [0, 4, 2]
    assert dreams.shares(torch.tensor([True, True, False])) == {"solved": pytest.approx(1 / 3), "solved_alone": 0}
    assert "solved_alone" not in dreams.shares(torch.ones(3, dtype=torch.bool))


def test_new_dreams_begin_with_contexts_of_any_length(data, tmp_path):
    """Two streams are free at once; one goes on from a first frame, one from two frames."""
    setting = setting_of(config(data, tmp_path), data)
    clips = [setting.source.read(episode, 0, frames) for episode, frames in ((0, 1), (1, 1), (2, 1), (4, 2))]
    dreams = Dreams(setting, iter(clips), 2, seed=5)
    states = torch.full((2, 2), 9.5)
    dreams.stream.observation = replace(dreams.stream.observation, states=states)
    dreams.go_on(torch.full((2, 1, 2), 12.0), num_steps=1)
    assert dreams.solved.tolist() == [True, True, False, False] and sorted(dreams.current.tolist()) == [2, 3]
    expected = torch.stack([clips[2].states[-1], clips[3].states[-1]])
    torch.testing.assert_close(dreams.stream.observation.states, expected)


def test_every_round_dreams_anew(data, tmp_path):
    """The same policy from the same start: the plans lie elsewhere about its own."""
    options = config(data, tmp_path, streams=2, horizon=2)
    setting, policy = setting_of(options, data), planner()
    setting = replace(setting, train=setting.train.pick(np.zeros(1, int)))
    empty = Lessons.empty(policy, options.distil.plans)
    first, second, again = (one_round(options, setting, policy, empty, step)[0] for step in (0, 1, 0))
    assert torch.equal(first.features, second.features) and torch.equal(first.plans, again.plans)
    assert not torch.equal(first.plans, second.plans)


def test_the_head_comes_to_plan_what_weighs_most(tmp_path):
    """Two plans at one frame, 0.4 apart, with weights of 1 to 3: a regression learns their weighted mean."""
    policy = planner()
    features = torch.zeros(1, policy.num_features)
    own = policy.plans(features).detach()
    plans = torch.stack([own, own + 0.4], 1)
    lessons = Lessons.empty(policy, 2).add(Lessons(features, plans, torch.tensor([[0.25, 0.75]])))
    options = DistilConfig(steps=120, batch=32)
    optimizer = torch.optim.AdamW(policy.head.parameters(), lr=1e-2, weight_decay=0)
    encoders = [p.clone() for p in policy.encoders.parameters()]
    fit_head(policy, optimizer, lessons, options, step=0)
    rate = optimizer.param_groups[0]["lr"]
    assert 0 < rate < 0.01 * options.learning_rate  # of the last step, by a cosine
    torch.testing.assert_close(policy.plans(features), own + 0.3, atol=0.05, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(encoders, policy.encoders.parameters(), strict=True))
    lessons.save(tmp_path)
    assert torch.equal(Lessons.load(tmp_path, 1, torch.device("cpu")).plans, plans)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, tmp_path):
    """A round of 2 plans x (2 + 2 actions) takes 8 steps of the world, a measurement 2."""
    small = {"streams": 4, "horizon": 4, "validation_horizon": 2, "updates": 2, "save_interval": 1}
    small |= {"distil": DistilConfig(plans=2, lookahead=2, steps=3, batch=8), "validation_interval": 1}

    def run(out: str, steps: int | None = None, **more) -> dict:
        options = config(data, tmp_path / out, **small, **more)
        return distil(options, prepare(options, SquareWorld(steps=steps), right_edge, open_episodes(data)), planner())

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", 2 + 8 + 2 + 5)
    resumed = run("killed", resume=True)
    assert resumed["best"] == whole["best"] and resumed["updates"] == 2 and resumed["decisions"] == whole["decisions"]
    files = [next((tmp_path / out / "state").glob("state-*.safetensors")).read_bytes() for out in ("whole", "killed")]
    assert files[0] == files[1]
    anew = planner()  # every round fits the clone's head to the decisions of all rounds
    lessons = Lessons.load(tmp_path / "whole/state", whole["decisions"], torch.device("cpu"))
    optimizer = torch.optim.AdamW(anew.head.parameters(), lr=1.0, weight_decay=0)
    fit_head(anew, optimizer, lessons, small["distil"], step=1)
    learnt = read_weights(next((tmp_path / "whole/state").glob("state-*.safetensors")))
    for name, tensor in anew.head.named_parameters():
        torch.testing.assert_close(learnt[f"model.actor.policy.head.{name}"], tensor.detach(), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["regression", "flow"])
def test_a_policy_learns_what_the_planner_finds(head, data, tmp_path):
    options = config(
        data,
        tmp_path,
        updates=8,
        streams=32,
        horizon=12,
        validation_horizon=12,
        distil=DistilConfig(plans=8, sigma=1.5, lookahead=2, steps=150, learning_rate=2e-3, temperature=0.3),
        validation_starts=32,
    )
    report = distil(options, setting_of(options, data), planner(head=head))
    assert report["first"]["solved"] < 0.3 and report["best"]["solved"] > 0.7
    assert ClonedPolicy.load(tmp_path).config.head == head
