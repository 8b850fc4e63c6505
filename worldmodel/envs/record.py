"""Record a behaviour in an environment as a LeRobot data set. `worldmodel record ENV --out D`."""

import functools
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro

from worldmodel.data.lerobot.write import STAGING, LeRobotSchema, finalise, read_staged, staged_episodes, write_staged
from worldmodel.display.progress import ProgressLine
from worldmodel.display.ranges import Count, Whole, check_ranges
from worldmodel.envs import check_env_name, is_foreign, make_env
from worldmodel.envs.behaviour import RANDOM, check_behaviour, choose_behaviour, random_actions
from worldmodel.envs.episode import Act, Episode, act_out, schema_of, stage
from worldmodel.envs.policy import Policy, ask, begin_episodes, resolve_policy, watches
from worldmodel.envs.protocol import begin, describe, episode_limit
from worldmodel.envs.scripts import behave, scripts_of
from worldmodel.files import read_object, remove_unfinished, write_json
from worldmodel.model.folder import first_file
from worldmodel.processes import single_thread, work_through
from worldmodel.processes.workers import Workers, read_workers
from worldmodel.resolve import absent, is_spec, source_hash

SEED_STRIDE = 100_000  # episodes of one seed; different seeds never share a start
RECORDING_FILE = "recording.json"


@dataclass(frozen=True)
class RecordConfig:
    """Record episodes of an environment as a LeRobot data set."""

    env: tyro.conf.Positional[str]
    """The environment: pusht, pusht-position, pusht-rope, pusht-sand, metaworld:TASK as in metaworld:push-v3,
    libero:SUITE/TASK as in libero:libero_object/0, or module:Class for one of yours, as in my_env:MyEnv."""
    out: Path
    """Folder of the LeRobot data set; an interrupted recording there is continued."""
    episodes: Count = 200
    """Number of episodes."""
    seed: Whole = 0
    """Episode i starts from the reset seed `seed * 100000 + i`."""
    behaviour: str | None = None
    """Who acts. PushT, rope, sand, Meta-World and libero_object have expert, noisy (the expert with noise on its
    actions), play (which pushes things about) and mixture (which draws one of the three for each episode). Every
    environment has random (smooth random actions). You can also name your own policy as module:name. By default mixture
    where there is one, else random."""
    shift: str = ""
    """One controlled change of the environment, for tests out of distribution. PushT has start-region, agent-speed,
    action-noise and turned-actions, the rope longer-rope, the sand more-discs, Meta-World start-region, goal-region,
    camera and action-noise, LIBERO camera and object-swap, libero_object also start-region and action-noise. By default
    there is none."""
    size: Count | None = None
    """Side of the square camera pictures in pixels; by default as the environment sets it."""
    horizon: Count | None = None
    """Maximum number of steps of an episode; by default as the environment sets it."""
    workers: Whole | str = 0
    """Number of processes, of which 0 means one per core; ray, a Ray cluster that runs here or that is started; or
    ray://HOST:PORT, another one."""

    @property
    def who_works(self) -> Workers:
        """The workers that record; not more than there are episodes."""
        found = read_workers(self.workers)
        return replace(found, number=min(found.number, self.episodes))

    @property
    def who(self) -> str:
        """The behaviour that acts: the given one, or the default."""
        return self.behaviour or ("mixture" if scripts_of(environment(self)) else RANDOM)

    @property
    def content(self) -> dict[str, object]:
        """The settings, and hashes of the user's source files, on which the content of the data set depends."""
        content = {name: getattr(self, name) for name in ("env", "episodes", "seed", "behaviour", "shift", "size")}
        content |= {"behaviour": self.who, "size": self.size or common_side(environment(self))}
        if self.horizon is not None:
            content["horizon"] = self.horizon
        if is_foreign(self.env):
            content["env_source"] = source_hash(self.env, "environment")
        if is_spec(self.who):
            content["behaviour_source"] = source_hash(self.who, "behaviour")
        return content

    @property
    def schema(self) -> LeRobotSchema:
        """What a row of the data set holds."""
        return schema_of(environment(self), self.env)


