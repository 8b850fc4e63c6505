"""Clone a policy from recorded demonstrations. `worldmodel clone --data D --out P`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from conditioning.angles import Angles
from conditioning.relative import check_relative_to, relative_actions
from conditioning.words import WordsConfig
from policy_eval.policies.clone_page import write_page
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig, make_policy
from policy_eval.policies.goal_pictures import read_goals
from policy_eval.policies.hindsight import draw_pairs, hindsight_loss
from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.cache.sentences import known_rows, words_of
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.progress import LOG
from worldmodel.display.ranges import Count, Positive, Weight, Whole, check_ranges
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import autocast
from worldmodel.training.accelerator import training_device
from worldmodel.training.fit import fit
from worldmodel.training.share import share, wait_for_all
from worldmodel.training.statistics import state_angles

PLANNED = 500
"""Frames of the demonstrations whose plans the page shows."""


@dataclass(frozen=True)
class CloneConfig:
    """Clone a small visuomotor policy from the demonstrations in a data set."""

    data: DataPath
    """Data set of demonstrations. If it has `next.success`, the policy learns only from successful episodes; otherwise
    from all."""
    out: Path
    """Folder of the policy and of the page `report.html`."""
    demos: Count | None = None
    """Number of successful episodes to learn from, from the first one on; by default all."""
    longest: Count | None = None
    """Maximum number of steps up to the success; slower episodes, which may have succeeded by luck, are left out."""
    steps: Count = 2000
    """Optimiser steps."""
    views: tuple[str, ...] | None = None
    """Cameras that the policy sees; by default all."""
    size: tuple[Count, Count] | None = None
    """Height and width of the pictures that the policy sees; by default those of the data. For dreams they must be
    those of the world model."""
    goals: Path | None = None
    """Folder of pictures of the goal, as for `worldmodel judge --goals`. The policy is then shown a goal: it learns to
    reach any later frame of an episode, from all episodes, since successes are not read, and acts towards these
    pictures."""
    task_words: str | None = None
    """Tell the policy the task in words, for data of several tasks: table learns a vector for each task of the data;
    module:name is a sentence encoder of yours, a function from a list of sentences to one vector each, so that the
    policy can also be told new tasks. By default it is not told."""
    proprioception: bool = True
    """Show `observation.state` to the policy."""
    relative_to: dict[Whole, Whole] = field(default_factory=dict)
    """Pairs of an action dim and a state dim. The action is an absolute target for that state, and is learned relative
    to it."""
    cap: Positive | None = None
    """Longest displacement of all relative targets together; longer ones are shortened."""
    head: Literal["regression", "flow"] = "regression"
    """What makes the plans. A regression learns the mean of the demonstrated plans. A flow learns how they are
    distributed: it carries out a sample, and can draw several plans for one observation."""
    chunk: Count = 1
    """Number of actions that the policy plans at once."""
    replan_after: Count | None = None
    """Number of actions of a plan that are carried out before the next plan is made; by default all."""
    flow_steps: Count = 5
    """Integration steps from noise to a plan; only for a flow."""
    action_noise: Weight = 0.0
    """Standard deviation of the noise that the finished policy adds to its actions, in the units of the actions."""
    batch: Count = 64
    """Frames per step."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of AdamW, with cosine decay."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of weights and batches."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


@dataclass(frozen=True)
class Demonstrations:
    """Rows to learn from.

    Attributes:
        frames: What the cameras saw.
        states: The state then, or `None`.
        targets: The next `k` actions, relative dims as displacements.
        lengths: Rows of each episode; the episodes lie one after the other.
        angles: State dims that are angles, from which displacements are taken the short way round.
        tasks: The task of each episode in words.
        words: How the policy is told them.
    """

    frames: UInt8[Tensor, "n v H W 3"]
    states: Float[Tensor, "n s"] | None
    targets: Float[Tensor, "n k a"]
    lengths: tuple[int, ...]
    angles: dict[int, tuple[float, float]]
    tasks: tuple[str, ...] = ()
    words: WordsConfig = field(default_factory=WordsConfig)

    def told(self, rows: Int64[Tensor, "n"]) -> tuple[str, ...]:
        """The task of each of the rows."""
        episodes = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))[rows]
        return tuple(self.tasks[episode] for episode in episodes.tolist())

    @property
    def episodes(self) -> int:
        """How many episodes the rows are from."""
        return len(self.lengths)


