import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from square_world import SIZE, SquareEnv, square_policy, write_episodes
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.real_envs import RealEnvs
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.learner import LearnConfig, Learner
from rl_posttrain.imagination.rollouts import imagine_rollouts, persistent_noise
from rl_posttrain.imagination.train import better, imagine, improve, measure, prepare
from worldmodel.data import open_episodes
from worldmodel.dreams.anchors import Anchors, contexts
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.dreams.world import World, begin
from worldmodel.fidelity.uncertainty import calibrate, correlation, disagreement
from worldmodel.streaming.state import Observation

BOUNDS = (torch.zeros(2), torch.full((2,), 12.0))


class SquareStream:
    """Squares drawn exactly, with grains of noise that depend on the seed."""

    def __init__(self, world, context, seeds):
        self.world = world
        self.generator = torch.Generator().manual_seed(seeds[0])
        self.observation = Observation(context.frames[:, -1], context.states[:, -1])

    def step(self, actions, *, num_steps):
        self.world.take_step()
        states = self.observation.states
        states = states + (actions - states).clamp(-2, 2)
        frames = torch.full((len(states), 2, SIZE, SIZE, 3), 30, dtype=torch.uint8)
        for picture, (x, y) in zip(frames, states.round().int().tolist(), strict=True):
            picture[0, y : y + 4, x : x + 4] = 230
            picture[1] = picture[0].flip(0)
        if self.world.grain:
            noise = torch.randint(self.world.grain, frames.shape, generator=self.generator)
            frames = frames + noise.to(torch.uint8)
        self.observation = Observation(frames, states)
        return self.observation

    def reset(self, streams, context, *, seeds):
        states, frames = self.observation.states.clone(), self.observation.frames.clone()
        states[streams], frames[streams] = context.states[:, -1], context.frames[:, -1]
        self.observation = Observation(frames, states)


class SquareWorld:
    """The square's world; its plug is pulled after some steps, if that is asked for."""

    views = ("top", "wrist")

    def __init__(self, grain: int = 0, steps: int | None = None):
        self.grain, self.left = grain, steps

    def stream(self, context, *, seeds):
        return SquareStream(self, context, seeds)

    def take_step(self):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1


