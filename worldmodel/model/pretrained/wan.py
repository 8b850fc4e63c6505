"""Wan 2.1 and 2.2 (2503.20314), text to video with one transformer: `diffusers.WanTransformer3DModel`."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.pretrained.attention import attend_to_text
from worldmodel.model.pretrained.family import Grid, Levels, Turn, read_transformer
from worldmodel.model.pretrained.patches import check_square, pictures, side_of
from worldmodel.model.pretrained.prompt import t5_tokens
from worldmodel.model.pretrained.rotary import axis_angles, picture_angles, rotate_neighbours

TIMESTEPS = 1000


class Wan:
    """The family of Wan; see `Family`.

    Wan has adaptive layer norms: the embedded noise level modulates its blocks by six vectors, and
    the output by two. We compute them once per frame, not once per token, which saves memory.

    Args:
        transformer: The pretrained module.
    """

    text_length = 512
    predicts: Literal["velocity", "clean"] = "velocity"
    adapted = (
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
        "attn2.to_q",
        "attn2.to_out.0",
        "ffn.net.0.proj",
        "ffn.net.2",
    )

    def __init__(self, transformer: WanTransformer3DModel):
        config = transformer.config
        self.transformer = transformer
        self.heads, self.head_width = config.num_attention_heads, config.attention_head_dim
        self.width = self.heads * self.head_width
        self.channels, self.patch = config.in_channels, config.patch_size[1]
        self.level_widths = (self.width, 6 * self.width)
        self.text_width = config.text_dim
        # Four frames per latent: 2.1 was trained on videos of 16 frames a second, 2.2 with its 48 channels on 24.
        self.position_rate = 6.0 if self.channels == 48 else 4.0

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, in order."""
        return self.transformer.blocks

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> "Wan":
        """The transformer in `folder`; see `Family.load`."""
        return cls(read_transformer(WanTransformer3DModel, folder, dtype))

    @classmethod
    def patch_of(cls, values: dict[str, Any]) -> int:
        """Latent pixels along one side of a token."""
        return side_of(values)

    @classmethod
    def check(cls, values: dict[str, Any], where: str) -> None:
        """Refuse checkpoints that continue a picture (I2V), whose input has more channels."""
        channels, out = values.get("in_channels", 16), values.get("out_channels", 16)
        if out not in (None, channels) or values.get("added_kv_proj_dim") or values.get("image_dim"):
            raise ValueError(
                f"{where}: this transformer continues a picture (in_channels {channels}, out_channels {out}); "
                "a world model needs one of text to video, such as Wan2.2-TI2V-5B"
            )
        check_square(values, where)

    def enter(self, latents: Float[Tensor, "b t v c h w"], tau: Float[Tensor, "b t"]) -> Float[Tensor, "b t v l d"]:
        """Latents to tokens, whatever their noise level."""
        batch, _, views = latents.shape[:3]
        embed = self.transformer.patch_embedding
        flat = rearrange(latents, "b t v c h w -> (b t v) c 1 h w").to(embed.weight.dtype)
        return rearrange(embed(flat), "(b t v) d 1 h w -> b t v (h w) d", b=batch, v=views)

    def levels(self, tau: Float[Tensor, "b t"]) -> Levels:
        """The embedded noise level, for the output, and its projection to six vectors, for the blocks."""
        embed = self.transformer.condition_embedder
        steps = embed.timesteps_proj(TIMESTEPS * (1 - tau.flatten()))
        time = embed.time_embedder(steps.to(embed.time_embedder.linear_1.weight.dtype))
        time = time.to(embed.time_proj.weight.dtype)
        six = embed.time_proj(embed.act_fn(time))
        return tuple(part.unflatten(0, tau.shape).float() for part in (time, six))

    def queries(
        self, block: nn.Module, x: Float[Tensor, "b t n d"], levels: Levels
    ) -> tuple[Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"]]:
        """Queries, keys and values of the first attention."""
        shift, scale, *_ = _six(block, levels)
        normed = (block.norm1(x.float()) * (1 + scale) + shift).type_as(x)
        attention = block.attn1
        q, k, v = attention.to_q(normed), attention.to_k(normed), attention.to_v(normed)
        q, k = attention.norm_q(q).type_as(v), attention.norm_k(k).type_as(v)
        return tuple(rearrange(part, "b t n (h e) -> b t n h e", h=self.heads) for part in (q, k, v))

    def after(
        self,
        block: nn.Module,
        x: Float[Tensor, "b t n d"],
        attended: Float[Tensor, "b t n h e"],
        levels: Levels,
        text: Float[Tensor, "k s"],
        bias: Float[Tensor, "k"],
    ) -> Float[Tensor, "b t n d"]:
        """The output of the first attention, the attention to the text, and the perceptron."""
        _, _, gate, shift, scale, gate2 = _six(block, levels)
        project = block.attn1.to_out[0]
        x = (x.float() + project(rearrange(attended, "b t n h e -> b t n (h e)").type_as(x)) * gate).type_as(x)
        normed = block.norm2(x.float()).type_as(x)
        x = x + self._attend_to_text(block.attn2, normed, text, bias).type_as(x)
        normed = (block.norm3(x.float()) * (1 + scale) + shift).type_as(x)
        return (x.float() + block.ffn(normed).float() * gate2).type_as(x)

    def _attend_to_text(self, attention: nn.Module, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        q, k = attention.norm_q(attention.to_q(x)), attention.norm_k(attention.to_k(text.type_as(x)))
        parts = (
            rearrange(part, "... (h e) -> ... h e", h=self.heads) for part in (q, k, attention.to_v(text.type_as(x)))
        )
        return attention.to_out[0](attend_to_text(*parts, bias))

    def leave(self, x: Float[Tensor, "b t n d"], levels: Levels, grid: Grid) -> Float[Tensor, "b t v c h w"]:
        """Tokens to velocities."""
        table = self.transformer.scale_shift_table.float()[:, None]
        shift, scale = (table + levels[0][:, :, None]).chunk(2, dim=2)
        x = (self.transformer.norm_out(x.float()) * (1 + scale) + shift).type_as(x)
        return pictures(self.transformer.proj_out(x), grid, self.patch)

    def rotation(
        self, position: Float[Tensor, "b t"], rows: int, columns: int
    ) -> tuple[Float[Tensor, "b t k"], Float[Tensor, "r c m"]]:
        """Angles of time, rows and columns, each with a share of the channels of a head."""
        side = 2 * (self.head_width // 6)
        places = picture_angles(rows, columns, (side, side), (1e4, 1e4), position.device)
        return axis_angles(position, self.head_width - 2 * side), places

    def rotate(self, x: Float[Tensor, "b t n h e"], turn: Turn) -> Float[Tensor, "b t n h e"]:
        """Rotate pairs of neighbouring channels."""
        return rotate_neighbours(x, turn)

    @classmethod
    def encode_prompt(cls, folder: Path, prompt: str) -> Float[Tensor, "k c"]:
        """The last layer of UMT5."""
        return t5_tokens(folder, prompt, cls.text_length)

    def read_text(self, text: Float[Tensor, "k c"]) -> Float[Tensor, "k s"]:
        """Project the tokens of UMT5 to the width of the transformer."""
        embed = self.transformer.condition_embedder.text_embedder
        return embed(text.to(embed.linear_1.weight.dtype))


def _six(block: nn.Module, levels: Levels) -> tuple[Float[Tensor, "b t 1 d"], ...]:
    """Shift, scale and gate of the first attention, then those of the perceptron; one of each per frame."""
    six = rearrange(levels[1], "b t (six d) -> b t six 1 d", six=6)
    return (block.scale_shift_table.float()[:, None, :, None] + six).unbind(2)
