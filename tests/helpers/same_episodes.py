"""The same two episodes in every format: one camera of 32 x 32 and one of 24 x 24 pixels."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode
from worldmodel.data.video.read import read_frames
from worldmodel.data.video.write import encode_video

FPS = 10
SIZES = {"top": (32, 32), "wrist": (24, 24)}
LENGTHS = (12, 9)


def tables(episode: int) -> dict[str, np.ndarray]:
    """Actions of 2, states of 3 dims, rewards and successes of an episode."""
    length = LENGTHS[episode]
    rng = np.random.default_rng(episode)
    return {
        "actions": rng.normal(size=(length, 2)).astype(np.float32),
        "states": rng.normal(size=(length, 3)).astype(np.float32),
        "rewards": rng.uniform(size=length).astype(np.float32),
        "successes": np.arange(length) == length - 3,
    }


def pictures(episode: int) -> dict[str, np.ndarray]:
    """A bright square that moves right, on a grey that tells episodes and cameras apart."""
    views = {}
    for view, (height, width) in SIZES.items():
        frames = np.full((LENGTHS[episode], height, width, 3), 40 * episode + height, np.uint8)
        for index, frame in enumerate(frames):
            frame[8:16, index : index + 8] = 250
        views[view] = frames
    return views


def write_lerobot(folder: Path) -> Path:
    """The episodes as a LeRobot v3.0 data set."""
    schema = LeRobotSchema(FPS, SIZES, ("x", "y"), ("a", "b", "c"), "drawn")
    for episode in range(len(LENGTHS)):
        stage_episode(
            folder, episode, schema=schema, frames=pictures(episode), **tables(episode), task="Push.", metadata={}
        )
    finalise(folder, schema)
    return folder


def write_lerobot_v2(folder: Path, videos: Path, version: str) -> Path:
    """The episodes as LeRobot had them before v3.0, one file each, with the encoded `videos`."""
    schema = LeRobotSchema(FPS, SIZES, ("x", "y"), ("a", "b", "c"), "drawn")
    info = schema.info(
        episodes=len(LENGTHS),
        frames=sum(LENGTHS),
        tasks=1,
        features=schema.features(has_rewards=True, has_successes=True),
    ) | {
        "codebase_version": version,
        "chunks_size": 1000,
        "total_videos": 2 * len(LENGTHS),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
    }
    for name in ("meta", "data/chunk-000"):
        (folder / name).mkdir(parents=True)
    first, listed = 0, []
    for episode, length in enumerate(LENGTHS):
        columns, steps = tables(episode), np.arange(length)
        rows = {
            "action": list(columns["actions"]),
            "observation.state": list(columns["states"]),
            "next.success": columns["successes"],
            "next.reward": columns["rewards"],
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": 0 * steps + episode,
            "index": steps + first,
            "task_index": 0 * steps,
        }
        pq.write_table(pa.table(rows), folder / f"data/chunk-000/episode_{episode:06d}.parquet")
        for view in SIZES:
            place = folder / f"videos/observation.images.{view}"
            place.mkdir(parents=True, exist_ok=True)
            mp4 = videos / f"episode_{episode}" / f"{view}.mp4"
            shutil.copy(mp4, place / f"episode_{episode:06d}.mp4")
        listed.append({"episode_index": episode, "tasks": ["Push."], "length": length})
        first += length
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "Push."}')
    (folder / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, listed)))
    return folder


def write_folder(folder: Path, suffix: str = ".npy", *, last_action: bool = True) -> Path:
    """The episodes as plain videos with tables; `last_action` false drops what follows the end."""
    for episode in range(len(LENGTHS)):
        part = folder / f"episode_{episode}"
        part.mkdir(parents=True)
        for view, frames in pictures(episode).items():
            encode_video(part / f"{view}.mp4", frames, FPS)
        for name, values in tables(episode).items():
            values = values if last_action or name == "states" else values[:-1]
            if suffix == ".npy":
                np.save(part / f"{name}.npy", values)
            else:
                header = ",".join(f"{name}_{i}" for i in range(values[:1].size))
                rows = values.reshape(len(values), -1).astype(np.float64)
                np.savetxt(part / f"{name}.csv", rows, delimiter=",", header=header, comments="")
    return folder


def write_hdf5(file: Path, videos: Path) -> Path:
    """The episodes as robomimic stores them, with the pictures of the encoded `videos`."""
    with h5py.File(file, "w") as content:
        data = content.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "drawn", "env_kwargs": {"control_freq": FPS}})
        for episode, length in enumerate(LENGTHS):
            demo, columns = data.create_group(f"demo_{episode}"), tables(episode)
            demo["actions"] = columns["actions"].astype(np.float64)
            demo["rewards"] = columns["rewards"]
            demo["obs/robot0_eef_pos"] = columns["states"][:, :2]
            demo["obs/robot0_gripper_qpos"] = columns["states"][:, 2:]
            for view in SIZES:
                frames = read_frames(videos / f"episode_{episode}" / f"{view}.mp4", range(length))
                demo.create_dataset(f"obs/{view}_image", data=frames, compression="gzip")
    return file
