from dataclasses import replace

import pytest
import torch
from tiny import TINY_DIT, random_clip, tiny_world
from tiny_backbone import tiny_vae

from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.training.loss import (
    Draws,
    LossConfig,
    _self_forward,
    cell_weight,
    draw,
    erased_patches,
    frame_weights,
    motion_weight,
    training_loss,
)
from worldmodel.world_model import WorldModel

PLAIN = LossConfig(forward_passes=0, shortcut_interval=0, context_noise=0.0)


def draws_for(world, config, *, batch=4, frames=5, seed=0) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    return draw(world, config, batch=batch, frames=frames, generator=generator)


def test_each_frame_is_trained_at_a_step_that_a_sampler_takes():
    world = tiny_world()
    draws = draws_for(world, LossConfig(shortcut_interval=2), batch=400)
    assert (draws.tau % draws.step_size == 0).all()
    assert (draws.tau + draws.step_size <= 1).all()
    shortcut, direct = draws.step_size[::2], draws.step_size[1::2]
    assert set(shortcut.unique().tolist()) == {0.5, 1.0}
    for size in (0.25, 0.5, 1.0):
        assert 0.25 < direct.eq(size).float().mean() < 0.42
    assert set(draws.tau[1::2][direct == 0.5].unique().tolist()) == {0.0, 0.5}
    assert not draws.replaced[:, 0].any()


def test_a_monolithic_model_also_sees_finished_frames():
    world = tiny_world(dit=replace(TINY_DIT, encoder_depth=0))
    draws = draws_for(world, LossConfig(), batch=400)
    finished = draws.tau == 1
    assert 0.01 < finished.float().mean() < 0.15
    assert draws.step_size[finished].eq(0.25).all()


def test_draws_are_a_function_of_the_generator():
    world = tiny_world()
    first, second = (draws_for(world, LossConfig(), seed=3) for _ in range(2))
    assert torch.equal(first.noise, second.noise)
    assert (first.passes, first.history) == (second.passes, second.history)


def test_the_velocity_weight_turns_errors_of_the_frame_into_those_of_the_velocity():
    world = tiny_world()
    draws = draws_for(world, LossConfig(), batch=8)
    draws = replace(draws, gap=1, tau=torch.full_like(draws.tau, 0.75))
    weight, of_states = frame_weights(world, draws, LossConfig(weighting="velocity"))
    assert torch.equal(weight, torch.full_like(draws.tau, 16.0))
    assert torch.equal(of_states, torch.ones_like(draws.tau)), "a state has no noise level of its own"
    ramp, of_states = frame_weights(world, draws, LossConfig(ramp_floor=0.1))
    torch.testing.assert_close(ramp, torch.full_like(draws.tau, 0.775))
    assert of_states is ramp
    late = replace(draws, gap=3)
    weight, of_states = frame_weights(world, late, LossConfig(weighting="velocity"))
    assert weight[0].tolist() == pytest.approx([0, *[16 * 4 / 3] * 3]) and of_states[0, 0] == 0


def test_behind_a_codec_motion_is_that_of_the_fastest_pixel_of_a_cell():
    config = tiny_world(replace(TINY_DIT, patch=2), size=(32, 48)).config
    world = WorldModel(config, AutoencoderCodec(tiny_vae(halvings=3)))
    clip = random_clip(world, batch=1, frames=2)
    frames = torch.zeros_like(clip.frames)
    frames[:, 1, 0, 9, 23] = 255
    latents = torch.randn(1, 1, 2, 4, 4, 6)
    weight = cell_weight(world, replace(clip, frames=frames), latents, latents + 5, LossConfig(motion_contrast=6.0))
    wanted = torch.ones(4, 6)
    wanted[1, 2] = 6
    torch.testing.assert_close(weight[0, 0, 0, 0], wanted * 24 / 29)
    assert torch.equal(weight[0, 0, 1, 0], torch.ones(4, 6))


def test_motion_weight_of_a_hand_made_picture():
    """Four cells, one changes fully: weights 6, 1, 1, 1 over their mean 9/4."""
    current = torch.zeros(1, 1, 1, 3, 2, 2)
    target = current.clone()
    target[..., 0, 0, 0] = 0.5
    weight = motion_weight(target, current, contrast=6.0, saturation=0.1)
    expected = torch.tensor([[6.0, 1.0], [1.0, 1.0]]) * 4 / 9
    torch.testing.assert_close(weight[0, 0, 0, 0], expected)


def test_erased_patches_are_rectangles_that_stay_to_the_end():
    generator = torch.Generator().manual_seed(0)
    erased = erased_patches((200, 6, 2, 3, 16, 24), 0.25, generator)[:, :, :, 0]
    assert not erased[:, 0].any()
    assert (erased[:, 1:] >= erased[:, :-1]).all()  # once erased, always erased
    chosen = erased[:, -1].any(dim=(-2, -1))
    assert 0.18 < chosen.float().mean() < 0.32
    rows, columns = erased[:, -1].any(dim=-1), erased[:, -1].any(dim=-2)
    assert torch.equal(erased[:, -1], rows[..., None] & columns[..., None, :])
    assert rows.sum(-1).max() <= 9
    assert columns.sum(-1).max() <= 13
    begin = erased.any(dim=(-2, -1)).float().argmax(dim=1)[chosen]
    assert set(begin.tolist()) == {1, 2, 3, 4, 5}


def test_an_erased_context_shows_the_first_frame_and_the_truth_stays_the_goal():
    """An untrained model copies its context, so the loss is the change from what was erased to."""
    world = tiny_world(random=False)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, PLAIN)
    everywhere = replace(draws, erased=torch.ones_like(draws.erased))
    _, parts = training_loss(world, clip, everywhere, replace(PLAIN, motion_contrast=1.0))
    still = replace(clip, frames=clip.frames[:, :1].expand_as(clip.frames).clone())
    latents, first = (world.codec.encode(c.frames) for c in (clip, still))
    squared = (latents[:, 1:] - first[:, 1:]).square().mean(dim=(2, 3, 4, 5))
    weight = 0.9 * draws.tau + 0.4
    torch.testing.assert_close(parts["frames"], (weight * squared).mean())


def test_untrained_loss_is_the_weighted_squared_change():
    world = tiny_world(random=False)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, PLAIN)
    loss, parts = training_loss(world, clip, draws, replace(PLAIN, motion_contrast=1.0))
    latents = world.codec.encode(clip.frames)
    squared = (latents[:, 1:] - latents[:, :-1]).square().mean(dim=(2, 3, 4, 5))
    weight = 0.9 * draws.tau + 0.4
    torch.testing.assert_close(parts["frames"], (weight * squared).mean())
    moved = clip.states.diff(dim=1).square().mean(-1)
    torch.testing.assert_close(parts["states"], 0.05 * (weight * moved).mean())
    torch.testing.assert_close(loss.detach(), parts["frames"] + parts["states"])


def test_hidden_pixels_and_missing_views_carry_no_loss():
    world = tiny_world()
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, PLAIN)
    pixel_mask = torch.ones(4, 2, *world.size, dtype=torch.bool)
    pixel_mask[:, 0, :4] = False
    view_mask = torch.tensor([[True, False]] * 4)
    masked = replace(clip, pixel_mask=pixel_mask, view_mask=view_mask)
    loss = training_loss(world, masked, draws, replace(PLAIN, motion_contrast=1.0))[0]
    frames = clip.frames.clone()
    frames[:, 1:, 1] = 0
    changed = replace(masked, frames=frames)
    again = training_loss(world, changed, draws, replace(PLAIN, motion_contrast=1.0))[0]
    torch.testing.assert_close(loss, again)


@pytest.mark.parametrize("dit", [TINY_DIT, replace(TINY_DIT, encoder_depth=0, decoder_depth=2)])
def test_self_forwarding_and_shortcut_rows_train_every_weight(dit):
    world = tiny_world(dit).train()
    config = LossConfig(forward_fraction=1.0)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, config)
    assert draws.passes >= 1
    loss, _ = training_loss(world, clip, draws, config)
    loss.backward()
    without = [n for n, p in world.named_parameters() if p.grad is None]
    assert not without
    assert loss.isfinite()


def test_self_forwarded_context_differs_only_where_replaced():
    world = tiny_world()
    config = replace(PLAIN, forward_passes=1, forward_fraction=1.0)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, config)
    nothing = replace(draws, replaced=torch.zeros_like(draws.replaced))
    base = training_loss(world, clip, replace(draws, passes=0), PLAIN)[0]
    torch.testing.assert_close(training_loss(world, clip, nothing, config)[0], base)
    everything = replace(draws, replaced=torch.ones_like(draws.replaced))
    assert not torch.isclose(training_loss(world, clip, everything, config)[0], base)


