"""Recording scripted behaviour in an environment as a LeRobot data set."""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode, staged_episodes
from worldmodel.envs import check_env_name, make_env
from worldmodel.envs.behaviour import Behaviour, choose_behaviour
from worldmodel.envs.scripts import behave
from worldmodel.files import write_json
from worldmodel.processes import end_with_parent

SEED_STRIDE = 100_000  # episodes of one seed; different seeds never share a start
STEPS_AFTER_SUCCESS = 3  # so that there are pictures of it
RECORDING_FILE = "recording.json"


@dataclass(frozen=True)
class RecordConfig:
    """What to record.

    Attributes:
        env: The environment: pusht, pusht-position or metaworld:TASK, as in metaworld:push-v3.
        out: Folder of the LeRobot data set; an interrupted recording there is continued.
        episodes: Number of episodes.
        seed: Episode i starts from the reset seed `seed * 100000 + i`.
        behaviour: Who acts: the expert, the expert with noise on its actions, play that pushes the
            object about, or a mixture of the three, drawn for each episode.
        shift: One controlled change of the environment, for tests out of distribution. PushT has
            start-region, agent-speed and action-noise, Meta-World start-region, camera and
            action-noise. Empty for none.
        size: Side of the square camera pictures in pixels.
        num_workers: Processes; 0 means one per core.
    """

    env: tyro.conf.Positional[str]
    out: Path
    episodes: int = 200
    seed: int = 0
    behaviour: Literal["mixture", "expert", "noisy", "play"] = "mixture"
    shift: str = ""
    size: int = 64
    num_workers: int = 0

    def __post_init__(self):
        check_env_name(self.env)
        if not 1 <= self.episodes <= SEED_STRIDE:
            raise ValueError(f"episodes is 1 to {SEED_STRIDE}, got {self.episodes}")
        if self.seed < 0 or self.num_workers < 0:
            raise ValueError(f"seed and num_workers are at least 0, got {self.seed} and {self.num_workers}")

    @property
    def processes(self) -> int:
        """Number of processes that record."""
        return min(self.num_workers or os.cpu_count() or 1, self.episodes)

    @property
    def content(self) -> dict[str, object]:
        """The settings that decide what is in the data set."""
        names = ("env", "episodes", "seed", "behaviour", "shift", "size")
        return {name: getattr(self, name) for name in names}

    @property
    def schema(self) -> LeRobotSchema:
        """What a row of the data set holds."""
        return schema_of(environment(self))


@dataclass(frozen=True)
class Episode:
    """One recorded episode of t steps; row i is what was seen before action i.

    Attributes:
        frames: Pictures of every view, uint8 `t H W 3`.
        actions: Float32 `t a`.
        states: What the robot knows of itself, float32 `t s`.
        rewards: Reward of each action, float32 `t`.
        successes: Success after each action, bool `t`.
    """

    frames: dict[str, np.ndarray]
    actions: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray


def schema_of(env: gymnasium.Env) -> LeRobotSchema:
    """What a row of a recording of `env` holds."""
    spaces = env.observation_space.spaces
    return LeRobotSchema(
        fps=env.metadata["render_fps"],
        views={view: spaces[f"observation.images.{view}"].shape[:2] for view in env.views},
        action_names=env.action_names,
        state_names=env.state_names,
        robot_type=env.name,
    )


def act_out(
    env: gymnasium.Env,
    observation: dict[str, np.ndarray],
    act: Callable[[dict[str, np.ndarray]], np.ndarray],
    *,
    length: int,
    stop_on_success: bool,
) -> Episode:
    """Record at most `length` steps from where `env` stands.

    Args:
        env: One of `worldmodel.envs`, or with the same attributes; has been reset.
        observation: What it shows.
        act: An action for an observation; cut to the action space.
        length: Most steps, at least 1.
        stop_on_success: End `STEPS_AFTER_SUCCESS` steps after the first success.
    """
    steps, since_success = [], 0
    for _ in range(length):
        action = np.asarray(act(observation), np.float32)
        action = action.clip(env.action_space.low, env.action_space.high)
        following, reward, _, _, info = env.step(action)
        steps.append((observation, action, reward, info["success"]))
        observation = following
        since_success += bool(info["success"])
        if stop_on_success and since_success > STEPS_AFTER_SUCCESS:
            break
    observations, actions, rewards, successes = zip(*steps, strict=True)
    stacked = {key: np.stack([each[key] for each in observations]) for key in observations[0]}
    return Episode(
        frames={view: stacked[f"observation.images.{view}"] for view in env.views},
        actions=np.stack(actions),
        states=stacked["observation.state"],
        rewards=np.array(rewards, np.float32),
        successes=np.array(successes, bool),
    )


