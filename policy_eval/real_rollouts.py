"""Recording what policies do in the real environment, failures included, as a LeRobot data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch

from policy_eval.policy import Policy
from worldmodel.data import EpisodeSource
from worldmodel.data.lerobot_writer import LeRobotSchema, finalise, stage_episode, staged_episodes

STEPS_AFTER_SUCCESS = 3
"""Steps recorded after a success, so that there are pictures of it."""
SEED_STRIDE = 100_000
"""Reset seeds of one `seed`, as in `worldmodel record`."""


@dataclass(frozen=True)
class Rollout:
    """One episode; row i is what was seen before action i.

    Attributes:
        observations: By LeRobot's keys, `t ...` each.
        actions: `t a`.
        rewards: Reward of each action, `t`.
        successes: Success after each action, `t`.
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray


def roll_out(policy: Policy, env: gymnasium.Env, reset_seed: int, horizon: int) -> Rollout:
    """Let a policy act for `horizon` steps, or until a moment after its first success."""
    observation, _ = env.reset(seed=reset_seed)
    policy.reset([reset_seed])
    rows, since_success = [], 0
    for _ in range(horizon):
        seen = {name: torch.from_numpy(value)[None] for name, value in observation.items()}
        action = policy.act(seen)[0].cpu().numpy().astype(np.float32)
        action = action.clip(env.action_space.low, env.action_space.high)
        following, reward, _, _, info = env.step(action)
        rows.append((observation, action, reward, info["success"]))
        observation = following
        since_success += bool(info["success"])
        if since_success > STEPS_AFTER_SUCCESS:
            break
    seen, actions, rewards, successes = zip(*rows, strict=True)
    return Rollout(
        {name: np.stack([each[name] for each in seen]) for name in seen[0]}, np.stack(actions),
        np.array(rewards, np.float32), np.array(successes, bool),
    )  # fmt: skip


def record_rollouts(
    policies: Mapping[str, Policy], env: gymnasium.Env, out: Path, *, episodes: int, horizon: int,
    seed: int, progress: Callable[[int], None] = lambda done: None,
) -> Path:  # fmt: skip
    """Record real trials of policies, who take turns; returns the LeRobot data set.

    Episode `i` starts from the reset seed `seed * 100000 + i`. A killed recording continues, and a
    complete one is left alone.

    Args:
        policies: By name, which is stored with each episode.
        env: One of `worldmodel.envs`, or with the same attributes.
        out: Folder of the data set.
        episodes: How many.
        horizon: Most steps of an episode.
        seed: Decides on the starts; use one that nothing is tested on.
        progress: Told the number of episodes that are there.

    Raises:
        ValueError: There are no policies, or a number is out of range.
    """
    if not policies or not 1 <= episodes <= SEED_STRIDE or horizon < 1:
        raise ValueError(
            f"at least one policy, episode and step expected, got {list(policies)}, {episodes} and "
            f"{horizon}"
        )
    if (out / "meta" / "info.json").exists():
        return out
    schema = schema_of(env)
    done = staged_episodes(out)
    names = list(policies)
    for index in range(episodes):
        if index not in done:
            name = names[index % len(names)]
            reset_seed = seed * SEED_STRIDE + index
            rollout = roll_out(policies[name], env, reset_seed, horizon)
            pictures = {v: rollout.observations[f"observation.images.{v}"] for v in env.views}
            stage_episode(
                out, index, schema=schema, frames=pictures, actions=rollout.actions,
                states=rollout.observations["observation.state"], rewards=rollout.rewards,
                successes=rollout.successes, task=env.task,
                metadata={"reset_seed": reset_seed, "policy": name},
            )  # fmt: skip
        progress(index + 1)
    finalise(out, schema)
    return out


def schema_of(env: gymnasium.Env) -> LeRobotSchema:
    """What a row of a recording of `env` holds."""
    spaces = env.observation_space.spaces
    return LeRobotSchema(
        fps=env.metadata["render_fps"],
        views={view: spaces[f"observation.images.{view}"].shape[:2] for view in env.views},
        action_names=env.action_names, state_names=env.state_names, robot_type=env.name,
    )  # fmt: skip


def mix(
    parts: Sequence[tuple[EpisodeSource, Sequence[int]]], schema: LeRobotSchema, out: Path, *,
    task: str, seed: int = 0,
) -> Path:  # fmt: skip
    """Write episodes of several data sets, shuffled, as one; returns its folder.

    The last frame of an episode is dropped, since no action is recorded with it. A complete one is
    left alone.
    """
    if (out / "meta" / "info.json").exists():
        return out
    rows = [(source, episode) for source, episodes in parts for episode in episodes]
    order = np.random.default_rng(seed).permutation(len(rows))
    seeded = all(source.reset_seed(episode) is not None for source, episode in rows)
    for index, row in enumerate(order):
        source, episode = rows[row]
        clip = source.read(episode, 0, source.lengths[episode])
        stage_episode(
            out, index, schema=schema,
            frames={v: clip.frames[:-1, i].numpy() for i, v in enumerate(source.views)},
            actions=clip.actions.numpy(),
            states=None if clip.states is None else clip.states[:-1].numpy(),
            rewards=None if clip.rewards is None else clip.rewards.numpy(),
            successes=None if clip.successes is None else clip.successes.numpy(), task=task,
            metadata={"reset_seed": source.reset_seed(episode)} if seeded else {},
        )  # fmt: skip
    finalise(out, schema)
    return out
