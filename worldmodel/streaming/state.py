"""The state of running rollouts. A `Stream` owns its state; no other object holds one."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from conditioning.trees import tree_map
from worldmodel.model.layers import TimeCache


@dataclass(frozen=True)
class Observation:
    """The result of one step of the world model.

    Attributes:
        frames: RGB pictures of every view, 0..255.
        states: Predicted `observation.state` in raw units; `None` when the data had none.
        task: The task of each stream in words, for judges that read it; empty if it is not known.
    """

    frames: UInt8[Tensor, "b v H W 3"]
    states: Float[Tensor, "b s"] | None
    task: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamState:
    """The state of `b` independent streams.

    Attributes:
        cache: Ring of past keys and values; written to in place.
        frame: Index of the current frame in its stream.
        latent: Latents of the current frame.
        frames: Pictures of the current frame.
        reference: The first frame of the stream.
        states: The current raw proprioceptive state.
        seeds: Noise seed of each stream, on the CPU.
        view_mask: False where a camera is missing.
        words: The vector of the task of each stream, for a world model that is told the task in words.
    """

    cache: TimeCache
    frame: Int[Tensor, "b"]
    latent: Float[Tensor, "b v c h w"]
    frames: UInt8[Tensor, "b v H W 3"]
    reference: Float[Tensor, "b v c h w"]
    states: Float[Tensor, "b s"] | None
    seeds: Int[Tensor, "b"]
    view_mask: Bool[Tensor, "b v"] | None
    words: Float[Tensor, "b q"] | None = None

    def __len__(self) -> int:
        """Number of streams."""
        return len(self.seeds)

    def select(self, streams: Int[Tensor, "k"]) -> "StreamState":
        """Copy of the given streams, in order; an index may occur more than once."""
        chosen = tree_map(lambda x: x[streams.to(x.device)], self)
        return replace(chosen, cache=self.cache.select(streams.to(self.frame.device)))

    def put(self, streams: Int[Tensor, "k"], fresh: "StreamState") -> "StreamState":
        """These streams with the given ones replaced by those of `fresh`; the cache is written to in place."""
        self.cache.put(streams.to(self.frame.device), fresh.cache)

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            return mine.index_copy(0, streams.to(mine.device), theirs.to(mine.device))

        return tree_map(put, self, fresh)

    def where(self, moving: Bool[Tensor, "b"], before: "StreamState") -> "StreamState":
        """The streams that moved, and for the others their state `before` the step.

        The cache is shared. The step wrote the keys of the frame `before` to the slot of that frame, which the next
        step of the stream writes again.
        """

        def choose(mine: Tensor, old: Tensor) -> Tensor:
            return mine.where(moving.to(mine.device).view(-1, *(1,) * (mine.dim() - 1)), old)

        parts = {"frame": self.frame, "latent": self.latent, "frames": self.frames}
        chosen = {name: choose(mine, getattr(before, name)) for name, mine in parts.items()}
        states = None if self.states is None else choose(self.states, before.states)
        return replace(self, **chosen, states=states)
