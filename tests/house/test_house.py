"""Ratchets that keep the house small and portable: one test a rule."""

import ast
import re
from pathlib import Path

from places import ROOT

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
FILES = sorted(path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
TEXTS = {path.relative_to(ROOT): path.read_text() for path in FILES}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
FILE_LINES = 400
FUNCTION_LINES = 100
DIRECT_ENTRIES = 15
MACHINE_PATH = re.compile(r"""["' =](/work|/home|/root|/Users|/mnt|/tmp)/\w""")
VAGUE_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py", "base.py"}
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "AGENTS.md",
    "SECURITY.md",
    "THIRD_PARTY.md",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
)


def test_files_are_short():
    assert {path: text.count("\n") for path, text in TEXTS.items() if text.count("\n") > FILE_LINES} == {}


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        f"{path}:{node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, functions)
    }
    assert len(lengths) > 500
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_no_postponed_annotations_which_hide_shapes_from_jaxtyping():
    imports = {path: [n for n in tree.body if isinstance(n, ast.ImportFrom)] for path, tree in TREES.items()}
    assert [path for path, nodes in imports.items() if any(n.module == "__future__" for n in nodes)] == []


def test_code_is_ascii():
    assert [path for path, text in TEXTS.items() if not text.isascii()] == []


def test_file_names_say_what_is_in_them():
    assert [path for path in TEXTS if path.name in VAGUE_NAMES] == []


def test_every_package_has_few_modules_and_folders():
    folders = {path.parent for path in TEXTS if path.parts[0] in PACKAGES}
    entries = {
        folder: sorted(p.name for p in (ROOT / folder).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
        for folder in folders
    }
    crowded = {folder: names for folder, names in entries.items() if len(names) > DIRECT_ENTRIES + 1}  # and __init__
    assert crowded == {}


def test_tests_mirror_the_packages():
    """A folder of tests has the name of a folder of the package; the folders in `beside` stand beside."""
    tests = {path.parent.relative_to("tests") for path in TEXTS if path.parts[0] == "tests" and len(path.parts) > 2}
    beside = {Path("house"), Path("benchmarks"), Path("docs"), Path("helpers")}
    assert [folder for folder in tests - beside if not (ROOT / folder / "__init__.py").exists()] == []


def test_code_names_no_machine_path():
    assert [path for path, text in TEXTS.items() if MACHINE_PATH.search(text)] == []


def test_documents_name_no_machine_path():
    assert [name for name in DOCUMENTS if MACHINE_PATH.search((ROOT / name).read_text())] == []


def test_what_is_shipped_names_no_machine_path():
    shipped = [*(ROOT / "checkpoints").rglob("*.json"), *(ROOT / "checkpoints").rglob("*.md")]
    assert len(shipped) > 4
    assert [str(path) for path in shipped if MACHINE_PATH.search(path.read_text())] == []


def test_progress_is_shown_by_one_function():
    """It knows what to do where there is no terminal."""
    shown = [str(path) for path, text in TEXTS.items() if path.parts[0] in PACKAGES and "rich.progress" in text]
    assert shown == ["worldmodel/display/progress.py"]


def test_mujoco_is_prepared_before_it_is_imported():
    """Otherwise the tests that come later in the same process cannot draw without a display."""
    skips = [str(path) for path, text in TEXTS.items() if re.search(r"importorskip\(.(metaworld|mujoco)\b", text)]
    assert skips == []
