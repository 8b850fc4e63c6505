import time

import av
import cv2
import numpy as np
import pytest
import torch

from worldmodel.data.video.write import encode_video
from worldmodel.envs import find_objects, make_env, object_names, object_view
from worldmodel.envs.pusht.play import play
from worldmodel.envs.pusht.scene import placed

BLOCK_CENTROID = np.array([0.0, (3600 * 15 + 2700 * 75) / 6300])  # bar 120 x 30, stem 30 x 90
CORNERS = np.array([[-60.0, 0], [60, 0], [60, 30], [15, 120], [-15, 120], [-60, 30]])


@pytest.fixture(scope="module")
def seen() -> dict[str, np.ndarray]:
    """Frames of play with the true positions in pixels; `whole`: the block is not cut off."""
    env = make_env("pusht")
    rows = {"frames": [], "agent": [], "block": [], "whole": []}
    for seed in range(3):
        env.reset(seed=seed)
        for target in play(env, np.random.default_rng(seed)):
            observation, *_, truncated, _ = env.step(target)
            corners = placed(CORNERS, env.block_pose)
            rows["frames"].append(observation["observation.images.top"])
            rows["agent"].append(env.agent_position / 8)
            rows["block"].append(placed(BLOCK_CENTROID, env.block_pose) / 8)
            rows["whole"].append(corners.min() > 6 and corners.max() < 506)
            if truncated:
                break
    return {name: np.stack(values) for name, values in rows.items()}


def errors(seen: dict[str, np.ndarray], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = find_objects("pusht", frames)
    agent, block = (np.linalg.norm(found[name].position - seen[name], axis=-1) for name in ("agent", "block"))
    return agent, block[seen["whole"]]


def blurred(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 0.6) for frame in frames])


def test_positions_in_rendered_frames(seen):
    agent, block = errors(seen, seen["frames"])
    assert agent.max() < 0.5
    assert block.max() < 1.0
    assert agent.mean() < 0.2
    assert block.mean() < 0.2


def test_positions_in_blurred_frames(seen):
    agent, block = errors(seen, blurred(seen["frames"]))
    assert agent.max() < 0.7
    assert np.percentile(block, 99) < 1.0


def test_positions_in_recorded_video(seen, tmp_path):
    encode_video(tmp_path / "top.mp4", seen["frames"][:240], 10)
    with av.open(tmp_path / "top.mp4") as container:
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    part = {name: values[:240] for name, values in seen.items()}
    agent, block = errors(part, decoded)
    assert agent.max() < 0.5
    assert block.max() < 1.0


def test_positions_in_a_foreign_video(seen, tmp_path):
    """Half the colour resolution and strong compression cost accuracy, not the objects."""
    with av.open(tmp_path / "top.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"crf": "18"}
        for frame in seen["frames"][:240]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(tmp_path / "top.mp4") as container:
        decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    agent, block = errors({name: values[:240] for name, values in seen.items()}, decoded)
    assert agent.mean() < 0.6
    assert np.isfinite(agent).all()
    assert block.mean() < 0.5


def test_areas(seen):
    found = find_objects("pusht", seen["frames"])
    # the disc of radius 15 / 8 and a block of 6300 / 64 with an edge of 2 / 8 around it
    assert np.median(found["agent"].area) == pytest.approx(np.pi * (15 / 8) ** 2, rel=0.15)
    expected = 6300 / 64 + (2 * (120 + 120)) / 8 * 2 / 8
    assert np.median(found["block"].area[seen["whole"]]) == pytest.approx(expected, rel=0.1)


def test_nothing_else_is_taken_for_an_object():
    env = make_env("pusht")
    env.reset(seed=0)
    env.scene.draw(np.array([-200.0, 0.0]), np.array([900.0, 900.0, 0.0]))
    for track in find_objects("pusht", env.scene.top()).values():
        assert track.area == 0
        assert np.isnan(track.position).all()
    grey = np.full((64, 64, 3), 150, np.uint8)
    assert all(track.area == 0 for track in find_objects("pusht", grey).values())


def test_leading_axes_tensors_and_the_other_task(seen):
    frames = seen["frames"][:12]
    flat = find_objects("pusht", frames)
    nested = find_objects("pusht-position", torch.from_numpy(frames).reshape(3, 4, 64, 64, 3))
    for name in ("agent", "block"):
        assert nested[name].position.shape == (3, 4, 2)
        np.testing.assert_array_equal(nested[name].position.reshape(12, 2), flat[name].position)
        np.testing.assert_array_equal(nested[name].area.reshape(12), flat[name].area)
    single = find_objects("pusht", frames[5])["block"]
    np.testing.assert_array_equal(single.position, flat["block"].position[5])
    assert single.area.shape == ()


def test_larger_frames_give_the_same_scale(seen):
    large = seen["frames"][:20].repeat(2, axis=1).repeat(2, axis=2)
    small = find_objects("pusht", seen["frames"][:20])
    for name, track in find_objects("pusht", large).items():
        np.testing.assert_allclose(track.position, small[name].position)
        np.testing.assert_allclose(track.area, small[name].area)


def test_names_and_views():
    assert object_names("pusht") == object_names("pusht-position") == ("agent", "block")
    assert object_view("pusht") == "top"
    assert object_names("metaworld") == ()
    assert find_objects("metaworld", np.zeros((2, 8, 8, 3), np.uint8)) == {}
    with pytest.raises(ValueError, match="in pusht, pusht-position, pusht-rope, pusht-sand, not in 'metaworld'"):
        object_view("metaworld")


def test_thousands_of_frames_a_second(seen):
    start = time.process_time()
    find_objects("pusht", seen["frames"])
    assert len(seen["frames"]) / (time.process_time() - start) > 1000
