"""Record what policies do in the real environment, failures included, as a LeRobot data set."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gymnasium
import numpy as np

from policy_eval.policies.policy import Policy
from worldmodel.data import EpisodeSource
from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode, staged_episodes
from worldmodel.envs.episode import Act, Episode, act_out, schema_of, stage
from worldmodel.envs.policy import ask, begin_episodes
from worldmodel.envs.protocol import begin, describe
from worldmodel.envs.record import SEED_STRIDE


def roll_out(
    policy: Policy, env: gymnasium.Env, reset_seed: int, horizon: int, *, play_on: bool = False, stride: int = 1
) -> Episode:
    """Let a policy act `horizon` times, or until a moment after its first success.

    If the environment cannot be stepped after it has terminated, its end also ends the rollout.

    Args:
        policy: The policy that acts.
        env: The environment.
        reset_seed: Seed of the start.
        horizon: Maximum number of actions.
        play_on: Continue after a success, so that the steps after it are recorded, too.
        stride: Steps of the environment for which an action is held, as in a world model of this stride.

    Raises:
        ValueError: `play_on` is set, but the environment cannot be stepped after it has terminated.
    """
    facts = describe(env)
    if play_on and facts.stops_on_success is None:
        raise ValueError(
            f"environment {facts.name}: it ends when it is terminated, so a policy cannot play on; if it can be "
            "stepped on, give the class stops_on_success = True"
        )
    observation = begin(env, reset_seed)
    begin_episodes(policy, [reset_seed], [describe(env).task])  # an environment of several tasks draws one in reset
    stop = None if facts.stops_on_success is None else not play_on
    act = holding(functools.partial(ask, policy), stride)
    return act_out(env, observation, act, length=horizon * stride, stop_on_success=stop)


def holding(act: Act, stride: int) -> Act:
    """Ask for an action at every `stride`-th step, and repeat it in between."""
    step, action = 0, None

    def hold(observation: dict[str, np.ndarray]) -> np.ndarray:
        nonlocal step, action
        if step % stride == 0:
            action = act(observation)
        step += 1
        return action

    return hold


def record_rollouts(
    policies: Mapping[str, Policy],
    env: gymnasium.Env,
    out: Path,
    *,
    episodes: int,
    horizon: int,
    seed: int,
    play_on: bool = False,
    stride: int = 1,
    name: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Record real trials of policies that take turns; returns the folder of the LeRobot data set.

    Episode `i` starts from the reset seed `seed * 100000 + i`. A killed recording is continued,
    and a complete one is not changed.

    Args:
        policies: By name, which is stored with each episode.
        env: The environment.
        out: Folder of the data set.
        episodes: Number of episodes.
        horizon: Maximum number of actions of an episode.
        seed: Sets the starts; use a seed that nothing is tested on.
        play_on: Continue for the whole horizon after a success.
        stride: Steps of the environment for which an action is held, as in a world model of this stride.
        name: Name with which `make_env` makes the environment again; by default the environment's own.
        progress: Called with the number of episodes recorded so far.

    Raises:
        ValueError: There are no policies, or a number is out of range.
    """
    if not policies or not 1 <= episodes <= SEED_STRIDE or horizon < 1:
        raise ValueError(
            f"at least one policy, episode and step expected, got {list(policies)}, {episodes} and {horizon}"
        )
    if (out / "meta" / "info.json").exists():
        return out
    done = staged_episodes(out)
    names = list(policies)
    for index in range(episodes):
        if index not in done:
            actor = names[index % len(names)]
            reset_seed = seed * SEED_STRIDE + index
            episode = roll_out(policies[actor], env, reset_seed, horizon, play_on=play_on, stride=stride)
            stage(episode, out, index, env, {"reset_seed": reset_seed, "policy": actor}, name=name)
        progress(index + 1)
    finalise(out, schema_of(env, name))
    return out


def mix(
    parts: Sequence[tuple[EpisodeSource, Sequence[int]]], schema: LeRobotSchema, out: Path, *, task: str, seed: int = 0
) -> Path:
    """Write episodes of several data sets, shuffled, into one data set; returns its folder.

    The last frame of an episode is dropped, because no action is recorded with it. An episode keeps its task in words;
    `task` is that of the others. A data set that is already complete is not changed.
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
            out,
            index,
            schema=schema,
            frames={v: clip.frames[:-1, i].numpy() for i, v in enumerate(source.views)},
            actions=clip.actions.numpy(),
            states=None if clip.states is None else clip.states[:-1].numpy(),
            rewards=None if clip.rewards is None else clip.rewards.numpy(),
            successes=None if clip.successes is None else clip.successes.numpy(),
            task=source.task(episode) or task,
            metadata={"reset_seed": source.reset_seed(episode)} if seeded else {},
        )
    finalise(out, schema)
    return out
