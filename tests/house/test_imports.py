"""Imports go down one staircase of packages, and inside `worldmodel` down one staircase of rooms; no circle."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

from places import ROOT

STAIRCASE = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
COMPOSITION_ROOT = Path("worldmodel/cli.py")
FILES = [path.relative_to(ROOT) for package in STAIRCASE for path in sorted((ROOT / package).rglob("*.py"))]


def imported_modules(tree: ast.AST) -> set[str]:
    """Full names of the modules that any import statement below `tree` mentions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def at_import_time(tree: ast.Module) -> ast.Module:
    """The module without the bodies of its functions."""
    kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return ast.Module(kept, [])


def parsed(path: Path) -> ast.Module:
    tree = ast.parse((ROOT / path).read_text())
    return at_import_time(tree) if path == COMPOSITION_ROOT else tree


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_packages_import_only_from_below():
    upwards = {
        str(path): sorted(above)
        for path in FILES
        if (
            above := {name.split(".")[0] for name in imported_modules(parsed(path))}
            & set(STAIRCASE[STAIRCASE.index(path.parts[0]) + 1 :])
        )
    }
    assert upwards == {}


def test_an_upward_import_is_seen():
    tree = ast.parse("def f():\n    from demos.driving.session import DriveSession\n    import rl_posttrain.x")
    assert {name.split(".")[0] for name in imported_modules(tree)} == {"demos", "rl_posttrain"}


def room(module: str) -> str:
    """The folder or file directly below the package that a module belongs to."""
    return ".".join(module.split(".")[:2])


def arrows(group) -> dict[str, set[str]]:
    """From each group of modules to those that it imports; `group` names the group of a module."""
    modules = {module_name(path): path for path in FILES}
    graph = defaultdict(set)
    for module, path in modules.items():
        tree = ast.parse((ROOT / path).read_text())
        tree = at_import_time(tree) if path == COMPOSITION_ROOT else tree
        found = {name for name in imported_modules(tree) if name in modules}
        graph[group(module)] |= {group(name) for name in found} - {group(module)}
    return {node: targets - set(STAIRCASE) for node, targets in graph.items() if node not in STAIRCASE}


def test_no_circle_between_rooms():
    """`TopologicalSorter` raises `CycleError`, which names the circle."""
    graph = arrows(room)
    assert len(graph) > 20
    list(TopologicalSorter(graph).static_order())


def test_no_circle_between_modules():
    graph = arrows(lambda module: module)
    assert len(graph) > 120
    list(TopologicalSorter(graph).static_order())
