"""Named adapters: a second one beside the first, and what each leaves alone."""

import pytest
import torch
from tiny import random_clip
from tiny_backbone import pretrained_world, write_wan

from rl_posttrain.posttraining.lora import adapted, merged
from worldmodel.model.pretrained.adapters import add_adapters
from worldmodel.world_model import WorldModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan"), vae=False)


def moved(world):
    """The world with its trained weights changed."""
    with torch.no_grad():
        for parameter in world.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return world


def dreamed(world):
    clip = random_clip(world)
    return world.rollout(clip.head(2), clip.actions[:, 1:3]).frames


@pytest.mark.parametrize("first", (2, 0))
def test_a_second_adapter_begins_without_effect_and_alone_is_trained(folder, tmp_path, first):
    base = moved(pretrained_world(folder, lora_rank=first))
    before, kept = dreamed(base), {name: value.clone() for name, value in base.state_dict().items()}
    world = adapted(base, 3)
    assert torch.equal(dreamed(world), before)
    names = {name for name, parameter in world.named_parameters() if parameter.requires_grad}
    assert names and all(".posttrained0." in name for name in names)
    assert {len(p) for name, p in world.named_parameters() if "lora_A.posttrained0" in name} == {3}
    moved(world)
    assert not torch.equal(dreamed(world), before) and torch.equal(dreamed(base), before)
    assert all(torch.equal(value, kept[name]) for name, value in base.state_dict().items())
    merged(world).save(tmp_path / "world")
    loaded = WorldModel.load(tmp_path / "world")
    assert loaded.config.dit.posttrained == (3,)
    assert torch.equal(dreamed(loaded), dreamed(world))
    third = adapted(loaded, 1)
    assert third.config.dit.posttrained == (3, 1)
    assert torch.equal(dreamed(third), dreamed(world))


def test_the_embeddings_alone_can_be_posttrained(folder):
    base = pretrained_world(folder, lora_rank=2)
    base.requires_grad_(False)
    assert base.elsewhere == pretrained_world(folder, lora_rank=2).elsewhere, "what is saved is not what is trained"


def test_a_rank_of_nothing_is_refused(folder):
    world = pretrained_world(folder, lora_rank=2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        world.dit.add_adapter(0)
    with pytest.raises(ValueError, match="at least 1, got -1"):
        add_adapters(world.dit.transformer, world.dit.family.adapted, {"world": 2, "other": -1})
