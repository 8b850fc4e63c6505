"""What an update of the pathwise objective minimises: where gradients go, and by how much."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.pathwise.rollout import RolloutBatch, draw_rollouts
from rl_posttrain.posttraining.pathwise.terms import NO_TERMS, PictureTerms
from rl_posttrain.posttraining.pathwise.update import PathwiseUpdate, shown
from rl_posttrain.rewards.realism import Realism
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.loss import LossConfig, _self_forward, draw, encode_context, motion_weight, self_generated

LOSS = LossConfig()


def batch_of(world, *, passes=2, frames=5) -> RolloutBatch:
    clip = random_clip(world, batch=2, frames=frames)
    config = PathwiseConfig().forwarding(LOSS)
    draws = draw(world, config, batch=2, frames=frames, generator=torch.Generator().manual_seed(3))
    draws = replace(draws, history=world.dit.window, passes=passes)
    draws.replaced[:, 1:] = True
    return RolloutBatch(clip, draws, torch.arange(2 * (frames - 1) * len(world.views)))


def bright(predictions) -> torch.Tensor:
    return predictions.predicted.mean(dim=(2, 3, 4, 5))


def terms_of(weight: float, reward=bright) -> PictureTerms:
    return PictureTerms({"mine": reward}, {"mine": weight}, None)


def gradient(world, terms=NO_TERMS, batch=None, **settings) -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
    """The gradient of all weights, the loss and its parts."""
    world.zero_grad()
    update = PathwiseUpdate(world, terms, PathwiseConfig(**settings), LOSS)
    loss, parts = update(batch_of(world) if batch is None else batch)
    loss.backward()
    return flat_gradient(world), float(loss.detach()), parts


def flat_gradient(world) -> torch.Tensor:
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in world.parameters()]
    return torch.cat([grad.flatten() for grad in grads])


def regression(world, batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`predicted_from` the contexts that the model generates."""
    latents = world.codec.encode(batch.clip.frames)
    return predicted_from(world, batch, *self_generated(world, batch.clip, latents, batch.draws))


