"""Dreams of an actor, what is measured in them, and where they begin."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from square_world import BOUNDS, SIZE, SquareWorld, right_edge, square_policy, write_episodes

from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.dreams import better, dream, measure, prepare
from rl_posttrain.imagination.learner import LearnConfig, Learner
from rl_posttrain.imagination.log import ImagineLog
from rl_posttrain.imagination.rollouts import extra_reward, imagine_rollouts, persistent_noise
from rl_posttrain.imagination.starts import StartPool
from rl_posttrain.imagination.train import correction_at, one_update
from worldmodel.data import open_episodes
from worldmodel.dreams.anchors import Anchors, contexts
from worldmodel.fidelity.uncertainty.calibration import calibrate, correlation, disagreement
from worldmodel.streaming.state import Observation
from worldmodel.training.accelerator import start_accelerator
from worldmodel.training.checkpoint import MovingAverage


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def config(data: Path, out: Path, **settings) -> ImagineConfig:
    small = {"streams": 4, "horizon": 2, "context": 1, "pool": 32, "validation_starts": 8, "validation_horizon": 6}
    small |= {"learn": LearnConfig(minibatch=40, warmup=1)}
    return ImagineConfig("", Path(), Path(), data, out, **{**small, **settings})


def test_dreams_of_one_start_share_exploration_and_nothing_follows_success(data):
    learner = Learner(square_policy(), LearnConfig(std=1.0))
    source = open_episodes(data)
    anchors = Anchors(np.array([0, 3]), np.array([1, 0]))
    clips = contexts(source, anchors, context=1)
    imagined = imagine_rollouts(
        SquareWorld(), right_edge, learner.actor, learner.prior, clips, horizon=6, bounds=BOUNDS, seed=1, noise_seeds=2
    )
    assert imagined.frames.shape == (4, 7, 2, SIZE, SIZE, 3)
    assert torch.equal(imagined.frames[0, 0], source.read(0, 1, 2).frames[0])
    torch.testing.assert_close(imagined.actions[:2], imagined.actions[2:])
    assert imagined.disagreement.abs().max() == 0
    # Another seed explores otherwise, and without exploration the actor does its most likely.
    quiet = imagine_rollouts(
        SquareWorld(), right_edge, learner.actor, learner.prior, clips, horizon=1, bounds=BOUNDS, seed=1, explore=False
    )
    torch.testing.assert_close(quiet.actions, quiet.prior)
    shares = torch.tensor([[False, True, True, False]])
    running = (shares.long().cumsum(1) - shares.long()) == 0
    assert running.tolist() == [[True, True, False, False]]
    for row, alive in zip(imagined.successes, imagined.running, strict=True):
        ends = int(row.int().argmax()) + 1 if row.any() else len(row)
        assert alive.sum() == ends


def test_persistent_noise_is_standard_normal_and_remembers():
    """With persistence .8 the correlation is .8 after one action and .64 after two."""
    generator = torch.Generator().manual_seed(0)
    noise = persistent_noise(20_000, 3, 1, 0.8, generator)[..., 0]
    assert noise.mean(0).abs().max() < 0.03 and (noise.std(0) - 1).abs().max() < 0.03
    found = torch.corrcoef(noise.T)
    assert found[0, 1] == pytest.approx(0.8, abs=0.02)
    assert found[0, 2] == pytest.approx(0.64, abs=0.02)
    white = persistent_noise(20_000, 2, 1, 0.0, generator)[..., 0]
    assert torch.corrcoef(white.T)[0, 1].abs() < 0.03


def test_exploration_varies_between_starts_when_asked_to(data):
    """The noise of each start is the same up to a factor from 0 to 1."""
    learner = Learner(square_policy(), LearnConfig(std=1.0))
    clips = contexts(open_episodes(data), Anchors(np.arange(8), np.zeros(8, int)), context=1)
    noises = []
    for vary in (False, True):
        imagined = imagine_rollouts(
            SquareWorld(),
            right_edge,
            learner.actor,
            learner.prior,
            clips,
            horizon=1,
            bounds=BOUNDS,
            seed=1,
            noise_seeds=1,
            vary=vary,
        )
        noises.append((imagined.actions - imagined.prior)[:, 0])
    factors = noises[1] / noises[0]
    torch.testing.assert_close(factors[:, 0], factors[:, 1], rtol=1e-3, atol=1e-3)
    assert 0 <= factors.min() < 0.5 < factors.max() <= 1


def test_first_frames_alone_are_starts_when_asked_for(data):
    anchors = Anchors.of(open_episodes(data), range(5), context=3, first_frames=True)
    assert anchors.episodes.tolist() == [0, 1, 2, 3, 4] and anchors.frames.tolist() == [0] * 5


def test_disagreement_is_the_standard_deviation_over_noise_seeds():
    frames = torch.zeros(4, 1, 1, 2, 2, 3, dtype=torch.uint8)
    frames[2] = 51  # start 0 under seed 1: 0.2 brighter than under seed 0
    spread = disagreement(frames, 2)
    # The unbiased variance of 0 and 0.2 is 0.02.
    torch.testing.assert_close(spread, torch.tensor([[0.02**0.5], [0], [0.02**0.5], [0]]))
    assert disagreement(frames, 1).tolist() == [[0.0]] * 4


def test_disagreement_is_compared_with_the_true_error(data):
    source = open_episodes(data)
    anchors = Anchors.of(source, range(6), context=1)
    options = {"horizon": 2, "context": 1, "noise_seeds": 2, "seed": 0, "num_steps": 1}
    found = calibrate(SquareWorld(grain=20), right_edge, source, anchors, **options)
    assert found.starts == sum(anchors.frames + 2 < 8) and found.scale > 0
    assert -1 <= found.spearman_within <= 1
    exact = calibrate(SquareWorld(), right_edge, source, anchors, **options)
    assert not exact.used and exact.spearman_within == 0 and "not used" in exact.sentence
    with pytest.raises(ValueError, match="0 of the drawn frames have 9 recorded actions"):
        calibrate(SquareWorld(), right_edge, source, anchors, **{**options, "horizon": 9})
    assert correlation(torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 5, 9])) == pytest.approx(1, abs=1e-5)


def test_disagreement_in_a_world_with_a_stride_is_compared_frame_by_frame(data):
    """The world carries out three actions a frame, as exactly as the recording shows them."""

    class Strided(SquareWorld):
        stride = 3

        def stream(self, context, *, seeds):
            stream = super().stream(context, seeds=seeds)
            step = stream.step

            def three(actions, **settings):
                return [step(part, **settings) for part in actions.chunk(3, dim=1)][-1]

            stream.step = three
            return stream

    source = open_episodes(data)
    anchors = Anchors.of(source, range(6), context=1, stride=3)
    options = {"horizon": 2, "context": 1, "noise_seeds": 2, "seed": 0, "num_steps": 1}
    found = calibrate(Strided(), right_edge, source, anchors, **options)
    ends = np.array(source.lengths)[anchors.episodes]
    assert found.starts == sum(anchors.frames + 6 < ends) > 3
    assert found.spearman_within == 0  # nothing disagrees, and nothing is wrong


def test_anchors_lie_before_success_with_room_for_the_context(data):
    source = open_episodes(data)
    x = float(source.read(0, 0, 1).states[0, 0])
    steps = math.ceil((10 - x) / 2)
    one = Anchors.of(source, [0], context=3)
    assert one.frames.tolist() == [0, *range(2, steps)]
    clips = contexts(source, one, context=3)
    assert [len(clip.frames) for clip in clips] == [1, *[3] * (len(one) - 1)]
    assert torch.equal(clips[1].states, source.read(0, 0, 3).states)


def test_the_measure_is_gained_reward_and_success(data, tmp_path):
    """A policy that goes 2 pixels to the right at once solves every start."""
    policy = square_policy()
    policy.action_mean.copy_(torch.tensor([2.0, 0.0]))
    policy.action_std.fill_(1e-6)
    options = config(data, tmp_path)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    returns, solved = measure(options, setting, Learner(policy, options.learn))
    source = setting.source
    pairs = zip(setting.held_out.episodes, setting.held_out.frames, strict=True)
    first = [float(source.read(int(e), int(f), int(f) + 1).states[0, 0]) for e, f in pairs]
    ends = [x + 2 * math.ceil((10 - x) / 2) for x in first]
    assert solved == 1.0
    assert float(returns.mean()) == pytest.approx(
        np.mean([1 + (min(end, 12) - x) / 10 for x, end in zip(first, ends, strict=True)]), abs=1e-4
    )


def test_an_extra_reward_sees_each_action_and_is_measured(data, tmp_path):
    """It sees the frames before and after an action, the states and the command, and no recording."""
    seen = []

    def moved(rollout):
        seen.append(rollout)
        return rollout.imagined.states[:, 1, 0] - rollout.imagined.states[:, 0, 0]

    options = config(data, tmp_path)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    learner = Learner(square_policy(), options.learn)
    plain = measure(options, setting, learner)[0]
    with_it = replace(setting, extra={"moved": (moved, -0.5), "again": (moved, 2.0)})
    dreamed = dream(options, with_it, learner, setting.held_out, horizon=3, seed=0, noise_seeds=1, explore=False)
    assert len(seen) == 6 and all(rollout.reference is None for rollout in seen)
    for step, rollout in enumerate(seen[::2]):
        assert torch.equal(rollout.imagined.frames, dreamed.frames[:, step : step + 2])
        torch.testing.assert_close(dreamed.extra[:, step], 1.5 * moved(rollout))
    assert rollout.imagined.actions.shape == (len(setting.held_out), 1, 2)
    assert rollout.imagined.task == ("right",) * len(setting.held_out)
    change = measure(options, with_it, learner)[0] - plain
    gone = dream(options, with_it, learner, setting.held_out, horizon=6, seed=0, noise_seeds=1, explore=False)
    assert not gone.solved.all()
    torch.testing.assert_close(change, (gone.extra * gone.running).sum(1))
    assert dream(options, setting, learner, setting.held_out, horizon=1, seed=0).extra.abs().max() == 0


def test_an_extra_reward_may_be_a_map():
    """Two streams of one action; the mean over the cells counts."""
    seen = [Observation(torch.zeros(2, 1, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, 1)) for _ in range(2)]
    cells = lambda rollout: torch.tensor([[1.0, 3.0], [0.0, 1.0]])[:, None, None, None]  # noqa: E731
    assert extra_reward({"mine": (cells, 2.0)}, seen[0], torch.zeros(2, 1), seen[1]).tolist() == [4.0, 1.0]


def test_an_actor_must_be_better_by_more_than_the_standard_error():
    """Gains of 3, 1, 1, 3 have mean 2 and standard error 0.577; of 5, -3, 5, -3 mean 1 and 2.3."""
    best = torch.zeros(4)
    assert better(torch.tensor([3.0, 1, 1, 3]), best)
    assert not better(torch.tensor([5.0, -3, 5, -3]), best)
    assert not better(best, best) and better(torch.ones(1), torch.zeros(1))


def test_commands_stay_within_the_recorded_ones(data):
    """With a spread of 50 pixels nearly all would lie outside of 2 to 3."""
    learner, world = Learner(square_policy(), LearnConfig(std=50.0)), SquareWorld()
    clips = contexts(open_episodes(data), Anchors(np.arange(3), np.zeros(3, int)), context=1)
    bounds = torch.full((2,), 2.0), torch.full((2,), 3.0)
    options = {"horizon": 2, "bounds": bounds, "seed": 1, "noise_seeds": 1, "num_steps": 4}
    imagined = imagine_rollouts(world, right_edge, learner.actor, learner.prior, clips, **options)
    told = torch.stack(world.told)
    assert told.min() == 2 and told.max() == 3 and world.num_steps == [4, 4]
    assert imagined.actions.abs().max() > 10, "the actor's own actions are not changed"


def test_the_actor_looks_through_its_own_camera(data):
    """A policy of the wrist camera, which is the second one of the world."""
    torch.manual_seed(0)
    policy = ClonedPolicy(replace(square_policy().config, views=("wrist",))).eval()
    learner = Learner(policy, LearnConfig())
    clips = contexts(open_episodes(data), Anchors(np.arange(2), np.zeros(2, int)), context=1)
    options = {"horizon": 1, "bounds": BOUNDS, "seed": 1, "noise_seeds": 1}
    imagined = imagine_rollouts(SquareWorld(), right_edge, learner.actor, learner.prior, clips, **options)
    states = torch.cat([clip.states for clip in clips])
    expected = policy.features(imagined.frames[:, 0, 1:], states)
    torch.testing.assert_close(imagined.features[:, 0], expected)
    assert not torch.equal(policy.features(imagined.frames[:, 0, :1], states), expected)


def test_held_out_starts_are_measured_without_exploration(data, tmp_path):
    options = config(data, tmp_path, held_out=0.25, confirm=6, first_frames=True)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    assert set(setting.held_out.episodes) == {12, 13, 14, 15} and set(setting.train.episodes) == set(range(8))
    assert setting.fresh.episodes.tolist() == [8, 9, 10, 11, 8, 9]
    narrow, wide = (Learner(square_policy(), LearnConfig(std=std)) for std in (0.1, 100.0))
    first, second = (measure(options, setting, learner)[0] for learner in (narrow, wide))
    assert len(first) == len(setting.held_out) != len(setting.train)
    assert torch.equal(first, second)


def test_potentials_are_scaled_to_the_range_of_a_success(data, tmp_path):
    """The square's reward is x / 10; twice that when the range of rewards is half as wide."""
    options = config(data, tmp_path)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    learner = Learner(square_policy(), LearnConfig())
    one = dream(options, setting, learner, setting.held_out, horizon=1, seed=0)
    two = dream(options, replace(setting, reward_scale=2.0), learner, setting.held_out, horizon=1, seed=0)
    torch.testing.assert_close(two.potentials, 2 * one.potentials)
    clips = contexts(setting.source, setting.held_out, context=1)
    x = torch.cat([clip.states[-1:, 0] for clip in clips])
    torch.testing.assert_close(one.potentials[: len(x), 0], x / 10)


