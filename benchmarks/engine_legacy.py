"""The probes of `engine.py` for trees from before `worldmodel.streaming.stream`, with their imports and calls."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHARES = (0.4, 0.3, 0.3)  # of training batches with 0, 1 and 2 self-forwarding passes


def probe(data: str, world: str, batches: Sequence[int], num_steps: int, frames: int, clock: str) -> dict[str, float]:
    """Frames/s by batch of the tree that this process imports; runs in either one."""
    from worldmodel.data import open_episodes, stack_clips
    from worldmodel.world_model import WorldModel

    torch.set_num_threads(1)
    model, source, now = WorldModel.load(world), open_episodes(data), CLOCKS[clock]
    clip = stack_clips([source.read(index, 0, 9, 1) for index in range(max(batches))])
    found = {}
    for batch in batches:
        context = clip.map(lambda x, batch=batch: x[:batch])
        state, seconds = model.start(context), []
        for _ in range(frames + 5):
            begin = now()
            observation, state = model.step(state, context.actions[:, -1], num_steps=num_steps)
            observation.frames.numpy()
            seconds.append(now() - begin)
        found[str(batch)] = batch / statistics.median(seconds[5:])
    return found


def probe_training(data: str, world: str, steps: int, clock: str) -> dict[str, float]:
    """Predicted frames/s of training in the tree that this process imports; runs in either one.

    Batches are of 8 clips with as many frames as the tree's preset `tiny`; with 0, 1 and 2
    self-forwarding passes as often as in a run after its first part.
    """
    from worldmodel.data import EpisodeCache, open_episodes
    from worldmodel.data.dataset import sample_clips
    from worldmodel.objective import LossConfig, draw, training_loss
    from worldmodel.precision import autocast
    from worldmodel.pretrain import PretrainConfig
    from worldmodel.run import build_optimizers
    from worldmodel.world_model import WorldModel

    torch.set_num_threads(1)
    model, loss_config, now = WorldModel.load(world).train(), LossConfig(), CLOCKS[clock]
    source, frames = EpisodeCache(open_episodes(data)), PretrainConfig.frames
    optimizers, total = build_optimizers(model, 1e-6, muon=True), 0.0
    for passes, share in enumerate(SHARES):
        seconds = []
        for step in range(steps + 1):
            begin = now()
            generator = torch.Generator().manual_seed(step)
            draws = draw(model, loss_config, batch=8, frames=frames, generator=generator)
            clip = sample_clips(
                source, batch=8, length=frames, stride=1, seed=0, index=step,
                episodes=range(len(source)),
            )  # fmt: skip
            with autocast("cpu"):
                loss, _ = training_loss(model, clip, replace(draws, passes=passes), loss_config)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            seconds.append(now() - begin)
        total += share * min(seconds[1:])  # the first one warms up
    return {"training": 8 * (frames - 1) / total}