def common_side(env: gymnasium.Env) -> int | None:
    """Side of the pictures of `env` in pixels, if they are all square and of one size."""
    sides = {side for size in describe(env).views.values() for side in size}
    return sides.pop() if len(sides) == 1 else None


def environment(config: RecordConfig) -> gymnasium.Env:
    """The environment that is recorded; each process makes it once."""
    return _environment(config.env, config.size, config.shift)


@functools.cache
def _environment(name: str, size: int | None, shift: str) -> gymnasium.Env:
    options = {"size": size, "shift": shift}
    return make_env(name, **{key: value for key, value in options.items() if value})


@functools.cache
def _policy(spec: str) -> Policy:
    """The policy that acts; each process makes it once."""
    return resolve_policy(spec, "behaviour")


def check(config: RecordConfig) -> None:
    """Check the settings; prints a line if random actions are recorded because the environment has no script.

    Raises:
        ValueError: There is no such environment or behaviour, there are too many episodes, or
            the behaviour cannot act in the environment.
    """
    check_env_name(config.env)
    if config.behaviour is not None:
        check_behaviour(config.behaviour)
    if config.episodes > SEED_STRIDE:
        raise ValueError(f"--episodes is at most {SEED_STRIDE}, got {config.episodes}")
    read_workers(config.workers)
    env, who = environment(config), config.who
    if is_spec(who):
        _policy(who)
    elif who == RANDOM:
        next(random_actions(env.action_space, np.random.default_rng(0)))
    elif scripts_of(env) is None:
        raise ValueError(
            f"environment {config.env} has no script, so no behaviour {who!r}; pass --behaviour random, or "
            "module:name for a behaviour of yours"
        )
    if config.behaviour is None and who == RANDOM:
        print(
            f"{config.env} has no script, so smooth random actions are recorded; you can pass your own behaviour as "
            "--behaviour module:name"
        )


def actor(behaviour: str, env: gymnasium.Env, rng: np.random.Generator, reset_seed: int) -> Act:
    """The actions of a new episode: those of a script, random ones, or those of the user's policy."""
    if is_spec(behaviour):
        policy = _policy(behaviour)
        if watches(policy):
            policy.watch(env)
        begin_episodes(policy, [reset_seed], [describe(env).task])
        return functools.partial(ask, policy)
    actions = random_actions(env.action_space, rng) if behaviour == RANDOM else behave(behaviour, env, rng)
    return lambda _: next(actions)


def simulate_episode(config: RecordConfig, reset_seed: int) -> tuple[Episode, str]:
    """One episode and the behaviour in it; a pure function of the settings and the reset seed."""
    env = environment(config)
    rng = np.random.default_rng([reset_seed, 1])
    behaviour = choose_behaviour(config.who, rng)
    observation = begin(env, reset_seed, config.env)
    episode = act_out(
        env,
        observation,
        actor(behaviour, env, rng, reset_seed),
        length=config.horizon or episode_limit(env, behaviour),
        stop_on_success=describe(env).stops_on_success,
    )
    return episode, behaviour


def record_episode(config: RecordConfig, index: int) -> int:
    """Record and stage episode `index`; returns its number of frames.

    Raises:
        ValueError: Somebody removed the folder meanwhile.
    """
    reset_seed = config.seed * SEED_STRIDE + index
    episode, behaviour = simulate_episode(config, reset_seed)
    if not config.out.is_dir():
        raise ValueError(f"{config.out} was removed while episode {index} was recorded")
    metadata = {"reset_seed": reset_seed, "behaviour": behaviour}
    metadata |= {"shift": config.shift} if config.shift else {}
    stage(episode, config.out, index, environment(config), metadata, name=config.env)
    return len(episode.actions)


