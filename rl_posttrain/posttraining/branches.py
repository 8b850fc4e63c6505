"""Self-generated prefixes, candidates branched from their end, and a parallel pass over them.

A stream starts from a few recorded frames, goes on for a random number of frames under the recorded
actions, and branches there: every candidate gets the same actions and other noise. The candidates
share the past, so in training it is encoded once for all of them: the frames that predictions start
from follow each other on the time axis, and each sees the past and its own branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rl_posttrain.rewards.reward import Rollout
from worldmodel.data.clip import Clip
from worldmodel.model.backbone import EncodedFrames
from worldmodel.model.layers import Visibility
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Branches:
    """`b` starts with `k` candidates of `m` generated frames each.

    Attributes:
        past: The first frame of the stream and the last ones before the current frame.
        past_states: Their states, or `None`.
        past_actions: The actions applied at them.
        index: Index in the stream of every past frame and, last, of the current one; `q = p + 1`.
        current: The frames that predictions start from: the current one, then generated ones.
        current_states: Their states, or `None`.
        actions: The actions applied at them, the same in every candidate.
        sample: The generated frames.
        sample_states: The generated states, or `None`.
        truth: The recorded frames in their place.
        truth_states: The recorded states, or `None`.
        clip: The recorded stretch, for its masks.
    """

    past: Float[Tensor, "b p v c h w"]
    past_states: Float[Tensor, "b p s"] | None
    past_actions: Float[Tensor, "b p a"] | None
    index: Int[Tensor, "q"]
    current: Float[Tensor, "b k m v c h w"]
    current_states: Float[Tensor, "b k m s"] | None
    actions: Float[Tensor, "b m a"] | None
    sample: Float[Tensor, "b k m v c h w"]
    sample_states: Float[Tensor, "b k m s"] | None
    truth: Float[Tensor, "b m v c h w"]
    truth_states: Float[Tensor, "b m s"] | None
    clip: Clip

    def rows(self, rows: slice) -> "Branches":
        """Some of the starts."""
        chosen = {name: each[rows] for name, each in vars(self).items() if isinstance(each, Tensor) and name != "index"}
        return replace(self, **chosen, clip=self.clip.rows(rows))


def generate(
    stream: Stream,
    actions: Float[Tensor, "b m a"] | None,
    *,
    num_frames: int,
    num_steps: int,
    temperature: float | None = None,
) -> tuple[Float[Tensor, "b m v c h w"], Float[Tensor, "b m s"] | None, UInt8[Tensor, "b m v H W 3"]]:
    """Let the streams go on for `num_frames` frames, at least one; arguments as in `Stream.roll`.

    Returns:
        Latents, states (`None` without any) and pictures.
    """
    options = {"num_frames": num_frames, "num_steps": num_steps, "temperature": temperature}
    seen = [(stream.latent, each.states, each.frames) for each in stream.roll(actions, **options)]
    latents, states, frames = zip(*seen, strict=True)
    stacked = None if states[0] is None else torch.stack(states, dim=1)
    return torch.stack(latents, dim=1), stacked, torch.stack(frames, dim=1)


@torch.no_grad()
def draw_branches(
    world: WorldModel,
    clip: Clip,
    *,
    context: int,
    prefix: int,
    candidates: int,
    num_steps: int,
    temperature: float,
    seeds: Sequence[int],
) -> tuple[Branches, Rollout]:
    """Roll out `prefix` frames after `context` recorded ones, then branch to the end of the clip.

    Args:
        world: The policy that generates, in evaluation mode.
        clip: `b` recorded stretches of `context + prefix + m` frames on the model's device.
        context: Recorded frames that every stream is shown, at least 1.
        prefix: Frames that the model rolls out by itself.
        candidates: Branches per start, `k`.
        num_steps: Denoising steps per frame.
        temperature: Scale of the candidates' noise; the prefix has the world model's own.
        seeds: One noise seed per start; candidate `i` gets one made of it and `i`.

    Returns:
        The branches, and the rollout of the `b k` candidates, starts outermost.

    Raises:
        ValueError: If the clip does not reach beyond the prefix.
    """
    branch = _branch_length(clip, context, prefix)
    now = context + prefix - 1  # index of the frame where the branches begin
    recorded = world.codec.encode(clip.frames)
    stream = world.stream(clip.head(context), seeds=list(seeds))
    past = _roll_prefix(stream, clip, recorded[:, :context], prefix, num_steps)
    latents, states = past.latents, past.states
    each = [i for i in range(len(recorded)) for _ in range(candidates)]
    other = [mix_seed(seed, i) for seed in seeds for i in range(candidates)]
    actions, copied = _cut(clip.actions, slice(now, None)), clip.rows(each)
    sample, sample_states, frames = generate(
        stream.branch(candidates, seeds=other),
        None if actions is None else actions[each],
        num_frames=branch,
        num_steps=num_steps,
        temperature=temperature,
    )
    sees = states is not None
    seen = sorted({0, *range(max(now - world.dit.window + 1, 0), now)} - {now})
    branches = Branches(
        past=latents[:, seen],
        past_states=_cut(states, seen),
        past_actions=_cut(clip.actions, seen),
        index=torch.tensor([*seen, now], device=latents.device),
        current=_before(latents[:, now], sample, candidates),
        current_states=_before(states[:, now], sample_states, candidates) if sees else None,
        actions=actions,
        sample=_grouped(sample, candidates),
        sample_states=_grouped(sample_states, candidates) if sees else None,
        truth=recorded[:, now + 1 :],
        truth_states=_cut(clip.states, slice(now + 1, None)),
        clip=clip,
    )
    first = torch.cat([past.picture[each][:, None], frames], dim=1)
    dreamed = None
    if states is not None:
        dreamed = torch.cat([states[each][:, now, None], sample_states], dim=1)
    reference = _from(copied, now)
    return branches, Rollout(replace(reference, frames=first, states=dreamed, successes=None), reference)


@dataclass(frozen=True)
class _Past:
    """The frames of a stream up to the one where its branches begin: the context, then the prefix.

    Attributes:
        latents: All of them.
        states: Their states, or `None`.
        picture: The last frame.
    """

    latents: Float[Tensor, "b f v c h w"]
    states: Float[Tensor, "b f s"] | None
    picture: UInt8[Tensor, "b v H W 3"]


def _roll_prefix(
    stream: Stream, clip: Clip, latents: Float[Tensor, "b t v c h w"], prefix: int, num_steps: int
) -> _Past:
    """Let the streams go on for `prefix` frames after their context, which has the given latents."""
    context = latents.shape[1]
    states, picture = _cut(clip.states, slice(context)), clip.frames[:, context - 1]
    if prefix:
        between = _cut(clip.actions, slice(context - 1, context + prefix - 1))
        new = generate(stream, between, num_frames=prefix, num_steps=num_steps)
        latents, picture = torch.cat([latents, new[0]], dim=1), new[2][:, -1]
        states = None if states is None else torch.cat([states, new[1]], dim=1)
    return _Past(latents, states, picture)


def _branch_length(clip: Clip, context: int, prefix: int) -> int:
    branch = clip.frames.shape[1] - context - prefix
    if branch < 1:
        raise ValueError(
            f"a clip of {clip.frames.shape[1]} frames leaves none to branch into after "
            f"{context} of context and a prefix of {prefix}"
        )
    return branch


def _from(clip: Clip, first: int) -> Clip:
    """What was recorded from frame `first` on, without rewards; the successes are those of its actions."""
    rest = slice(first, None)
    return replace(
        clip,
        frames=clip.frames[:, rest],
        states=_cut(clip.states, rest),
        actions=_cut(clip.actions, rest),
        rewards=None,
        successes=_cut(clip.successes, rest),
    )


def _cut(tensor: Tensor | None, frames: slice | list[int]) -> Tensor | None:
    return None if tensor is None else tensor[:, frames]


def _grouped(tensor: Tensor, candidates: int) -> Tensor:
    return rearrange(tensor, "(b k) m ... -> b k m ...", k=candidates)


def _before(current: Tensor, sample: Tensor, candidates: int) -> Tensor:
    """The frame before every generated one."""
    first = repeat(current, "b ... -> b k 1 ...", k=candidates)
    return torch.cat([first, _grouped(sample, candidates)[:, :, :-1]], dim=2)


def branch_visibility(index: Int[Tensor, "q"], candidates: int, length: int, window: int) -> Visibility:
    """Which frames each frame sees; the past comes first, then the frames of one candidate after another.

    A frame sees itself, those of its window in the past and in its own branch, and frame 0.
    """
    past = len(index) - 1
    steps = torch.arange(length, device=index.device)
    frame = torch.cat([index[:past], (index[past] + steps).repeat(candidates)])
    branch = torch.arange(candidates, device=index.device).repeat_interleave(length)
    branch = torch.cat([branch.new_full((past,), -1), branch])
    distance = frame[:, None] - frame
    related = (branch == -1) | (branch[:, None] == branch)
    return Visibility(related & (distance >= 0) & ((distance < window) | (frame == 0)), distance)


def encode_branches(world: WorldModel, branches: Branches) -> EncodedFrames:
    """Encode past and branches in one parallel pass; returns the part of the `k m` branch frames.

    The cache of a stream holds keys made from a longer past than the one here; apart from that both
    ways of encoding agree.
    """
    candidates, length = branches.current.shape[1:3]
    latents = _line(branches.past, branches.current)
    states = None
    if branches.past_states is not None:
        states = _line(branches.past_states, branches.current_states)
    actions = None
    if branches.actions is not None:
        repeated = repeat(branches.actions, "b m a -> b (k m) a", k=candidates)
        actions = torch.cat([branches.past_actions, repeated], dim=1)
    words = world.conditioner.vectors(branches.clip.task, len(latents))
    conditioning = world.conditioner(actions, states, latents.shape[:2], words=words)
    encoded = world.dit.encode(
        latents,
        conditioning,
        view_mask=branches.clip.view_mask,
        visibility=branch_visibility(branches.index, candidates, length, world.dit.window),
    )
    return encoded.tail(branches.past.shape[1])


def _line(past: Tensor, current: Tensor) -> Tensor:
    return torch.cat([past, rearrange(current, "b k m ... -> b (k m) ...")], dim=1)
