import numpy as np
import pytest
import torch
from square_world import SCHEMA, SquareEnv, write_episodes

from policy_eval.policies.policy import CallablePolicy
from policy_eval.real_rollouts import mix, record_rollouts, roll_out
from worldmodel.data import open_episodes


class NamedSquare(SquareEnv):
    """It can be stepped on after a success, as the environments of this package can."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    stops_on_success = True


def move(x: float) -> CallablePolicy:
    return CallablePolicy(lambda seen: seen["observation.state"] + torch.tensor([x, 0.0]))


def test_a_rollout_ends_a_moment_after_success_or_never():
    """From x = 4 it takes three steps of 2, and three more are recorded after the first success."""
    env = NamedSquare()
    first = env.reset(seed=100_003)[0]["observation.state"]
    needed = int(np.ceil((10 - first[0]) / 2))
    one = roll_out(move(2.0), env, 100_003, horizon=20)
    assert one.successes.tolist() == [False] * (needed - 1) + [True] * 4
    np.testing.assert_array_equal(one.states[0], first)
    np.testing.assert_allclose(one.actions[0], first + np.float32([2, 0]))
    np.testing.assert_allclose(one.rewards[0], (first[0] + 2) / 10)
    on = roll_out(move(2.0), env, 100_003, horizon=20, play_on=True)
    assert len(on.actions) == 20 and on.successes[needed - 1 :].all()
    still = roll_out(move(0.0), env, 100_003, horizon=7)
    assert len(still.actions) == 7 and not still.successes.any()


def test_an_action_is_held_over_a_stride():
    """The policy acts at every third step, at what it sees there; the horizon counts its actions."""
    env = NamedSquare()
    start = env.reset(seed=100_003)[0]["observation.state"]
    held = roll_out(move(0.5), env, 100_003, horizon=2, stride=3)
    expected = start[0] + np.float32([0.5, 0.5, 0.5, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(held.actions[:, 0], expected)
    np.testing.assert_allclose(held.states[1:, 0], expected[:-1])


class Ending(NamedSquare):
    """Cannot be stepped on after it has terminated."""

    stops_on_success = None

    def step(self, action):
        assert self.state[0] < 10, "stepped on after the end"
        return super().step(action)


def test_a_rollout_ends_where_the_environment_does_and_shows_how(tmp_path):
    env = Ending()
    rollout = roll_out(move(2.0), env, 100_003, horizon=20)
    assert rollout.successes[:-2].sum() == 0 and rollout.successes[-2:].all()
    assert rollout.states[-1, 0] >= 10
    np.testing.assert_array_equal(rollout.actions[-1], rollout.actions[-2])
    with pytest.raises(ValueError, match=r"it ends when it is terminated, so a policy cannot play on"):
        roll_out(move(2.0), env, 100_003, horizon=20, play_on=True)
    record_rollouts({"right": move(2.0)}, env, tmp_path, episodes=1, horizon=20, seed=1, name="mine:Ending")
    source = open_episodes(tmp_path)
    assert source.robot_type == "mine:Ending"
    assert source.read(0, 0, source.lengths[0]).successes.tolist()[-2:] == [False, True]


def test_policies_take_turns_and_a_killed_recording_goes_on(tmp_path):
    policies = {"right": move(2.0), "still": move(0.0)}
    told = []
    options = {"episodes": 4, "horizon": 8, "seed": 1}

    def stop(done: int) -> None:
        told.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_rollouts(policies, NamedSquare(), tmp_path, progress=stop, **options)
    record_rollouts(policies, NamedSquare(), tmp_path, progress=told.append, **options)
    assert told == [1, 2, 1, 2, 3, 4]
    source = open_episodes(tmp_path)
    assert [source.reset_seed(e) for e in range(4)] == [100_000, 100_001, 100_002, 100_003]
    clips = [source.read(e, 0, source.lengths[e]) for e in range(4)]
    assert [bool(c.successes.any()) for c in clips] == [True, False, True, False]
    before = (tmp_path / "meta/info.json").stat().st_mtime_ns
    record_rollouts(policies, NamedSquare(), tmp_path, **options)
    assert (tmp_path / "meta/info.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"\[\], 4 and 8"):
        record_rollouts({}, NamedSquare(), tmp_path / "none", **options)


def test_a_mixture_holds_the_chosen_episodes(tmp_path):
    first = open_episodes(write_episodes(tmp_path / "first", 3))
    second = open_episodes(write_episodes(tmp_path / "second", 6, failures=4))
    parts = [(first, range(2)), (second, [5])]
    mixed = open_episodes(mix(parts, SCHEMA, tmp_path / "mixed", task="right"))
    assert len(mixed) == 3
    assert sorted(mixed.reset_seed(e) for e in range(3)) == [100, 101, 105]
    index = next(e for e in range(3) if mixed.reset_seed(e) == 105)
    was, now = second.read(5, 0, 8), mixed.read(index, 0, 7)
    assert mixed.lengths[index] == 7
    torch.testing.assert_close(now.actions, was.actions[:6])
    torch.testing.assert_close(now.states, was.states[:7])
    assert (now.frames.int() - was.frames[:7].int()).abs().float().mean() < 2
