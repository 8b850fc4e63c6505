"""Signals and their limits, on squares that move as they are told or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from square_world import SIZE, SquareEnv, SquareWorld, right_edge, write_episodes
from tiny import tiny_world
from torch import nn

from policy_eval.abstention.calibrate import Limit, Replays, calibrate, replay
from policy_eval.abstention.page import draw, rows, sentences
from policy_eval.abstention.signals import DecodedActions, SeedDisagreement, SignalSetup, running_mean, wide
from policy_eval.evaluation import Trial, evaluate
from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.policies.policy import CallablePolicy
from policy_eval.ranking.abstain import Abstained, AbstainOptions
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts

VIEWS = ("top", "wrist")


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Starts:
    """Twelve starts; every fourth recording stops half-way and fails."""
    return Starts(open_episodes(write_episodes(tmp_path_factory.mktemp("square") / "data", 12, failures=1)))


def still() -> InverseDynamics:
    """Whatever it sees, it says that the robot stays where it is."""
    config = InverseDynamicsConfig(VIEWS, (SIZE, SIZE), 2, relative_to={0: 0, 1: 1}, keypoints=2, code=2, width=2)
    dynamics = InverseDynamics(config)
    for module in dynamics.head:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    dynamics.std.copy_(torch.tensor([0.5, 100.0]))
    return dynamics.eval()


def trial(moves: list[float], seed: int = 100) -> Trial:
    """Commands that are so far to the right of where the robot stays."""
    frames = np.zeros((len(moves) + 1, 2, SIZE, SIZE, 3), np.uint8)
    states = np.full((len(moves) + 1, 2), 3.0, np.float32)
    return Trial(seed, 0.0, frames, states[:-1].astype(float) + np.array([[move, 0.0] for move in moves]), states)


def test_decoded_actions_are_compared_with_the_commands():
    """Commands of 0, 1, 3 pixels in deviations of 0.5: 0, 2 and 6; the second dim is always right."""
    found = DecodedActions(still(), window=1)([trial([0, 1, 3]), trial([1])])
    assert [each.round(5).tolist() for each in found] == [
        pytest.approx([0, 2 / 2**0.5, 6 / 2**0.5], abs=1e-4),
        pytest.approx([2 / 2**0.5], abs=1e-4),
    ]
    (smooth,) = DecodedActions(still(), window=2)([trial([0, 1, 3])])
    assert smooth.tolist() == pytest.approx([0, 1, (2 / 2 + 18 / 2) ** 0.5], abs=1e-4)
    dynamics = still()
    dynamics.limit[1] = 0  # never shown, so it does not count
    (first,) = DecodedActions(dynamics, window=1)([trial([1])])
    assert first.tolist() == pytest.approx([2], abs=1e-4)


def test_running_means_are_of_the_past():
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1, 2, 4, 6]
    assert running_mean(np.array([1.0, 3.0]), 5).tolist() == [1, 2]


def test_an_action_is_held_over_the_stride():
    assert wide(np.array([[1.0, 2.0]]), 4).tolist() == [[1, 2, 1, 2]]


def test_a_trial_has_its_states(starts):
    trials = []
    right = CallablePolicy(lambda seen: seen["observation.state"] + torch.tensor([2.0, 0.0]))
    evaluate(right, RealEnvs(SquareEnv, starts, num_envs=4), starts=[0, 1], horizon=9, record=trials.append)
    for index, each in enumerate(trials):
        assert each.states[0].tolist() == starts.states[index].tolist() and len(each.states) == len(each.frames)
        assert (np.diff(each.states[:-1, 0]) == 2).all()


class Stuck(SquareWorld):
    """A world whose squares from the middle on do not move."""

    def stream(self, context, *, seeds):
        stream = super().stream(context, seeds=seeds)
        step, stuck = stream.step, context.states[:, 0, 1] >= 6

        def move(actions, *, num_steps):
            stay = stream.observation.states
            return step(torch.where(stuck[:, None], stay, actions), num_steps=num_steps)

        stream.step = move
        return stream


def replays(starts: Starts, out: Path) -> Replays:
    return replay(Stuck(), right_edge, starts, horizon=8, num_steps=1, seed=0, batch=5, log=out / "rank.log")


def test_recordings_are_dreamed_again_to_their_first_success(starts, tmp_path):
    """Squares that are stuck fail in the dream; a recording ends with its success."""
    found = replays(starts, tmp_path)
    for index, (real, dream) in enumerate(zip(found.recorded, found.dreamed, strict=True)):
        first = starts.states[index]
        fails = index % 4 == 3
        assert real.seed == dream.seed == 100 + index and real.outcome == float(not fails)
        assert len(real.actions) == (7 if fails else int(np.ceil((10 - first[0]) / 2)))
        stuck = bool(first[1] >= 6)
        assert dream.outcome == float(not fails and not stuck)
        assert (dream.states[-1] == first.numpy()).all() == stuck
        assert len(dream.frames) == len(dream.states) == len(dream.actions) + 1


def test_dreams_that_end_otherwise_do_not_set_the_limit(starts, tmp_path):
    """The signal is the share of steps at which the square stays although it was told to go."""

    class Stays:
        reads_recordings = True

        def __call__(self, trials):
            return [np.array([float((each.states[0] == each.states[-1]).all())]) for each in trials]

    found = replays(starts, tmp_path)
    same = [a.outcome == b.outcome for a, b in zip(found.recorded, found.dreamed, strict=True)]
    assert 3 <= sum(same) < 12
    limit = calibrate(Stays(), found, 0.49, "data")
    assert limit.value == 0 and limit.exceeded == 1 and limit.faithful == sum(same) and limit.recordings == 12


def test_seeds_disagree_where_noise_changes_the_dream(starts):
    """The noise is at full scale in the second dream even if the world model dreams without any."""
    world = tiny_world(size=(SIZE, SIZE))
    world.config = replace(world.config, temperature=0.0)
    signal = SeedDisagreement(world, starts, num_steps=2)
    context = starts.clip([4])
    actions = torch.full((1, 3, 2), 5.0)
    frames = torch.stack([each.frames[0] for each in world.stream(context, seeds=[1]).roll(actions, num_steps=2)])
    shown = torch.cat([context.frames[0], frames]).numpy()
    (trace,) = signal([Trial(starts.seeds[4], 0.0, shown, actions[0].double().numpy())])
    (first,) = signal([Trial(starts.seeds[4], 0.0, shown[:2], np.full((1, 2), 5.0))])
    assert trace.shape == (3,) and (trace > 0).all()
    assert first.tolist() == pytest.approx(trace[:1].tolist())


def test_what_does_not_fit_is_named(starts, tmp_path):
    world = tiny_world(size=(SIZE, SIZE))
    settings = {"num_steps": 1, "seed": 0}
    assert SignalSetup().load(world, starts, **settings) is None and SignalSetup().made_with == {}
    still().save(tmp_path / "square")
    found = SignalSetup("inverse-dynamics", tmp_path / "square").load(world, starts, **settings)
    assert found.reads_recordings and set(SignalSetup("seeds").made_with) == {"signal"}
    blind = still()
    blind.limit.zero_()
    blind.save(tmp_path / "blind")
    with pytest.raises(ValueError, match=r"--inverse-dynamics .*blind: no action is visible"):
        SignalSetup("inverse-dynamics", tmp_path / "blind").load(world, starts, **settings)
    other = InverseDynamics(InverseDynamicsConfig(("top",), (SIZE, SIZE), 2))
    other.save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"--inverse-dynamics .*other: made for cameras \('top',\)"):
        SignalSetup("inverse-dynamics", tmp_path / "other").load(world, starts, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"abstain_data": Path("d")}, "--abstain-data: of no effect without --abstain"),
        ({"abstain": "seeds"}, "--abstain seeds needs recorded episodes"),
        ({"abstain": "inverse-dynamics", "abstain_data": Path("d")}, "goes with --abstain inverse-dynamics"),
        ({"abstain": "seeds", "abstain_data": Path("d"), "inverse_dynamics": Path("i")}, "got --abstain seeds and"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AbstainOptions(**options).check()


def test_undecided_dreams_are_left_out_and_counted():
    """Policy one: a success before the break counts, a failure after it does not; policy two: nothing is decided."""
    limit = Limit(0.5, 0.1, recordings=20, faithful=15, exceeded=0.8)
    calm, broken = np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.9, 0.3])
    ends = np.array([1.0, 0.0, 0.0])
    scores = Scores("one", np.array([4, 5, 6]), ends, ends, np.array([1, 3, 3]))
    other = Scores("two", np.array([4]), np.zeros(1), np.zeros(1), np.array([3]))
    traces = {"one": {4: broken, 5: broken, 6: calm}, "two": {4: broken}}
    found = Abstained("seeds", limit, traces, {"one": scores, "two": other})
    kept, faults = found.decided()
    assert list(kept) == ["one"] and kept["one"].seeds.tolist() == [4, 6] and kept["one"].mean == 0.5
    assert [(f["policy"], f["seed"], f["kind"]) for f in faults] == [("one", 5, "dream"), ("two", 4, "dream")]
    assert faults[0]["reason"] == "not to be trusted from step 2 on (seeds)"
    report = found.to_json()
    one, _ = report["policies"]
    assert (one["n"], one["decided"], one["low"], one["high"]) == (3, 2, 1 / 3, 2 / 3)
    assert one["unsure_from"] == {"5": 2} and one["upper"] == pytest.approx([0.1, 0.9, 0.3])
    assert rows(report)[0] == ("one", "2 of 3 (67%)", "0.50", "0.33 and 0.67", "2")
    assert rows(report)[1][2] == "-" and draw(report).startswith(b"\x89PNG")
    assert "Of the 5 dreams of recordings that end otherwise 80% are above it." in sentences(report)
