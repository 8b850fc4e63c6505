"""Names, paths and feature descriptions of the LeRobot v3.0 layout."""

from collections.abc import Mapping
from dataclasses import dataclass

IMAGE_PREFIX = "observation.images."
CHUNK_FILES = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INDEX_COLUMNS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class LeRobotSchema:
    """What a row of the data set holds.

    Attributes:
        fps: Frames per second.
        views: Camera names without the `observation.images.` prefix, with height and width in
            pixels.
        action_names: A name for each action dim.
        state_names: A name for each dim of `observation.state`; empty when there is none.
        robot_type: The robot, or the environment that was recorded.
    """

    fps: int
    views: Mapping[str, tuple[int, int]]
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    robot_type: str

    def __post_init__(self):
        if self.fps < 1:
            raise ValueError(f"fps is at least 1, got {self.fps}")
        if not self.views or not self.action_names:
            raise ValueError(
                f"a data set has at least one view and one action dim, got views "
                f"{list(self.views)} and action_names {self.action_names}"
            )
        for view in self.views:
            if not view or "/" in view:
                raise ValueError(f"a view needs a name without slashes, got {view!r}")

    def features(self, *, has_rewards: bool, has_successes: bool) -> dict[str, dict]:
        """The `features` of `meta/info.json`, in LeRobot's order."""
        cameras = {
            f"{IMAGE_PREFIX}{view}": {"dtype": "video", "shape": [*size, 3], "names": ["height", "width", "channel"]}
            for view, size in self.views.items()
        }
        vectors = {"observation.state": self.state_names, "action": self.action_names}
        columns = {
            name: {"dtype": "float32", "shape": [len(dims)], "names": list(dims)}
            for name, dims in vectors.items()
            if dims
        }
        scalars = {"next.success": "bool"} if has_successes else {}
        scalars |= {"next.reward": "float32"} if has_rewards else {}
        scalars |= {"timestamp": "float32"} | dict.fromkeys(INDEX_COLUMNS, "int64")
        columns |= {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in scalars.items()}
        return cameras | columns

    def info(self, *, episodes: int, frames: int, tasks: int, features: dict) -> dict[str, object]:
        """The content of `meta/info.json`."""
        return {
            "codebase_version": "v3.0",
            "robot_type": self.robot_type,
            "total_episodes": episodes,
            "total_frames": frames,
            "total_tasks": tasks,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": features,
        }
