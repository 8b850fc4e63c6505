"""Running rollouts as one object: one action in, one frame out, at constant cost per frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from conditioning.trees import tree_map
from worldmodel.data.clip import Clip
from worldmodel.streaming.advance import Parts, Seeds, advance, begin, check_actions, seed_of_each
from worldmodel.streaming.chunks import Foreseen, foresee
from worldmodel.streaming.state import Observation, StreamState


@dataclass(frozen=True)
class Snapshot:
    """A saved state of a `Stream`; made by `Stream.snapshot`, it never changes."""

    state: StreamState


class Stream:
    """`b` rollouts side by side, each with its own noise seed; made by `WorldModel.stream`.

    ```python
    stream = world.stream(context, seeds=0)        # a Clip of a few real frames per stream
    observation = stream.step(actions)             # one action in, one frame out
    for observation in stream.roll(many_actions):  # or several, one after the other
        ...
    ```

    The frames of a stream depend only on its context, its seed and its actions, not on the other
    streams of the batch (up to rounding in a batch of another size). A stream always computes with
    the current weights and the current sampler of its world model.

    Args:
        world: The world model.
        state: Where the streams begin; the stream owns it from now on.
    """

    def __init__(self, world: Parts, state: StreamState):
        self.world, self._state = world, state
        self._foreseen: Foreseen | None = None

    def __len__(self) -> int:
        """Number of streams."""
        return len(self._state)

    @property
    def observation(self) -> Observation:
        """The current frame of each stream: the last frame of the context, or the last dreamed one."""
        return Observation(self._state.frames, self._state.states)

    @property
    def latent(self) -> Float[Tensor, "b v c h w"]:
        """The latents of the current frame of each stream."""
        return self._state.latent

    @property
    def frame(self) -> Int[Tensor, "b"]:
        """Index of the current frame in each stream; the first frame of the context is 0."""
        chunk = self._state.chunk
        if chunk is None:
            return self._state.frame
        return chunk.skipped + self._state.frame * chunk.actions.shape[1] + chunk.known

    @torch.no_grad()
    def step(
        self,
        actions: Float[Tensor, "b a"] | None,
        *,
        num_steps: int = 2,
        temperature: float | None = None,
        moving: Bool[Tensor, "b"] | None = None,
        ahead: Float[Tensor, "b m a"] | None = None,
    ) -> Observation:
        """Apply one raw action per stream and dream the next frame.

        In a world whose latents are several frames each, the frame is a preview until the actions of
        all frames of its latent are known; see `worldmodel.streaming.chunks`. If you know the next actions, pass them
        as `ahead`: a latent is then denoised once for all of them, and not in every step.

        Args:
            actions: Raw actions, `action_dim * stride` wide; `None` means no action is known.
            num_steps: Denoising steps, a power of two up to `config.max_steps`.
            temperature: Scale of the noise; `config.temperature` when not given.
            moving: Which streams go on; the others are computed with them, whatever their actions, and stay where
                they are. All go on by default.
            ahead: Actions that will follow, as far as they are known; without meaning where a latent is one frame. If
                another action comes, the latent is denoised again, with that one.

        Raises:
            ValueError: The actions do not fit, they are `None` and the world model was never
                trained without actions, or `num_steps` is not one of the allowed numbers.
        """
        self._check(actions, num_steps)
        before = self._state
        temperature = self.world.config.temperature if temperature is None else temperature
        if before.chunk is None:
            after = self._advance(before, actions, num_steps, temperature)
        else:
            after = self._advance_chunk(actions, ahead, num_steps, temperature)
        self._state = after if moving is None else after.where(moving, before)
        return self.observation

    def roll(
        self,
        actions: Float[Tensor, "b m a"] | None,
        *,
        num_frames: int | None = None,
        num_steps: int = 2,
        temperature: float | None = None,
    ) -> Iterator[Observation]:
        """Dream one frame for each of `m` actions; a frame is computed when the iterator reaches it.

        A world whose latents are several frames each denoises a latent once for all its frames, which
        takes as long as one `step`.

        Args:
            actions: Raw actions in order; `None` means that none is known.
            num_frames: How many frames, where `actions` is `None`.
            num_steps: As in `step`.
            temperature: As in `step`.
        """
        for index in range(num_frames if actions is None else actions.shape[1]):
            action, ahead = (None, None) if actions is None else (actions[:, index], actions[:, index + 1 :])
            yield self.step(action, num_steps=num_steps, temperature=temperature, ahead=ahead)

    @torch.no_grad()
    def jump(
        self, actions: Float[Tensor, "b m a"], *, num_steps: int = 2, temperature: float | None = None
    ) -> Observation:
        """Dream one frame for each of `m` actions, and show only the last one, which is the last one of `roll`.

        Where an autoencoder decodes each frame by itself, those between are not decoded; with a large one that is most
        of the time. An autoencoder of chunks decodes all of them, since each needs those before it.

        Args:
            actions: Raw actions in order, at least one.
            num_steps: As in `step`.
            temperature: As in `step`.

        Raises:
            ValueError: As `step`.
        """
        options = {"num_steps": num_steps, "temperature": temperature}
        if self._state.chunk is not None:
            return list(self.roll(actions, **options))[-1]
        *between, last = actions.unbind(1)
        self._check(last, num_steps)
        temperature = self.world.config.temperature if temperature is None else temperature
        state = self._state
        for action in between:
            state = self._advance(state, action, num_steps, temperature, shown=False)
        self._state = self._advance(state, last, num_steps, temperature)
        return self.observation

    @torch.no_grad()
    def reset(self, streams: Int[Tensor, "k"] | Sequence[int], context: Clip, *, seeds: Seeds = 0) -> None:
        """Begin the given streams anew, one from each clip of `context`; the others go on.

        Raises:
            ValueError: There is no such stream, one occurs twice, or streams, clips and seeds
                differ in number.
        """
        index = torch.as_tensor(streams, dtype=torch.long).cpu()
        wrong = [i for i in index.tolist() if not 0 <= i < len(self)]
        if wrong or len(index.unique()) < len(index):
            raise ValueError(f"streams are different numbers within 0..{len(self) - 1}, got {index.tolist()}")
        if len(index) != len(context.frames):
            raise ValueError(f"got {len(context.frames)} contexts for {len(index)} streams")
        self._state = self._state.put(index, begin(self.world, context, seeds))

    def branch(self, k: int = 1, *, seeds: Sequence[int] | None = None) -> "Stream":
        """`b k` new streams that continue from here, the branches of a stream side by side; these do not change.

        Args:
            k: Branches per stream; 1 makes a copy.
            seeds: Noise seeds of the branches. By default each has the seed of its stream, so that
                the branches of a stream differ by their actions alone.

        Raises:
            ValueError: `k` is not positive, or there is not one seed for each branch.
        """
        if k < 1:
            raise ValueError(f"a stream has at least 1 branch, got k={k}")
        state = self._state.select(torch.arange(len(self)).repeat_interleave(k))
        if seeds is not None:
            state = replace(state, seeds=seed_of_each(seeds, len(state)))
        return type(self)(self.world, state)

    def snapshot(self, streams: Sequence[int] | None = None) -> Snapshot:
        """Save the state of the given streams, of all by default, for `restore`."""
        return Snapshot(self._state.select(torch.tensor(range(len(self)) if streams is None else streams)))

    def restore(self, snapshot: Snapshot, streams: Sequence[int] | None = None) -> None:
        """Put the given streams, all by default, into the states of a snapshot, in order; it can be used again.

        The snapshot may be of another `Stream` of the same world model.

        Raises:
            ValueError: It was taken of another number of streams.
        """
        places = range(len(self)) if streams is None else streams
        if len(snapshot.state) != len(places):
            raise ValueError(f"the snapshot is of {len(snapshot.state)} streams, these are {len(places)}")
        self._state = self._state.put(torch.tensor(places), snapshot.state)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that the streams hold."""
        cache = self._state.cache
        tensors = [cache.keys, cache.values, cache.frame_index]
        tree_map(lambda tensor: tensors.append(tensor) or tensor, self._state)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _check(self, actions: Tensor | None, num_steps: int) -> None:
        world = self.world
        if num_steps not in world.allowed_steps:
            raise ValueError(f"num_steps={num_steps}, expected one of {world.allowed_steps}")
        check_actions(world, self._state, actions)

    def _advance(
        self, state: StreamState, actions: Tensor | None, num_steps: int, temperature: float, *, shown: bool = True
    ) -> StreamState:
        return advance(self.world, state, actions, num_steps, temperature, shown=shown)

    def _advance_chunk(self, actions: Tensor, ahead: Tensor | None, num_steps: int, temperature: float) -> StreamState:
        self._foreseen = foresee(self.world, self._state, self._foreseen, actions, ahead, num_steps, temperature)
        return self._foreseen.states[0]
