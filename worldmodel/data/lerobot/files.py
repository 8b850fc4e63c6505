"""Where the tables and the videos of a LeRobot folder lie."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.episodes import Episode, whole
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.tables import visible_files

TEMPLATES = {
    ("data_path", True): "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    ("data_path", False): "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    ("video_path", True): "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ("video_path", False): "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
EPISODE_FILE = re.compile(r"episode_?(\d+)\.\w+$")
PICTURES = {".mp4", ".mkv", ".avi", ".mov", ".webm"}
UNREADY = (KeyError, IndexError, AttributeError, TypeError, ValueError, OSError)


class Files:
    """The files of a data set; a file that is not where the template says is searched for by its name.

    Attributes:
        below: All files in `data/` and `videos/`.
        tables: All parquet files in `data/`, sorted.
        videos: All video files in `videos/`, by the names of the folders they lie in.
        cameras: Names of the innermost folders that are not chunks; in both layouts these are the cameras.
    """

    def __init__(self, info: Info, findings: Findings):
        self.info, self.findings = info, findings
        self._root = f"{info.folder}/"
        self.below = [path for part in ("data", "videos") for path in visible_files(f"{info.folder}/{part}")]
        self._present = set(self.below)
        self.tables = [Path(path) for path in sorted(self.below) if path.endswith(".parquet")]
        self.videos: dict[str, list[str]] = defaultdict(list)
        self.cameras: set[str] = set()
        self._by_number: dict[tuple[str, int], list[str]] = defaultdict(list)
        for path in self.below:
            folders = path.removeprefix(self._root).split("/")
            number = EPISODE_FILE.search(folders[-1])
            if os.path.splitext(path)[1].lower() in PICTURES:
                self.cameras.add(next((part for part in folders[-2:0:-1] if not part.startswith("chunk")), ""))
                for part in set(folders[1:-1]):
                    self.videos[part].append(path)
                    if number:
                        self._by_number[part, int(number[1])].append(path)
            elif path.endswith(".parquet") and number:
                self._by_number["", int(number[1])].append(path)
        self.cameras.discard("")

    @property
    def numbers(self) -> set[int]:
        """Numbers of the episodes that have a table of their own."""
        return {number for part, number in self._by_number if not part}

    def table(self, index: int) -> Path:
        """The table of one episode of a set with files per episode.

        Raises:
            ValueError: There is none.
        """
        return self._episode_file("data_path", index, "")

    def video(self, episode: Episode, key: str) -> Path:
        """The video that holds an episode.

        Raises:
            ValueError: There is none.
        """
        if self.info.per_episode:
            return self._episode_file("video_path", episode.index, key)
        return self.shared("video_path", episode, f"videos/{key}", video_key=key)

    def shared(self, field: str, episode: Episode, prefix: str, **names: str) -> Path:
        """The file with the numbers that `meta/episodes` names.

        Raises:
            ValueError: No number is named, or there is no such file.
        """
        numbers: dict[str, object] = dict(names)
        for name in ("chunk_index", "file_index"):
            numbers[name] = whole(episode.row.get(f"{prefix}/{name}"))
            if numbers[name] is None:
                found = repr(episode.row.get(f"{prefix}/{name}", "missing"))
                fail(episode.file, f"{prefix}/{name}", found, "a whole number from 0", episode.index)
        return self._find(field, episode.index, numbers, [])

    def _episode_file(self, field: str, index: int, key: str) -> Path:
        names = {"episode_chunk": index // self.info.chunks_size, "episode_index": index}
        names |= {"chunk_index": names["episode_chunk"], "episode_number": index}
        names |= {"video_key": key} if key else {}
        return self._find(field, index, names, self._by_number.get((key, index), []))

    def _find(self, field: str, index: int, names: dict[str, object], alike: list[str]) -> Path:
        declared, standard = getattr(self.info, field), TEMPLATES[field, self.info.per_episode]
        named = self._filled(field, declared, names)
        if named in self._present:
            return Path(named)
        usual = self._root + standard.format(**names)
        for path in [*filter(None, (named,)), usual, *(alike if len(alike) == 1 else [])]:
            if path in self._present or _is_file(path):
                if path != named:
                    self.findings.note(f"{self.info.file}: {field} {declared!r:.100} names no file", index)
                return Path(path)
        fail(Path(named or usual), f"file named by {field}", "missing", "a file", index)

    def _filled(self, field: str, template: str, names: dict[str, object]) -> str | None:
        try:
            return self._root + template.format(**names) if template else None
        except UNREADY as error:
            self.findings.note(f"{self.info.file}: {field} {template!r:.100} cannot be filled in: {error!r:.60}")
            return None


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except UNREADY:
        return False


def check_totals(info: Info, episodes: Sequence[Episode], files: Files, findings: Findings) -> None:
    """Note the totals of `meta/info.json` that differ from those of the data set."""
    found = {"total_episodes": len(episodes)}
    if all(episode.length for episode in episodes):
        found["total_frames"] = sum(episode.length for episode in episodes)
    if info.per_episode:
        found["total_videos"] = sum(len(files.videos[key]) for key in info.cameras if key in files.videos)
    for name, count in found.items():
        if info.totals.get(name, count) != count:
            findings.note(f"{info.file}: {name} is {info.totals[name]!s:.20}, found {count}")