def right_edge(observation: Observation) -> Verdict:
    """As `SquareEnv` rewards: x / 10, and success from 10 on."""
    x = observation.states[:, 0]
    return Verdict(x / 10, x >= 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def config(data: Path, out: Path, **settings) -> ImagineConfig:
    defaults = {
        "streams": 16,
        "horizon": 5,
        "context": 1,
        "pool": 32,
        "validation_starts": 8,
        "validation_horizon": 6,
        "learn": LearnConfig(minibatch=40, warmup=1),
    }
    return ImagineConfig("", Path(), Path(), data, out, **{**defaults, **settings})


@pytest.mark.parametrize("objective", ["imitation", "pmpo"])
def test_a_policy_improves_in_imagination_and_in_reality(data, tmp_path, objective):
    learn = LearnConfig(
        objective, actor_rate=3e-3, critic_rate=3e-3, warmup=2, minibatch=80, std=1.0, imitation_steps=20
    )
    options = config(
        data,
        tmp_path / "run",
        updates=30,
        streams=32,
        horizon=6,
        learn=replace(learn, beta=0.03),
        validation_interval=5,
    )
    source = open_episodes(data)
    setting = prepare(options, SquareWorld(), right_edge, source)
    assert isinstance(setting.world, World)
    report = improve(options, setting, square_policy())
    assert report["first"]["solved"] < 0.5 < report["best"]["solved"]
    assert report["best"]["return"] > report["first"]["return"] + 0.2
    envs = RealEnvs(SquareEnv, Starts(source), num_envs=16)
    before = evaluate(square_policy(), envs, horizon=7).mean
    after = evaluate(ClonedPolicy.load(tmp_path / "run"), envs, horizon=7).mean
    assert after > before + 0.3
    rows = [json.loads(r) for r in (tmp_path / "run/updates.jsonl").read_text().splitlines()]
    assert len(rows) == report["updates"] and rows[-1]["kl"] > 0
    assert objective == "imitation" or rows[0]["kl"] == 0  # the critic learns first
    assert list((tmp_path / "run/log").glob("events*"))


def test_the_prior_holds_the_actor(data, tmp_path):
    """With a heavy divergence the actor stays where it was."""
    source = open_episodes(data)
    moved = {}
    for beta in (0.0, 100.0):
        learn = LearnConfig("pmpo", actor_rate=1e-3, warmup=0, beta=beta)
        options = config(data, tmp_path / f"{beta}", updates=4, learn=learn)
        improve(options, prepare(options, SquareWorld(), right_edge, source), square_policy())
        rows = (tmp_path / f"{beta}/updates.jsonl").read_text().splitlines()
        moved[beta] = json.loads(rows[-1])["kl"]
    assert moved[100.0] < 0.2 * moved[0.0]


def test_a_run_that_finds_nothing_keeps_the_clone(data, tmp_path):
    never = lambda seen: Verdict(torch.zeros(len(seen.frames)), torch.zeros(len(seen.frames)) > 0)  # noqa: E731
    options = config(data, tmp_path, updates=9, validation_interval=1, patience=2)
    report = improve(options, prepare(options, SquareWorld(), never, open_episodes(data)), square_policy())
    assert report["stopped_early"] and report["updates"] == 2 and report["best"]["step"] == 0
    kept = ClonedPolicy.load(tmp_path).state_dict()
    for name, weight in square_policy().state_dict().items():
        assert torch.equal(kept[name], weight), name


@pytest.mark.parametrize("objective", ["imitation", "pmpo"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, tmp_path, objective):
    source = open_episodes(data)
    learn = LearnConfig(objective, minibatch=40, warmup=1, imitation_steps=3)

    def run(out: str, world: SquareWorld, **change) -> dict:
        options = config(
            data,
            tmp_path / out,
            updates=5,
            save_interval=2,
            validation_interval=2,
            refresh_interval=2,
            learn=learn,
            **change,
        )
        return improve(options, prepare(options, world, right_edge, source), square_policy())

    whole = run("whole", SquareWorld())
    with pytest.raises(KeyboardInterrupt):
        run("killed", SquareWorld(steps=6 + 5 + 5 + 6 + 5 + 2))  # in the middle of the fourth update
    resumed = run("killed", SquareWorld(), resume=True)
    assert resumed["best"] == whole["best"] and resumed["first"] == whole["first"]
    tables = [
        [
            {k: v for k, v in json.loads(row).items() if k != "seconds"}
            for row in (tmp_path / out / f"{name}.jsonl").read_text().splitlines()
        ]
        for name in ("updates", "validation")
        for out in ("whole", "killed")
    ]
    assert tables[0] == tables[1] and len(tables[0]) == 5
    assert tables[2] == tables[3] and [row["step"] for row in tables[2]] == [0, 2, 4, 5]
    files = [tmp_path / out / "weights.safetensors" for out in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


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


def test_anchors_lie_before_success_with_room_for_the_context(data):
    source = open_episodes(data)
    x = float(source.read(0, 0, 1).states[0, 0])
    steps = math.ceil((10 - x) / 2)
    one = Anchors.of(source, [0], context=3)
    assert one.frames.tolist() == [0, *range(2, steps)]
    clips = contexts(source, one, context=3)
    assert [len(clip.frames) for clip in clips] == [1, *[3] * (len(one) - 1)]
    assert torch.equal(clips[1].states, source.read(0, 0, 3).states)


def test_longer_contexts_join_a_batch_of_first_frames(data):
    """A stream does not depend on what else begins with it."""
    world = tiny_world(size=(SIZE, SIZE))
    source = open_episodes(data)
    clips = [source.read(0, 0, 1), source.read(1, 0, 3), source.read(2, 1, 4)]
    action = torch.full((3, 2), 4.0)
    together = begin(world, clips, [5, 6, 7]).step(action, num_steps=1)
    alone = begin(world, clips[1:2], [6]).step(action[:1], num_steps=1)
    difference = together.frames[1].int() - alone.frames[0].int()
    assert difference.abs().max() <= 2
    torch.testing.assert_close(together.states[1], alone.states[0], rtol=1e-2, atol=1e-2)


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


def test_an_actor_must_be_better_by_more_than_the_standard_error():
    """Gains of 3, 1, 1, 3 have mean 2 and standard error 0.577; of 5, -3, 5, -3 mean 1 and 2.3."""
    best = torch.zeros(4)
    assert better(torch.tensor([3.0, 1, 1, 3]), best)
    assert not better(torch.tensor([5.0, -3, 5, -3]), best)
    assert not better(best, best) and better(torch.ones(1), torch.zeros(1))


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory) -> dict[str, Path]:
    """A tiny world model, judge and policy of random weights."""
    root = tmp_path_factory.mktemp("folders")
    tiny_world(size=(SIZE, SIZE)).save(root / "world")
    torch.manual_seed(0)
    LearnedJudge(JudgeShape(("top", "wrist"), (SIZE, SIZE))).save(root / "judge")
    square_policy().save(root / "policy", dtype=torch.float32)
    return {name: root / name for name in ("world", "judge", "policy")} | {"data": data}


def test_the_command_improves_and_leaves_a_policy(folders, tmp_path):
    command = [sys.executable, "-m", "worldmodel.cli", "imagine", "--out", str(tmp_path / "out")]
    for name, folder in folders.items():
        command += [f"--{name}", str(folder)]
    command += ["--updates", "2", "--streams", "4", "--horizon", "2", "--validation-starts", "2"]
    command += ["--validation-horizon", "2", "--validation-interval", "1", "--num-steps", "1"]
    command += ["--learn.warmup", "1", "--context", "2", "--pool", "8"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "disagreement of noise seeds" in result.stdout
    assert "held-out frames" in " ".join(result.stdout.split())
    ClonedPolicy.load(tmp_path / "out")
    report = json.loads((tmp_path / "out/imagination.json").read_text())
    assert report["updates"] == 2 and report["calibration"]["horizon"] == 2


def test_what_does_not_fit_is_named(folders, tmp_path):
    chunky = square_policy()
    chunky.config = replace(chunky.config, chunk=2)
    chunky = ClonedPolicy(chunky.config)
    chunky.save(tmp_path / "chunky")
    wide = ClonedPolicy(replace(square_policy().config, size=(32, 32)))
    wide.save(tmp_path / "wide")

    def run(**change):
        settings = {k: str(v) if k == "world" else v for k, v in folders.items()}
        return lambda: imagine(ImagineConfig(**settings | {"out": tmp_path / "out"} | change))

    for call, message in (
        (run(streams=5), "streams is a multiple of noise_seeds, got 5 and 2"),
        (run(horizon=0), "horizon is at least 1, got 0"),
        (run(persistence=1.5), "persistence is between 0 and 1, got 1.5"),
        (run(learn=LearnConfig(imitation_steps=0)), "imitation_steps is at least 1, got 0"),
        (run(temperature=-1.0), "temperature is at least 0, got -1.0"),
        (run(held_out=1.0), "held_out is between 0 and 1, got 1.0"),
        (run(policy=tmp_path / "wide"), r"frames of the policy: \(32, 32\), expected is \(16, 16\)"),
        (run(policy=tmp_path / "chunky", trust=False), "chunk is 1, the policy has 2"),
        (run(judge=tmp_path / "none"), "judge.json is missing"),
        (run(ranking=tmp_path / "none.json"), "none.json: no ranking.json of `worldmodel rank`"),
        (run(resume=True, trust=False), "nothing to resume"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
