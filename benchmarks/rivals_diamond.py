"""DIAMOND (Alonso et al. 2024, arXiv 2405.12399) as a rival: its data set, network, loss, optimiser and sampler.

Nothing of its code is here. A checkout of https://github.com/eloialonso/diamond is named with `--code diamond FOLDER`;
its modules need the packages omegaconf and wandb. Its settings are read from its own configuration of Atari, but for

- actions: it embeds the number of a button. Here a linear layer of the same width takes the place of the table, and
  actions are normalised by the mean and the deviation of the training episodes.
- width, clips in a batch and learning rate where a variant below says so.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from rivals_training import Lesson, modules_of
from torch import Tensor, nn

from worldmodel.data import Clip
from worldmodel.model.precision import autocast
from worldmodel.resolve import absent
from worldmodel.streaming.state import Observation

ADDRESS = "https://github.com/eloialonso/diamond"


def settings_of(folder: Path) -> dict[str, Any]:
    """Its configuration of the denoiser, of the training and of the sampler."""
    from omegaconf import OmegaConf

    agent = OmegaConf.load(folder / "config" / "agent" / "default.yaml")
    trainer = OmegaConf.load(folder / "config" / "trainer.yaml")
    parts = {"network": agent.denoiser, "training": trainer.denoiser}
    parts["sampler"] = trainer.world_model_env.diffusion_sampler
    return {name: without_targets(OmegaConf.to_container(part)) for name, part in parts.items()}


def without_targets(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings without the names of classes, and without the one that is a formula and equals the default."""
    kept = {key: value for key, value in tree.items() if key not in ("_target_", "s_tmax")}
    return {key: without_targets(value) if isinstance(value, dict) else value for key, value in kept.items()}


