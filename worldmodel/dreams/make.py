"""Dreams for learners, from folders or objects: what `gymnasium.make_vec` calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import gymnasium
import torch
from gymnasium.vector import AutoresetMode

from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.model.precision import choose_device
from worldmodel.resolve import resolve
from worldmodel.world_model import WorldModel

JUDGES = "policy_eval.judge.find:load_judge"
"""The function that loads a judge. It is in a higher package, so it is imported by its name, and only when it is
needed."""

World = WorldModel | str | Path
Data = Starts | EpisodeSource | str | Path | Sequence[str | Path]


def make_dreams(
    world: World,
    data: Data,
    judge: Judge | str | Path,
    *,
    num_envs: int = 1,
    episodes: Sequence[int] | None = None,
    horizon: int | None = None,
    num_steps: int = 2,
    seed: int = 0,
    actions: Literal["held", "chunk"] = "held",
    normalise_actions: bool = True,
    keys: str = "lerobot",
    like: gymnasium.Env | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    render_mode: str | None = "rgb_array",
    device: str = "auto",
) -> DreamEnv:
    """Make a `DreamEnv` whose actions lie within -1..1.

    ```python
    envs = gymnasium.make_vec(
        "worldmodel.dreams:worldmodel/Dream-v0", num_envs=16, world="world", data="data", judge="judge"
    )
    ```

    Args:
        world: A world model, its folder, or `hf://USER/NAME@REV`.
        data: Recorded episodes from whose first frames dreams begin: a data set or several, episodes that
            are open, or `Starts`.
        judge: Any callable that maps an observation to a verdict; or what the commands take as `--judge`, such
            as a folder or `module:name`.
        num_envs: Streams in a batch.
        episodes: Numbers of the episodes to begin from; all by default.
        horizon: Steps after which an episode is truncated; by default as many as the longest of the
            recorded episodes has.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise of chosen starts, and of a `reset` without a seed.
        actions: Whether an action is `held` over the stride of the world model, or a step takes a `chunk`.
        normalise_actions: Whether actions lie within -1..1; else they are raw.
        keys: Names of the observations, as in `DreamEnv`.
        like: The real environment; its spaces are taken over.
        autoreset_mode: When finished streams begin anew, as in `DreamEnv`.
        render_mode: `rgb_array`, or `None` for no pictures.
        device: Where models run that are loaded from folders: auto is CUDA if there is a GPU, else the CPU.

    Raises:
        ValueError: A folder does not hold what it should, or the parts do not fit.
    """
    place = choose_device(device)
    model = world if isinstance(world, WorldModel) else WorldModel.load(world, place)
    starts = _starts(data, model, episodes)
    if horizon is None:
        longest = max(starts.source.lengths[episode] for episode in starts.episodes)
        horizon = max((longest - 1) // model.stride, 1)
    return DreamEnv(
        model,
        starts,
        judge if callable(judge) else _judge(judge, model, place),
        num_envs=num_envs,
        horizon=horizon,
        num_steps=num_steps,
        seed=seed,
        actions=actions,
        normalise_actions=normalise_actions,
        keys=keys,
        like=like,
        autoreset_mode=autoreset_mode,
        render_mode=render_mode,
    )


def _starts(data: Data, world: WorldModel, episodes: Sequence[int] | None) -> Starts:
    """The starts; an object `Starts` is returned as it is."""
    if isinstance(data, Starts):
        if episodes is not None:
            raise ValueError(f"{data.source.name}: starts are given as they are, so episodes must be left out")
        return data
    if isinstance(data, str | Path) or (isinstance(data, Sequence) and not hasattr(data, "read")):
        data = open_episodes(data, tuple(world.size), world.views)
    return Starts(data, episodes)


def _judge(spec: str | Path, world: WorldModel, device: torch.device) -> Judge:
    return resolve(JUDGES, "judge")(spec, device, views=tuple(world.views), size=tuple(world.size))
