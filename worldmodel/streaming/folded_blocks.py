"""Transformer blocks for streaming, in whose weights all constants are folded.

A stream runs the same weights at the same few noise levels, over and over. So the scale, shift and
gate of a noise level are multiplied into the normalisation and into the output matrices of their
block, and the scale of the attention into the queries. The weights are cast once instead of at
every call, in the layout that the hardware reads (`worldmodel.streaming.onednn`).
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.layers import Block, SpaceAttention, TimeAttention, TimeCache
from worldmodel.streaming.onednn import Matrix


def matrix(linear: nn.Module) -> Float[Tensor, "o i"]:
    """The matrix of a linear map, also of one that is wrapped in an adapter."""
    inputs = linear.in_features
    device = next(linear.parameters()).device
    basis = torch.eye(inputs + 1, inputs, device=device)  # the last row is the zero vector
    images = linear(basis)
    return (images[:-1] - images[-1]).t()


class FoldedTime:
    """Time attention of one streamed frame; see `TimeAttention.stream`.

    Args:
        norm: The normalisation before it.
        attention: The module to fold.
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
        self,
        x: Float[Tensor, "b n d"],
        cache: TimeCache,
        layer: int,
        slot: Int[Tensor, "b"],
        distance: Int[Tensor, "b k"],
    ) -> Float[Tensor, "b n d"]:
        """`x` plus its attention to the cache; writes its keys and values to the cache first.

        `distance` indexes the learned bias: the distance in frames up to the window, and one more
        for empty slots. Every pair of token and head is treated as a head with a single query.
        """
        qkv = self.qkv(F.layer_norm(x, self.width, *self.norm))
        heads = self.bias.shape[1]
        q, key, value = rearrange(qkv, "b n (three h d) -> three b n h d", three=3, h=heads)
        cache.write(layer, slot, key, value)
        held = cache.keys[layer], cache.values[layer]
        y = attend_in_time(q, *held, self.bias[distance], fused=x.device.type != "cpu")
        return self.out.plus(rearrange(y, "b n h d -> b n (h d)"), x)


class FoldedBlock:
    """Space attention and MLP of one frame, with time attention before them where the block has it.

    Args:
        block: The block to fold; it has no cross-attention.
        dtype: Number format of the weights.
        modulation: Scales, shifts and gates of one noise level. If a modulated block is folded
            without them, they are passed with every call; this is so for actions by AdaLN.
    """

    def __init__(self, block: Block, dtype: torch.dtype, modulation: Float[Tensor, "6 d"] | None = None):
        assert block.cross is None and (block.modulated or modulation is None)
        self.modulation_bias, gates = None, (1.0, 1.0)
        if modulation is not None:
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation + block.modulation_bias
            norms = [(1 + scale1, shift1), (1 + scale2, shift2)]
            gates = (1 + gate1, 1 + gate2)
        elif block.modulated:
            self.modulation_bias = block.modulation_bias.detach()
            unit = torch.ones_like(self.modulation_bias[0])
            norms = [(unit, torch.zeros_like(unit))] * 2
        else:
            norms = [(n.weight, n.bias) for n in (block.space_norm, block.mlp_norm)]
        self.space_norm, self.mlp_norm = (tuple(p.to(dtype) for p in pair) for pair in norms)
        self.width = (len(norms[0][0]),)
        self.num_heads = block.space.num_heads
        self.qkv, self.out = _attention_weights(block.space, gates[0], dtype)
        self.up = Matrix(matrix(block.mlp[0]).to(dtype))
        self.down = _gated(block.mlp[-1], gates[1], dtype)
        self.time = FoldedTime(block.time_norm, block.time, dtype) if block.time else None

    def __call__(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b n"] | None,
        modulation: Float[Tensor, "b 6 d"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`x` after space attention and MLP; tokens where `mask` is false are not attended to.

        `modulation` holds that of every stream, where it was not folded.
        """
        if self.modulation_bias is None:
            x = self.out.plus(self._attend(F.layer_norm(x, self.width, *self.space_norm), mask), x)
            return self.down.plus(self.up.gelu(F.layer_norm(x, self.width, *self.mlp_norm)), x)
        terms = (modulation + self.modulation_bias).to(x.dtype)[:, :, None]
        shift1, scale1, gate1, shift2, scale2, gate2 = terms.unbind(1)
        told = F.layer_norm(x, self.width, *self.space_norm) * (1 + scale1) + shift1
        x = x + (1 + gate1) * self.out(self._attend(told, mask))
        told = F.layer_norm(x, self.width, *self.mlp_norm) * (1 + scale2) + shift2
        return x + (1 + gate2) * self.down(self.up.gelu(told))

    def _attend(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None) -> Float[Tensor, "b n d"]:
        """The attention of every token, before the output matrix."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        y = attend_in_space(q, k, v, mask, fused=x.device.type != "cpu")
        return rearrange(y, "b h n d -> b n (h d)")


def attend_in_time(
    q: Float[Tensor, "b n h d"],
    keys: Float[Tensor, "b k n h d"],
    values: Float[Tensor, "b k n h d"],
    bias: Float[Tensor, "b k h"],
    *,
    fused: bool,
) -> Float[Tensor, "b n h d"]:
    """Attention of every token and head to its own past; the queries are scaled already.

    Each has a single query, so the products are element-wise: on a CPU this takes a third of the
    time of the `fused` kernel, which is made for many queries. It is computed stream by stream, so
    that the products stay in the processor's cache.
    """
    if not fused:
        attended = torch.empty_like(q)
        for row, query in enumerate(q):
            weights = ((query * keys[row]).sum(-1) + bias[row][:, None]).softmax(0)
            torch.sum(weights[..., None] * values[row], 0, out=attended[row])
        return attended
    tokens, heads = q.shape[1:3]
    bias = repeat(bias, "b k h -> b (n h) 1 k", n=tokens)
    keys, values = (rearrange(held, "b k n h d -> b (n h) k d") for held in (keys, values))
    q = rearrange(q, "b n h d -> b (n h) 1 d")
    y = F.scaled_dot_product_attention(q, keys, values, attn_mask=bias, scale=1.0)
    return rearrange(y, "b (n h) 1 d -> b n h d", h=heads)


def attend_in_space(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    mask: Bool[Tensor, "b n"] | None,
    *,
    fused: bool,
) -> Float[Tensor, "b h n d"]:
    """Attention of every token to those of its frame; the queries are scaled already.

    Without `fused` it is three plain operators, which take half the time on a CPU without matrix units.
    """
    if fused:
        seen = None if mask is None else mask[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
    streams = len(q)
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)).unflatten(0, (streams, -1))
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return torch.bmm(scores.softmax(-1).flatten(0, 1), v).unflatten(0, (streams, -1))


def _attention_weights(
    attention: SpaceAttention | TimeAttention, gate: Tensor | float, dtype: torch.dtype
) -> tuple[Matrix, Matrix]:
    """The matrix of queries, scaled, keys and values; and the gated output matrix."""
    qkv = matrix(attention.qkv).clone()
    width = len(qkv) // 3
    qkv[:width] *= (width // attention.num_heads) ** -0.5
    return Matrix(qkv.to(dtype)), _gated(attention.out, gate, dtype)


def _gated(linear: nn.Module, gate: Tensor | float, dtype: torch.dtype) -> Matrix:
    """The matrix of a linear map whose outputs are multiplied by `gate`."""
    return Matrix((matrix(linear).t() * gate).t().to(dtype))
