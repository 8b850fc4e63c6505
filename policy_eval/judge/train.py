"""Train a judge on recorded episodes and measure it. `worldmodel judge --data D --out J`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from conditioning.words import another
from policy_eval.judge.disturb import disturb
from policy_eval.judge.find import load_trained
from policy_eval.judge.frames import Frames, batch_pools, read_frames
from policy_eval.judge.goals.judge import GoalJudge, GoalNetwork, GoalShape
from policy_eval.judge.goals.measure import measure_goals, near_and_far, reached_threshold
from policy_eval.judge.goals.page import meaning, write_page
from policy_eval.judge.goals.pictures import NearestPicture
from policy_eval.judge.goals.train import fit_goals
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.judge.scores import JudgedEpisode, best_threshold, dream_again, judge_episodes, judge_report
from policy_eval.judge.train_page import write_page as write_judge
from policy_eval.policies.goal_pictures import read_goals
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.cache.sentences import known_rows, words_of
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.progress import LOG
from worldmodel.display.ranges import Count, InnerShare, Positive, Several, Whole, check_ranges
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import autocast
from worldmodel.training.accelerator import training_device
from worldmodel.training.fit import fit
from worldmodel.training.share import share
from worldmodel.world_model import WorldModel

NUM_GOALS = 64
DREAMS = 64


@dataclass(frozen=True)
class JudgeConfig:
    """Train a judge of single frames on recorded episodes, and measure it."""

    data: DataPath
    """Data set of episodes. Without --goals it needs `next.success`, and should include failures and near misses; with
    --goals any episodes will do, such as aimless play."""
    out: Path
    """Folder of the judge, of its `report.json` and of the page `report.html`."""
    goals: Path | None = None
    """Folder of pictures of the goal: a folder for each camera, and pictures of one moment under the same name in each.
    The judge then needs no labels: it learns from --data how many steps lie between two frames, and rewards frames
    that are few steps from the nearest pictures. 8 or more pictures, with the robot in various places, are better than
    one. Other pictures can be given later, in Python or on the demo page."""
    farthest: Several = 40
    """Only with --goals: the number of steps from the goal at which the reward is 0. The judge does not tell more steps
    apart, so they should be about as many as the task takes."""
    task_words: str | None = None
    """Tell the judge the task in words: table, or module:name of a sentence encoder, as for `worldmodel clone`. It then
    also learns that a success at one task is none at another. By default it is not told."""
    world: str | Path | None = None
    """Folder of a world model, or hf://USER/NAME@REV. The judge is then also measured on the model's dreams of the test
    episodes."""
    dreams: Whole = 0
    """Number of training episodes of which --world makes dreams, under their recorded actions, for the judge to learn
    from. The threshold is then set on dreams, too. 0 for none."""
    steps: Count = 1500
    """Optimiser steps."""
    batch: Count = 64
    """Frames per step."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of AdamW, with cosine decay."""
    held_out: InnerShare = 0.25
    """Share of the episodes, the last ones, that the judge is not trained on: half of them set the threshold, half
    test."""
    num_steps: Count = 2
    """Denoising steps of the dreams."""
    init: str | Path | None = None
    """Folder of a judge to start from; its range of rewards is kept."""
    test_data: Path | None = None
    """Data set to test on. Then no episode of --data is used to test, and twice as many set the threshold."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of weights and batches."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    test_reading: Annotated[DataOptions | None, tyro.conf.Suppress] = None
    """How `test_data` is read; by default all its episodes, with the same columns as `data`."""
    device: str = "auto"
    """Where it trains and dreams: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def train_judge(config: JudgeConfig) -> dict:
    """Train, calibrate, measure and write a judge; returns the report, of several processes only in the first one.

    Raises:
        ValueError: The data has no successes or no failures, dreams are asked for without a world
            model, or the loss is not finite.
    """
    check_ranges(config)
    check_out(config.out, "judge.json", overwrite=config.overwrite)
    device = training_device(config.device)
    if config.goals is not None:
        return train_goal_judge(config, device)
    dream = dreamer(config, device)
    source, tested, (train, calibration, test) = read_data(config)
    rows, seen, stride = read_frames(source, train), None, 1
    if config.dreams:
        again, seen, stride = train[: config.dreams], dream(source, calibration), dream.stride
        rows = rows.join(read_frames(source, again, dream(source, again), dream.stride))
    torch.manual_seed(config.seed)
    low, high = float(rows.rewards.min()), float(rows.rewards.max())
    words = words_of(source, train, config.task_words)
    shape = JudgeShape(tuple(source.views), tuple(source.size), words=words)
    if config.init is None:
        learned = LearnedJudge(shape, reward_range=(low, high))
        if words.encoder:
            learned.network.words.rows.copy_(known_rows(words))
        learned.network.to(device)
    else:
        learned = load_trained(config.init, device)
        check_init(config, learned, shape)
    fit_judge(learned, rows, config)
    if not share().first:
        return {}
    generator = torch.Generator().manual_seed(config.seed)
    solved = rows.frames[rows.successes]
    goals = NearestPicture(solved[torch.randperm(len(solved), generator=generator)[:NUM_GOALS]])
    judges, told = {"learned": learned, "goal_image": goals}, {"learned": learned.told, "goal_image": False}
    report = described(source, tested, (train, calibration, test)) | {"real": {}, "dreamed": {}}
    judged: dict[str, list[JudgedEpisode]] = {}
    for name, each in judges.items():
        each.threshold = best_threshold(judge_episodes(each.score, source, calibration, seen, stride, told=told[name]))
        held_out = judge_episodes(each.score, tested, test, told=told[name])
        report["real"][name] = judge_report(held_out, each.threshold)
        judged[name] = held_out
    report["reward_correlation"] = reward_correlation(learned, tested, test)
    if dream is not None:
        report["world"], report["dreams"] = str(config.world), config.dreams
        dreamed = test[:DREAMS]
        pictures = dream(tested, dreamed)
        for name, each in judges.items():
            dreams = judge_episodes(each.score, tested, dreamed, pictures, dream.stride, told=told[name])
            report["dreamed"][name] = judge_report(dreams, each.threshold)
    learned.save(config.out)
    write_json(config.out / "report.json", report)
    write_judge(report, judged["learned"], learned.threshold, config.out / "report.html")
    show(report)
    print(config.out / "report.html")
    return report


