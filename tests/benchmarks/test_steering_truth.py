"""Steering by the truth: a simulator is put back, and what the decisions say is worked out by hand."""

import numpy as np
import pytest
from places import BENCHMARKS

try:
    import worldmodel.envs.metaworld.headless  # noqa: F401
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture
def truth(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import steering_truth

    return steering_truth


def test_decisions_by_dream_and_judge(truth):
    """The dream orders three plans the other way round than the reward, the judge the same way."""
    noted = [{"dream": [3.0, 2.0, 1.0], "judge": [0.1, 0.5, 0.9], "reward": [4.0, 5.0, 7.0], "miss": [0.02] * 3}]
    assert [line[1] for line in truth.decisions(noted)] == ["-1.00", "1.00", "+0.00", "+3.00", "+3.00", "2.0", "1"]


@pytest.mark.slow
def test_a_simulator_is_put_back(truth):
    env = truth.make_env("metaworld:reach-v3")
    env.reset(seed=3)
    env.step(np.float32([1, 0, 0, 0]))
    saved = truth.snapshot(env)
    first = [env.step(np.float32([0, 1, 0.5, 1])) for _ in range(3)][-1]
    truth.restore(env, saved)
    again = [env.step(np.float32([0, 1, 0.5, 1])) for _ in range(3)][-1]
    assert first[1] == pytest.approx(again[1], abs=1e-6)
    np.testing.assert_allclose(first[0]["observation.state"], again[0]["observation.state"], atol=1e-6)
    env.close()
