"""Transformer blocks with all that is constant while streaming folded into their weights.

A stream runs the same weights at the same few noise levels, over and over. So the scale, shift and
gate of a noise level go into the normalisation and into the output matrices of their block, the
scale of the attention goes into the queries, and the weights are cast once instead of at every
call. What is left works in place on the tokens of one frame.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.layers import Block, SpaceAttention, TimeAttention, TimeCache


def matrix(linear: nn.Module) -> Float[Tensor, "o i"]:
    """The matrix that a linear map applies; also of one that is wrapped in an adapter."""
    inputs = linear.in_features
    device = next(linear.parameters()).device
    basis = torch.eye(inputs + 1, inputs, device=device)  # the last row is the zero vector
    images = linear(basis)
    return (images[:-1] - images[-1]).t()


class FoldedTime:
    """Time attention of one streamed frame; see `TimeAttention.stream`.

    Args:
        norm: The normalisation before it.
        attention: What is folded.
        dtype: Number format of the weights.
    """

    def __init__(self, norm: nn.LayerNorm, attention: TimeAttention, dtype: torch.dtype):
        self.width = (len(norm.weight),)
        self.norm = norm.weight.to(dtype), norm.bias.to(dtype)
        self.qkv, self.out = _attention_weights(attention, 1.0, dtype)
        unseen = torch.full_like(attention.distance_bias[:, :1], float("-inf"))
        self.bias = torch.cat([attention.distance_bias, unseen], dim=1).t().to(dtype).contiguous()
        self.window = attention.window

    def __call__(
        self, x: Float[Tensor, "b n d"], cache: TimeCache, layer: int, slot: Int[Tensor, "b"],
        distance: Int[Tensor, "b k"],
    ) -> None:  # fmt: skip
        """Add to `x`, and write its keys and values to the cache.

        `distance` indexes the learned bias: the distance in frames up to the window, and one more
        for empty slots.
        """
        qkv = F.linear(F.layer_norm(x, self.width, *self.norm), self.qkv)
        q, key, value = rearrange(
            qkv, "b n (three h d) -> three b n h d", three=3, h=self.bias.shape[1]
        )
        cache.write(layer, slot, key, value)
        scores = (cache.keys[layer] * q[:, None]).sum(-1) + self.bias[distance][:, :, None]
        weights = scores.softmax(1)[..., None]
        y = (weights * cache.values[layer]).sum(1)
        x.view(-1, *self.width).addmm_(y.view(-1, *self.width), self.out)


class FoldedBlock:
    """Space attention and MLP of one frame, with time attention before them where the block has it.

    Args:
        block: What is folded; without cross-attention.
        dtype: Number format of the weights.
        modulation: Scales, shifts and gates of one noise level, for a modulated block.
    """

    def __init__(
        self, block: Block, dtype: torch.dtype, modulation: Float[Tensor, "6 d"] | None = None
    ):
        assert block.cross is None and block.modulated == (modulation is not None)
        if modulation is None:
            norms = [(n.weight, n.bias) for n in (block.space_norm, block.mlp_norm)]
            gates = (1.0, 1.0)
        else:
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation + block.modulation_bias
            norms = [(1 + scale1, shift1), (1 + scale2, shift2)]
            gates = (1 + gate1, 1 + gate2)
        self.space_norm, self.mlp_norm = (tuple(p.to(dtype) for p in pair) for pair in norms)
        self.width = (len(norms[0][0]),)
        self.num_heads = block.space.num_heads
        self.qkv, self.out = _attention_weights(block.space, gates[0], dtype)
        self.up = matrix(block.mlp[0]).to(dtype).contiguous()
        self.down = (matrix(block.mlp[-1]).t() * gates[1]).to(dtype)
        self.time = FoldedTime(block.time_norm, block.time, dtype) if block.time else None

    def __call__(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None) -> None:
        """Add space attention and MLP to `x`; tokens where `mask` is false are not attended to."""
        flat = x.view(-1, *self.width)
        q, k, v = rearrange(
            F.linear(F.layer_norm(x, self.width, *self.space_norm), self.qkv),
            "b n (three h d) -> three b h n d", three=3, h=self.num_heads,
        ).contiguous()  # fmt: skip
        y = rearrange(_attend(q, k, v, mask), "b h n d -> (b n) (h d)")
        flat.addmm_(y, self.out)
        hidden = F.gelu(F.linear(F.layer_norm(flat, self.width, *self.mlp_norm), self.up))
        flat.addmm_(hidden, self.down)


def _attention_weights(
    attention: SpaceAttention | TimeAttention, gate: Tensor | float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The matrix of queries, scaled, keys and values; and the gated output matrix, transposed."""
    qkv = matrix(attention.qkv).clone()
    width = len(qkv) // 3
    qkv[:width] *= (width // attention.num_heads) ** -0.5
    return qkv.to(dtype).contiguous(), (matrix(attention.out).t() * gate).to(dtype).contiguous()


def _attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"],
    mask: Bool[Tensor, "b n"] | None,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """Softmax attention of queries that are scaled already; see `worldmodel.layers.attend`."""
    if q.device.type != "cpu":
        seen = None if mask is None else mask[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
    scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    if mask is not None:
        hidden = ~mask.repeat_interleave(q.shape[1], dim=0)[:, None]
        scores.masked_fill_(hidden, float("-inf"))
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view_as(q)
