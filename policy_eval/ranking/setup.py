"""What the trials of a ranking need: world, judge, starts, simulators. Every process makes its own."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import gymnasium
from gymnasium.vector import AutoresetMode

from policy_eval.abstention.signals import Signal, SignalSetup
from policy_eval.judge.find import judge_fingerprint, load_judge
from policy_eval.real_envs import RealEnvs
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.options import ColumnOptions, DataOptions, DataPath, chosen_episodes
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.spaces import other_pictures
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.envs import has_simulator, is_foreign, make_simulator
from worldmodel.model.folder import fingerprint
from worldmodel.model.precision import choose_device
from worldmodel.resolve import source_hash
from worldmodel.world_model import WorldModel

SIMULATORS = 5
"""Real environments stepped together in one process."""

LEAST_BATCH = 2
"""A single dream is computed by other kernels on a CPU, with other rounding errors. From two dreams on, outcomes hardly
depend on their number (`benchmarks/batch_sizes.py`)."""


@dataclass(frozen=True)
class TrialSetup:
    """The setup of the trials of a ranking; every process has its own copy.

    Attributes:
        world: Folder of the world model, or `hf://USER/NAME@REV`.
        judge: The judge of dreamed frames, as in `load_judge`.
        data: Recorded episodes to start from.
        columns: Which columns of the data to read.
        signal: What says how far each dream is to be trusted, if anything does.
        episodes: Number of episodes to start from, the first ones; or which, as in `--episodes`.
        horizon: Maximum number of steps of a trial.
        real: The real environment, a name or `module:Class`; `none` without one.
        num_steps: Denoising steps per frame.
        num_envs: Dreams in a batch.
        seed: Seed of the dreams' noise.
        copy_last: Whether the dream is the control whose frames never change.
        stored: Whether real trials come from a file; the dream then has the spaces of the
            environment that `data` was recorded in.
        device: Where the networks run; see `choose_device`.
    """

    world: str | Path
    judge: str | Path
    data: DataPath
    episodes: int | str
    horizon: int
    real: str = "none"
    num_steps: int = 2
    num_envs: int = 25
    seed: int = 0
    copy_last: bool = False
    stored: bool = False
    device: str = "auto"
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    signal: SignalSetup = field(default_factory=SignalSetup)

    @cached_property
    def loaded_world(self) -> WorldModel:
        """The world model."""
        kind = CopyLastWorld if self.copy_last else WorldModel
        return kind.load(self.world, choose_device(self.device))

    @cached_property
    def loaded_judge(self) -> Judge:
        """The judge."""
        world = self.loaded_world
        return load_judge(self.judge, choose_device(self.device), views=world.views, size=tuple(world.size))

    @cached_property
    def loaded_starts(self) -> Starts:
        """The starts.

        Raises:
            ValueError: There are fewer episodes than asked for.
        """
        world = self.loaded_world
        source = open_episodes(self.data, tuple(world.size), world.views, DataOptions(**asdict(self.columns)))
        return Starts(source, chosen_starts(source, self.episodes))

    @cached_property
    def loaded_signal(self) -> Signal | None:
        """The signal, for dreams from the starts; `None` if there is none."""
        settings = {"num_steps": self.num_steps, "seed": self.seed}
        return self.signal.load(self.loaded_world, self.loaded_starts, **settings)

    @property
    def batch(self) -> int:
        """Dreams that run side by side, not more than there are starts."""
        return min(self.num_envs, len(self.loaded_starts))

    @cached_property
    def dream(self) -> DreamEnv:
        """The dreams, with the spaces of the real environment if there is one."""
        return DreamEnv(
            self.loaded_world,
            self.loaded_starts,
            self.loaded_judge,
            num_envs=max(self.batch, LEAST_BATCH),
            horizon=self.horizon,
            num_steps=self.num_steps,
            seed=self.seed,
            like=self.like,
            autoreset_mode=AutoresetMode.DISABLED,
        )

    @cached_property
    def like(self) -> gymnasium.Env | None:
        """The environment whose spaces the dream has; `None` for those of the data.

        Where a table of outcomes is the real side, nothing is tried in the environment that was recorded; one with
        other pictures than the data, say because it was recorded at another size, is then not asked.
        """
        if self.place == "none":
            return None
        env = self.simulators.envs[0]
        starts = self.loaded_starts
        is_other = other_pictures(env.observation_space, starts.views, starts.source.size) is not None
        return None if self.stored and is_other else env

    @cached_property
    def place(self) -> str:
        """The real environment, whose spaces the dream has; `none` without one."""
        recorded = self.loaded_starts.source.robot_type
        return recorded if self.stored and has_simulator(recorded) else self.real

    @cached_property
    def simulators(self) -> RealEnvs:
        """Several copies of the real environment."""
        size, stride = self.loaded_starts.source.size[0], self.loaded_world.stride
        return RealEnvs(
            lambda: make_simulator(self.place, size=size, time_limit=self.horizon * stride),
            self.loaded_starts,
            num_envs=min(SIMULATORS, len(self.loaded_starts)),
            stride=stride,
        )

    @cached_property
    def made_with(self) -> dict[str, object]:
        """What the outcomes depend on; a dream also on what is listed under `dream`."""
        dream = {
            "world": fingerprint(self.world),
            "judge": judge_fingerprint(self.judge),
            "num_steps": self.num_steps,
            "num_envs": self.batch,
            "seed": self.seed,
            "copy_last": self.copy_last,
            **self.signal.made_with,
        }
        data = self.loaded_starts.source.fingerprint
        made_with = {"data": data, "horizon": self.horizon, "real": self.place, "dream": dream}
        columns = [*self.columns.action_keys, *self.columns.state_keys]
        made_with |= {"stride": self.loaded_world.stride, "columns": columns}
        if is_foreign(self.place):
            made_with["real_source"] = source_hash(self.place, "environment")
        return made_with


def chosen_starts(source: EpisodeSource, episodes: int | str) -> list[int]:
    """The places in `source` of the episodes to start from.

    Args:
        source: The data, of one data set or of several.
        episodes: The first so many; or numbers and ranges of episodes, of each data set if there are several.

    Raises:
        ValueError: There are fewer episodes, or an episode does not exist.
    """
    if isinstance(episodes, int):
        if not 1 <= episodes <= len(source):
            raise ValueError(f"{source.name}: has {len(source)} episodes to start from, --episodes is {episodes}")
        return list(range(episodes))
    places: dict[str, dict[int, int]] = {}
    for place, origin in enumerate(source.origins):
        places.setdefault(origin.fingerprint, {})[origin.number] = place
    chosen = []
    for found in places.values():
        numbers = chosen_episodes(source.name, max(found) + 1, episodes)
        chosen += [found[number] for number in numbers if number in found]  # the others are broken and left out
    if not chosen:
        raise ValueError(f"{source.name}: no episode of --episodes {episodes} is left to start from")
    return chosen