def clone(config: CloneConfig) -> Path:
    """Train a policy and write it to `config.out`; returns the folder.

    Raises:
        ValueError: The data lacks what the configuration asks for, or the loss is not finite.
    """
    check_ranges(config)
    check_out(config.out, "policy.json", overwrite=config.overwrite)
    device = training_device(config.device)
    recorded = open_episodes(config.data, config.size, options=config.reading)
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    views = check_clone(config, source)
    demonstrations = read_demonstrations(config, source, views)
    torch.manual_seed(config.seed)
    goals = None if config.goals is None else read_goals(config.goals, views, tuple(source.size))
    policy = make_policy(policy_config(config, source, demonstrations, goals)).to(device)
    if goals is not None:
        policy.goals.copy_(goals)
    if policy.config.words.encoder:
        policy.words.rows.copy_(known_rows(policy.config.words))
    loss = fit_policy(policy, demonstrations, config)
    if share().first:
        write_clone(policy, demonstrations, config, loss)
    wait_for_all()
    return config.out


def write_clone(policy: ClonedPolicy, demonstrations: Demonstrations, config: CloneConfig, loss: float) -> None:
    """Write the policy, how it was trained and the page, and say so."""
    policy.save(config.out)
    training = {
        "data": str(config.data),
        "demonstrations": demonstrations.episodes,
        "steps": config.steps,
        "batch": config.batch,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "cap": config.cap,
        "last_loss": loss,
    }
    write_json(config.out / "training.json", training)
    write_page(*first_actions(policy, demonstrations, config.seed), training, config.out / "report.html")
    print(
        f"{config.out}: a policy from {demonstrations.episodes} demonstrations, "
        f"{len(demonstrations.targets)} frames, loss {loss:.4f}"
    )


@torch.no_grad()
def first_actions(
    policy: ClonedPolicy, rows: Demonstrations, seed: int
) -> tuple[Float[np.ndarray, "n a"], Float[np.ndarray, "n a"]]:
    """Planned and demonstrated actions at some frames of the demonstrations, normalised.

    The goal, if the policy is shown one, is the last frame of each episode.
    """
    device = policy.action_mean.device
    picked = torch.randperm(len(rows.targets), generator=torch.Generator().manual_seed(seed))[:PLANNED]
    states = rows.states[picked].to(device) if policy.config.state_dim else None
    goal = None
    if policy.config.goals:
        lengths = torch.tensor(rows.lengths)
        last = (lengths.cumsum(0) - 1).repeat_interleave(lengths)[picked]
        goal = policy.look(rows.frames[last].to(device))
    told = None if policy.words is None else policy.words(rows.told(picked))
    planned = policy.plans(policy.join(policy.look(rows.frames[picked].to(device), told), states, goal))[:, 0]
    demonstrated = (rows.targets[picked, 0].to(device) - policy.action_mean) / policy.action_std
    return planned.float().cpu().numpy(), demonstrated.float().cpu().numpy()


def policy_config(
    config: CloneConfig, source: EpisodeSource, rows: Demonstrations, goals: UInt8[Tensor, "g v H W 3"] | None = None
) -> PolicyConfig:
    """What is saved beside the weights of a policy that is cloned in this way."""
    return PolicyConfig(
        views=tuple(source.views) if config.views is None else config.views,
        size=tuple(source.size),
        action_dim=source.action_dim,
        state_dim=source.state_dim if config.proprioception else 0,
        relative_to=config.relative_to,
        angles=rows.angles,
        chunk=config.chunk,
        action_noise=config.action_noise,
        head=config.head,
        replan_after=config.replan_after,
        flow_steps=config.flow_steps,
        goals=0 if goals is None else len(goals),
        words=rows.words,
    )


