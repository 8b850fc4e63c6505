"""A pretrained transformer as a world's network: is it exact, does it stay so, and how large is what is trained?

python benchmarks/backbone.py              a tiny random Wan on a CPU, minutes
python benchmarks/backbone.py --frames 60  a short look

Everything but the sizes is computed in fp32. The reference is diffusers' own forward, whose attention is given our mask
and whose positions are those of our frames.
"""

import math
from dataclasses import dataclass

import torch
import tyro
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from conditioning.conditioner import Conditioner, ConditionerConfig
from worldmodel.model.card import table
from worldmodel.model.layers import TimeStep, causal_visibility
from worldmodel.model.pretrained.adapters import adapters_of, add_adapters
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.wan import Wan
from worldmodel.training.log import CLOCKS

VIEWS, CHANNELS, SIDE, TEXT = 2, 4, 4, 32
WIDE = {"attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256}
REAL = {
    "Wan2.1-T2V-1.3B": (16, {**WIDE, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
    "Wan2.2-TI2V-5B": (48, {**WIDE, "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30}),
    "Wan2.1-T2V-14B": (16, {**WIDE, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}),
}
"""Latent channels and configuration of the real sizes."""


@dataclass(frozen=True)
class BackboneConfig:
    """What to measure."""

    frames: int = 1000
    """Frames of the long stream."""
    clip: int = 12
    """Frames of the clips that are compared."""


class Masked(WanAttnProcessor):
    """Diffusers' own attention under a mask."""

    def __init__(self, mask: Bool[Tensor, "n n"]):
        super().__init__()
        self.mask = mask

    def __call__(self, attn, hidden_states, text=None, mask=None, turn=None):
        """Self-attention with the mask, cross-attention without one."""
        return super().__call__(attn, hidden_states, text, self.mask if text is None else None, turn)


def reference(
    wan: WanTransformer3DModel,
    frames: Float[Tensor, "b t v c h w"],
    position: Int[Tensor, "t"],
    timesteps: Float[Tensor, "b t"],
    text: Float[Tensor, "k d"],
    seen: Bool[Tensor, "t t"],
) -> Float[Tensor, "b t v c h w"]:
    """Diffusers' forward over frames at these positions, the cameras side by side; each frame sees only some."""
    batch, _, views, _, height, width = frames.shape
    tokens = views * height // 2 * width // 2
    for block in wan.blocks:
        block.attn1.set_processor(Masked(seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)))
    plain = wan.rope.forward

    def rope(hidden: Tensor) -> list[Tensor]:
        length = int(position.max()) + 1
        whole = plain(hidden.new_zeros(1, 1, length, *hidden.shape[-2:]))
        placed = [rearrange(part, "1 (t n) 1 d -> t n d", t=length)[position] for part in whole]
        return [part.flatten(0, 1)[None, :, None] for part in placed]

    wan.rope.forward = rope
    tiled, levels = rearrange(frames, "b t v c h w -> b c t h (v w)"), timesteps.repeat_interleave(tokens, 1)
    out = wan(tiled, levels, repeat(text, "l d -> b l d", b=batch), return_dict=False)[0]
    wan.rope.forward = plain
    return rearrange(out, "b c t h (v w) -> b t v c h w", v=views)


def tiny(*, window: int = 8, tokens: int = 0) -> PretrainedDiT:
    """A random Wan of two blocks whose layers for actions and states are not 0."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "num_layers": 2}
    wan = WanTransformer3DModel(in_channels=CHANNELS, out_channels=CHANNELS, text_dim=TEXT, freq_dim=32, **sizes)
    config = PretrainedConfig("tiny", window=window, width=16, prompt_tokens=tokens, recompute=False)
    shape = {"num_views": VIEWS, "latent_shape": (CHANNELS, SIDE, SIDE), "state_dim": 2, "spacing": 0.4}
    dit = PretrainedDiT(config, Wan(wan), **shape).eval()
    dit.prompt.normal_()
    for layer in dit.told:
        torch.nn.init.normal_(layer.weight, std=0.1)
    return dit


class Told:
    """Frames, noise, actions and states of two clips."""

    def __init__(self, frames: int):
        torch.manual_seed(1)
        self.conditioner = Conditioner(ConditionerConfig(action_dim=3, state_dim=2, injection="adaln"), 16)
        latent = (2, frames, VIEWS, CHANNELS, SIDE, SIDE)
        self.latents, self.noisy = torch.randn(latent), torch.randn(latent)
        self.actions, self.states, self.tau = (
            torch.randn(2, frames, 3),
            torch.randn(2, frames, 2),
            torch.rand(2, frames),
        )

    def conditioning(self, part: slice = slice(None)):
        """The conditioning of some frames."""
        actions, states = self.actions[:, part], self.states[:, part]
        return self.conditioner(actions, states, actions.shape[:2])


def against_diffusers(frames: int) -> float:
    """Largest difference of the noisy pass to diffusers' forward, at first, before the action is heard."""
    dit, told = tiny(tokens=3), Told(frames)
    dit.spacing = 1.0
    for layer in dit.told:
        torch.nn.init.zeros_(layer.weight)
    tau, count = told.tau, frames
    mine, _ = dit.decode(dit.encode(told.latents, told.conditioning()), told.noisy, None, tau, tau + 0.1)
    past = causal_visibility(count, 8, tau.device).visible
    nothing, itself = torch.zeros(count, count, dtype=torch.bool), torch.eye(count, dtype=torch.bool)
    seen = torch.cat([torch.cat([past, nothing], 1), torch.cat([past, itself], 1)])
    text = torch.cat([dit.prompt, torch.zeros(512 - len(dit.prompt), TEXT)])
    position, levels = torch.arange(count), torch.cat([torch.zeros_like(tau), 1000 * (1 - tau)], 1)
    both = torch.cat([told.latents, told.noisy], 1)
    velocity = reference(dit.transformer, both, torch.cat([position, position + 1]), levels, text, seen)[:, count:]
    wanted = told.noisy - (1 - tau)[..., None, None, None, None] * velocity
    return float((mine - wanted).abs().max())


def ring_against_clip(frames: int, window: int) -> float:
    """Largest difference of a stream to the parallel pass over the same frames."""
    dit, told = tiny(window=window), Told(frames)
    level = torch.full((2, frames), 0.25)
    whole = dit.decode(dit.encode(told.latents, told.conditioning()), told.noisy, None, level, level)[0]
    cache, worst = dit.new_cache(2, torch.float32), 0.0
    for index in range(frames):
        now, frame = slice(index, index + 1), torch.full((2,), index)
        step = TimeStep(cache, frame, cache.reserve(frame))
        clean = dit.encode(told.latents[:, now], told.conditioning(now), step=step)
        part = dit.decode(clean, told.noisy[:, now], None, level[:, now], level[:, now])[0]
        worst = max(worst, float((part - whole[:, now]).abs().max()))
    return worst


def long_stream(frames: int, window: int = 4) -> tuple[float, float]:
    """Largest value in a stream that reads its own predictions, and the cost of its end over that of step 20."""
    dit, told, clock = tiny(window=window), Told(1), CLOCKS["cpu"]
    cache, latent, largest, seconds = dit.new_cache(2, torch.float32), told.latents, 0.0, []
    half = torch.full((2, 1), 0.5)
    for index in range(frames):
        begin, frame = clock(), torch.full((2,), index)
        step = TimeStep(cache, frame, cache.reserve(frame))
        clean = dit.encode(latent, told.conditioning(), step=step)
        middle = dit.decode(clean, torch.randn_like(latent), None, half * 0, half)[0]
        latent = dit.decode(clean, (middle + torch.randn_like(latent)) / 2, None, half, half)[0]
        seconds.append(clock() - begin)
        largest = max(largest, float(latent.abs().max()))
        if not math.isfinite(largest):
            return math.inf, math.nan
    count = min(20, frames // 3)
    early, late = sorted(seconds[20 : 20 + count]), sorted(seconds[-count:])
    return largest, late[count // 2] / early[count // 2]


def adapters_share(name: str, rank: int = 32) -> tuple[float, float]:
    """Weights of the transformer in thousand millions, and the share of what a world's folder holds beside it."""
    channels, sizes = REAL[name]
    with torch.device("meta"):
        family = Wan(WanTransformer3DModel(in_channels=channels, out_channels=channels, **sizes))
        base = sum(parameter.numel() for parameter in family.transformer.parameters())
        config = PretrainedConfig(name, lora_rank=rank)
        shape = {"num_views": 3, "latent_shape": (channels, 12, 20), "state_dim": 7, "spacing": 1.0}
        dit = PretrainedDiT(config, family, **shape)
        add_adapters(dit.transformer, family.adapted, adapters_of(config))
    borrowed = dit.borrowed
    return base / 1e9, sum(value.numel() for name, value in dit.state_dict().items() if name not in borrowed) / base


@torch.no_grad()
def main(config: BackboneConfig) -> None:
    """Print the table."""
    largest, ratio = long_stream(config.frames)
    rows = [
        ["noisy pass against diffusers' forward, a noise level per frame", f"{against_diffusers(6):.1e}", "1e-5"],
        ["stream against parallel pass, window 8", f"{ring_against_clip(config.clip, 8):.1e}", "1e-5"],
        ["the same, window 3, which the clip outruns", f"{ring_against_clip(config.clip, 3):.1e}", "1e-5"],
        [f"largest latent in {config.frames} frames that read themselves", f"{largest:.1f}", "finite"],
        [f"CPU time of step {config.frames} over step 20", f"{ratio:.2f}", "1.1"],
    ]
    for name in REAL:
        base, share = adapters_share(name)
        rows.append([f"{name}, {base:.2f}B weights: the folder at rank 32", f"{share:.1%}", "5%"])
    print(table(["check", "found", "at most"], rows))


if __name__ == "__main__":
    main(tyro.cli(BackboneConfig, description=__doc__))