def recorded_elsewhere(config: RecordConfig, index: int) -> tuple[int, dict[str, bytes]]:
    """The number of frames and the staged files of episode `index`, recorded on a machine that may not see `out`."""
    with tempfile.TemporaryDirectory() as folder:
        there = replace(config, out=Path(folder))
        return record_episode(there, index), read_staged(there.out, index)


def start_worker() -> None:
    """Use one thread per process."""
    if absent("cv2") is None:  # PushT, and perhaps an environment of yours, draws with it
        importlib.import_module("cv2").setNumThreads(1)
    torch.set_num_threads(1)


def recorded(config: RecordConfig, indices: list[int]) -> Iterator[int]:
    """Record episodes in several processes; yields the number of frames of each episode as soon as it is recorded."""
    workers = config.who_works
    if workers.alone:
        with single_thread():  # as in the other processes, so that a policy acts in the same way
            yield from (record_episode(config, index) for index in indices)
        return
    work = functools.partial(recorded_elsewhere if workers.cluster else record_episode, config)
    with closing(work_through(work, indices, workers=workers, start=start_worker)) as done:
        for number, found in done:
            if workers.cluster:
                frames, files = found
                write_staged(config.out, indices[number], files)
                yield frames
            else:
                yield found


def prepare(config: RecordConfig) -> None:
    """Claim the folder `out` for this recording, or check that it already belongs to it.

    Raises:
        ValueError: The folder holds something else, or a recording with other settings.
    """
    file = config.out / RECORDING_FILE
    if file.exists():
        there, wanted = {"shift": ""} | read_object(file), config.content
        for name in there | wanted:
            old, new = there.get(name), wanted.get(name)
            if old != new and name.endswith("_source"):
                module = wanted[name.removesuffix("_source")]
                raise ValueError(
                    f"{config.out} holds a recording made before the file of {module} changed; choose another folder"
                )
            if old != new:
                raise ValueError(
                    f"{config.out} holds a recording with {name} = {old!r}, you asked for {new!r}; "
                    "choose another folder"
                )
    elif config.out.exists() and (not config.out.is_dir() or first_file(config.out) is not None):
        raise ValueError(f"{config.out} exists and is not a recording; choose another folder")
    else:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(file, config.content)


def record(config: RecordConfig) -> Path:
    """Record the episodes of `config`; returns the folder of the LeRobot data set.

    A recording that was killed continues where it was: episodes are pure functions of the settings
    and their reset seed, so the data are the same as without the interruption. A complete recording
    is not changed.
    """
    check_ranges(config)
    check(config)  # a wrong setting is refused before the folder is claimed
    prepare(config)
    if (config.out / "meta" / "info.json").exists():
        clean_up(config.out)
        print(f"{config.out} is complete: {config.episodes} episodes of {config.env}")
        return config.out
    done = staged_episodes(config.out)
    missing = [index for index in range(config.episodes) if index not in done]
    try:
        record_missing(config, missing, completed=len(done))
    except BaseException:
        clean_up(config.out, keep_episodes=True)
        raise
    finalise(config.out, config.schema)
    clean_up(config.out)
    return config.out


def record_missing(config: RecordConfig, missing: list[int], *, completed: int) -> None:
    """Record and stage episodes, and show the progress."""
    name = f"recording {config.env}"
    with (
        ProgressLine(name, config.episodes, unit="episodes", completed=completed) as progress,
        closing(recorded(config, missing)) as recording,
    ):
        num_frames = 0
        for frames in recording:
            num_frames += frames
            progress.advance(note=f"{num_frames / max(progress.elapsed, 1e-3):.0f} frames/s")


def clean_up(out: Path, *, keep_episodes: bool = False) -> None:
    """Remove unfinished files of killed processes, and the staged episodes of a complete data set."""
    remove_unfinished(out)
    if not keep_episodes:
        shutil.rmtree(out / STAGING, ignore_errors=True)
    for part in out.glob(f"{STAGING}/part-*"):
        shutil.rmtree(part, ignore_errors=True)
