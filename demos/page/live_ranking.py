"""A small ranking that visitors can watch: few policies, few starts, one world model; without the page."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from demos.driving.start import camera_frames
from policy_eval.evaluation import Trial, evaluate
from policy_eval.policies.find import load_policy
from policy_eval.ranking.rank import Score
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data.clip import Clip, EpisodeSource, Origin
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.envs import make_simulator
from worldmodel.envs.protocol import STATE, begin, describe
from worldmodel.world_model import WorldModel

MAX_TRIALS = 40
MAX_HORIZON = 100
BATCH = 8
"""Trials side by side."""
FIRST_SEED = 2_000_000
"""Reset seed of the first start; far from those of recordings."""


Work = Callable[..., Any]
"""Calls its first argument with the other arguments, in turn with other work."""


class FreshEpisodes:
    """First frames of an environment, in place of a recorded data set.

    Args:
        name: The environment.
        world: The world model whose cameras and size they have.
        seeds: Reset seeds, one per start.

    Raises:
        ValueError: The environment lacks one of the cameras, or its pictures have another size.
    """

    def __init__(self, name: str, world: WorldModel, seeds: range):
        env = make_simulator(name, size=world.size[0])
        self.name, self.robot_type, self.fps = name, name, world.fps
        self.views, self.size, self.own_size = tuple(world.views), tuple(world.size), tuple(world.size)
        self.lengths = (1,) * len(seeds)
        self.action_dim = env.action_space.shape[0]
        self.state_dim = env.observation_space[STATE].shape[0] if world.state_dim else 0
        self.pixel_mask = torch.ones(len(self.views), *self.size, dtype=torch.bool)
        self.fingerprint = f"{name}-{seeds}"
        self.origins = tuple(Origin(name, self.fingerprint, number) for number in range(len(seeds)))
        self._seeds = seeds
        self._first = []
        for seed in seeds:
            seen = begin(env, seed, name)
            states = torch.as_tensor(seen[STATE])[None].clone() if world.state_dim else None
            frames = camera_frames(name, seen, world)[None]
            self._first.append(Clip(frames, states=states, task=describe(env).task))
        env.close()

    def __len__(self) -> int:
        """Number of starts."""
        return len(self._first)

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """The only frame of an episode."""
        return self._first[episode]

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The state of the only frame."""
        clip = self._first[episode]
        return replace(clip, frames=clip.frames[:, :0, :0, :0])

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        return self._first[episode].task

    def reset_seed(self, episode: int) -> int:
        """The reset seed with which the simulator begins the same episode."""
        return self._seeds[episode]


class TakingTurns(VectorEnv):
    """Steps other environments within `work`, so that visitors who drive get their turns."""

    def __init__(self, envs: VectorEnv, work: Work, stepped: Callable[[], None]):
        super().__init__()
        self.envs, self.work, self.stepped = envs, work, stepped
        self.starts, self.num_envs, self.metadata = envs.starts, envs.num_envs, envs.metadata
        self.action_space, self.observation_space = envs.action_space, envs.observation_space

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset in turn."""
        return self.work(lambda: self.envs.reset(seed=seed, options=options))

    def step(self, actions: np.ndarray) -> Any:
        """Step in turn."""
        result = self.work(self.envs.step, actions)
        self.stepped()
        return result


@dataclass(frozen=True)
class LiveRanking:
    """What is known after some of the policies have acted.

    Attributes:
        scores: Of the policies so far, best first.
        films: Name -> first trial.
        acting: The policy that acts at the moment; empty at the end.
    """

    scores: dict[str, Score]
    films: dict[str, Trial] = field(default_factory=dict)
    acting: str = ""


def recorded_starts(source: EpisodeSource, trials: int) -> Starts:
    """The first frames of `trials` episodes, spread evenly over a data set.

    Raises:
        ValueError: The data set has fewer episodes.
    """
    if trials > len(source):
        raise ValueError(f"{source.name}: {len(source)} episodes to start from, got {trials} trials")
    return Starts(source, [number * len(source) // trials for number in range(trials)])


def make_envs(
    world: WorldModel,
    judge: Judge,
    task: str | EpisodeSource,
    *,
    trials: int,
    horizon: int,
    num_steps: int,
    simulator: bool,
) -> VectorEnv:
    """Dreams of a task, or its simulators, from the same starts.

    Args:
        world: The world model.
        judge: Judge of the dreams.
        task: The environment of the simulators, whose fresh episodes are the starts; or a data set, where there is no
            simulator: then its recorded episodes are the starts.
        trials: Number of trials of a policy.
        horizon: Maximum number of steps of a trial.
        num_steps: Denoising steps per frame.
        simulator: Make simulators, not dreams.

    Raises:
        ValueError: A number is out of range, world model and task do not fit, or a data set has no simulator.
    """
    if not 1 <= trials <= MAX_TRIALS or not 1 <= horizon <= MAX_HORIZON:
        raise ValueError(f"1 to {MAX_TRIALS} trials of 1 to {MAX_HORIZON} steps, got {trials} of {horizon}")
    count = min(trials, BATCH)
    if isinstance(task, str):
        starts = Starts(FreshEpisodes(task, world, range(FIRST_SEED, FIRST_SEED + trials)))
    elif simulator:
        raise ValueError(f"{task.name}: there is no simulator of this robot here")
    else:
        starts = recorded_starts(task, trials)

    def make() -> Any:
        return make_simulator(task, size=world.size[0], time_limit=horizon * world.stride)

    if simulator:
        return RealEnvs(make, starts, num_envs=count, stride=world.stride)
    return DreamEnv(
        world,
        starts,
        judge,
        num_envs=count,
        horizon=horizon,
        num_steps=num_steps,
        like=make() if isinstance(task, str) else None,
        autoreset_mode=AutoresetMode.DISABLED,
    )


def rank_live(
    policies: Mapping[str, str | Path],
    envs: VectorEnv,
    *,
    horizon: int,
    work: Work,
    stepped: Callable[[], None] = lambda: None,
) -> Iterator[LiveRanking]:
    """Let one policy after the other act; yields the order so far before each, and at the end.

    Args:
        policies: By name, what `load_policy` takes.
        envs: What `make_envs` makes.
        horizon: Maximum number of steps of a trial.
        work: Where the environments are stepped; an error that it raises ends the trials at once.
        stepped: Called after every step of a batch.

    Raises:
        ValueError: There is no policy, or one does not fit the environments.
    """
    if not policies:
        raise ValueError("choose at least one policy")
    scores: dict[str, Scores] = {}
    films: dict[str, Trial] = {}
    for name, spec in policies.items():
        yield LiveRanking(_ordered(scores), dict(films), name)
        policy = work(load_policy, spec)
        turns = TakingTurns(envs, work, stepped)
        trials: list[Trial] = []
        scores[name] = evaluate(policy, turns, name=name, horizon=horizon, record=trials.append)
        films[name] = trials[0]
    yield LiveRanking(_ordered(scores), films)


def _ordered(scores: Mapping[str, Scores]) -> dict[str, Score]:
    names = sorted(scores, key=lambda name: (-scores[name].mean, name))
    return {name: Score.of(scores[name].outcomes) for name in names}