def train_goal_judge(config: JudgeConfig, device: torch.device) -> dict:
    """Train, calibrate, measure and write a judge of goals; returns the report, as `train_judge` does.

    Raises:
        ValueError: The pictures do not fit the data, an option does not go with --goals, or the loss is not finite.
    """
    for option in ("world", "dreams", "init", "task_words"):
        if getattr(config, option):
            given = f"--{option.replace('_', '-')} {getattr(config, option)}"
            raise ValueError(f"{given} does not go with --goals {config.goals}")
    source, tested, (train, calibration, test) = read_data(config)
    shape = GoalShape(tuple(source.views), tuple(source.size), config.farthest)
    goals = read_goals(config.goals, shape.views, shape.size)
    torch.manual_seed(config.seed)
    network = GoalNetwork(shape).to(device)
    loss = fit_goals(
        network,
        source,
        train,
        farthest=config.farthest,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        log=config.out / LOG,
    )
    if not share().first:
        return {}
    judge = GoalJudge(shape, goals, network=network)
    pairs = near_and_far(judge, source, calibration, config.seed)
    judge.threshold = reached_threshold(pairs)
    report = described(source, tested, (train, calibration, test))
    report |= {"goals": str(config.goals), "loss": loss, **measure_goals(judge, tested, test)}
    judge.save(config.out)
    write_json(config.out / "report.json", report)
    write_page(report, judge, tested, test, config.out / "report.html")
    print("\n".join([*meaning(report), str(config.out / "report.html")]))
    return report


def read_data(config: JudgeConfig) -> tuple[EpisodeCache, EpisodeCache, tuple[range, range, range]]:
    """The data, the data to test on, and the episodes to train on, to calibrate on and to test on.

    Raises:
        ValueError: One of the three parts would be empty.
    """
    source = EpisodeCache(open_episodes(config.data, options=config.reading), cache_gb=config.reading.cache_gb)
    train, calibration, test = split(source, config.held_out)
    if config.test_data is None:
        return source, source, (train, calibration, test)
    reading = config.test_reading or replace(config.reading, episodes="")
    tested = EpisodeCache(open_episodes(config.test_data, options=reading), cache_gb=config.reading.cache_gb)
    return source, tested, (train, range(calibration.start, test.stop), range(len(tested)))


def described(source: EpisodeSource, tested: EpisodeSource, parts: tuple[range, range, range]) -> dict:
    """What a report says about the data."""
    names = ("train", "calibration", "test")
    episodes = {name: [part.start, part.stop] for name, part in zip(names, parts, strict=True)}
    return {"data": source.name, "episodes": episodes, "test": tested.name}


@dataclass(frozen=True)
class Dreamer:
    """Dreams recorded episodes again.

    Attributes:
        world: The world model.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise.
    """

    world: WorldModel
    num_steps: int
    seed: int

    stride = property(lambda self: self.world.stride)

    def __call__(self, source: EpisodeSource, episodes: Sequence[int]) -> list[Tensor]:
        """The dreamed frames of each episode, see `dream_again`."""
        return dream_again(self.world, source, episodes, num_steps=self.num_steps, seed=self.seed)


