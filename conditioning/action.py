"""Three ways to pass the action to the network: a token, a modulation, or cross-attention.

All three share one embedding of the normalised action; `ConditionerConfig.injection` chooses the
way. Token: the action joins the space attention of its frame. AdaLN: it
scales and shifts every normalisation of its frame (DiT, 2212.09748; DWS, 2502.07825).
Cross-attention: every token of a frame attends to the action tokens of that frame, through a gate
that starts at zero (ACWM-Phys, 2605.08567).
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from conditioning.noise import FourierMLP


class ActionEmbedding(nn.Module):
    """Embed normalised actions; a learned vector stands for "no action"."""

    def __init__(self, action_dim: int, width: int):
        super().__init__()
        self.mlp = FourierMLP(max(action_dim, 1), width)
        self.no_action = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, actions: Float[Tensor, "b t a"], present: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed `actions`, and `no_action` where `present` is false."""
        return torch.where(present[..., None], self.mlp(actions), self.no_action)


def known_actions(shape: tuple[int, int], share: float, generator: torch.Generator) -> Bool[Tensor, "b t"]:
    """False on the actions that are dropped: in a share of the clips, all from some frame on.

    So the network learns what follows a frame without an action, after frames with one (this is what guidance asks
    for) and after others without.
    """
    batch, frames = shape
    dropped = torch.rand(batch, 1, generator=generator) < share
    begin = (torch.rand(batch, 1, generator=generator) * frames).floor()
    return ~(dropped & (torch.arange(frames) >= begin))


class Modulation(nn.Module):
    """Map one vector per frame to the six scales, shifts and gates of a block (AdaLN-single).

    One projection is shared by all blocks (PixArt-alpha, 2310.00426); each block adds its own bias.
    The projection starts at zero, so every block starts as plain pre-norm.
    """

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, vector: Float[Tensor, "b t d"]) -> Float[Tensor, "b t 6 d"]:
        """Project the conditioning vector of every frame."""
        return rearrange(self.project(F.silu(vector)), "b t (six d) -> b t six d", six=6)


class ActionCrossAttention(nn.Module):
    """Tokens of a frame attend to the action tokens of that frame; the output gate starts at 0."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b t n d"], action_tokens: Float[Tensor, "b t k d"]) -> Float[Tensor, "b t n d"]:
        """Return the update of `x`."""
        q = rearrange(self.query(x), "b t n (h d) -> (b t) h n d", h=self.num_heads)
        k, v = rearrange(self.key_value(action_tokens), "b t k (two h d) -> two (b t) h k d", two=2, h=self.num_heads)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.gate * self.out(rearrange(attended, "(b t) h n d -> b t n (h d)", b=len(x)))
