"""The list of faults fits the code, and the script that puts them in tells which are noticed."""

import runpy
import sys
from pathlib import Path

import pytest
from places import BENCHMARKS, ROOT

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")


@pytest.fixture(scope="module")
def script() -> dict:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return runpy.run_path(str(BENCHMARKS / "mutants.py"))
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_fault_has_its_place_and_its_tests(script):
    """Where code moved, give its faults the new text; where it went, take them out."""
    assert script["problems"](script["read_mutants"](ROOT), ROOT) == []


def test_shards_hold_every_fault_once(script):
    """And what does not name one is refused."""
    parts = [script["shard"](range(7), f"{part}/3") for part in (1, 2, 3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(ValueError, match=f"--shard {wrong}: expected K/N"):
            script["shard"](range(7), wrong)


def test_there_are_faults_in_all_packages_and_most_in_the_wiring(script):
    packages = [mutant.file.split("/")[0] for mutant in script["read_mutants"](ROOT)]
    assert len(packages) >= 40
    assert set(packages) == {*PACKAGES, "benchmarks"}
    assert 2 * sum(package in ("policy_eval", "rl_posttrain") for package in packages) >= len(packages)


LIST = """
[["sums.py"]]
name = 'sign'
text = 'a + b'
fault = 'a - b'
tests = ['tests/test_sums.py']

[["sums.py"]]
name = 'order'
text = 'def add(a, b)'
fault = 'def add(b, a)'
tests = ['tests/test_sums.py']
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    """A tree whose only test notices a wrong sign and not a wrong order."""
    for folder in ("benchmarks", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "benchmarks" / "mutants.toml").write_text(LIST)
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n")
    test = "from sums import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n"
    (tmp_path / "tests" / "test_sums.py").write_text(test)
    return tmp_path


@pytest.mark.slow
def test_what_is_not_noticed_survives(script, tree, capsys):
    run, config = script["main"], script["MutantsConfig"]
    assert run(config(root=tree, workers=1)) == 1
    said = capsys.readouterr().out
    assert "killed in" in said and "1 of 2 faults survive" in said and said.strip().endswith("order: survived")
    kept = tree / "results.jsonl"
    assert run(config(root=tree, workers=1, only=("sign",), results=kept)) == 0
    assert run(config(root=tree, workers=1, results=kept)) == 1
    said = capsys.readouterr().out
    assert said.count("killed in") == 1 and len(kept.read_text().splitlines()) == 2
    assert run(config(root=tree, workers=1, results=kept)) == 1
    assert len(kept.read_text().splitlines()) == 3, "what survived is tried again"
    assert "a + b" in (tree / "sums.py").read_text()


@pytest.mark.slow
def test_what_is_wrong_with_the_list_is_one_line(script, tree, capsys):
    run, config = script["main"], script["MutantsConfig"]
    assert run(config(root=tree, only=("chess",))) == 1
    assert capsys.readouterr().err == "no fault is called 'chess'\n"
    (tree / "sums.py").write_text("def add(a, b):\n    return b + a\n")
    assert run(config(root=tree)) == 1
    assert capsys.readouterr().err == "sign: sums.py has its text 0 times, expected once: 'a + b'\n"
    (tree / "sums.py").write_text("def add(a, b):\n    return 7 or a + b\n")
    assert run(config(root=tree, workers=1, only=("sign",))) == 1
    assert capsys.readouterr().out.strip().endswith("sign: its tests fail without it")
