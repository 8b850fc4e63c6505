"""Run one episode in an environment, and write it as an episode of a LeRobot data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np

from worldmodel.data.lerobot.write import LeRobotSchema, stage_episode
from worldmodel.envs.protocol import IMAGES, STATE, describe, name_of, succeeded

STEPS_AFTER_SUCCESS = 3  # so that there are pictures of it
LONGEST_EPISODE = 10_000  # steps after which an episode is assumed never to end

Act = Callable[[dict[str, np.ndarray]], np.ndarray]
"""Maps the observation of one environment to one action."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of t steps; row i holds the observation before action i.

    Attributes:
        frames: Pictures of every view, uint8 `t H W 3`.
        actions: Float32 `t a`.
        states: Proprioceptive states, float32 `t s`, or `None`.
        rewards: Reward of each action, float32 `t`.
        successes: Success after each action, bool `t`.
    """

    frames: dict[str, np.ndarray]
    actions: np.ndarray
    states: np.ndarray | None
    rewards: np.ndarray
    successes: np.ndarray


def schema_of(env: gymnasium.Env, name: str = "") -> LeRobotSchema:
    """The schema of a recording of `env`; `name` is the name with which `env` was made."""
    facts = describe(env, name)
    return LeRobotSchema(
        fps=facts.fps,
        views=facts.views,
        action_names=facts.action_names,
        state_names=facts.state_names,
        robot_type=facts.name,
    )


def act_out(
    env: gymnasium.Env,
    observation: dict[str, np.ndarray],
    act: Act,
    *,
    length: int | None,
    stop_on_success: bool | None = None,
) -> Episode:
    """Record from the current state of `env` to the end of the episode.

    Where the environment itself ends the episode with success or failure, one more row shows how it
    ended: the last observation, with the last action, reward and success repeated. Every picture of
    a LeRobot data set was taken before an action, so without this row no picture would show the end.

    Args:
        env: The environment, which has been reset.
        observation: Its current observation.
        act: Returns the action for an observation; the action is clipped to the action space.
        length: Largest number of steps, at least 1; with `None` the environment ends the episode.
        stop_on_success: With `None` the episode ends when the environment is terminated or truncated.
            Otherwise it goes on: with `True` until `STEPS_AFTER_SUCCESS` steps after the first
            success, with `False` for `length` steps.

    Raises:
        ValueError: The environment has not ended after `LONGEST_EPISODE` steps.
    """
    steps, since_success, over = [], 0, False
    while not over and len(steps) != length:
        if len(steps) == LONGEST_EPISODE:
            raise ValueError(
                f"environment {name_of(env)}: an episode has not ended after {LONGEST_EPISODE} steps; let step "
                "return truncated, give the class a time_limit, or pass --horizon"
            )
        action = np.asarray(act(observation), np.float32)
        action = action.clip(env.action_space.low, env.action_space.high)
        seen = {key: value.copy() for key, value in observation.items()}
        observation, reward, terminated, truncated, info = env.step(action)
        success = succeeded(terminated, info)
        steps.append((seen, action, reward, success))
        since_success += success
        if stop_on_success is None:
            over = terminated or truncated
        elif stop_on_success:
            over = since_success > STEPS_AFTER_SUCCESS
    if stop_on_success is None and terminated:
        steps.append((observation, action, reward, success))
    return stacked(steps)


def stacked(steps: list[tuple[dict[str, np.ndarray], np.ndarray, float, bool]]) -> Episode:
    """The episode of rows of observation, action, reward and success."""
    observations, actions, rewards, successes = zip(*steps, strict=True)
    columns = {key: np.stack([each[key] for each in observations]) for key in observations[0]}
    return Episode(
        frames={key.removeprefix(IMAGES): column for key, column in columns.items() if key.startswith(IMAGES)},
        actions=np.stack(actions),
        states=columns.get(STATE),
        rewards=np.array(rewards, np.float32),
        successes=np.array(successes, bool),
    )


def stage(
    episode: Episode,
    out: Path,
    index: int,
    env: gymnasium.Env,
    metadata: Mapping[str, int | float | str],
    *,
    name: str = "",
) -> None:
    """Write an episode of `env` below `out`, where `finalise` finds it; `env` was made with the name `name`."""
    schema, task = schema_of(env, name), describe(env, name).task
    stage_episode(out, index, schema=schema, **vars(episode), task=task, metadata=metadata)
