"""One style of numbers and one spelling of each word, in documents, docstrings, help and messages."""

import ast
import re

import pytest
from places import ROOT
from prose import SPELLING, docstrings, measure, messages, prose_of, wrong_numbers, wrong_words

from worldmodel.cli import COMMANDS

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
RECORDS = {"docs/log.md", "docs/papers.md"}
"""Documents that are kept as they were written."""
UNMENDED: set[str] = set()
"""Documents that do not follow the rules yet; this set only gets smaller."""
DOCUMENTS = sorted({str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]})
CODE_WORDS = {"worldmodel/cli.py": {"datasets", "license"}, "worldmodel/display/plots.py": {"center"}}
"""Words in strings that a program reads: names of options and places."""


def unreleased(changelog: str) -> str:
    """The part of the changelog about what is not released yet."""
    return re.split(r"^## ", changelog, flags=re.MULTILINE)[1]


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in RECORDS | UNMENDED])
def test_a_document_has_our_numbers_and_words(name):
    text = prose_of((ROOT / name).read_text())
    assert wrong_numbers(text) + wrong_words(text) == [], name


def test_the_changelog_has_our_numbers_and_words():
    text = prose_of(unreleased((ROOT / "CHANGELOG.md").read_text()))
    assert wrong_numbers(text) + wrong_words(text) == []


def test_docstrings_help_and_messages_have_our_numbers_and_words():
    wrong = []
    for file in SOURCES:
        name = str(file.relative_to(ROOT))
        for line, text in messages(file):
            found = wrong_numbers(text) + wrong_words(text)
            wrong += [f"{name}:{line}: {x}" for x in found if not any(word in x for word in CODE_WORDS.get(name, ()))]
    assert wrong == [], "\n".join(wrong)


def test_the_help_of_every_command_is_sentences():
    for name, command in COMMANDS.items():
        for text in (command.help, command.more):
            assert re.fullmatch(r"[A-Z`].*\.", text), f"{name}: {text}"
            assert wrong_numbers(text) == [], name


def test_no_list_of_exceptions_outlives_its_need():
    assert {name for name in UNMENDED if not (ROOT / name).is_file()} == set()


def test_every_long_public_function_has_a_docstring():
    """Of modules and of classes; a function within a function is seen by its neighbours only."""
    bare = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in SOURCES
        for parent in ast.walk(ast.parse(file.read_text()))
        if isinstance(parent, ast.Module | ast.ClassDef)
        for node in parent.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        if node.end_lineno - node.lineno > 8 and not ast.get_docstring(node)
    ]
    assert bare == []


def test_the_readme_is_plain():
    found = measure((ROOT / "README.md").read_text())
    assert found["median sentence"] <= 14 and found["p90 sentence"] <= 26
    assert found["numbers per 100 words"] <= 5


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("about .84 of it", "a zero before the point"),
        ("[.5, 1]", "a zero before the point"),
        ("95 % of it", "no blank before %"),
        ("from \u22120.1 on", "an ASCII minus"),
        ("takes 0.84s", "a blank before the unit"),
        ("0.5dB more", "a blank before the unit"),
    ],
)
def test_a_number_in_another_style_is_found(text, rule):
    assert len(found := wrong_numbers(text)) == 1 and found[0].endswith(rule)


@pytest.mark.parametrize(
    "text", ["0.84 s", "0.5 dB", "95%", "-0.1", "push-v3", "64x64", "files such as `.5`...", "3.11.2"]
)
def test_a_number_in_our_style_is_left_alone(text):
    assert wrong_numbers(prose_of(text)) == []


def test_a_word_in_another_spelling_is_found():
    assert wrong_words("one dataset\nof behaviors") == [
        "line 1: 'dataset': write data set",
        "line 2: 'behaviors': write behaviour",
    ]
    ours = "a data set of LeRobot, in `dataset`, with posttrain.py, optimizer=x and TensorBoard; Meta-World's license="
    assert wrong_words(prose_of(ours)) == []
    assert all(not re.fullmatch(theirs, ours) for theirs, ours in SPELLING.items())


def test_code_tables_and_links_are_not_prose():
    text = "A [link](docs/dataset.md) to `dataset`.\n\n```\ndataset .5\n```\n| a | .5 |\nEnd.\n"
    assert prose_of(text).split() == ["A", "[link", "to", ".", "End."]
    assert prose_of(text).count("\n") == text.count("\n")


def test_docstrings_of_fields_are_read(tmp_path):
    file = tmp_path / "a.py"
    file.write_text('"""One."""\nclass A:\n    x: int = 1\n    """Two."""\n    def f(self):\n        """Three."""\n')
    assert sorted(docstrings(file)) == [(1, "One."), (4, "Two."), (6, "Three.")]


def test_sentences_and_numbers_are_counted():
    found = measure("# A title of 9\n\nOne two three. Four five: six.\n\n- seven eight 0.5 nine\n- ten 11 12\n")
    assert found == {"median sentence": 2.0, "p90 sentence": 3, "numbers per 100 words": 30.0}
