"""Quick validation during training: held-out rollouts as numbers and as a video."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange

from worldmodel.data import EpisodeSource, stack_clips
from worldmodel.data.video.write import write_video
from worldmodel.model.psnr import psnr
from worldmodel.world_model import WorldModel

CONTEXT = 4


def validate(
    world: WorldModel,
    source: EpisodeSource,
    episodes: Sequence[int],
    folder: Path,
    step: int,
    *,
    horizon: int = 20,
    num_steps: int = 2,
) -> dict[str, float]:
    """PSNR of rollouts from the start of held-out episodes; writes `<step>.mp4`, truth over dream.

    Returns:
        `validation/psnr_<horizon>` for a few horizons, and `validation/copy_psnr_<horizon>` for a copy of the last
        frame; nothing when no episode is long enough.
    """
    world.eval()
    needed = (CONTEXT + horizon) * world.stride
    usable = [episode for episode in episodes if source.lengths[episode] >= needed]
    if not usable:
        return {}
    clips = [source.read(episode, 0, needed, world.stride) for episode in usable]
    clip = stack_clips(clips).to(world.device)
    if world.action_dim == 0:
        latent = world.latent_actions(clip.frames) if world.describes else None
        clip = replace(clip, actions=latent)
    actions = None if clip.actions is None else clip.actions[:, CONTEXT - 1 :]
    dreamed = world.stream(clip.head(CONTEXT)).roll(
        actions, num_frames=horizon, num_steps=min(num_steps, world.config.max_steps)
    )
    dream = torch.stack([observation.frames for observation in dreamed], dim=1)
    truth = clip.frames[:, CONTEXT:]
    side_by_side = torch.cat([truth, dream], dim=3)[:4]
    folder.mkdir(parents=True, exist_ok=True)
    video = rearrange(side_by_side, "b t v h w c -> t h (b v w) c")
    write_video(folder / f"{step:08d}.mp4", video.cpu().numpy(), fps=world.fps / world.stride)
    world.train()
    copied = clip.frames[:, CONTEXT - 1 : CONTEXT].expand_as(truth)
    found = {}
    for name, frames in (("psnr", dream), ("copy_psnr", copied)):
        values = psnr(frames, truth).mean(dim=(0, 2))
        found |= {f"validation/{name}_{h}": values[h - 1].item() for h in (1, 5, 10, 20) if h <= horizon}
    return found
