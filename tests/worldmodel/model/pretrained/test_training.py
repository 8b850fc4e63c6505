"""`pretrain video`: its options, and the world model that it builds from data."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from places import LEROBOT_V30
from tiny_backbone import pretrained_world, tiny_wan, write_wan

from worldmodel.cli import parse
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.wan import Wan
from worldmodel.training.build import build_world
from worldmodel.training.config import VideoConfig
from worldmodel.training.pretrain import open_data
from worldmodel.world_model import WorldModel

BUILD = {"stride": 2, "injection": "adaln", "relative_to": {}, "use_actions": True, "codec": None, "init": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_wan(tmp_path_factory.mktemp("wan"))


def test_the_options_of_the_preset():
    words = "video --backbone wan --data d --out o --lora-rank 8 --max-steps 16 --no-recompute --size 32 64"
    config = parse("pretrain", words.split())
    assert isinstance(config, VideoConfig)
    assert config.dit == PretrainedConfig("wan", lora_rank=8, recompute=False)
    assert (config.loss.weighting, config.injection, config.max_steps, config.size) == (
        "velocity",
        "adaln",
        16,
        (32, 64),
    )
    assert not config.muon and config.latent_cache
    with pytest.raises(SystemExit):
        parse("pretrain", ["video", "--data", "d", "--out", "o"])


def test_a_world_is_built_with_noise_and_the_pace_of_the_data(folder):
    source = DrawnEpisodes([12, 12])
    world = build_world(source, [0, 1], dit=PretrainedConfig(str(folder), lora_rank=2), max_steps=8, **BUILD)
    assert (world.config.temperature, world.config.max_steps) == (1.0, 8)
    assert world.config.dit.fingerprint and world.config.dit.backbone == str(folder)
    assert world.dit.spacing == pytest.approx(4.0 * 2 / 10), "4 positions a second, frames 0.2 s apart"
    assert pretrained_world(folder, position_rate=5.0).dit.spacing == pytest.approx(0.5)
    assert not world.own_codec


def test_22_has_more_positions_a_second_than_21():
    assert [Wan(tiny_wan(channels)).position_rate for channels in (16, 48)] == [4.0, 6.0]


def test_a_world_to_start_from_gives_its_network(folder, tmp_path):
    source = DrawnEpisodes([12, 12])
    dit = PretrainedConfig(str(folder), lora_rank=2, window=3)
    first = build_world(source, [0, 1], dit=dit, **BUILD)
    with torch.no_grad():
        first.dit.told[0].weight.normal_()
    first.save(tmp_path / "first")
    init = {**BUILD, "init": tmp_path / "first"}
    second = build_world(source, [0, 1], dit=replace(dit, window=8), **init)
    assert second.dit.window == 3 and torch.equal(second.dit.told[0].weight, first.dit.told[0].weight)
    second.save(tmp_path / "second")
    assert not (tmp_path / "second" / "codec").exists()
    other = write_wan(tmp_path / "other", vae=False)
    with pytest.raises(ValueError, match="--init has the pretrained transformer"):
        build_world(source, [0, 1], dit=replace(dit, backbone=str(other)), **init)


def test_sizes_are_checked_before_anything_is_decoded(folder, tmp_path):
    config = VideoConfig(LEROBOT_V30, tmp_path / "out", dit=PretrainedConfig(str(folder)))
    assert tuple(open_data(config).size) == (96, 96)
    assert tuple(open_data(replace(config, picture_pixels=50 * 50)).size) == (48, 48)
    with pytest.raises(ValueError, match="multiples of 4; the nearest is --size 32 40"):
        open_data(replace(config, size=(32, 42)))
    assert not list(Path(tmp_path).iterdir())


def test_steps_are_a_power_of_two(folder):
    with pytest.raises(ValueError, match="--max-steps 6: expected a power of two"):
        build_world(DrawnEpisodes([12]), [0], dit=PretrainedConfig(str(folder)), max_steps=6, **BUILD)


def test_world_json_says_which_kind_of_network_it_is(folder, tmp_path):
    world = pretrained_world(folder, lora_rank=2)
    world.save(tmp_path)
    assert isinstance(WorldModel.load(tmp_path).config.dit, PretrainedConfig)
    text = (tmp_path / "world.json").read_text()
    (tmp_path / "world.json").write_text(text.replace('"window": 8', '"window": "8"'))
    with pytest.raises(ValueError, match=r"dit\.window is \"8\", expected int"):
        WorldModel.load(tmp_path)