def test_rows_of_a_batch_give_the_loss_of_the_batch():
    """The mean over two halves is the loss of the whole: what data parallelism needs."""
    world = tiny_world()
    config = LossConfig(shortcut_interval=2)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, config)
    whole = training_loss(world, clip, draws, config)[0]
    halves = [
        training_loss(world, clip.map(lambda x, s=s: x[s : s + 2]), draws.rows(s, s + 2), config)[0] for s in (0, 2)
    ]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_unlabelled_video_trains_too():
    world = tiny_world(action_dim=0, state_dim=0, relative_to={}).train()
    clip = random_clip(world, batch=4, frames=5)
    loss, parts = training_loss(world, clip, draws_for(world, LossConfig()), LossConfig())
    loss.backward()
    assert set(parts) == {"frames"}


def test_what_lies_in_the_gap_is_not_predicted():
    """With a gap the first prediction counts nothing, and the others keep their mean."""
    world = tiny_world(random=False)
    clip, draws = random_clip(world, batch=4, frames=5), draws_for(world, PLAIN)
    config = replace(PLAIN, motion_contrast=1.0)
    _, parts = training_loss(world, clip, replace(draws, gap=9), config)
    latents = world.codec.encode(clip.frames)
    squared = (latents[:, 1:] - latents[:, :-1]).square().mean(dim=(2, 3, 4, 5))
    weight = 0.9 * draws.tau + 0.4
    torch.testing.assert_close(parts["frames"], (weight * squared)[:, 1:].mean())


def test_gaps_stay_within_the_data_and_their_frame_is_real():
    world = tiny_world()
    gaps = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        drawn = draw(world, LossConfig(), batch=4, frames=5, generator=generator, largest_gap=3)
        gaps.add(drawn.gap)
        assert not drawn.replaced[:, : 1 if drawn.gap == 1 else 2].any()
    assert gaps == {1, 2, 3}


def test_clips_of_two_frames_have_no_gap():
    world = tiny_world()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        drawn = draw(world, LossConfig(), batch=2, frames=2, generator=generator, largest_gap=9)
        assert drawn.gap == 1


@pytest.mark.parametrize("injection", ["token", "adaln", "cross"])
@pytest.mark.parametrize("reference", [False, True])
def test_chosen_frames_are_predicted_as_among_all(injection, reference):
    world = tiny_world(replace(TINY_DIT, reference=reference), injection=injection)
    clip, config = random_clip(world, batch=3, frames=5), LossConfig()
    draws = draws_for(world, config, batch=3)
    latents, states = world.codec.encode(clip.frames)[:, :-1], clip.states[:, :-1]
    seen = torch.tensor([[True, True], [True, False], [False, True]])
    conditioning = world.conditioner(clip.actions, states, (3, 4))
    encoded = world.dit.encode(latents, conditioning, view_mask=seen)
    chosen = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=torch.bool)

    def predict(of, cut):
        noisy = cut(draws.noise), cut(draws.state_noise)
        return world.predict(of, noisy, cut(draws.tau), cut(draws.step_size))

    among_all = predict(encoded, lambda x: x)
    alone = predict(encoded.frames(chosen), lambda x: x[chosen][:, None])
    for one, every in zip(alone, among_all, strict=True):
        torch.testing.assert_close(one[:, 0], every[chosen])


@pytest.mark.parametrize("depth", [2, 0])  # 0: monolithic
def test_nothing_is_asked_of_the_frame_after_a_gap(depth):
    """The loss is the mean over the other frames, computed here from all of them."""
    world = tiny_world(replace(TINY_DIT, encoder_depth=depth, decoder_depth=2))
    clip = random_clip(world, batch=4)
    draws = replace(draws_for(world, PLAIN, frames=6), gap=7)
    draws.tau[:] = draws.step_size[:] = 0.5
    _, parts = training_loss(world, clip, draws, PLAIN)
    latents = world.codec.encode(clip.frames)
    context, target = latents[:, :-1], latents[:, 1:]
    conditioning = world.conditioner(clip.actions, clip.states[:, :-1], (4, 5))
    encoded = world.dit.encode(context, conditioning, history=draws.history, gap=7)
    moved = clip.states.diff(dim=1) / world.conditioner.displacement_scale
    noisy = (target + draws.noise) / 2, (moved + draws.state_noise) / 2
    latent, state = world.predict(encoded, noisy, draws.tau, draws.step_size)
    pixel_weight = motion_weight(target, context, PLAIN.motion_contrast, PLAIN.motion_saturation)
    error = pixel_weight * (latent - target) ** 2
    weight = 0.9 * 0.5 + PLAIN.ramp_floor
    torch.testing.assert_close(parts["frames"], weight * error[:, 1:].mean())
    squared = PLAIN.state_weight * (state - moved)[:, 1:] ** 2
    torch.testing.assert_close(parts["states"], weight * squared.mean())


