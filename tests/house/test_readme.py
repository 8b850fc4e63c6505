"""The example of the README runs as it stands."""

import os
import re

import pytest
from places import ROOT
from tiny import tiny_world


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    code = python_blocks("README.md")[0]
    tiny_world(size=(64, 64)).save(tmp_path / "checkpoints" / "pusht")
    (tmp_path / "data").mkdir()
    os.symlink(ROOT / "tests" / "data" / "lerobot_v30_pusht", tmp_path / "data" / "held_out")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["observation"].frames.shape == (1, 2, 64, 64, 3)


def test_the_film_is_seen_first_and_is_small():
    first = (ROOT / "README.md").read_text().splitlines()[:12]
    (film,) = re.findall(r"\]\((docs/[^)]+\.webp)\)", "\n".join(first))
    assert (ROOT / film).stat().st_size <= 400_000


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_ranking_example_is_the_one_that_runs():
    """`tests/test_rank.py` runs the example of `docs/ranking.md`; the README may repeat it."""
    (code,) = python_blocks("docs/ranking.md")
    other = [block for block in python_blocks("README.md") if "rank(" in block and block != code]
    assert other == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_links_lead_somewhere(name):
    file = ROOT / name
    targets = re.findall(r"\]\((?!http)([^)#]+)", file.read_text())
    assert [target for target in targets if not (file.parent / target).exists()] == []


def test_every_cited_paper_is_listed():
    listed = (ROOT / "docs" / "papers.md").read_text()
    cited = {
        number
        for package in ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
        for file in (ROOT / package).rglob("*.py")
        for number in re.findall(r"\b\d{4}\.\d{5}\b", file.read_text())
    }
    assert len(cited) > 5
    assert sorted(number for number in cited if number not in listed) == []


def test_the_modules_of_the_papers_exist():
    named = re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs" / "papers.md").read_text())
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []
