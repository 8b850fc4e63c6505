"""The two passes against diffusers' own forward, and the ring against the parallel pass."""

import pytest
import torch
from diffusers_forward import velocities
from tiny_backbone import CHANNELS, TEXT, tiny_cosmos, tiny_wan

from conditioning.conditioner import Conditioner, ConditionerConfig
from worldmodel.model.backbone import Backbone, EncodedFrames
from worldmodel.model.layers import TimeStep, causal_visibility
from worldmodel.model.precision import full_precision
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.cosmos import Cosmos
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.wan import Wan

B, T, V, H, W = 2, 4, 2, 4, 4
STATES = 2


KINDS = {
    "wan": lambda: Wan(tiny_wan()),
    "cosmos 2": lambda: Cosmos(tiny_cosmos()),
    "cosmos 2.5": lambda: Cosmos(tiny_cosmos(newer=True)),
}
"""Families; the text of 2 is read as it is, that of 2.5 is projected."""


@pytest.fixture(params=KINDS)
def backbone(request):
    """Makes backbones of one family."""

    def make(*, window=8, views=V, states=STATES, moved=False, spacing=1.0, tokens=0):
        config = PretrainedConfig("tiny", window=window, width=16, prompt_tokens=tokens, recompute=False)
        shape = {"num_views": views, "latent_shape": (CHANNELS, H, W), "state_dim": states, "spacing": spacing}
        dit = PretrainedDiT(config, KINDS[request.param](), **shape).eval()
        if moved:
            with torch.no_grad():
                for layer in dit.told:
                    layer.weight.normal_(std=0.1)
        return dit

    return make


@pytest.fixture
def told():
    torch.manual_seed(1)
    return Conditioner(ConditionerConfig(action_dim=3, state_dim=STATES, injection="adaln"), 16)


def drawn(frames=T, views=V):
    generator = torch.Generator().manual_seed(2)
    shape = (B, frames, views, CHANNELS, H, W)
    latents, noisy = (torch.randn(shape, generator=generator) for _ in range(2))
    actions = torch.randn(B, frames, 3, generator=generator)
    return latents, noisy, actions, torch.randn(B, frames, STATES, generator=generator)


@torch.no_grad()
def test_both_passes_equal_the_forward_of_diffusers_with_a_noise_level_per_frame(backbone, told):
    """Clean frames are at positions 0, 1, ..., noisy ones at 1, 2, ...; each sees the clean past and itself."""
    latents, noisy, actions, states = drawn()
    dit = backbone(tokens=3)
    dit.spacing = 1.5 if dit.family.position_rate == 6 else 1.0  # Predict2 at 16 frames a second
    dit.prompt.normal_(generator=torch.Generator().manual_seed(3))
    conditioning = told(actions, states, (B, T))
    tau = torch.rand(B, T, generator=torch.Generator().manual_seed(4))
    mine, _ = dit.decode(dit.encode(latents, conditioning), noisy, None, tau, tau + 0.1)
    past = causal_visibility(T, 8, latents.device).visible
    seen = torch.cat([torch.cat([past, torch.zeros(T, T).bool()], 1), torch.cat([past, torch.eye(T).bool()], 1)])
    text = torch.cat([dit.prompt, torch.zeros(512 - 3, TEXT)])
    position = torch.cat([torch.arange(T), torch.arange(T) + 1])
    levels, frames = torch.cat([torch.ones(B, T), tau], 1), torch.cat([latents, noisy], 1)
    velocity = velocities(dit.transformer, frames, levels, position, text, seen)[:, T:]
    wanted = noisy - (1 - tau)[..., None, None, None, None] * velocity
    assert wanted.std() > 0.1
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_at_first_nothing_depends_on_action_state_or_step_size(backbone, told):
    latents, noisy, actions, states = drawn()
    dit, level = backbone(), torch.full((B, T), 0.25)
    seen = []
    for shift, step in ((0, 0.25), (5, 0.25), (0, 1.0)):
        conditioning = told(actions + shift, states + shift, (B, T))
        seen.append(dit.decode(dit.encode(latents, conditioning), noisy, None, level, level * 0 + step))
    for latent, moved in seen:
        assert torch.equal(latent, seen[0][0])
        assert torch.equal(moved, torch.zeros(B, T, STATES))


