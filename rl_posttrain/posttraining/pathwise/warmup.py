"""The discriminator learns before it rewards, on self-rollouts of the world model, which does not move meanwhile.

A discriminator at chance has a gradient, too, but it is noise, and mixed gradients make it as long as any other.
"""

from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.pathwise.rollout import RolloutBatch, draw_rollouts
from rl_posttrain.posttraining.pathwise.update import PathwiseUpdate
from rl_posttrain.rewards.predictions import Predictions
from rl_posttrain.rewards.realism import Realism
from worldmodel.data import EpisodeSource
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.log import RunLog, Table
from worldmodel.training.share import average_gradients, mean_over_all, share

HELD_OUT_BATCHES = 4
"""Batches of held-out episodes on which the discriminator is tried."""
INTERVAL = 20
"""Updates of the discriminator between two trials."""
TRAINING, HELD_OUT = 1, 2
"""Their clips and noise differ from each other, and from those of the updates of the world model."""


def learn_realism(
    config: PosttrainConfig,
    update: PathwiseUpdate,
    optimizer: torch.optim.Optimizer,
    source: EpisodeSource,
    episodes: tuple[range, range],
    log: RunLog,
    learned: int,
    save: Callable[[dict], None],
) -> None:
    """Train the discriminator for `pathwise.realism_warmup` updates.

    Writes `discriminator.jsonl`: the loss of every update and, now and then, the share of held-out recorded pictures
    that score higher than the predicted ones, which is 0.5 at chance. The seconds count as those of the run.

    Args:
        config: Configuration of the run.
        update: The objective, with the world model and the rewards.
        optimizer: Of the discriminator.
        source: The data set.
        episodes: Those to train on, and the held-out ones.
        log: Log of the run, before its first update.
        learned: Updates of the discriminator that a stopped run made.
        save: Writes the state of the run with what is given to it.

    Raises:
        ValueError: The time of the run is over; the state is saved.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    realism, total, accelerator = update.terms[0].realism, config.pathwise.realism_warmup, log.accelerator
    if learned >= total:
        return
    held_out = batches(config, update, source, episodes[1], HELD_OUT)
    tried = [self_rollout(update, batch, accelerator) for batch in held_out]
    table = Table(config.out / "discriminator.jsonl", learned + 1) if share().first else None
    for batch in batches(config, update, source, episodes[0], TRAINING, learned):
        loss = learn(realism, optimizer, self_rollout(update, batch, accelerator), config.pathwise.realism_rate)
        learned += 1
        row = {"step": learned, "loss": loss}
        log.look()
        log.bar.update(log.done, f"the discriminator learns: {learned} of {total}  loss {loss:.3f}")
        last = learned == total or log.stopping or log.done >= 1
        if last or learned % INTERVAL == 0:
            row["told_apart"] = told_apart(realism, tried)
            save({**log.progress, "learned": learned})
        if table is not None:
            table.add(row)
            if "told_apart" in row:
                print(
                    f"discriminator, update {learned} of {total}: loss {loss:.3f}, {row['told_apart']:.2f} of the "
                    "held-out recorded pictures look more real than the predicted ones (chance: 0.5)"
                )
        log.leave_if_asked()
        if log.done >= 1:
            raise ValueError(
                f"--minutes {config.minutes:g} are over after {learned} of {total} updates of the discriminator "
                "and none of the world model: --resume with more --minutes, or set a smaller --pathwise.realism-warmup"
            )


def batches(
    config: PosttrainConfig, update: PathwiseUpdate, source: EpisodeSource, episodes: range, kind: int, first: int = 0
) -> Iterator[RolloutBatch]:
    """The clips and random numbers of the discriminator's updates, from update `first` on, or of its trials."""
    seed = mix_seed(config.seed, kind)
    rows = share().equal_rows(config.groups, "--groups")
    for step in range(first, HELD_OUT_BATCHES if kind == HELD_OUT else config.pathwise.realism_warmup):
        generator = torch.Generator().manual_seed(mix_seed(config.seed, step, kind))
        sizes = {"batch": config.groups, "seed": seed, "step": step, "generator": generator, "rows": rows}
        yield draw_rollouts(update.world, source, episodes, config.pathwise, config.loss, **sizes)


@torch.no_grad()
def self_rollout(update: PathwiseUpdate, batch: RolloutBatch, accelerator: Accelerator) -> Predictions:
    """What the discriminator sees of a batch, in the number format of the run; nothing has a gradient."""
    with accelerator.autocast():
        return update.rolled_out(batch).seen


def learn(realism: Realism, optimizer: torch.optim.Optimizer, seen: Predictions, rate: float) -> float:
    """One step of the discriminator; returns its loss before it."""
    loss = realism.loss(seen)
    loss.backward()
    average_gradients(realism.parameters())
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def told_apart(realism: Realism, tried: list[Predictions]) -> float:
    """Share of recorded pictures that look more real than the predicted ones, in all batches."""
    return float(mean_over_all(torch.cat([realism.told_apart(seen) for seen in tried])))