def stage(
    episode: Episode, out: Path, index: int, env: gymnasium.Env, metadata: Mapping[str, int | float | str]
) -> None:
    """Write an episode of `env` below `out`, to be gathered by `finalise`."""
    stage_episode(out, index, schema=schema_of(env), **vars(episode), task=env.task, metadata=metadata)


def environment(config: RecordConfig) -> gymnasium.Env:
    """The environment that is recorded; each process makes it once."""
    return _environment(config.env, config.size, config.shift)


@functools.cache
def _environment(name: str, size: int, shift: str) -> gymnasium.Env:
    return make_env(name, size=size, **({"shift": shift} if shift else {}))


def simulate_episode(config: RecordConfig, reset_seed: int) -> tuple[Episode, Behaviour]:
    """One episode and who acted in it; a pure function of the settings and the reset seed."""
    env = environment(config)
    rng = np.random.default_rng([reset_seed, 1])
    behaviour = choose_behaviour(config.behaviour, rng)
    observation, _ = env.reset(seed=reset_seed)
    targets = behave(behaviour, env, rng)
    episode = act_out(
        env,
        observation,
        lambda _: next(targets),
        length=env.episode_steps(behaviour),
        stop_on_success=env.stops_on_success,
    )
    return episode, behaviour


def record_episode(config: RecordConfig, index: int) -> int:
    """Record and stage episode `index`; returns its number of frames."""
    reset_seed = config.seed * SEED_STRIDE + index
    episode, behaviour = simulate_episode(config, reset_seed)
    metadata = {"reset_seed": reset_seed, "behaviour": behaviour}
    metadata |= {"shift": config.shift} if config.shift else {}
    stage(episode, config.out, index, environment(config), metadata)
    return len(episode.actions)


def start_worker() -> None:
    """One thread per process, and no process outlives a recording that was killed."""
    import cv2

    cv2.setNumThreads(1)
    end_with_parent()


def recorded(config: RecordConfig, indices: list[int]) -> Iterator[int]:
    """Record episodes over the processes; yields the number of frames of each as it is done."""
    if config.processes == 1:
        yield from (record_episode(config, index) for index in indices)
        return
    with ProcessPoolExecutor(config.processes, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        futures = [pool.submit(record_episode, config, index) for index in indices]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def prepare(config: RecordConfig) -> None:
    """Claim the folder `out` for this recording, or check that it is this recording's.

    Raises:
        ValueError: The folder holds something else, or a recording with other settings.
    """
    file = config.out / RECORDING_FILE
    if file.exists():
        there = {"shift": ""} | json.loads(file.read_text())
        for name, value in config.content.items():
            if there.get(name) != value:
                raise ValueError(
                    f"{config.out} holds a recording with {name} = {there.get(name)!r}, asked for "
                    f"is {value!r}; choose another folder"
                )
    elif config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise ValueError(f"{config.out} exists and is not a recording; choose another folder")
    else:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(file, config.content)


def record(config: RecordConfig) -> Path:
    """Record the episodes of `config`; returns the folder of the LeRobot data set.

    A recording that was killed continues where it was: episodes are pure functions of the settings
    and their reset seed, so the data are the same as without the interruption. A complete one is
    left alone.
    """
    environment(config)  # a wrong setting is refused before the folder is claimed
    prepare(config)
    if (config.out / "meta" / "info.json").exists():
        print(f"{config.out} is complete: {config.episodes} episodes of {config.env}")
        return config.out
    done = staged_episodes(config.out)
    missing = [index for index in range(config.episodes) if index not in done]
    columns = (
        TextColumn("recording {task.fields[env]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=config.episodes, completed=len(done), env=config.env, speed=0.0)
        num_frames = 0
        for frames in recorded(config, missing):
            num_frames += frames
            elapsed = max(progress.tasks[task].elapsed or 0.0, 1e-3)
            progress.update(task, advance=1, speed=num_frames / elapsed)
    finalise(config.out, config.schema)
    return config.out