def test_the_loss_moves_action_state_and_attention_once_the_new_layers_have_moved(backbone, told):
    latents, noisy, actions, states = drawn()
    dit, level = backbone(moved=True), torch.full((B, T), 0.25)
    latent, moved = dit.decode(dit.encode(latents, told(actions, states, (B, T))), noisy, None, level, level)
    (latent.square().mean() + moved.sum()).backward()
    for weight in (
        told.action.mlp.layers[0].weight,
        told.state.layers[0].weight,
        dit.family.blocks[0].attn1.to_k.weight,
        dit.view_embedding,
        dit.state_out[-1].weight,
    ):
        assert weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_frame_sees_its_past_only(backbone, told):
    latents, noisy, actions, states = drawn()
    dit, level = backbone(moved=True), torch.full((B, T), 0.25)
    first = dit.decode(dit.encode(latents, told(actions, states, (B, T))), noisy, None, level, level)[0]
    for changed in (latents, noisy, actions):
        changed[:, 2] += 1
    second = dit.decode(dit.encode(latents, told(actions, states, (B, T))), noisy, None, level, level)[0]
    assert torch.equal(first[:, :2], second[:, :2])
    assert ((first - second)[:, 2:].abs().amax((0, 2, 3, 4, 5)) > 1e-4).all()


def streamed(dit, told, latents, noisy, actions, states, level, mask=None, cache=None, first=0):
    """Predictions one frame at a time."""
    cache = dit.new_cache(len(latents), torch.float32) if cache is None else cache
    parts = []
    for index in range(first, latents.shape[1]):
        now, frame = slice(index, index + 1), torch.full((len(latents),), index)
        step = TimeStep(cache, frame, cache.reserve(frame))
        conditioning = told(actions[:, now], states[:, now], (len(latents), 1))
        clean = dit.encode(latents[:, now], conditioning, view_mask=mask, step=step)
        for _ in range(2):  # a second denoising step leaves no trace
            part = dit.decode(clean, noisy[:, now], None, level[:, now], level[:, now])
        parts.append(part)
    return tuple(torch.cat(each, 1) for each in zip(*parts, strict=True))


