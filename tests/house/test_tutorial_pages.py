"""The tutorials as they are committed: every block is run or excused, options exist, pictures are there and small.

`make tutorials` runs them; here nothing is run.
"""

import contextlib
import importlib
import io
import json
import re
import runpy
import shlex

import pytest
import tyro
from places import BENCHMARKS, ROOT

from worldmodel.cli import COMMANDS

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
LARGEST_PICTURE = 120_000
RUNNER = runpy.run_path(str(BENCHMARKS / "tutorials.py"))
blocks, cells = RUNNER["blocks"], RUNNER["cells"]
names = [page.name for page in PAGES]


def commands(text):
    """The arguments of every command of worldmodel in a `sh` block."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.replace("$name", "NAME")) for line in lines]
    return [each[1:] for each in words if each[:1] == ["worldmodel"]]


def test_the_tutorials_are_there():
    assert {"your_robot.md", "rank.md", "steer.md", "posttrain.md", "serve.md"} <= set(names)
    assert {"dream_and_rank.ipynb", "your_robot.ipynb"} == {book.name for book in NOTEBOOKS}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_block_is_run_or_excused(page):
    assert [fault for fault in (block.fault() for block in blocks(page)) if fault] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_the_commands_of_the_pages_are_read(page):
    """As the reader types them, those that are not run included."""
    for block in blocks(page):
        for name, *options in commands(block.text) if block.language in RUNNER["COMMANDS"] else []:
            command = COMMANDS[name]
            config = getattr(importlib.import_module(command.module), command.config)
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                try:
                    tyro.cli(config, args=options, config=(tyro.conf.FlagCreatePairsOff,))
                except SystemExit:
                    pytest.fail(f"{block.where}: {said.getvalue()}")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_page_has_a_small_picture(page):
    pictures = [page.parent / target for target in PICTURE.findall(page.read_text())]
    assert pictures
    assert {str(each): each.stat().st_size for each in pictures if each.stat().st_size > LARGEST_PICTURE} == {}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("book", NOTEBOOKS, ids=lambda book: book.name)
def test_notebooks_are_committed_without_outputs_and_their_cells_compile(book):
    found = json.loads(book.read_text())
    assert [cell for cell in found["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
    for cell in cells(book):
        assert cell.fault() == ""
        compile(cell.source(), cell.where, "exec")


@pytest.mark.parametrize("book", NOTEBOOKS, ids=lambda book: book.name)
def test_the_settings_of_a_notebook_are_in_its_first_cell(book):
    """So that what is run at tiny size is seen at a glance."""
    assert [bool(cell.tiny) for cell in cells(book)] == [True] + [False] * (len(cells(book)) - 1)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_the_python_of_the_pages_compiles(page):
    for block in blocks(page):
        if block.language == RUNNER["CODE"]:
            compile(block.source(), block.where, "exec")
