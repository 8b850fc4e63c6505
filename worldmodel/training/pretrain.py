"""Pretrain a world model from video and actions. `worldmodel pretrain PRESET --data D --out O`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.data.video.letterbox import FrameBudget
from worldmodel.display.training_page import write_training
from worldmodel.model.codec import PixelCodec
from worldmodel.model.dit import DiTConfig
from worldmodel.model.folder import check_out, find_model, fingerprint, read_description
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.source import check_size, open_source
from worldmodel.processes.alone import alone_in_out
from worldmodel.processes.prefetch import Ahead
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.accelerator import end_trackers, joined, start_accelerator
from worldmodel.training.build import build_world
from worldmodel.training.checkpoint import (
    SETTINGS,
    STATE,
    MovingAverage,
    RunSettings,
    has_state,
    load_state,
    save_state,
)
from worldmodel.training.config import PretrainCommand as PretrainCommand
from worldmodel.training.config import PretrainConfig, VideoConfig
from worldmodel.training.latents import LatentCache
from worldmodel.training.log import RunLog
from worldmodel.training.loss import Draws, LossConfig, draw, training_loss
from worldmodel.training.malloc import check_memory, training_bytes
from worldmodel.training.optimizers import build_optimizers, learning_rate_factor
from worldmodel.training.share import backward_in_parts, is_divided, share, wait_for_all, whole
from worldmodel.training.validate import validate
from worldmodel.world_model import WorldDescription, WorldModel, WorldModelConfig


class TrainingStep(nn.Module):
    """The loss as a module's `forward`, which is what data parallelism wraps."""

    def __init__(self, world: WorldModel, config: LossConfig):
        super().__init__()
        self.world, self.config = world, config

    def forward(self, clip: Clip, draws: Draws) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and its parts."""
        return training_loss(self.world, clip, draws, self.config)


@alone_in_out
def pretrain(config: PretrainConfig) -> Path:
    """Train, and write the moving average of the weights to `out`; returns `out`.

    Batch `i` and its noise depend on `seed` and `i` only, so a resumed run repeats the losses of an uninterrupted one,
    and any number of processes, which may change with a resume, repeats those of one.

    Raises:
        ValueError: If data and configuration do not fit, the folder or the run to resume is another
            one, or the loss is not finite.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_out(config.out, STATE, "world.json", SETTINGS, overwrite=config.overwrite, resume=config.resume)
    if not 0 <= config.action_dropout < 1:
        raise ValueError(f"--action-dropout is a share from 0 to less than 1, got {config.action_dropout}")
    accelerator = start_accelerator(config.device, config.out, config.log)
    torch.manual_seed(config.seed)
    recorded = open_data(config)
    check_fits(config, recorded, accelerator)
    settings = RunSettings(config, read_by(config, recorded), free=("validation_interval",))
    settings.check()
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    train, held_out = split_episodes(source, config.validation_episodes)
    world = new_world(config, source, train).to(accelerator.device)
    if config.compile:
        world.dit.encode = torch.compile(world.dit.encode)
        world.dit.decode = torch.compile(world.dit.decode)
    source = with_latents(config, world, source)
    optimizers = build_optimizers(world, config.learning_rate, muon=config.muon)
    blocks = world.dit.family.blocks if isinstance(world.dit, PretrainedDiT) else ()
    model = TrainingStep(world, config.loss)
    model, optimizers = joined(accelerator, model, optimizers, blocks=tuple(blocks), unused=world.describes)
    average = MovingAverage(world, config.average_decay)
    log = RunLog(accelerator, config.out, total_steps=config.steps, minutes=config.minutes, clock=config.clock)
    if config.resume and has_state(config.out):
        log.resume(load_state(config.out / "state", world, average, optimizers))
    if world.describes and config.accumulate > 1:
        raise ValueError(f"--accumulate {config.accumulate}: latent actions are compared over the whole batch, pass 1")

    if accelerator.is_main_process:
        settings.write()
    read = partial(batch, config, world, source, train, accelerator)
    with log, Ahead(read, enabled=accelerator.device.type != "cpu") as batches:
        while log.step < config.steps and log.done < 1:
            clips, frames = clip_shape(config, log.step)
            clip, draws = batches(log.step)
            draws = draws if log.done >= config.loss.forward_start else replace(draws, passes=0)
            loss, parts = backward_in_parts(accelerator, model, parts_of(clip, draws, config.accumulate))
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            factor = learning_rate_factor(log.step, log.done, warmup=config.warmup)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = config.learning_rate * factor
                optimizer.step()
                optimizer.zero_grad()
            average.update(world, log.step)
            log.advance(loss, parts, frames=clips * (frames - 1), factor=factor)
            last = log.step >= config.steps or log.done >= 1
            if last or log.step % config.validation_interval == 0:
                with average.shown(world):
                    save_and_validate(config.out, world, source, held_out, log)
            if last or log.stopping or log.step % config.save_interval == 0:
                save_state(config.out / "state", world, average, optimizers, log.progress)
            if not last:
                log.leave_if_asked()
    if accelerator.is_main_process:
        write_training(config.out, log.validations.rows)
    end_trackers(accelerator)
    wait_for_all()
    return config.out