class Diamond:
    """A denoiser of DIAMOND that learns from one camera and streams.

    Args:
        lesson: What it learns from.
        width: Channels of the U-Net; its own by default.
        batch: Clips per step; its own by default.
        rate: Learning rate; its own by default.
        like_ours: Compute in the number format of this package, bf16 where the processor has it; its own is fp32.

    Raises:
        ValueError: The data has several cameras, or a package is missing.
    """

    def __init__(
        self,
        lesson: Lesson,
        *,
        width: int | None = None,
        batch: int | None = None,
        rate: float | None = None,
        like_ours: bool = False,
    ):
        source, folder = lesson.source, lesson.folder("diamond", ADDRESS)
        self.like_ours = like_ours
        missing = absent("omegaconf", "wandb")
        if missing:
            raise ValueError(f"the code of DIAMOND needs the Python package {missing}: pip install omegaconf wandb")
        if len(source.views) != 1:
            raise ValueError(f"DIAMOND sees one camera, the data has {len(source.views)}: {', '.join(source.views)}")
        self.views, self.size, self.fps, self.stride = tuple(source.views), tuple(source.size), source.fps, 1
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        diffusion, self.helpers, self.data = modules_of(folder / "src", "models.diffusion", "utils", "data")
        found = settings_of(folder)
        self.denoiser = new_denoiser(diffusion, found["network"], width, self.action_dim)
        self.denoiser.setup_training(diffusion.SigmaDistributionConfig(**found["training"].pop("sigma_distribution")))
        sampler = diffusion.DiffusionSamplerConfig(**found["sampler"])
        self.sample = diffusion.DiffusionSampler(self.denoiser, sampler).sample
        self.num_steps = sampler.num_steps_denoising
        training = found["training"]["training"]
        self.clip_norm, self.past = training["max_grad_norm"], found["network"]["inner_model"]["num_steps_conditioning"]
        steps = {**found["training"]["optimizer"], **({} if rate is None else {"lr": rate})}
        self.optimizer = self.helpers.configure_opt(self.denoiser, **steps)
        self.schedule = self.helpers.get_lr_sched(self.optimizer, training["lr_warmup_steps"])
        self.read(lesson)
        length = self.past + 1 + training["num_autoregressive_steps"]
        order = new_sampler(self.data.BatchSampler, self.episodes, batch or training["batch_size"], length)
        loader = {"batch_sampler": order, "collate_fn": self.data.collate_segments_to_batch}
        self.batches = iter(torch.utils.data.DataLoader(self.episodes, **loader))

    def read(self, lesson: Lesson) -> None:
        """Put the training episodes into its data set, in memory, and take the statistics of their actions.

        An episode has a frame more than actions; no loss reads the action that is repeated there.
        """
        clips = [lesson.source.read(e, 0, lesson.source.lengths[e]) for e in lesson.episodes]
        actions = torch.cat([clip.actions for clip in clips])
        self.mean, self.deviation = actions.mean(0), actions.std(0)
        self.episodes = self.data.Dataset(Path("not written"), cache_in_ram=True, save_on_disk=False)
        for clip in clips:
            zeros = torch.zeros(len(clip.frames))
            obs, act = self.pictures(clip.frames), self.normal(torch.cat([clip.actions, clip.actions[-1:]]))
            parts = {"rew": zeros, "end": zeros.to(torch.uint8), "trunc": zeros.to(torch.uint8)}
            self.episodes.add_episode(self.data.Episode(obs=obs, act=act, **parts, info={}))

    @staticmethod
    def pictures(frames: UInt8[Tensor, "*b 1 H W 3"]) -> Float[Tensor, "*b 3 H W"]:
        """Frames as it reads them, from -1 to 1."""
        return rearrange(frames, "... 1 H W c -> ... c H W").float().div(255).mul(2).sub(1)

    def normal(self, actions: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions of mean 0 and deviation 1."""
        return (actions - self.mean) / self.deviation

    def arithmetic(self) -> AbstractContextManager:
        """The number format in which networks run."""
        return autocast("cpu") if self.like_ours else nullcontext()

    def learn(self) -> float:
        """A step as its trainer takes it."""
        self.denoiser.train()
        with self.arithmetic():
            loss, _ = self.denoiser(next(self.batches))
        loss.backward()
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser and schedule."""
        parts = {"denoiser": self.denoiser, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def parameters(self) -> list[Tensor]:
        """The weights."""
        return list(self.denoiser.parameters())

    def stream(self, context: Clip, *, seeds: Sequence[int]) -> "DiamondStream":
        """Begin one stream per clip; the noise comes from the global generator, which the seeds set."""
        self.denoiser.eval()
        torch.manual_seed(sum(seeds))
        return DiamondStream(self, context)


def new_denoiser(diffusion: Any, found: dict[str, Any], width: int | None, action_dim: int) -> nn.Module:
    """Its denoiser with a linear layer in place of the table of buttons."""
    inner = dict(found["inner_model"])
    if width is not None:
        inner["channels"] = [width] * len(inner["channels"])
    rest = {key: value for key, value in found.items() if key != "inner_model"}
    network = diffusion.InnerModelConfig(**inner, num_actions=1)
    denoiser = diffusion.Denoiser(diffusion.DenoiserConfig(inner_model=network, **rest))
    embedding = inner["cond_channels"] // inner["num_steps_conditioning"]
    denoiser.inner_model.act_emb = nn.Sequential(nn.Linear(action_dim, embedding), nn.Flatten())
    return denoiser


def new_sampler(kind: type, episodes: Any, batch: int, length: int) -> Any:
    """Its sampler of clips; its constructor cannot be called, since PyTorch's `Sampler` no longer takes a data set."""
    sampler = kind.__new__(kind)
    sampler.dataset, sampler.rank, sampler.world_size, sampler.sample_weights = episodes, 0, 1, None
    sampler.batch_size, sampler.seq_length, sampler.can_sample_beyond_end = batch, length, False
    return sampler


class DiamondStream:
    """Running rollouts: the last frames and actions, as its environment keeps them; `num_steps` is its own."""

    def __init__(self, rival: Diamond, context: Clip):
        self.rival = rival
        self.observation = Observation(context.frames[:, -1].clone(), context.states[:, -1].clone())
        self.obs, self.act = self.begin(context)

    def begin(self, context: Clip) -> tuple[Tensor, Tensor]:
        """The last frames, each with the action after it; the last place is empty, it is that of the next action.

        What is before the beginning of a context is zero, as its data set has it before that of an episode.
        """
        shown = self.rival.pictures(context.frames[:, -self.rival.past :])
        first = self.rival.past - shown.shape[1]
        obs = shown.new_zeros(len(shown), self.rival.past, *shown.shape[2:])
        act = shown.new_zeros(len(shown), self.rival.past, self.rival.action_dim)
        obs[:, first:] = shown
        if shown.shape[1] > 1:
            act[:, first:-1] = self.rival.normal(context.actions[:, 1 - shown.shape[1] :])
        return obs, act

    @torch.no_grad()
    def step(self, actions: Float[Tensor, "b a"], *, num_steps: int) -> Observation:
        """The next frames; the robot's state is the place to which the action sends it."""
        self.act[:, -1] = self.rival.normal(actions)
        with self.rival.arithmetic():
            frame, _ = self.rival.sample(self.obs, self.act)
        self.obs = torch.cat([self.obs[:, 1:], frame[:, None]], dim=1)
        self.act = self.act.roll(-1, dims=1)
        seen = frame.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        self.observation = Observation(rearrange(seen, "b c H W -> b 1 H W c"), actions.clone())
        return self.observation

    def reset(self, streams: Sequence[int], context: Clip, *, seeds: Sequence[int]) -> None:
        """Begin some streams anew."""
        self.obs[streams], self.act[streams] = self.begin(context)
        self.observation.frames[streams] = context.frames[:, -1]
        self.observation.states[streams] = context.states[:, -1]


def published(lesson: Lesson) -> Diamond:
    """Every setting as published for Atari; a step of 32 clips needs more than 6 GB of memory."""
    return Diamond(lesson)


def small_batch(lesson: Lesson) -> Diamond:
    """The published network, with 4 clips in a batch and a learning rate of 1e-3, so that it takes many steps."""
    return Diamond(lesson, batch=4, rate=1e-3, like_ours=True)


def narrow(lesson: Lesson) -> Diamond:
    """Half of the channels, 8 clips in a batch and a learning rate of 1e-3."""
    return Diamond(lesson, width=32, batch=8, rate=1e-3, like_ours=True)