def dreamer(config: JudgeConfig, device: torch.device) -> Dreamer | None:
    """An object that dreams in the world model; `None` without a world model.

    Raises:
        ValueError: Dreams are asked for without a world model.
    """
    if config.world is None:
        if config.dreams:
            raise ValueError(f"--dreams {config.dreams} needs --world, got none")
        return None
    world = WorldModel.load(config.world, device)
    return Dreamer(world, config.num_steps, config.seed)


def check_init(config: JudgeConfig, start: LearnedJudge | GoalJudge, shape: JudgeShape) -> None:
    """Raise a `ValueError` when the judge to start from is one of goals, or looks at other frames than the data's."""
    if isinstance(start, GoalJudge):
        raise ValueError(f"{config.init}: a judge of goals, which learns no success; --init takes a judge of success")
    if (start.shape.views, start.shape.size) != (shape.views, shape.size):
        mine, theirs = (f"{each.views} of {each.size}" for each in (start.shape, shape))
        raise ValueError(f"{config.init}: looks at {mine}, the data have {theirs}")
    if start.shape.words != shape.words:
        mine, theirs = ([*each.words.tasks] for each in (start.shape, shape))
        raise ValueError(f"{config.init}: is told the tasks {mine}, with --task-words the data have {theirs}")


def split(source: EpisodeSource, held_out: float) -> tuple[range, range, range]:
    """Episodes to train on, to calibrate on, and to test on.

    Raises:
        ValueError: One of them would be empty.
    """
    each = round(len(source) * held_out / 2)
    if not 0 < held_out < 1 or each < 1 or len(source) - 2 * each < 1:
        raise ValueError(
            f"{source.name}: {len(source)} episodes and --held-out {held_out} leave no episode to "
            "train, to calibrate or to test on"
        )
    ends = (len(source) - 2 * each, len(source) - each, len(source))
    return range(ends[0]), range(ends[0], ends[1]), range(ends[1], ends[2])


def fit_judge(judge: LearnedJudge, rows: Frames, config: JudgeConfig) -> None:
    """Train in place; half of every batch are successes, a quarter near misses.

    A judge that is told the task gets as many successes again as near misses, told another task, as failures.
    """
    device = next(judge.network.parameters()).device
    low, high = judge.reward_range
    rewards = (rows.rewards - low) / max(high - low, 1e-6)
    pools = batch_pools(rows, config.batch)
    if judge.told:
        pools.append((pools[0][0], pools[1][1]))
    generator = torch.Generator().manual_seed(config.seed)

    def loss_of(step: int) -> Float[Tensor, ""]:
        pick = torch.cat([pool[torch.randint(len(pool), (count,), generator=generator)] for pool, count in pools])
        disturbed = disturb(rows.frames[pick], generator)
        solved, aims, tasks = rows.successes[pick].float(), rewards[pick], []
        mine = share().rows(len(pick))
        if judge.told:
            tasks, others = [rows.tasks[row] for row in pick.tolist()], slice(config.batch, None)
            tasks[others] = [another(task, judge.shape.words.tasks, generator) for task in tasks[others]]
            solved[others], aims[others] = 0.0, 0.0
        with autocast(device):
            logit, reward = judge.network(disturbed[mine].to(device), tasks[mine]).float().unbind(-1)
        loss = binary_cross_entropy_with_logits(logit, solved[mine].to(device))
        loss = loss + smooth_l1_loss(reward, aims[mine].to(device), beta=0.1)
        return loss * share().weight(len(logit), len(pick))

    fit(
        judge.network,
        loss_of,
        steps=config.steps,
        learning_rate=config.learning_rate,
        name="judge",
        log=config.out / LOG,
    )


def reward_correlation(judge: LearnedJudge, source: EpisodeSource, episodes: range) -> float | None:
    """Pearson correlation of predicted and true rewards over frames; `None` if either is constant."""
    clips = [source.read(e, 0, source.lengths[e]) for e in episodes]
    if clips[0].rewards is None:
        return None
    rewards = torch.cat([clip.rewards for clip in clips])
    said = torch.cat([judge.predict(clip.frames[1:], (clip.task,) * (len(clip.frames) - 1))[1].cpu() for clip in clips])
    if rewards.std() == 0 or said.std() == 0:
        return None
    return float(np.corrcoef(said.numpy(), rewards.numpy())[0, 1])


def show(report: dict) -> None:
    """Print the report as a table."""
    table = Table(title="judges on held-out episodes")
    for column in ("judge", "frames", "of", "n", "AUC", "accuracy", "true", "called"):
        table.add_column(column)
    for place in ("real", "dreamed"):
        for name, parts in report[place].items():
            for kind, row in parts.items():
                auc = "-" if row["auc"] is None else f"{row['auc']:.3f}"
                shares = [f"{row[key]:.3f}" for key in ("accuracy", "successes", "called")]
                table.add_row(name, place, kind, str(row["n"]), auc, *shares)
    Console().print(table)