def check_fits(config: PretrainConfig, source: EpisodeSource, accelerator: Accelerator) -> None:
    """Check on a CPU that the memory suffices for a batch of pixels.

    Raises:
        ValueError: It does not.
    """
    if accelerator.device.type != "cpu" or config.codec is not None:
        return
    start = started_from(config)
    network = config.dit if start is None else start.dit
    if isinstance(network, DiTConfig):
        clips = max(config.batch // accelerator.num_processes // config.accumulate, 1)
        shape = {"views": len(source.views), "size": source.size, "clips": clips, "frames": config.frames}
        check_memory(training_bytes(network, **shape))


def new_world(config: PretrainConfig, source: EpisodeSource, train: Sequence[int]) -> WorldModel:
    """The world model to train, with the statistics of the episodes to train on; see `build_world`.

    Raises:
        ValueError: As `build_world`.
    """
    return build_world(
        source,
        train,
        dit=config.dit,
        stride=config.stride,
        injection=config.injection,
        relative_to=config.relative_to,
        use_actions=config.use_actions,
        codec=config.codec,
        init=config.init,
        latent_dim=config.latent_actions,
        angles=config.angles,
        max_steps=config.max_steps,
        chunk=config.frames_per_latent,
        action_dropout=config.action_dropout,
        task_words=config.task_words,
    )


def save_and_validate(
    out: Path, world: WorldModel, source: EpisodeSource, held_out: Sequence[int], log: RunLog
) -> None:
    """Write the world model to `out`, and measure it on held-out episodes; the first process does both."""
    state = {k: whole(v) for k, v in world.state_dict().items() if not k.startswith(world.elsewhere)}
    if share().first:
        world.save(out, state=state)
        whole_world = WorldModel.load(out, world.device) if is_divided(world) else world
        log.validation(validate(whole_world, source, held_out, out / "validation", log.step))
    wait_for_all()


def open_data(config: PretrainConfig) -> EpisodeSource:
    """Open the data in the size to train in; prints a line if that is not the size in the data."""
    source = open_episodes(config.data, frame_size(config), config.views or None, config.reading)
    if isinstance(config.dit, PretrainedConfig) and config.codec is None:
        pretrained = open_source(config.dit)
        check_size(pretrained.name, tuple(source.size), pretrained.multiple())
    (height, width), (own_height, own_width) = source.size, source.own_size
    if (height, width) != (own_height, own_width):
        print(f"pictures of {own_width} x {own_height} are read at {width} x {height}; --size sets another size")
    return source


def frame_size(config: PretrainConfig) -> tuple[int, int] | FrameBudget | None:
    """The size to read: the chosen one, that of the world model to start from, or that of the data within the budget.

    With a codec, whose latents are smaller than pictures, `auto` keeps the size of the data.
    """
    if not isinstance(config.size, str):
        return config.size
    if config.size == "native" or config.codec is not None:
        return None
    start = started_from(config)
    if start is not None:
        return tuple(start.size)
    if isinstance(config.dit, PretrainedConfig):
        return FrameBudget(config.picture_pixels, open_source(config.dit).multiple())
    return FrameBudget(config.picture_pixels, config.dit.patch)


def with_latents(config: PretrainConfig, world: WorldModel, source: EpisodeSource) -> EpisodeSource:
    """The data with the latents of a pretrained transformer's codec beside the frames."""
    kept = isinstance(config, VideoConfig) and config.latent_cache and world.chunk == 1
    if not kept or isinstance(world.codec, PixelCodec):
        return source
    return LatentCache(source, world.codec)


def started_from(config: PretrainConfig) -> WorldModelConfig | None:
    """The description of the world model to start from, which sets the architecture."""
    if config.init is None:
        return None
    return read_description(find_model(config.init, "world.json") / "world.json", WorldDescription).config


def read_by(config: PretrainConfig, source: EpisodeSource) -> dict[str, str]:
    """Fingerprints of what a run reads."""
    models = {} if config.init is None else {"init": fingerprint(config.init)}
    if isinstance(config.dit, PretrainedConfig):
        models["dit.backbone"] = open_source(config.dit).fingerprint()
    return {"data": source.fingerprint, **models}


def clip_shape(config: PretrainConfig, step: int) -> tuple[int, int]:
    """Number of clips of a batch and of frames per clip; there are half as many long clips, at the same cost.

    Most batches have short clips, which are cheap to attend over; a few have long clips, which show
    more of the past, as in Dreamer 4 (2509.24527).
    """
    if config.long_interval and step % config.long_interval == config.long_interval - 1:
        return max(config.batch // 2, 1), 2 * config.frames - 1
    return config.batch, config.frames


def batch(
    config: PretrainConfig,
    world: WorldModel,
    source: EpisodeSource,
    episodes: Sequence[int],
    accelerator: Accelerator,
    step: int,
) -> tuple[Clip, Draws]:
    """This process's clips and random numbers of one step: a pure function of seed and step."""
    clips, frames = clip_shape(config, step)
    rows = rows_of_process(clips, config.accumulate)
    longest = max(source.lengths[episode] for episode in episodes)
    draws = draw(
        world,
        config.loss,
        batch=clips,
        frames=frames,
        generator=torch.Generator().manual_seed(mix_seed(config.seed, step)),
        largest_gap=max((longest - 1) // config.stride - frames + 2, 1) if world.chunk == 1 else 1,
        action_dropout=config.action_dropout,
    )
    clip = sample_clips(
        source,
        batch=clips,
        length=frames,
        stride=config.stride,
        gap=draws.gap,
        seed=config.seed,
        index=step,
        episodes=episodes,
        rows=rows,
    )
    if not config.use_actions:
        clip = replace(clip, actions=None)
    return clip.to(accelerator.device), draws.rows(rows.start, rows.stop)


def rows_of_process(clips: int, accumulate: int) -> slice:
    """The rows of the global batch that this process computes.

    Raises:
        ValueError: The batch does not divide by the number of processes, or their shares not by `accumulate`.
    """
    rows = share().equal_rows(clips, "batch")
    if accumulate < 1 or (rows.stop - rows.start) % accumulate:
        raise ValueError(f"--accumulate {accumulate} does not divide the {rows.stop - rows.start} clips of a process")
    return rows


def parts_of(clip: Clip, draws: Draws, number: int) -> list[tuple[Clip, Draws]]:
    """Clips with their random numbers in a number of equal parts."""
    size = len(clip.frames) // number
    starts = range(0, size * number, size)
    return [(clip.rows(slice(i, i + size)), draws.rows(i, i + size)) for i in starts]
