"""Ratchets that keep the house small and portable."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
FILES = sorted(path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
FILE_LINES = 400
FUNCTION_LINES = 60
MACHINE_PATH = re.compile(r"""["' =](/work|/home|/root|/Users|/mnt|/tmp)/\w""")
VAGUE_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py", "base.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_keeps_the_house_rules(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= FILE_LINES
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, functions) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert not long, f"functions over {FUNCTION_LINES} lines: {long}"
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert not futures, "postponed annotations hide the shapes from jaxtyping"
    assert not MACHINE_PATH.search(text), "a path of one machine"
    assert text.isascii(), [c for c in text if not c.isascii()][:5]
    assert path.name not in VAGUE_NAMES


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md"])
def test_documents_name_no_machine_path(name):
    assert not MACHINE_PATH.search((ROOT / name).read_text())


def test_what_is_shipped_names_no_machine_path():
    shipped = [*(ROOT / "checkpoints").rglob("*.json"), *(ROOT / "checkpoints").rglob("*.md")]
    assert len(shipped) > 4
    assert [str(path) for path in shipped if MACHINE_PATH.search(path.read_text())] == []
