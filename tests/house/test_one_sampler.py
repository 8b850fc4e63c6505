"""Whoever dreams uses the sampler of the world model: double its steps, and every dream changes."""

import numpy as np
import torch
from drawn_episodes import SEEDS, DrawnEpisodes, never
from tiny import random_clip, tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import Start
from policy_eval.steering.scorers import nearest_the_mean
from policy_eval.steering.steered import SteeredPolicy
from rl_posttrain.posttraining.branches import draw_branches
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.fidelity.comparison import dream
from worldmodel.model.flow import euler_step


def twice_as_far(predict, noise, num_steps):
    """Euler steps of twice the size, which the network is told, too."""
    z = noise
    for index in range(num_steps):
        tau, step_size = index / num_steps, 2 / num_steps
        z = tuple(euler_step(p, x, tau, step_size) for p, x in zip(z, predict(z, tau, step_size), strict=True))
    return z


def rollout(world, clip):
    return world.rollout(clip, torch.zeros(2, 2, 2)).frames


def dream_env(world, clip):
    source = DrawnEpisodes([5, 6, 7, 8], reset_seeds=SEEDS)
    envs = DreamEnv(world, Starts(source), never, num_envs=2, horizon=4)
    envs.reset(seed=0)
    return torch.from_numpy(envs.step(np.ones((2, 2), np.float32))[0]["observation.images.top"])


def demo_session(world, clip):
    return DriveSession(world, Start(clip.map(lambda x: x[:1]))).step(["right"]).frames


def fidelity(world, clip):
    return dream(world.stream(clip), torch.zeros(2, 3, 2), horizon=3, horizons=(1, 3), num_steps=2)


def post_training(world, clip):
    options = {"context": 2, "prefix": 1, "candidates": 2, "num_steps": 2, "temperature": 1.0, "seeds": [5, 9]}
    return draw_branches(world, clip, **options)[1].imagined.frames


def steering(world, clip):
    steered = SteeredPolicy(Still(), nearest_the_mean, world, k=2, sigma=1.0, lookahead=2)
    steered.reset([1, 2])
    views = {f"observation.images.{view}": clip.frames[:, 0, i] for i, view in enumerate(world.views)}
    steered.act({**views, "observation.state": clip.states[:, 0]})
    return steered.imagine(torch.ones(2, 2, 1, 2)).frames


class Still:
    """A policy that plans to do nothing."""

    def plan(self, observation):
        return torch.zeros(len(observation["observation.state"]), 1, 2)


def test_all_dreams_change_with_the_sampler():
    for use in (rollout, dream_env, demo_session, fidelity, post_training, steering):
        world = tiny_world(size=(16, 16), relative_to={})
        clip = random_clip(world)
        before, again = use(world, clip), use(world, clip)
        assert torch.equal(before, again), use.__name__
        world.sampler = twice_as_far
        assert not torch.equal(use(world, clip), before), use.__name__
