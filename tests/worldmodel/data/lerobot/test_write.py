"""What is staged comes back: as a LeRobot v3.0 folder laid out like the reference one."""

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from places import LEROBOT_V30

from worldmodel.data import open_episodes
from worldmodel.data.lerobot import merge as lerobot_merge
from worldmodel.data.lerobot.statistics import colour_histogram, column_statistics, image_statistics
from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode, staged_episodes
from worldmodel.data.video.write import concatenate_videos, encode_video

REFERENCE = LEROBOT_V30
SCHEMA = LeRobotSchema(
    fps=10,
    views={"top": (24, 32), "wrist": (16, 16)},
    action_names=("x", "y"),
    state_names=("x", "y", "z"),
    robot_type="arm",
)
LENGTHS = (7, 1, 12, 5)
DISC = (65, 105, 225)


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """A disc of radius 2 px on a light ground; it moves with `index`."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frame = np.full((*size, 3), 240, np.uint8)
    frame[(rows - 8) ** 2 + (columns - 3 - index % 9) ** 2 <= 4] = DISC
    return frame


def episode(index: int, length: int, schema: LeRobotSchema = SCHEMA) -> dict:
    rng = np.random.default_rng(index)
    return {
        "schema": schema,
        "frames": {
            view: np.stack([picture(index + i, size) for i in range(length)]) for view, size in schema.views.items()
        },
        "actions": rng.normal(size=(length, len(schema.action_names))).astype(np.float32),
        "states": rng.normal(size=(length, len(schema.state_names))).astype(np.float32),
        "rewards": rng.normal(size=length).astype(np.float32),
        "successes": rng.random(length) > 0.5,
        "task": "push" if index < 2 else "pull",
        "metadata": {"reset_seed": 100 + index, "behaviour": "play"},
    }


def write(folder: Path, lengths=LENGTHS, schema: LeRobotSchema = SCHEMA) -> list[dict]:
    episodes = [episode(index, length, schema) for index, length in enumerate(lengths)]
    for index, content in enumerate(episodes):
        stage_episode(folder, index, **content)
    finalise(folder, schema)
    return episodes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return folder, write(folder)


def test_what_was_staged_is_read_back(written):
    folder, episodes = written
    source = open_episodes(folder)
    assert (source.views, source.fps, source.lengths) == (("top", "wrist"), 10, LENGTHS)
    assert (source.robot_type, source.size) == ("arm", (24, 32))
    for index, content in enumerate(episodes):
        clip = source.read(index, 0, LENGTHS[index])
        assert np.array_equal(clip.actions, content["actions"][:-1])
        assert np.array_equal(clip.states, content["states"])
        assert np.array_equal(clip.rewards, content["rewards"][:-1])
        assert np.array_equal(clip.successes, content["successes"][:-1])
        assert np.abs(clip.frames[:, 0].numpy().astype(int) - content["frames"]["top"]).max() <= 30
        assert source.task(index) == content["task"]
        assert source.reset_seed(index) == 100 + index


def test_codec_noise_is_negligible_and_small_objects_keep_their_colour(written):
    folder, episodes = written
    source = open_episodes(folder)
    errors = []
    for index, content in enumerate(episodes):
        found = source.read(index, 0, LENGTHS[index]).frames[:, 0].numpy().astype(float)
        truth = content["frames"]["top"]
        errors.append(((found - truth) ** 2).mean(axis=(1, 2, 3)))
        disc = (truth == DISC).all(axis=-1)
        assert np.abs(found[disc].mean(axis=0) - DISC).max() < 4
    assert (10 * np.log10(255**2 / np.concatenate(errors))).mean() > 45


def test_layout_is_that_of_the_reference(written):
    folder, _ = written
    info, reference = (json.loads((root / "meta" / "info.json").read_text()) for root in (folder, REFERENCE))
    assert list(info) == list(reference)
    assert list(info["features"]) == list(reference["features"])
    for name, feature in info["features"].items():
        assert list(feature) == list(reference["features"][name])
        assert feature["dtype"] == reference["features"][name]["dtype"]
    camera = "observation.images.top"
    assert list(info["features"][camera]["info"]) == list(reference["features"][camera]["info"])
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 25, 2)
    places = ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"]
    for place in places:
        mine, theirs = (pq.read_schema(root / place) for root in (folder, REFERENCE))
        assert set(mine.names) - set(theirs.names) <= {"reset_seed", "behaviour"}
        for name in theirs.names:
            assert name in mine.names
            if name not in ("observation.state",):
                assert mine.field(name).type == theirs.field(name).type, name
    statistics, reference = (json.loads((root / "meta" / "stats.json").read_text()) for root in (folder, REFERENCE))
    assert set(statistics) == set(reference)
    for name, values in statistics.items():
        assert set(values) == set(reference[name])
        for key in values:
            if name != "observation.state":
                assert np.shape(values[key]) == np.shape(reference[name][key]), (name, key)


def test_joined_video_has_every_frame_at_its_time(written):
    folder, _ = written
    file = folder / "videos" / "observation.images.top" / "chunk-000" / "file-000.mp4"
    with av.open(file) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(times, np.arange(sum(LENGTHS)) / 10, atol=1e-9)
    table = pq.read_table(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    assert np.allclose(table["videos/observation.images.top/from_timestamp"], [0, 0.7, 0.8, 2.0])
    assert np.allclose(table["videos/observation.images.top/to_timestamp"], [0.7, 0.8, 2.0, 2.5])
    assert table["dataset_from_index"].to_pylist() == [0, 7, 8, 20]
    assert table["dataset_to_index"].to_pylist() == [7, 8, 20, 25]


def test_statistics_are_those_of_all_rows_and_pixels(written):
    folder, episodes = written
    statistics = json.loads((folder / "meta" / "stats.json").read_text())
    actions = np.concatenate([each["actions"] for each in episodes]).astype(float)
    found = statistics["action"]
    assert np.allclose(found["mean"], actions.mean(0))
    assert np.allclose(found["std"], actions.std(0))
    assert np.allclose(found["q90"], np.quantile(actions, 0.9, axis=0))
    assert np.allclose([found["min"], found["max"]], [actions.min(0), actions.max(0)])
    pixels = np.concatenate([each["frames"]["top"] for each in episodes]) / 255
    found = {name: np.ravel(x) for name, x in statistics["observation.images.top"].items()}
    assert np.allclose(found["mean"], pixels.mean((0, 1, 2)))
    assert np.allclose(found["std"], pixels.std((0, 1, 2)))
    assert np.allclose(found["min"], pixels.min((0, 1, 2)))
    assert np.allclose(found["q50"], np.quantile(pixels, 0.5, axis=(0, 1, 2)))
    assert found["count"] == [25]
    assert statistics["next.success"]["min"] == [False]


def test_column_and_image_statistics_by_hand():
    found = column_statistics(np.array([[1.0, -1.0], [3.0, -1.0]]))
    assert found["mean"] == [2.0, -1.0]
    assert found["std"] == [1.0, 0.0]
    assert found["q50"] == [2.0, -1.0]
    assert found["count"] == [2]
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    frames[0, 0, 0] = (255, 51, 0)
    found = image_statistics(colour_histogram(frames), 1)
    assert np.allclose(np.ravel(found["mean"]), [0.25, 0.05, 0])
    assert np.allclose(np.ravel(found["max"]), [1, 0.2, 0])
    assert np.allclose(np.ravel(found["std"]), [3**0.5 / 4, 0.2 * 3**0.5 / 4, 0])


def test_files_are_split_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_merge, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(lerobot_merge, "DATA_FILE_MB", 0)
    monkeypatch.setattr(lerobot_merge, "CHUNK_FILES", 2)
    episodes = write(tmp_path)
    names = sorted(
        str(path.relative_to(tmp_path / "videos" / "observation.images.top"))
        for path in (tmp_path / "videos" / "observation.images.top").rglob("*.mp4")
    )
    assert names == [f"chunk-00{i}/file-00{j}.mp4" for i in (0, 1) for j in (0, 1)]
    assert len(list((tmp_path / "data").rglob("*.parquet"))) == 4
    source = open_episodes(tmp_path)
    for index, content in enumerate(episodes):
        clip = source.read(index, 0, LENGTHS[index])
        assert np.array_equal(clip.states, content["states"])
        assert np.abs(clip.frames[:, 0].numpy().astype(int) - content["frames"]["top"]).max() <= 30


def test_one_dim_actions_and_no_states_rewards_or_successes(tmp_path):
    schema = replace(SCHEMA, action_names=("x",), state_names=())
    for index in range(2):
        content = episode(index, 4, schema)
        content |= {"states": None, "rewards": None, "successes": None, "metadata": {}}
        stage_episode(tmp_path, index, **content)
    finalise(tmp_path, schema)
    source = open_episodes(tmp_path)
    assert (source.action_dim, source.state_dim, source.reset_seed(0)) == (1, 0, None)
    clip = source.read(1, 0, 4)
    assert np.array_equal(clip.actions, content["actions"][:-1])
    assert clip.states is None and clip.rewards is None and clip.successes is None


def test_staging_is_atomic_and_an_episode_can_be_staged_again(tmp_path):
    assert staged_episodes(tmp_path) == set()
    stage_episode(tmp_path, 1, **episode(1, 3))
    assert staged_episodes(tmp_path) == {1}
    with pytest.raises(ValueError, match="episode 2"):
        stage_episode(tmp_path, 2, **episode(2, 3) | {"metadata": {"x": float("nan")}})
    assert staged_episodes(tmp_path) == {1}
    stage_episode(tmp_path, 0, **episode(0, 2))
    stage_episode(tmp_path, 1, **episode(1, 5))
    finalise(tmp_path, SCHEMA)
    assert open_episodes(tmp_path).lengths == (2, 5)
    assert staged_episodes(tmp_path) == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "meta", "videos"]


def test_finalise_repeats_what_a_killed_call_left(tmp_path):
    stage_episode(tmp_path, 0, **episode(0, 3))
    for leftover in ("data", ".staging/merged/meta", ".staging/part-killed/episode"):
        (tmp_path / leftover).mkdir(parents=True)
        (tmp_path / leftover / "half").write_text("written")
    finalise(tmp_path, SCHEMA)
    assert open_episodes(tmp_path).lengths == (3,)
    assert not list(tmp_path.rglob("half"))
    with pytest.raises(ValueError, match="is a data set already"):
        finalise(tmp_path, SCHEMA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((3, 5))}, r"action has shape (3, 5), expected (3, 2)"),
        ({"actions": np.zeros((0, 2))}, "action has 0 rows, expected at least 1"),
        ({"actions": np.full((3, 2), np.nan)}, "action is [nan, nan] in row 0, not finite"),
        ({"states": np.zeros((4, 3))}, "observation.state has shape (4, 3), expected (3, 3)"),
        ({"states": None}, "observation.state is missing, expected (3, 3)"),
        ({"rewards": np.array([0, 1, np.inf])}, "next.reward is inf in row 2, not finite"),
        ({"successes": np.zeros(2, bool)}, "next.success has shape (2,), expected (3,)"),
        ({"frames": {"top": np.zeros((3, 24, 32, 3), np.uint8)}}, "views are ['top'], expected ['top', 'wrist']"),
        ({"metadata": {"length": 3}}, "metadata cannot be called 'length'"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        stage_episode(tmp_path, 4, **episode(4, 3) | change)
    assert "episode 4" in str(error.value)
    assert staged_episodes(tmp_path) == set()


def test_frames_of_another_size_are_refused(tmp_path):
    content = episode(0, 3)
    content["frames"]["wrist"] = np.zeros((3, 16, 20, 3), np.uint8)
    message = "frames of wrist has shape (3, 16, 20, 3), expected (3, 16, 16, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        stage_episode(tmp_path, 0, **content)


def test_finalise_refuses_gaps_nothing_and_mixed_columns(tmp_path):
    with pytest.raises(ValueError, match="no staged episodes"):
        finalise(tmp_path, SCHEMA)
    stage_episode(tmp_path, 2, **episode(2, 2))
    with pytest.raises(ValueError, match=re.escape("up to 2 staged, missing are [0, 1]")):
        finalise(tmp_path, SCHEMA)
    stage_episode(tmp_path, 0, **episode(0, 2))
    stage_episode(tmp_path, 1, **episode(1, 2) | {"rewards": None})
    with pytest.raises(ValueError, match=r"episode 1 .* has the fields"):
        finalise(tmp_path, SCHEMA)


def test_schema_refuses_what_cannot_be_stored():
    for change in ({"fps": 0}, {"views": {}}, {"action_names": ()}, {"views": {"a/b": (8, 8)}}):
        with pytest.raises(ValueError):
            replace(SCHEMA, **change)


def test_only_videos_of_one_kind_and_known_length_are_joined(tmp_path):
    small, large = (np.zeros((3, side, side, 3), np.uint8) for side in (16, 32))
    encode_video(tmp_path / "a.mp4", small, 10)
    encode_video(tmp_path / "b.mp4", large, 10)
    with pytest.raises(ValueError, match=r"b.mp4 was encoded with other settings than .*a.mp4"):
        concatenate_videos(tmp_path / "c.mp4", [tmp_path / "a.mp4", tmp_path / "b.mp4"], [3, 3], 10)
    with pytest.raises(ValueError, match=r"a\.mp4 has 3 frames, expected are 4"):
        concatenate_videos(tmp_path / "c.mp4", [tmp_path / "a.mp4"], [4], 10)


def test_encoding_is_a_function_of_the_frames(tmp_path):
    frames = episode(0, 6)["frames"]["top"]
    for name in ("a", "b"):
        encode_video(tmp_path / f"{name}.mp4", frames, 10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
