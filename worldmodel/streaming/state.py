"""The state of running rollouts. A `Stream` owns its state; no other object holds one."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from conditioning.trees import tree_map
from worldmodel.model.codec import Features
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
class OpenChunk:
    """The latent that each stream is in the middle of, in a world whose latents are several frames each.

    Attributes:
        features: What the decoder remembers of the latents before.
        states: Raw state at the last frame of the latent before.
        actions: Raw actions of the chunk, where they are known.
        known: How many of them are known, from 0 to one less than all; as many frames of the chunk were shown.
        skipped: Frames at the beginning of the context that were not read, since chunks end at its last frame.
    """

    features: Features
    states: Float[Tensor, "b s"] | None
    actions: Float[Tensor, "b k a"]
    known: Int[Tensor, "b"]
    skipped: Int[Tensor, "b"]


@dataclass(frozen=True)
class StreamState:
    """The state of `b` independent streams.

    Attributes:
        cache: Ring of past keys and values; written to in place.
        frame: Index of the current latent in its stream; latents are frames, but for worlds of chunks.
        latent: Latents of the current frame; with chunks, of the last frames that are finished.
        frames: Pictures of the current frame.
        reference: The first frame of the stream.
        states: The current raw proprioceptive state.
        seeds: Noise seed of each stream, on the CPU.
        view_mask: False where a camera is missing.
        chunk: The frames that are shown but not finished; `None` where every latent is one frame.
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
    chunk: OpenChunk | None = None
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

        names = ("frame", "latent", "frames", "states", "chunk")
        return replace(self, **{n: tree_map(choose, getattr(self, n), getattr(before, n)) for n in names})
