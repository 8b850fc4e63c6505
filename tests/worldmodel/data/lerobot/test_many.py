"""Many episodes open quickly: no video is indexed, and tables are read by column."""

import json
import shutil
import time

import pytest
from robot_sets import KINDS, write_set
from small_sets import edit_json, edit_table, with_values

from worldmodel.data import open_episodes
from worldmodel.data.lerobot import videos

SECONDS = 12  # 1.8 s of one idle core; the machine that runs the tests may be busy
NUMBER = 2000


def many_episodes(folder, number):
    """Copies of one episode of 21 rows."""
    write_set(folder, KINDS["v2.1"], lengths=(21,))
    table, *rest = sorted(path for path in folder.rglob("episode_000000.*"))
    for path in (table, *rest):
        for episode in range(1, number):
            place = path.parent.parent.parent if path.suffix == ".mp4" else path.parent.parent
            chunk = place / path.relative_to(place).as_posix().replace("chunk-000", f"chunk-{episode // 1000:03d}")
            target = chunk.with_name(f"episode_{episode:06d}{path.suffix}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            if path.suffix == ".parquet":
                edit_table(target, with_values("episode_index", lambda values, e=episode: [e] * len(values)))
    rows = ({"episode_index": episode, "tasks": ["do it"], "length": 21} for episode in range(number))
    (folder / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    totals = {"total_episodes": number, "total_frames": 21 * number}
    edit_json(folder / "meta" / "info.json", lambda info: info.update(totals))
    return folder


@pytest.mark.slow
def test_two_thousand_episodes_open_in_seconds(tmp_path):
    folder = many_episodes(tmp_path / "d", NUMBER)
    open_episodes(folder, views=["top"])
    began = time.process_time()
    source = open_episodes(folder, views=["top"])
    assert time.process_time() - began < SECONDS
    assert len(source) == NUMBER and source.notes == ()
    assert source.read(1999, 3, 5).actions.tolist() == [[3, 4, 5, 6]]


def test_no_video_is_indexed_where_the_header_says_all(tmp_path, monkeypatch):
    folder = many_episodes(tmp_path / "d", 3)
    monkeypatch.setattr(videos, "video_info", None)
    monkeypatch.setattr(videos, "video_header", None)
    source = open_episodes(folder)
    assert source.lengths == (21, 21, 21) and source.views == ("top", "wrist")
