"""Imports go down one staircase; only the command line, the composition root, looks up."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAIRCASE = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
FILES = [path for package in STAIRCASE for path in sorted((ROOT / package).rglob("*.py"))]


def imported_packages(tree: ast.AST) -> set[str]:
    """Top-level names that any import statement below `tree` mentions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def packages_above(path: Path) -> set[str]:
    return set(STAIRCASE[STAIRCASE.index(path.relative_to(ROOT).parts[0]) + 1 :])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_from_below(path):
    tree = ast.parse(path.read_text())
    if path == ROOT / "worldmodel" / "cli.py":
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        tree.body = [node for node in tree.body if not isinstance(node, functions)]
    upwards = imported_packages(tree) & packages_above(path)
    assert not upwards, f"{path.relative_to(ROOT)} imports {sorted(upwards)}, which lie above it"


def test_an_upward_import_is_seen():
    tree = ast.parse("def f():\n    from demos.driving.session import DriveSession\n    import rl_posttrain.x")
    assert imported_packages(tree) == {"demos", "rl_posttrain"}
    assert packages_above(ROOT / "worldmodel" / "dit.py") == {"policy_eval", "rl_posttrain", "demos"}
