"""Cosmos-Predict2 and 2.5 (2511.00062), video to world: `diffusers.CosmosTransformer3DModel`."""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import CosmosTransformer3DModel
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.files import read_object
from worldmodel.model.pretrained.attention import attend_to_text
from worldmodel.model.pretrained.family import Grid, Levels, Turn, read_transformer
from worldmodel.model.pretrained.patches import check_square, pictures, side_of
from worldmodel.model.pretrained.prompt import qwen_tokens, t5_tokens
from worldmodel.model.pretrained.rotary import axis_angles, picture_angles, rotate_halves


class Cosmos:
    """The family of Cosmos-Predict2 and 2.5; see `Family`.

    Every block has three adaptive layer norms. Each reads the embedded noise level through two layers of its own and
    adds three vectors that all blocks share, so there are two places at which an action can enter. Frames that are
    known are marked in one more channel, and are given a noise level of their own, that of the pretraining.

    Its denoiser is scaled as in EDM (2206.00364): with `s = sigma / (1 + sigma)`, it reads the noisy frame times
    `1 - s` and returns `F`, where the clean frame is `(1 - s) noisy - s F`. The first product is our `z` at noise level
    `tau = 1 - s`, so `F` is the velocity.

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
        "ff.net.0.proj",
        "ff.net.2",
    )

    def __init__(self, transformer: CosmosTransformer3DModel):
        config = transformer.config
        self.transformer = transformer
        self.heads, self.head_width = config.num_attention_heads, config.attention_head_dim
        self.width = self.heads * self.head_width
        self.channels, self.patch = config.out_channels, config.patch_size[1]
        self.level_widths = (self.width, 3 * self.width)
        newer = config.use_crossattn_projection
        self.text_width = config.crossattn_proj_in_channels if newer else config.text_embed_dim
        # Four frames per latent. Predict2 counts 24 positions per second of video, whatever its rate; 2.5 counts
        # latents of videos of 16 frames a second.
        self.position_rate = 4.0 if newer else 6.0
        self.known_level = 0.1 if newer else 1e-4

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, in order."""
        return self.transformer.transformer_blocks

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> "Cosmos":
        """The transformer in `folder`; see `Family.load`."""
        return cls(read_transformer(CosmosTransformer3DModel, folder, dtype))

    @classmethod
    def patch_of(cls, values: dict[str, Any]) -> int:
        """Latent pixels along one side of a token."""
        return side_of(values)

    @classmethod
    def check(cls, values: dict[str, Any], where: str) -> None:
        """Refuse Cosmos 1, whose positions are learned, and transformers of pictures or with further inputs."""
        channels, out = values.get("in_channels", 16), values.get("out_channels", 16)
        wanted = "a world model needs one of video to world, such as Cosmos-Predict2.5-2B"
        if values.get("extra_pos_embed_type", "learnable") is not None:
            raise ValueError(f"{where}: this is Cosmos 1, with learned positions (extra_pos_embed_type); {wanted}")
        if channels != out + 1:
            raise ValueError(f"{where}: in_channels is {channels} and out_channels {out}, expected one more; {wanted}")
        if values.get("img_context_dim_in") or values.get("controlnet_block_every_n"):
            raise ValueError(f"{where}: this transformer also reads other pictures (transfer); {wanted}")
        check_square(values, where)

    def enter(self, latents: Float[Tensor, "b t v c h w"], tau: Float[Tensor, "b t"]) -> Float[Tensor, "b t v l d"]:
        """Latents to tokens; one channel marks known frames, and another one marks padding, of which there is none."""
        batch, _, views = latents.shape[:3]
        embed = self.transformer.patch_embed
        mark = rearrange(known(tau), "b t -> b t 1 1 1 1").to(latents.dtype).expand_as(latents[:, :, :, :1])
        marked = [latents, mark]
        if self.transformer.config.concat_padding_mask:
            marked.append(torch.zeros_like(mark))
        flat = rearrange(torch.cat(marked, dim=3), "b t v c h w -> (b t v) c 1 h w").to(embed.proj.weight.dtype)
        return rearrange(embed(flat), "(b t v) 1 h w d -> b t v (h w) d", b=batch, v=views)

    def levels(self, tau: Float[Tensor, "b t"]) -> Levels:
        """The embedded noise level, and its projection to the three vectors that all blocks share."""
        embed = self.transformer.time_embed
        level = torch.where(known(tau), self.known_level, 1 - tau)
        steps = embed.time_proj(level.flatten()).to(embed.t_embedder.linear_1.weight.dtype)
        return tuple(part.unflatten(0, tau.shape).float() for part in (embed.norm(steps), embed.t_embedder(steps)))

    def queries(
        self, block: nn.Module, x: Float[Tensor, "b t n d"], levels: Levels
    ) -> tuple[Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"], Float[Tensor, "b t n h e"]]:
        """Queries, keys and values of the first attention."""
        normed, _ = _modulated(block.norm1, x, levels)
        attention = block.attn1
        q, k, v = (
            rearrange(project(normed), "b t n (h e) -> b t n h e", h=self.heads)
            for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attention.norm_q(q).type_as(v), attention.norm_k(k).type_as(v), v

    def after(
        self,
        block: nn.Module,
        x: Float[Tensor, "b t n d"],
        attended: Float[Tensor, "b t n h e"],
        levels: Levels,
        text: Float[Tensor, "k s"],
        bias: Float[Tensor, "k"],
    ) -> Float[Tensor, "b t n d"]:
        """The output of the first attention, the attention to the text, and the perceptron, each behind a gate."""
        _, gate = _modulated(block.norm1, x, levels)
        project = block.attn1.to_out[0]
        x = (x.float() + project(rearrange(attended, "b t n h e -> b t n (h e)").type_as(x)) * gate).type_as(x)
        normed, gate = _modulated(block.norm2, x, levels)
        x = (x.float() + self._attend_to_text(block.attn2, normed, text, bias) * gate).type_as(x)
        normed, gate = _modulated(block.norm3, x, levels)
        return (x.float() + block.ff(normed) * gate).type_as(x)

    def _attend_to_text(self, attention: nn.Module, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        text = text.type_as(x)
        q, k, v = attention.to_q(x), attention.to_k(text), attention.to_v(text)
        q, k, v = (rearrange(part, "... (h e) -> ... h e", h=self.heads) for part in (q, k, v))
        return attention.to_out[0](attend_to_text(attention.norm_q(q), attention.norm_k(k), v, bias))

    def leave(self, x: Float[Tensor, "b t n d"], levels: Levels, grid: Grid) -> Float[Tensor, "b t v c h w"]:
        """Tokens to velocities."""
        norm, shared = self.transformer.norm_out, levels[1][..., : 2 * self.width]
        shift, scale = _modulation(norm, levels[0], shared).chunk(2, dim=-1)
        x = (norm.norm(x.float()) * (1 + scale) + shift).type_as(x)
        return pictures(self.transformer.proj_out(x), grid, self.patch)

    def rotation(
        self, position: Float[Tensor, "b t"], rows: int, columns: int
    ) -> tuple[Float[Tensor, "b t k"], Float[Tensor, "r c m"]]:
        """Angles of time, rows and columns, slower than usual where the config stretches an axis (`rope_scale`)."""
        rope = self.transformer.rope
        bases = (1e4 * rope.h_ntk_factor, 1e4 * rope.w_ntk_factor)
        places = picture_angles(rows, columns, (rope.dim_h, rope.dim_w), bases, position.device)
        return axis_angles(position, rope.dim_t, 1e4 * rope.t_ntk_factor), places

    def rotate(self, x: Float[Tensor, "b t n h e"], turn: Turn) -> Float[Tensor, "b t n h e"]:
        """Rotate the channels of the first half with those of the second."""
        return rotate_halves(x, turn)

    @classmethod
    def encode_prompt(cls, folder: Path, prompt: str) -> Float[Tensor, "k c"]:
        """The last layer of T5, which Predict2 reads; for 2.5 all layers of Qwen2.5-VL.

        Raises:
            ValueError: The text encoder is another one.
        """
        named = read_object(folder / "text_encoder" / "config.json").get("architectures") or ["T5EncoderModel"]
        readers = {"T5EncoderModel": t5_tokens, "Qwen2_5_VLForConditionalGeneration": qwen_tokens}
        if named[0] not in readers:
            known = " and ".join(readers)
            raise ValueError(f"--prompt {prompt!r}: the text encoder is {named[0]}, known are {known}")
        return readers[named[0]](folder, prompt, cls.text_length)

    def read_text(self, text: Float[Tensor, "k c"]) -> Float[Tensor, "k s"]:
        """Project the tokens of 2.5's text encoder, all layers of it; those of 2 are what the blocks read."""
        if not self.transformer.config.use_crossattn_projection:
            return text
        project = self.transformer.crossattn_proj
        return project(text.to(project[0].weight.dtype))


def known(tau: Float[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """Which frames are no guesses but finished ones: those without noise."""
    return tau == 1


def _modulation(norm: nn.Module, embedded: Tensor, shared: Tensor) -> Float[Tensor, "b t 1 d"]:
    """The vectors of one adaptive layer norm, per frame: its own from the noise level, plus the shared ones."""
    own = norm.linear_2(norm.linear_1(norm.activation(embedded).to(norm.linear_1.weight.dtype)))
    return (own.float() + shared)[:, :, None]


def _modulated(norm: nn.Module, x: Tensor, levels: Levels) -> tuple[Tensor, Float[Tensor, "b t 1 d"]]:
    """The tokens after an adaptive layer norm, and the gate of what follows."""
    shift, scale, gate = _modulation(norm, *levels).chunk(3, dim=-1)
    return (norm.norm(x.float()) * (1 + scale) + shift).type_as(x), gate
