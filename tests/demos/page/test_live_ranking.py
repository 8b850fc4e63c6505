import sys

import numpy as np
import torch
from drawn_episodes import never
from mine import ENV, write_module
from tiny import tiny_world

from demos.page.live_ranking import FIRST_SEED, FreshEpisodes, make_envs
from policy_eval.evaluation import evaluate
from policy_eval.policies.policy import CallablePolicy
from worldmodel.envs import make_env


def test_fresh_starts_of_a_foreign_environment_are_those_of_its_simulator(tmp_path, monkeypatch):
    """It has no state, and its pictures have a size of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    square = f"{write_module(tmp_path, ENV)}:Square"
    world = tiny_world(views=("top",), size=(16, 16), relative_to={}, state_dim=0)
    episodes = FreshEpisodes(square, world, range(7, 9))
    env = make_env(square)
    for index, seed in enumerate((7, 8)):
        seen, _ = env.reset(seed=seed)
        clip = episodes.read(index, 0, 1)
        np.testing.assert_array_equal(clip.frames[0, 0], seen["observation.images.top"])
        assert clip.states is None
    envs = make_envs(world, never, square, trials=2, horizon=6, num_steps=1, simulator=True)
    right = CallablePolicy(lambda seen: torch.ones(len(seen["observation.images.top"]), 2))
    scores = evaluate(right, envs, horizon=6)
    assert scores.outcomes.tolist() == [1.0, 1.0] and scores.seeds.tolist() == [FIRST_SEED, FIRST_SEED + 1]
