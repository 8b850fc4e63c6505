"""Low-rank adapters: what they train, what they share, and the plain world model made of them."""

import pytest
import torch
from tiny import random_clip, tiny_world

from rl_posttrain.posttraining.branches import draw_branches, encode_branches
from rl_posttrain.posttraining.lora import adapted, conditioned, merged, twin
from rl_posttrain.posttraining.train import follow
from worldmodel.world_model import WorldModel


def trained(world: WorldModel) -> dict[str, torch.Tensor]:
    return {name: p for name, p in world.named_parameters() if p.requires_grad}


def disturb(world: WorldModel) -> WorldModel:
    with torch.no_grad():
        for parameter in trained(world).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return world


def dreamed(world: WorldModel) -> torch.Tensor:
    clip = random_clip(world)
    return world.rollout(clip.head(2), clip.actions[:, 1:]).frames


def encoded(world: WorldModel) -> torch.Tensor:
    clip = random_clip(world, frames=5)
    branches, _ = draw_branches(
        tiny_world(), clip, context=2, prefix=1, candidates=2, num_steps=2, temperature=1.0, seeds=[1, 2]
    )
    return encode_branches(world, branches).tokens


def test_adapters_are_trained_alone_and_begin_without_effect():
    base = tiny_world()
    world = adapted(base, 2)
    names = set(trained(world))
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    # three blocks of space attention and MLP with two linear maps each, one of time attention
    assert len(names) == 2 * (3 * 4 + 2)
    shapes = [tuple(p.shape) for name, p in trained(world).items() if "0.space.qkv" in name]
    assert shapes == [(2, 32), (96, 2)] * 2, "the first blocks of encoder and decoder"
    assert torch.equal(dreamed(world), dreamed(base))
    disturb(world)
    assert not torch.equal(dreamed(world), dreamed(base))


def test_the_embedding_of_actions_and_states_can_be_trained_alone():
    base = tiny_world()
    world = conditioned(base)
    names = set(trained(world))
    assert names == {f"conditioner.{name}" for name, _ in base.conditioner.named_parameters()}
    assert not trained(base)
    before = dreamed(base)
    disturb(world)
    assert not torch.equal(dreamed(world), before)
    assert torch.equal(dreamed(base), before)


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_is_positive(rank):
    with pytest.raises(ValueError, match=f"at least 1, got {rank}"):
        adapted(tiny_world(), rank)


def test_a_step_changes_adapters_only():
    base = tiny_world()
    before = {name: p.clone() for name, p in base.named_parameters()}
    world = adapted(base, 2)
    adapters = {name: p.detach().clone() for name, p in trained(world).items()}
    optimizer = torch.optim.AdamW(trained(world).values(), lr=1e-2)
    for _ in range(2):
        encoded(world).square().mean().backward()
        optimizer.step()
    grown = [name for name, p in trained(world).items() if not torch.equal(p, adapters[name])]
    assert len(grown) == 2 * 10, "both matrices of all maps of the encoder"
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None


def test_merging_keeps_what_is_computed_and_leaves_no_trace(tmp_path):
    base = tiny_world()
    world = disturb(adapted(base, 2))
    plain = merged(world)
    assert set(plain.state_dict()) == set(base.state_dict())
    torch.testing.assert_close(encoded(plain), encoded(world), atol=1e-5, rtol=1e-5)
    assert (dreamed(plain).int() - dreamed(world).int()).abs().max() <= 1
    assert (encoded(plain) - encoded(base)).abs().max() > 0.1
    assert torch.equal(encoded(base), encoded(tiny_world())), "the weights are not merged in place"
    plain.save(tmp_path)
    loaded = WorldModel.load(tmp_path)
    torch.testing.assert_close(encoded(loaded), encoded(plain))


def test_twins_share_what_is_frozen_and_the_old_one_follows():
    world = adapted(tiny_world(), 2)
    old = twin(world)
    pairs = list(zip(world.named_parameters(), old.parameters(), strict=True))
    assert all((mine is other) != mine.requires_grad for (_, mine), other in pairs)
    disturb(world)
    name = "dit.encoder.0.mlp.0.lora_B.default.weight"
    follow(old, world, 0.75)
    torch.testing.assert_close(trained(old)[name], 0.25 * trained(world)[name])
    before = dreamed(old)
    follow(old, world, 0.0)
    assert not torch.equal(dreamed(old), before), "what streams is built anew"
    assert torch.equal(dreamed(old), dreamed(world))