def predicted_from(world, batch, context, states) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The predicted pictures, and the weighted squared errors of pictures and states, written out."""
    clip, draws = batch.clip, batch.draws
    latents = world.codec.encode(clip.frames)
    encoded = encode_context(world, clip, context, states, draws)
    none, whole = torch.zeros(context.shape[:2]), torch.ones(context.shape[:2])
    pictures, moved = world.predict(encoded, (draws.noise, draws.state_noise), none, whole)
    weight = motion_weight(latents[:, 1:], context.detach(), LOSS.motion_contrast, LOSS.motion_saturation)
    goal = (clip.states[:, 1:] - states) / world.conditioner.displacement_scale
    error = (weight * (pictures - latents[:, 1:]) ** 2).mean()
    return pictures, error, LOSS.state_weight * ((moved - goal) ** 2).mean()


def test_without_rewards_it_is_the_regression_on_its_own_rollouts():
    world = tiny_world()
    found, value, parts = gradient(world)
    world.zero_grad()
    _, error, states = regression(world, batch_of(world))
    (error + states).backward()
    torch.testing.assert_close(found, flat_gradient(world), atol=1e-5, rtol=1e-4)
    assert value == pytest.approx(float((error + states).detach()), rel=1e-5)
    assert parts["regression"] == pytest.approx(float(error.detach()), rel=1e-5)
    assert parts["states"] == pytest.approx(float(states.detach()), rel=1e-5)


def test_the_predictions_start_from_its_own_rollouts():
    world = tiny_world()
    once, _, _ = gradient(world, batch=batch_of(world, passes=1))
    twice, _, _ = gradient(world, batch=batch_of(world, passes=2))
    assert (once - twice).norm() > 1e-3 * once.norm()


def test_a_reward_raises_itself_and_is_scaled_to_the_regression():
    world = tiny_world()
    batch = batch_of(world)
    plain, _, _ = gradient(world, batch=batch)
    pulled, _, parts = gradient(world, terms_of(1.0), batch)
    pushed, _, _ = gradient(world, terms_of(-1.0), batch)
    tenfold, _, _ = gradient(world, terms_of(1.0, lambda seen: 10 * bright(seen)), batch)
    torch.testing.assert_close(pulled - plain, plain - pushed, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(pulled, tenfold, atol=1e-4, rtol=1e-3)
    world.zero_grad()
    pictures, error, _ = regression(world, batch)
    assert parts["reward.mine"] == pytest.approx(float(pictures.detach().mean()), abs=1e-5)
    slopes = torch.autograd.grad(error, pictures, retain_graph=True)[0]
    mean = torch.full_like(pictures, 1 / pictures.numel())
    scaled = torch.stack([slopes[:, :, v].norm() / mean[:, :, v].norm() for v in range(2)])
    (-(scaled * pictures.mean(dim=(0, 1, 3, 4, 5))).sum() / 2).backward()
    torch.testing.assert_close(pulled - plain, flat_gradient(world), atol=1e-4, rtol=1e-3)


def test_deeper_gradients_pass_through_the_rollout_and_recomputing_changes_nothing():
    world = tiny_world()
    batch = batch_of(world, passes=2)
    shallow, value, _ = gradient(world, batch=batch, depth=1)
    deep, same, _ = gradient(world, batch=batch, depth=2)
    deeper, _, _ = gradient(world, batch=batch, depth=3)
    assert same == pytest.approx(value, rel=1e-5)
    assert (deep - shallow).norm() > 1e-3 * shallow.norm()
    assert (deeper - deep).norm() > 1e-4 * deep.norm()
    world.zero_grad()
    clip, draws = batch.clip, batch.draws
    latents, states = world.codec.encode(clip.frames), clip.states[:, :-1]
    context = latents[:, :-1]
    for differentiated in (False, True):
        with torch.set_grad_enabled(differentiated):
            context, states = _self_forward(world, clip, context, states, draws, latents)
    _, error, moved = predicted_from(world, batch, context, states)
    (error + moved).backward()
    torch.testing.assert_close(deep, flat_gradient(world), atol=1e-5, rtol=1e-3)


def test_missing_cameras_and_padding_pull_nowhere():
    world = tiny_world()
    batch = batch_of(world)
    pixel_mask = torch.ones(2, 2, *world.size, dtype=torch.bool)
    pixel_mask[:, :, :4] = False
    padded = replace(batch, clip=replace(batch.clip, pixel_mask=pixel_mask))
    alone = replace(batch, clip=replace(batch.clip, view_mask=torch.tensor([[True, False], [True, False]])))
    for given, outside in ((padded, (..., slice(4), slice(None))), (alone, (slice(None), slice(None), 1))):
        pulled, _, _ = gradient(world, terms_of(1.0, lambda seen, at=outside: seen.predicted[at].mean()), given)
        plain, _, _ = gradient(world, batch=given)
        torch.testing.assert_close(pulled, plain)


def test_the_discriminator_learns_while_it_rewards():
    world = tiny_world()
    batch = batch_of(world)
    plain, _, _ = gradient(world, batch=batch)
    realism = Realism()
    found, _, parts = gradient(world, PictureTerms({"realism": realism}, {"realism": 0.5}, realism), batch)
    assert (found - plain).norm() > 1e-3 * plain.norm()
    assert {"discriminator", "told_apart", "reward.realism"} <= set(parts)
    learned = torch.cat([weight.grad.flatten() for weight in realism.parameters()])
    assert learned.norm() > 0
    alone = Realism()
    alone.load_state_dict(realism.state_dict())
    with torch.no_grad():
        latents = world.codec.encode(batch.clip.frames)
        context, states = self_generated(world, batch.clip, latents, batch.draws)
        pictures, _, _ = regression(world, batch)
    seen = shown(world, batch, latents[:, 1:], context, states, (pictures, torch.zeros_like(states)))
    alone.loss(seen).backward()
    expected = torch.cat([weight.grad.flatten() for weight in alone.parameters()])
    torch.testing.assert_close(learned, expected, atol=1e-5, rtol=1e-3)


def test_the_rewards_see_states_as_the_model_predicted_them():
    world = tiny_world()
    batch = batch_of(world)
    seen = []
    gradient(world, terms_of(1.0, lambda given: seen.append(given) or bright(given)), batch)
    latents = world.codec.encode(batch.clip.frames)
    with torch.no_grad():
        context, _ = self_generated(world, batch.clip, latents, batch.draws)
    torch.testing.assert_close(seen[0].context, context)
    torch.testing.assert_close(seen[0].recorded, latents[:, 1:])
    torch.testing.assert_close(seen[0].states[:, 0], batch.clip.states[:, 0])
    assert seen[0].states.shape == batch.clip.states.shape
    assert not torch.equal(seen[0].states, batch.clip.states)
    assert rearrange(seen[0].predicted, "b t v c h w -> (b t v) c h w").shape[0] == len(batch.picked)


def test_an_update_depends_on_its_number_and_seed_alone():
    world, source = tiny_world(), EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))
    config = PathwiseConfig(pictures=3, replaced=1.0, passes=3, frames=5)

    def drawn(step: int, seed: int = 0) -> RolloutBatch:
        generator = torch.Generator().manual_seed(10 * step + seed)
        sizes = {"batch": 2, "seed": seed, "step": step, "generator": generator}
        return draw_rollouts(world, source, range(2), config, LOSS, **sizes)

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(one.clip.frames, same.clip.frames)
    assert torch.equal(one.draws.noise, same.draws.noise)
    assert not torch.equal(one.clip.frames, other.clip.frames)
    assert one.draws.replaced[:, 1:].all()
    assert not one.draws.replaced[:, 0].any()
    assert {drawn(step).draws.passes for step in range(12)} == {1, 2, 3}
    assert (one.draws.history, one.draws.gap) == (world.dit.window, 1)
    assert len(set(one.picked.tolist())) == 3
    assert max(max(drawn(step).picked.tolist()) for step in range(12)) > 4 * 2  # of all clips, frames and cameras