@pytest.mark.parametrize("depth", [2, 0])  # 0: monolithic, which predicts frames nobody asks for
def test_replaced_context_is_what_predicting_every_frame_gives(depth):
    world = tiny_world(replace(TINY_DIT, encoder_depth=depth, decoder_depth=2))
    clip = random_clip(world, batch=3, frames=5)
    draws = draws_for(world, LossConfig(), batch=3)
    draws.replaced[:] = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    latents, states = world.codec.encode(clip.frames), clip.states[:, :-1]
    context, moved = _self_forward(world, clip, latents[:, :-1], states, draws, latents)
    conditioning = world.conditioner(clip.actions, states, (3, 4))
    encoded = world.dit.encode(latents[:, :-1], conditioning, history=draws.history, gap=draws.gap)
    at_noise, whole = torch.zeros(3, 4), torch.ones(3, 4)
    latent, step = world.predict(encoded, (draws.noise, draws.state_noise), at_noise, whole)
    chosen, kept = draws.replaced[:, 1:], ~draws.replaced
    torch.testing.assert_close(context[:, 1:][chosen], world.bound(latent)[:, :-1][chosen])
    reached = states + step * world.conditioner.displacement_scale
    torch.testing.assert_close(moved[:, 1:][chosen], reached[:, :-1][chosen])
    assert torch.equal(context[kept], latents[:, :-1][kept])
    assert torch.equal(moved[kept], states[kept])


def test_actions_are_dropped_from_a_random_frame_on():
    world = tiny_world()
    options = {"batch": 4000, "frames": 5, "generator": torch.Generator().manual_seed(0)}
    present = draw(world, LossConfig(), action_dropout=0.3, **options).present
    assert (present.int().diff(dim=1) <= 0).all(), "they do not come back"
    begin = present.sum(1)
    shares = [float((begin == frame).float().mean()) for frame in range(5)]
    assert shares == pytest.approx([0.075, 0.075, 0.075, 0.075, 0.7], abs=0.02)
    assert draws_for(world, LossConfig()).present is None


def test_dropping_actions_changes_no_other_draw():
    world = tiny_world()
    first, second = (
        draw(world, PLAIN, batch=4, frames=5, generator=torch.Generator().manual_seed(1), action_dropout=share)
        for share in (0.0, 0.5)
    )
    assert torch.equal(first.noise, second.noise) and torch.equal(first.tau, second.tau)
    assert (first.history, first.gap) == (second.history, second.gap)


def test_the_loss_reads_only_actions_that_are_present():
    world = tiny_world()
    clip = random_clip(world, batch=4, frames=5)
    config = replace(PLAIN, forward_passes=2, forward_fraction=1.0)
    draws = draws_for(world, config)
    assert draws.passes > 0 and draws.replaced.any()
    known = torch.ones(4, 4, dtype=torch.bool)
    losses = {
        name: training_loss(world, told, replace(draws, present=present), config)[0].item()
        for name, told, present in (
            ("as it was", clip, None),
            ("all known", clip, known),
            ("none known", clip, ~known),
            ("no actions", replace(clip, actions=None), None),
        )
    }
    assert losses["all known"] == losses["as it was"] != losses["none known"]
    assert losses["none known"] == pytest.approx(losses["no actions"], rel=1e-6)


def test_a_small_batch_has_a_shortcut_row_as_often_as_a_large_one():
    world = tiny_world()
    for batch, share in ((1, 0.25), (3, 0.25), (8, 0.25)):
        shortcuts = [draws_for(world, LossConfig(), batch=batch, seed=seed).shortcut for seed in range(400)]
        assert torch.stack(shortcuts).float().mean().item() == pytest.approx(share, abs=0.05)
