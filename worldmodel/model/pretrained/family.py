"""The interface between `PretrainedDiT` and one class of pretrained transformers: a family in a page.

A frame at noise level tau is `z = tau x + (1 - tau) noise`; `1 - tau` is what diffusers calls sigma.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Levels = tuple[Float[Tensor, "b t _"], ...]
"""What modulates the blocks: one vector per frame for each entry of `Family.level_widths`."""
Grid = tuple[int, int, int]
"""Views, rows and columns of the tokens of one frame."""
Turn = tuple[Float[Tensor, "#b #t #n p"], Float[Tensor, "#b #t #n p"]]
"""Cosine and sine of the rotary angle of every token and pair of channels."""


@runtime_checkable
class Family(Protocol):
    """How the transformers of one class are called. A block is `queries`, an attention that is ours, and `after`.

    Attributes:
        transformer: The pretrained module.
        blocks: Its blocks, in order.
        width: Width of a token.
        heads, head_width: Of the attention over frames and space.
        channels: Channels of a latent.
        patch: Latent pixels along one side of a token.
        level_widths: Widths of the vectors that `levels` returns.
        text_width, text_length: Width of a text token, and the number of tokens to which a prompt is padded with zeros.
        position_rate: Positions on the time axis per second of video, in the pretraining.
        predicts: What `leave` returns: the velocity `noise - x`, or the clean latent.
        adapted: Ends of the names of the linear layers that get adapters.
    """

    transformer: nn.Module
    blocks: Sequence[nn.Module]
    width: int
    heads: int
    head_width: int
    channels: int
    patch: int
    level_widths: tuple[int, ...]
    text_width: int
    text_length: int
    position_rate: float
    predicts: Literal["velocity", "clean"]
    adapted: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> "Family":
        """The transformer in `folder`, with its weights in `dtype`."""
        ...

    @classmethod
    def patch_of(cls, values: dict[str, Any]) -> int:
        """The `patch` that a `config.json` of the class describes."""
        ...

    @classmethod
    def check(cls, values: dict[str, Any], where: str) -> None:
        """Refuse a `config.json` of the class that is of another kind than what a world model needs.

        Raises:
            ValueError: One line that names the field, and says what to take in its place.
        """
        ...

    def enter(self, latents: Float[Tensor, "b t v c h w"], tau: Float[Tensor, "b t"]) -> Float[Tensor, "b t v l d"]:
        """Latents to tokens, every frame and view by itself; frames at noise level 1 are those of the clean pass."""
        ...

    def levels(self, tau: Float[Tensor, "b t"]) -> Levels:
        """Embed noise levels; `PretrainedDiT` adds the action to the result."""
        ...

    def queries(
        self, block: nn.Module, x: Float[Tensor, "b t n d"], levels: Levels
    ) -> tuple[Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"]]:
        """Queries, keys and values of a block's attention over frames and space, before they are rotated."""
        ...

    def after(
        self,
        block: nn.Module,
        x: Float[Tensor, "b t n d"],
        attended: Float[Tensor, "b t n h e"],
        levels: Levels,
        text: Float[Tensor, "k s"],
        bias: Float[Tensor, "k"],
    ) -> Float[Tensor, "b t n d"]:
        """The rest of the block: the output of the attention, the text, whose scores get `bias`, and the perceptron."""
        ...

    def leave(self, x: Float[Tensor, "b t n d"], levels: Levels, grid: Grid) -> Float[Tensor, "b t v c h w"]:
        """Tokens to the prediction that `predicts` names."""
        ...

    def rotation(
        self, position: Float[Tensor, "b t"], rows: int, columns: int
    ) -> tuple[Float[Tensor, "b t k"], Float[Tensor, "r c m"]]:
        """Rotary angles of the positions on the time axis, and of the places of a picture.

        Together they are as many as there are pairs of channels in a head, time first.
        """
        ...

    def rotate(self, x: Float[Tensor, "b t n h e"], turn: Turn) -> Float[Tensor, "b t n h e"]:
        """Rotate every pair of channels of queries or keys by its angle."""
        ...

    @classmethod
    def encode_prompt(cls, folder: Path, prompt: str) -> Float[Tensor, "k c"]:
        """The tokens of a prompt, without padding, by the pipeline's own tokenizer and text encoder."""
        ...

    def read_text(self, text: Float[Tensor, "k c"]) -> Float[Tensor, "k s"]:
        """Tokens of the text encoder to what the blocks attend to."""
        ...


def read_transformer(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A transformer of a class of diffusers from a folder on this disk; a few parts stay in fp32 where it says so."""
    return kind.from_pretrained(str(folder), torch_dtype=dtype, use_safetensors=True, local_files_only=True)
