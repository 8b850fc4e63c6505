"""The code of the start page runs as it stands."""

import os
import re

import pytest
from places import LEROBOT_V30, ROOT
from tiny import tiny_world


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "start.md").read_text(), re.DOTALL)
    tiny_world(size=(64, 64)).save(tmp_path / "checkpoints" / "pusht")
    (tmp_path / "data").mkdir()
    os.symlink(LEROBOT_V30, tmp_path / "data" / "held_out")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["clip"].frames.shape == (1, 20, 2, 64, 64, 3)
    assert names["dream"].frames.shape == (1, 12, 2, 64, 64, 3)
    assert names["observation"].frames.shape == (1, 2, 64, 64, 3)
    assert set(names["report"]["cameras"]) == {"top", "wrist"}
