"""Build a world model from data and settings, ready to train."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from conditioning.angles import found_angles
from conditioning.conditioner import ConditionerConfig
from conditioning.relative import check_relative_to
from conditioning.words import WordsConfig
from worldmodel.data import EpisodeSource
from worldmodel.data.cache.sentences import known_rows, words_of
from worldmodel.files import is_on_hub
from worldmodel.model.codec import LatentCodec
from worldmodel.model.dit import DiTConfig
from worldmodel.model.find_codec import load_codec
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.prompt import settled
from worldmodel.training.latent_actions import fit_controller
from worldmodel.training.statistics import action_state_statistics, state_angles
from worldmodel.world_model import WorldModel, WorldModelConfig

PIECE_FRAMES = 256
"""Frames that are compared at once; long episodes do not fill the memory."""


def note_training(
    world: WorldModel, source: EpisodeSource, episodes: Sequence[int], *, action_dropout: float = 0.0
) -> None:
    """Note the training data in a world model, so that it can be refused as test data later.

    An entry that is there already is not added again. `"actions": False` means that it was trained without actions,
    `"action_dropout"` is the share of clips without some.
    """
    for noted in data_notes(source, episodes):
        if not world.action_dim:
            noted["actions"] = False
        elif action_dropout:
            noted["action_dropout"] = action_dropout
        if noted not in world.train_data:
            world.train_data.append(noted)


def data_notes(source: EpisodeSource, episodes: Sequence[int]) -> list[dict]:
    """What a model keeps of its training data, one dictionary per data set; `trained_episodes` reads it.

    Only the name of a folder is kept, because models are shared and local paths are not.
    """
    sets: dict[tuple[str, str], list[int]] = {}
    for episode in episodes:
        origin = source.origins[episode]
        sets.setdefault((origin.name, origin.fingerprint), []).append(episode)
    notes = []
    for (name, fingerprint), members in sets.items():
        seeds = [source.reset_seed(episode) for episode in members]
        notes.append(
            {
                "name": name if is_on_hub(name) else Path(name).name,
                "fingerprint": fingerprint,
                "robot_type": source.robot_type,
                "episodes": [source.origins[episode].number for episode in members],
                "reset_seeds": None if None in seeds else seeds,
            }
        )
    return notes


def build_world(
    source: EpisodeSource,
    episodes: Sequence[int],
    *,
    dit: DiTConfig | PretrainedConfig,
    stride: int,
    injection: Literal["token", "adaln", "cross"],
    relative_to: Mapping[int, int],
    use_actions: bool,
    codec: str | Path | None,
    init: str | Path | None,
    latent_dim: int = 0,
    angles: Sequence[int] | Literal["auto", "none"] = "auto",
    max_steps: int = 4,
    chunk: int = 1,
    action_dropout: float = 0.0,
    task_words: str | None = None,
) -> WorldModel:
    """A world model that fits `source`, normalised by the statistics of `episodes`.

    With `init` the architecture (with the injection of actions), the codec, temperature, guidance,
    and all weights and statistics of equal shape come from that world model. If it has latent actions,
    a controller learns to compute them from real ones. `angles` are the state dims that wrap; see `state_angles`.
    `action_dropout` is only noted in the world model.
    `task_words` says how it is told the task; see `words_of`.

    Raises:
        ValueError: If `init` has other views, another frame size, another width of latent actions or another
            pretrained transformer, an index of `relative_to` is out of range, `max_steps` is no power of two, or the
            pretrained transformer does not fit.
    """
    if max_steps < 1 or max_steps & (max_steps - 1):
        raise ValueError(f"--max-steps {max_steps}: expected a power of two")
    start = None if init is None else _start(init, latent_dim, chunk)
    prompt = None
    if isinstance(dit, PretrainedConfig):
        dit, prompt = settled(dit, None if start is None else start.config.dit)
    if start is not None:
        known = start.config.conditioner
        injection, latent_dim, chunk = known.injection, known.latent_dim, known.chunk
    action_dim = source.action_dim if use_actions else 0
    relative_to = dict(relative_to) if action_dim else {}
    check_relative_to(relative_to, data=source.name, action_dim=action_dim, state_dim=source.state_dim)
    turning = state_angles(source, angles) if start is None else start.config.conditioner.angles
    _tell_angles(source, turning, relative_to, action_dim)
    conditioner = ConditionerConfig(
        action_dim=action_dim,
        state_dim=source.state_dim,
        stride=stride,
        injection=injection,
        relative_to=relative_to,
        latent_dim=latent_dim,
        angles=turning,
        chunk=chunk,
        words=_words(source, episodes, task_words, start, init),
    )
    if chunk > 1 and (latent_dim or not action_dim):
        raise ValueError(f"--frames-per-latent {chunk}: chunks of frames need recorded actions")
    config = _config(source, conditioner, dit, max_steps, start)
    given = None if codec is None else load_codec(codec, chunk)
    world = WorldModel(config, given if start is None else _codec_of(start))
    if prompt is not None:
        world.dit.prompt.copy_(prompt)
    if conditioner.words.encoder:
        world.conditioner.words.rows.copy_(known_rows(conditioner.words))
    _set_statistics(world, source, episodes)
    if start is not None:
        _take_over(world, start)
        if world.conditioner.controller is not None and start.conditioner.controller is None:
            fit_controller(world, source, episodes)
    note_training(world, source, episodes, action_dropout=action_dropout)
    return world


def _start(init: str | Path, latent_dim: int, chunk: int) -> WorldModel:
    """The world model to start from, after a check that no other latents are asked for than it has."""
    start = WorldModel.load(init)
    inherited = start.config.conditioner.latent_dim
    if latent_dim not in (0, inherited):
        raise ValueError(f"{init}: latent actions have width {inherited}, got {latent_dim}")
    if chunk not in (1, start.chunk):
        raise ValueError(f"{init}: latents are {start.chunk} frame each, got --frames-per-latent {chunk}")
    return start


def _config(
    source: EpisodeSource,
    conditioner: ConditionerConfig,
    dit: DiTConfig | PretrainedConfig,
    max_steps: int,
    start: WorldModel | None,
) -> WorldModelConfig:
    """What the data say, and all else as in the world model to start from, or as it was asked for."""
    recorded = {"views": tuple(source.views), "size": tuple(source.size), "fps": source.fps}
    recorded |= {"robot_type": source.robot_type, "conditioner": conditioner}
    if start is not None:
        return replace(start.config, **recorded)
    temperature = float(isinstance(dit, PretrainedConfig))
    return WorldModelConfig(**recorded, dit=dit, max_steps=max_steps, temperature=temperature)


def _words(
    source: EpisodeSource,
    episodes: Sequence[int],
    task_words: str | None,
    start: WorldModel | None,
    init: str | Path | None,
) -> WordsConfig:
    """How the world model is told the task; a world model to start from that is told the task has the same tasks."""
    words = words_of(source, episodes, task_words)
    inherited = WordsConfig() if start is None else start.config.conditioner.words
    if inherited.tasks and inherited != words:
        mine, theirs = [*inherited.tasks], [*words.tasks]
        raise ValueError(f"{init}: is told the tasks {mine}, with --task-words {task_words} the data have {theirs}")
    return words


def _tell_angles(
    source: EpisodeSource, angles: Mapping[int, tuple[float, float]], relative_to: Mapping[int, int], action_dim: int
) -> None:
    """Print which states are angles, and which actions would need to be relative to them."""
    for dim, (low, high) in angles.items():
        print(f"state dim {dim} is an angle that wraps from {high:.4g} to {low:.4g}; --angles says otherwise")
    if action_dim:
        actions = [source.columns(episode).actions for episode in range(len(source))]
        for dim in set(found_angles(actions)) - {a for a, state in relative_to.items() if state in angles}:
            state = relative_to.get(dim)
            advice = f"--relative-to {dim} STATE makes it a displacement" if state is None else f"--angles {state}"
            print(f"action dim {dim} jumps by a whole turn, too; {advice}")


def _codec_of(start: WorldModel) -> LatentCodec | None:
    """The codec that a world model was given; none where it is that of its pretrained transformer."""
    return start.codec if start.own_codec else None


def _set_statistics(world: WorldModel, source: EpisodeSource, episodes: Sequence[int]) -> None:
    statistics = action_state_statistics(
        source,
        relative_to=world.relative_to,
        stride=world.config.conditioner.actions_told,
        episodes=episodes,
        angles=world.config.conditioner.angles,
    )
    none = torch.zeros(2, 0)
    action, state, displacement = statistics.action, statistics.state, statistics.displacement
    world.conditioner.set_statistics(
        torch.stack([action.q01, action.q99]) if world.action_dim else none,
        torch.stack([state.q01, state.q99]) if world.state_dim else none,
        displacement.root_mean_square if world.state_dim else torch.zeros(0),
    )
    world.view_weight.copy_(view_weight(source, episodes, world.stride))


def view_weight(
    source: EpisodeSource, episodes: Sequence[int], stride: int, *, num_episodes: int = 32
) -> Float32[Tensor, "v"]:
    """The inverse of the mean square change of each camera's picture, scaled to mean 1.

    So the error of every camera counts relative to the error of copying its last frame; otherwise a
    wrist camera, where everything moves, would outweigh a fixed one. The change is measured in the
    first `num_episodes` episodes.
    """
    squares = torch.zeros(len(source.views))
    seen = list(episodes)[:num_episodes]
    for episode in seen:
        length, changes, parts = source.lengths[episode], 0, torch.zeros(len(source.views))
        for start in range(0, max(length - stride, 1), PIECE_FRAMES * stride):
            stop = min(start + PIECE_FRAMES * stride + 1, length)
            change = (source.read(episode, start, stop, stride).frames.float() / 127.5).diff(dim=0)
            changes, parts = changes + len(change), parts + change.square().mean(dim=(2, 3, 4)).sum(0)
        squares += parts / max(changes, 1)
    weight = (squares / len(seen) + 1e-4).reciprocal()
    return weight / weight.mean()


def _take_over(world: WorldModel, start: WorldModel) -> None:
    """Copy all weights and statistics of equal shape, and the notes of the training data."""
    if (start.views, start.size) != (world.views, world.size):
        raise ValueError(f"init has views {start.views} of {start.size}, the data {world.views} of {world.size}")
    mine, theirs = world.state_dict(), start.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in mine and mine[k].shape == v.shape}
    world.load_state_dict(fitting, strict=False)
    world.train_data = list(start.train_data)