def test_the_correction_grows_to_one(data, tmp_path):
    options = config(data, tmp_path, correction=0.4, updates=10)
    assert [correction_at(options, step) for step in (0, 5, 10, 99)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


def test_every_update_dreams_anew(data, tmp_path):
    """From the same start, and the actor stands still since it imitates: the actions differ by their noise."""
    options = config(data, tmp_path, streams=2, pool=1)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    learner = Learner(square_policy(), options.learn).eval()
    log = ImagineLog(start_accelerator("cpu", tmp_path, "none"), tmp_path, 2, None, "cpu")
    optimizers = learner.optimizers(options.learn)
    pool = StartPool.uniform(len(setting.train), 1, np.random.default_rng(0))
    dreams = []
    for log.step in (0, 1, 0):
        dreams.append(one_update(options, setting, learner, MovingAverage(learner, 0.5), optimizers, pool, log)[0])
    assert torch.equal(dreams[0].frames[:, 0], dreams[1].frames[:, 0])
    assert not torch.equal(dreams[0].actions, dreams[1].actions)
    assert torch.equal(dreams[0].actions, dreams[2].actions)


def test_an_imagined_action_is_held_over_the_stride(data):
    class Strided(SquareWorld):
        """Carries out the first of the three actions, and remembers all."""

        stride = 3

        def __init__(self):
            super().__init__()
            self.chunks = []

        def stream(self, context, *, seeds):
            stream = super().stream(context, seeds=seeds)
            step = stream.step

            def first_action(actions, **settings):
                self.chunks.append(actions)
                return step(actions[:, :2], **settings)

            stream.step = first_action
            return stream

    world, learner = Strided(), Learner(square_policy(), LearnConfig(std=1.0))
    source = open_episodes(data)
    anchors = Anchors.of(source, range(16), context=2, stride=3)
    late = np.flatnonzero(anchors.frames > 0)
    assert len(late) and anchors.frames[late].min() == 3
    episode, frame = int(anchors.episodes[late[0]]), int(anchors.frames[late[0]])
    clip = contexts(source, anchors.pick(late[:1]), context=2, stride=3)[0]
    assert clip.actions.shape == (1, 6)
    assert torch.equal(clip.frames[0], source.read(episode, frame - 3, frame - 2).frames[0])
    start = contexts(source, Anchors(np.array([0]), np.array([0])), context=1)
    parts = world, right_edge, learner.actor, learner.prior, start
    imagine_rollouts(*parts, horizon=2, bounds=BOUNDS, seed=1)
    for chunk in world.chunks:
        assert torch.equal(chunk[:, :2], chunk[:, 2:4]) and torch.equal(chunk[:, :2], chunk[:, 4:])
    assert len(world.chunks) == 2
