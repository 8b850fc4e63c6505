"""The path of the benchmark of DROID, on stand-ins of the data and of the transformer."""

import json
import runpy
from dataclasses import replace

import pytest
from places import BENCHMARKS, LEROBOT_V21
from tiny import tiny_world
from tiny_backbone import write_wan

from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.world_model import WorldModel

script = runpy.run_path(str(BENCHMARKS / "pretrained.py"))


def small_bench(out, **settings):
    """The benchmark on the episodes 1 and 3 of a small set, two frames in two steps each."""
    told = {"views": ("top", "wrist"), "action_keys": ("action",), "state_keys": ("observation.state",), "every": 2}
    sizes = {"size": (32, 32), "stride": 2, "clips": 2, "autoregressive": 2, "new_frames": 2, "together": 1}
    return script["PretrainedBench"](
        out=out, data=str(LEROBOT_V21), device="cpu", **{"films": 0, "num_steps": 1, **told, **sizes, **settings}
    )


def copying(**settings):
    """The baseline as a world model."""
    return CopyLastWorld(tiny_world(size=(32, 32), stride=2, **settings).config).eval()


def test_a_dream_begins_at_the_first_frame_and_an_episode_is_measured_once(tmp_path):
    config = small_bench(tmp_path)
    rows = script["measure"](config, copying(), None)
    assert [row["episode"] for row in rows] == [1, 3]
    for row in rows:
        assert row["dream"] == row["copy"] and row["copy"]["wrist"]["psnr"] < 30

    notes = tmp_path / "clips.jsonl"
    changed = [{**row, "dream": {}} for row in rows]
    notes.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert script["measure"](config, copying(), None) == changed


def test_episodes_that_are_too_short_or_trained_on_are_not_measured(tmp_path):
    long = small_bench(tmp_path, clips=2, new_frames=17)  # 69 frames; the episodes have 67 and 76
    assert [row["episode"] for row in script["measure"](long, copying(), None)] == [3]
    world = copying()
    source, _ = script["open_tested"](long, world, 1)
    world.train_data = [
        {"fingerprint": source.fingerprint, "episodes": [3], "robot_type": "another", "reset_seeds": None}
    ]
    with pytest.raises(ValueError, match="trained on 1 of the test episodes"):
        script["measure"](long, world, None)


def test_training_episodes_are_those_that_are_not_for_testing(tmp_path):
    config = small_bench(tmp_path, every=3, clips=2, train_episodes=5)
    assert config.reading(test=True).episodes == "2:3,5:6"
    assert config.reading(test=False).episodes == "0:1,1:2,3:4,4:5,6:7"


def test_a_camera_group_is_the_mean_over_its_cameras_within_each_episode():
    def row(level):
        score = {"ssim": 0.5, "psnr": level}
        return {"dream": {"a": score, "b": {**score, "psnr": level + 2.0}}}

    found = script["summary"]([row(float(level)) for level in range(6)], ["a", "b"], "dream", 0)
    assert found["psnr"]["mean"] == 3.5 and found["psnr"]["interval"][0] < 3.5 < found["psnr"]["interval"][1]
    assert script["cells"](found)[0] == "0.500 (0.500 to 0.500)" and script["cells"](found)[2] == "not measured"


@pytest.mark.slow
def test_one_command_trains_measures_and_goes_on(tmp_path, capsys):
    backbone = write_wan(tmp_path / "wan")
    settings = {"steps": 1, "batch": 2, "frames": 3, "lora_rank": 2, "train_episodes": 3, "targets": 2}
    config = small_bench(tmp_path / "out", backbone=str(backbone), films=1, **settings)
    script["main"](config)
    printed = capsys.readouterr().out
    assert "| external | PersistWorld | 0.86 | 24.42 | 0.070 |" in printed
    assert "| wrist | ours, 2 episodes | " in printed and "| training data | 95,000 episodes | 3 episodes |" in printed
    assert (config.out / "episode-1.mp4").exists() and not (config.out / "episode-3.mp4").exists()

    report = json.loads((config.out / "report.json").read_text())
    notes = config.out / "clips.jsonl"
    notes.write_text(notes.read_text().splitlines()[0] + "\n")
    world = WorldModel.load(config.out / "world")
    assert world.stride == 2 and world.relative_to == {0: 0, 1: 1}
    script["main"](replace(config, world=config.out / "world"))
    assert json.loads((config.out / "report.json").read_text())["cameras"] == report["cameras"]
    with pytest.raises(SystemExit, match="choose another --out"):
        script["main"](replace(config, world=config.out / "world", num_steps=2))
