"""How fast a world model trains here, and how long it waits for data."""

from dataclasses import dataclass, replace

import torch

from worldmodel.bench.roof import synchronize
from worldmodel.bench.timing import Clock
from worldmodel.data import EpisodeSource
from worldmodel.data.sample import sample_clips
from worldmodel.model.precision import autocast
from worldmodel.training.loss import LossConfig, draw, training_loss
from worldmodel.training.optimizers import build_optimizers
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class TrainingSpeed:
    """Training speed of one process.

    Attributes:
        frames_per_second: Predicted frames of the clips; self-forwarded ones count once.
        data_wait: Share of the time that goes into reading clips and drawing noise.
    """

    frames_per_second: float
    data_wait: float


def training_speed(
    world: WorldModel,
    source: EpisodeSource,
    *,
    steps: int,
    clock: Clock,
    passes: int = 0,
    batch: int = 8,
    frames: int = 10,
) -> TrainingSpeed:
    """Train `world` for `steps` steps, as `worldmodel pretrain tiny` does; its weights change a little.

    Main arguments: `world` and the episodes of `source` to train on.
    Other arguments: `passes` of self-forwarding in each step (a run mixes 0, 1 and 2); `batch`
    clips of `frames` frames.
    """
    world, config = world.train(), LossConfig()
    optimizers = build_optimizers(world, 1e-6, muon=True)
    reading = total = 0.0
    for step in range(steps + 1):
        begin = clock()
        generator = torch.Generator().manual_seed(step)
        draws = draw(world, config, batch=batch, frames=frames, generator=generator)
        clip = sample_clips(
            source, batch=batch, length=frames, stride=world.stride, seed=0, index=step, episodes=range(len(source))
        )
        read = clock()
        draws = replace(draws, passes=passes).to(world.device)
        with autocast(world.device):
            loss, _ = training_loss(world, clip.to(world.device), draws, config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(world.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        synchronize(world.device)
        if step:  # the first one warms up
            reading += read - begin
            total += clock() - begin
    return TrainingSpeed(steps * batch * (frames - 1) / total, reading / total)
