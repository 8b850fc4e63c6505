"""Which pipelines are taken, which are refused in one line, and what is saved of them."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from hub_server import running_hub, take_for_the_hub
from tiny import random_clip
from tiny_backbone import pretrained_world, write_wan

from worldmodel import files
from worldmodel.model.hub import check_backbone
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.source import check_size, open_source
from worldmodel.training.loss import LossConfig, draw, training_loss
from worldmodel.world_model import WorldModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan"))


def hashes(folder):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def trained(world):
    """One optimiser step, so that no adapter is 0 any more."""
    clip = random_clip(world, frames=4)
    draws = draw(world, LossConfig(), batch=2, frames=4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD([p for p in world.parameters() if p.requires_grad], 0.1)
    training_loss(world.train(), clip, draws, LossConfig())[0].backward()
    optimizer.step()
    optimizer.zero_grad()
    training_loss(world, clip, draws, LossConfig())[0].backward()
    optimizer.step()
    return world.eval()


def test_a_stream_that_is_reset_is_a_fresh_one_and_its_neighbour_goes_on(tmp_path):
    world = trained(pretrained_world(write_wan(tmp_path, vae=False), lora_rank=2, window=2))
    clip, actions = random_clip(world, frames=3), torch.rand(2, 6, 2)

    def steps(stream, count):
        return torch.stack([stream.step(actions[:, i]).frames for i in range(count)])

    reset, alone, fresh = (world.stream(clip, seeds=[5, 6]) for _ in range(3))
    steps(reset, 4)
    steps(alone, 4)
    reset.reset([1], clip.rows([1]), seeds=[6])
    seen, went_on, begun = steps(reset, 3), steps(alone, 3), steps(fresh, 3)
    assert torch.equal(seen[:, 1], begun[:, 1]) and torch.equal(seen[:, 0], went_on[:, 0])
    assert not torch.equal(seen[:, 1], went_on[:, 1])


@pytest.mark.parametrize("rank", (2, 0))
def test_a_world_is_loaded_bit_for_bit_and_the_base_is_not_touched(folder, tmp_path, rank):
    before = hashes(folder)
    world = pretrained_world(folder, lora_rank=rank)
    base = {n: p.clone() for n, p in world.dit.transformer.named_parameters() if "lora" not in n}
    trained(world)
    world.save(tmp_path / "world")
    loaded = WorldModel.load(tmp_path / "world")
    assert hashes(folder) == before
    mine, theirs = world.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    moved = [n for n, p in world.dit.transformer.named_parameters() if n in base and not torch.equal(p, base[n])]
    assert bool(moved) == (rank == 0)
    clip, actions = random_clip(world, frames=2), torch.rand(2, 2, 2)
    assert torch.equal(world.rollout(clip, actions).frames, loaded.rollout(clip, actions).frames)


def test_the_folder_holds_what_was_trained_and_neither_base_nor_codec(folder, tmp_path):
    world = pretrained_world(folder, lora_rank=2)
    world.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["weights.safetensors", "world.json"]
    said = json.loads((tmp_path / "world.json").read_text())
    assert said["config"]["dit"]["backbone"] == str(folder)
    assert said["codec"] == "backbone"
    elsewhere = world.elsewhere
    kept = {name for name in world.state_dict() if not name.startswith(elsewhere)}
    named = {name for name, p in world.named_parameters() if p.requires_grad}
    assert named <= kept
    assert not any("base_layer" in name or "patch_embedding" in name for name in kept)


def test_a_transformer_without_autoencoder_works_on_pixels(tmp_path):
    world = pretrained_world(write_wan(tmp_path / "wan", vae=False), lora_rank=2)
    assert world.latent_shape == (3, 16, 24)
    world.save(tmp_path / "world")
    assert WorldModel.load(tmp_path / "world").latent_shape == (3, 16, 24)


def test_only_adapters_and_new_modules_are_trained(folder):
    world = pretrained_world(folder, lora_rank=2)
    names = {name for name, p in world.dit.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in names if "lora" not in name} == {
        "noise_level", "view_embedding", "told", "state_out",
    }  # fmt: skip
    adapted = {name.split(".lora_")[0].split("blocks.0.")[-1] for name in names if "blocks.0" in name}
    assert adapted == set(world.dit.family.adapted)


def change(folder, where, **values):
    file = folder / where
    said = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(said | values))


def opened(folder, **settings):
    return open_source(PretrainedConfig(str(folder), **settings))


def test_other_pipelines_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        opened(tmp_path / "none")
    with pytest.raises(ValueError, match=r"transformer/config\.json is missing"):
        opened(tmp_path)
    folder = write_wan(tmp_path / "wan")
    change(folder, "transformer/config.json", in_channels=36)
    with pytest.raises(ValueError, match=r"continues a picture \(in_channels 36, out_channels 4\).*TI2V-5B"):
        opened(folder)
    change(folder, "transformer/config.json", in_channels=4, _class_name="MochiTransformer3DModel")
    with pytest.raises(ValueError, match=r"_class_name is 'MochiTransformer3DModel', expected one of.*--family"):
        opened(folder)
    change(folder, "transformer/config.json", _class_name="WanTransformer3DModel")
    opened(folder)
    change(folder, "model_index.json", transformer_2=["diffusers", "WanTransformer3DModel"])
    with pytest.raises(ValueError, match="two transformers"):
        opened(folder)
    change(folder, "model_index.json", transformer_2=[None, None])
    opened(folder)


def test_a_pipeline_that_ships_is_found_from_any_folder_and_may_be_shared(tmp_path, monkeypatch):
    shipped = write_wan(tmp_path / "package" / "checkpoints" / "wan")
    monkeypatch.setattr(files, "PLACES", (tmp_path / "package",))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert opened("checkpoints/wan").folder == shipped
    assert opened("checkpoints/wan").pinned == "checkpoints/wan"
    pretrained_world("checkpoints/wan", lora_rank=2).save(tmp_path / "world")
    check_backbone(tmp_path / "world" / "world.json")
    monkeypatch.setattr(files, "PLACES", ())
    with pytest.raises(ValueError, match=r"backbone is 'checkpoints/wan', a local folder that others do not have"):
        check_backbone(tmp_path / "world" / "world.json")


def test_a_pipeline_on_the_hub_is_pinned_to_its_revision_and_a_gated_one_is_one_line(tmp_path, monkeypatch):
    folder = write_wan(tmp_path / "wan")
    (folder / "transformer" / "old.bin").write_bytes(b"never read")
    with running_hub() as hub:
        take_for_the_hub(hub, monkeypatch, tmp_path / "cache")
        there = [file for file in folder.rglob("*") if file.is_file()]
        hub.repos["them/wan"] = {str(file.relative_to(folder)): file.read_bytes() for file in there}
        commit = hub.commit("them/wan")
        found = opened("hf://them/wan")
        assert found.pinned == f"hf://them/wan@{commit}"
        assert found.fingerprint() == opened(folder).fingerprint()
        assert not (found.folder / "transformer" / "old.bin").exists()
        assert found.codec().channels == 4
        with pytest.raises(
            ValueError, match=r"config\.dit\.backbone is .*/wan', a local folder that others do not have"
        ):
            pretrained_world(folder, lora_rank=2).push_to_hub("me/world")
        pretrained_world("hf://them/wan", lora_rank=2).push_to_hub("me/world")
        assert WorldModel.load("hf://me/world").config.dit.backbone == "hf://them/wan"
        hub.repos["them/gated"], hub.gated = dict(hub.repos["them/wan"]), {"them/gated"}
        with pytest.raises(ValueError, match=r"gated.*accept its licence on its page and log in with `hf auth login`"):
            opened("hf://them/gated")
        with pytest.raises(ValueError, match="hf://them/none: cannot be fetched from the hub"):
            opened("hf://them/none")


def test_adapters_are_not_used_with_another_transformer(folder, tmp_path):
    world = pretrained_world(folder, lora_rank=2)
    world.config = replace(world.config, dit=replace(world.config.dit, fingerprint=opened(folder).fingerprint()))
    world.save(tmp_path / "world")
    WorldModel.load(tmp_path / "world")
    other = write_wan(tmp_path / "other", channels=4)
    weights = next((other / "transformer").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    said = json.loads((tmp_path / "world" / "world.json").read_text())
    said["config"]["dit"]["backbone"] = str(other)
    (tmp_path / "world" / "world.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="was trained on"):
        WorldModel.load(tmp_path / "world")


def test_the_nearest_size_is_named(folder):
    assert opened(folder).multiple() == 4
    check_size("wan", (96, 128), 32)
    with pytest.raises(ValueError, match=r"size 100x120: .* multiples of 32; the nearest is --size 96 128"):
        check_size("wan", (100, 120), 32)
    with pytest.raises(ValueError, match="--size 16 24"):
        pretrained_world(folder, size=(16, 22), lora_rank=2)


def test_cross_attention_to_actions_is_refused(folder):
    with pytest.raises(ValueError, match="injection='cross'"):
        pretrained_world(folder, injection="cross")