@pytest.mark.parametrize("window", (8, 3))
@pytest.mark.parametrize("missing", (False, True))
@torch.no_grad()
def test_the_ring_equals_the_parallel_pass_within_and_beyond_the_window(backbone, told, window, missing):
    frames = 8
    latents, noisy, actions, states = drawn(frames)
    dit, level = backbone(window=window, moved=True, spacing=0.4), torch.full((B, frames), 0.25)
    mask = torch.tensor([[True, True], [True, False]]) if missing else None
    clean = dit.encode(latents, told(actions, states, (B, frames)), view_mask=mask)
    whole = dit.decode(clean, noisy, None, level, level)
    ring = streamed(dit, told, latents, noisy, actions, states, level, mask)
    for one, other in zip(whole, ring, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_gap_in_a_clip_is_the_stream_that_has_gone_on_for_as_long(backbone, told):
    """The second frame of the clip is frame 7 of a stream whose frames 1 to 6 have left the window."""
    gap, window = 7, 2
    latents, noisy, actions, states = drawn(3)
    dit, level = backbone(window=window, moved=True), torch.full((B, 3), 0.25)
    clean = dit.encode(latents, told(actions, states, (B, 3)), gap=gap)
    whole = dit.decode(clean, noisy, None, level, level)[0]
    cache = dit.new_cache(B, torch.float32)
    for index, frame in enumerate((0, gap, gap + 1)):
        now, number = slice(index, index + 1), torch.full((B,), frame)
        step = TimeStep(cache, number, cache.reserve(number))
        one = dit.encode(latents[:, now], told(actions[:, now], states[:, now], (B, 1)), step=step)
        part = dit.decode(one, noisy[:, now], None, level[:, now], level[:, now])[0]
        torch.testing.assert_close(whole[:, now], part, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_first_frame_is_never_more_than_a_window_behind(backbone, told):
    latents, noisy, actions, states = drawn(3)
    dit, level, seen = backbone(window=2, moved=True), torch.full((B, 3), 0.25), []
    for gap in (2, 7, 40):
        clean = dit.encode(latents, told(actions, states, (B, 3)), gap=gap)
        seen.append(dit.decode(clean, noisy, None, level, level)[0][:, 1:])
    torch.testing.assert_close(seen[1], seen[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)
    near = dit.encode(latents, told(actions, states, (B, 3)), gap=1)
    assert not torch.allclose(dit.decode(near, noisy, None, level, level)[0][:, 1:], seen[1], atol=1e-3)


@torch.no_grad()
def test_a_missing_view_is_not_seen(backbone, told):
    latents, noisy, actions, states = drawn()
    dit, level = backbone(moved=True), torch.full((B, T), 0.25)
    mask, seen = torch.tensor([[True, False]] * B), []
    for shift in (0, 1):
        latents[:, :, 1] += shift
        noisy[:, :, 1] += shift
        clean = dit.encode(latents, told(actions, states, (B, T)), view_mask=mask)
        seen.append(dit.decode(clean, noisy, None, level, level)[0][:, :, 0])
    assert torch.equal(*seen)


@torch.no_grad()
def test_rows_and_tail_are_the_parts_of_the_whole(backbone, told):
    frames, window = 6, 2
    latents, noisy, actions, states = drawn(frames)
    dit, level = backbone(window=window, moved=True), torch.full((B, frames), 0.25)
    clean = dit.encode(latents, told(actions, states, (B, frames)))
    assert isinstance(clean, EncodedFrames)
    assert isinstance(dit, Backbone)
    whole, moved = dit.decode(clean, noisy, None, level, level)
    late = dit.decode(clean.tail(4), noisy[:, 4:], None, level[:, 4:], level[:, 4:])
    torch.testing.assert_close(late, (whole[:, 4:], moved[:, 4:]), atol=1e-6, rtol=0)
    rows = torch.tensor([False, True])
    one = dit.decode(clean.rows(rows), noisy[rows], None, level[rows], level[rows])
    torch.testing.assert_close(one, (whole[rows], moved[rows]), atol=1e-6, rtol=0)


def test_recomputed_blocks_have_the_same_gradients(backbone, told):
    latents, noisy, actions, states = drawn()
    level, found = torch.full((B, T), 0.25), []
    for recompute in (False, True):
        dit = backbone(moved=True, window=2)
        dit.config = PretrainedConfig("tiny", window=2, width=16, recompute=recompute)
        torch.manual_seed(0)
        for layer in dit.told:
            torch.nn.init.normal_(layer.weight, std=0.1)
        dit.decode(dit.encode(latents, told(actions, states, (B, T))), noisy, None, level, level)[0].sum().backward()
        found.append(dit.family.blocks[0].attn1.to_q.weight.grad)
    torch.testing.assert_close(*found)


@torch.no_grad()
def test_positions_may_lie_between_whole_numbers(backbone, told):
    """A spacing of 1 is tested against diffusers; with half of it, frames 0 and 2 are as far apart as 0 and 1 were."""
    latents, noisy, actions, states = drawn(3)
    level = torch.full((B, 3), 0.25)
    halves = backbone(spacing=0.5)._turn(torch.tensor([[0, 2]]))
    wholes = backbone()._turn(torch.tensor([[0, 1]]))
    torch.testing.assert_close(halves, wholes)
    with full_precision():
        seen = [backbone(spacing=s, moved=True) for s in (1.0, 0.5)]
        first, second = (
            d.decode(d.encode(latents, told(actions, states, (B, 3))), noisy, None, level, level)[0] for d in seen
        )
    assert not torch.allclose(first, second, atol=1e-3)