def fit_policy(policy: ClonedPolicy, rows: Demonstrations, config: CloneConfig) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps."""
    policy.action_mean.copy_(rows.targets.mean((0, 1)))
    policy.action_std.copy_(rows.targets.std((0, 1), correction=0).clamp_min(1e-6))
    if policy.config.state_dim:
        policy.state_mean.copy_(rows.states.mean(0))
        policy.state_std.copy_(rows.states.std(0, correction=0).clamp_min(1e-6))
    targets = (rows.targets - policy.action_mean.cpu()) / policy.action_std.cpu()
    device = policy.action_mean.device
    generator = torch.Generator().manual_seed(config.seed)

    def hindsight_of(step: int) -> Float[Tensor, ""]:
        drawn = draw_pairs(rows.lengths, config.batch, generator)
        total = len(drawn.start)
        mine = share().rows(total)
        pairs = drawn.some(mine)
        states = rows.states[pairs.rows].to(device) if policy.config.state_dim else None
        plans = targets[pairs.rows].to(device)
        with autocast(device):
            looked = policy.look(rows.frames[pairs.rows].to(device))
            loss = hindsight_loss(policy, looked, states, plans, pairs, generator, mine, total)
        return loss * share().weight(len(pairs.start), total)

    def loss_of(step: int) -> Float[Tensor, ""]:
        mine = share().rows(config.batch)
        pick = torch.randint(len(targets), (config.batch,), generator=generator)[mine]
        states = rows.states[pick].to(device) if policy.config.state_dim else None
        if policy.words is not None:
            policy.instruct(rows.told(pick))
        with autocast(device):
            features = policy.features(rows.frames[pick].to(device), states)
            losses = policy.loss(features, targets[pick].to(device), generator, mine, config.batch)
        return losses.mean() * share().weight(len(pick), config.batch)

    loss = hindsight_of if policy.config.goals else loss_of
    return fit(policy, loss, steps=config.steps, learning_rate=config.learning_rate, name="clone", log=config.out / LOG)


def check_clone(config: CloneConfig, source: EpisodeSource) -> tuple[str, ...]:
    """The cameras to use.

    Raises:
        ValueError: The data lacks what the configuration asks for.
    """
    views = tuple(source.views) if config.views is None else config.views
    unknown = sorted(set(views) - set(source.views))
    if unknown or not views:
        raise ValueError(f"{source.name}: views are {tuple(source.views)}, --views is {views}")
    if config.proprioception and not source.state_dim:
        raise ValueError(f"{source.name}: no observation.state, which --proprioception needs; pass --no-proprioception")
    if config.relative_to and not config.proprioception:
        raise ValueError(f"relative_to={config.relative_to} needs the state, but proprioception is off")
    dims = {"action_dim": source.action_dim, "state_dim": source.state_dim}
    check_relative_to(config.relative_to, data=source.name, **dims)
    if config.goals is not None and config.longest is not None:
        raise ValueError(f"--longest {config.longest} does not go with --goals, for which no successes are read")
    if config.goals is not None and config.task_words is not None:
        raise ValueError(f"--task-words {config.task_words} does not go with --goals, which show the policy its task")
    if config.replan_after is not None and not 1 <= config.replan_after <= config.chunk:
        raise ValueError(f"replan_after is 1 to {config.chunk}, which is the chunk, got {config.replan_after}")
    return views


def read_demonstrations(config: CloneConfig, source: EpisodeSource, views: Sequence[str]) -> Demonstrations:
    """The first `config.demos` successful episodes, each up to its first success.

    The frames after a success are left out, because a policy would learn to stand still from them. If nobody said
    which episodes are successful, or the policy is shown a goal, every episode is a demonstration, to its end.

    Raises:
        ValueError: There are fewer successful episodes than asked for.
    """
    index = [list(source.views).index(view) for view in views]
    angles = state_angles(source, "auto") if config.relative_to else {}
    every = config.goals is not None
    frames, states, targets, members = [], [], [], []
    for episode in range(len(source)):
        if len(targets) == config.demos:
            break
        clip = source.read(episode, 0, source.lengths[episode])
        end = len(clip.actions) if every else _end_of_demonstration(clip)
        if end is None:
            continue
        if config.longest is not None and end > config.longest:
            continue
        members.append(episode)
        frames.append(clip.frames[:end][:, index])
        if config.proprioception:
            states.append(clip.states[:end])
        targets.append(_plans(clip.actions[:end], clip.states, config, angles))
    wanted = config.demos if config.demos is not None else 1
    if len(targets) < wanted:
        raise ValueError(f"{source.name}: {len(targets)} successful episodes, {wanted} needed")
    seen = torch.cat(states) if states else None
    lengths = tuple(map(len, targets))
    tasks, words = tuple(map(source.task, members)), words_of(source, members, config.task_words)
    return Demonstrations(torch.cat(frames), seen, torch.cat(targets), lengths, angles, tasks, words)


def _end_of_demonstration(clip: Clip) -> int | None:
    """Number of actions up to the first success; `None` if the episode has none."""
    if clip.successes is None:
        return len(clip.actions)
    return int(clip.successes.int().argmax()) + 1 if clip.successes.any() else None


def _plans(
    actions: Float[Tensor, "t a"], states: Float[Tensor, "u s"] | None, config: CloneConfig, angles: Angles
) -> Float[Tensor, "t k a"]:
    """The next `chunk` actions at every frame; past the end the last action is repeated."""
    steps = torch.arange(len(actions))[:, None] + torch.arange(config.chunk)
    plans = actions[steps.clamp_max(len(actions) - 1)]
    if not config.relative_to:
        return plans
    return relative_actions(plans, states[: len(actions), None], config.relative_to, cap=config.cap, angles=angles)
