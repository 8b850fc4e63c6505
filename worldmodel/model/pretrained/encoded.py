"""What the clean pass of a pretrained transformer leaves for the noisy one."""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from conditioning.conditioner import Conditioning
from conditioning.trees import tree_map
from worldmodel.model.layers import TimeStep


@dataclass(frozen=True)
class Clean:
    """The clean pass over the frames of clips, or over the current frame of streams.

    Attributes:
        past: Keys and values of every block, rotated to the frames' positions; empty while streaming, where the
            cache holds them.
        frame: Number of frames since the first one of the stream, of every frame whose successor is predicted.
        visible: Which of all frames each of these sees; only itself while streaming.
        conditioning: As given to the clean pass.
        mask: False on tokens of missing views.
        step: The place in the cache while streaming.
    """

    past: tuple[tuple[Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"]], ...]
    frame: Int[Tensor, "f q"]
    visible: Bool[Tensor, "q t"]
    conditioning: Conditioning
    mask: Bool[Tensor, "b n"] | None
    step: TimeStep | None

    def rows(self, rows: Bool[Tensor, "b"]) -> "Clean":
        """The part for the selected clips of the batch; not while streaming."""
        return replace(
            self,
            past=tree_map(lambda part: part[rows], self.past),
            conditioning=self.conditioning.rows(rows),
            mask=None if self.mask is None else self.mask[rows],
        )

    def frames(self, chosen: Bool[Tensor, "b t"]) -> "Clean":
        """Never called: the noisy pass reads the past, so its backbone is not `separable`."""
        raise AssertionError("frames of a backbone that is not separable")

    def tail(self, start: int) -> "Clean":
        """The part for predictions from frame `start` on; the keys of all frames stay."""
        return replace(
            self, frame=self.frame[:, start:], visible=self.visible[start:], conditioning=self.conditioning.tail(start)
        )
