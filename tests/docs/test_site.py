"""The pages of the site say what there is: every public name, every command, every file; and each is in the menu."""

import ast
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from places import ROOT

from worldmodel.cli import COMMANDS

PACKAGES = ("conditioning", "worldmodel", "policy_eval", "rl_posttrain", "demos")
DOCS = ROOT / "docs"
WORKFLOW = ROOT / ".github" / "workflows" / "docs.yml"
DESCRIBED = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
REFERRED = re.compile(r"\[`\w+`\]\[([\w.]+)\]")


def hooks():
    """The module that MkDocs calls while it builds the site; it lies in no package."""
    specification = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def docstring(package: str, name: str) -> str:
    """The docstring of a public name, read from the file that defines it."""
    home = ROOT / importlib.import_module(package)._HOMES[name].replace(".", "/")
    body = ast.parse((home.with_suffix(".py") if not home.is_dir() else home / "__init__.py").read_text()).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if getattr(node, "name", None) == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(following, ast.Expr):
            return following.value.value
    return ""


def says_something(text: str) -> bool:
    """More than one line, or one complete sentence."""
    return "\n" in text or (len(text.split()) >= 3 and text[-1:] == "." and (text[0].isupper() or text[0] in "`(-"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_api_has_a_place_for_every_public_name(package):
    """A name of another package, which can be imported from this one as well, is a link to its place there."""
    page = (DOCS / "api" / f"{package}.md").read_text()
    described = [name.removeprefix(f"{package}.") for name in DESCRIBED.findall(page)]
    referred = {name.split(".")[-1] for name in REFERRED.findall(page)}
    public = set(importlib.import_module(package).__all__) - {"__version__"}
    assert len(described) == len(set(described))
    assert set(described) <= public <= set(described) | referred


def test_what_a_page_refers_to_is_described_on_another():
    described = {name for page in (DOCS / "api").glob("*.md") for name in DESCRIBED.findall(page.read_text())}
    referred = {name for page in DOCS.rglob("*.md") for name in REFERRED.findall(page.read_text())}
    assert referred and referred <= described


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package):
    homes = importlib.import_module(package)._HOMES
    assert [name for name in homes if not says_something(docstring(package, name))] == []


def test_a_word_or_two_are_no_documentation():
    assert not any(says_something(text) for text in ("", "Load.", "the settings of a run"))
    assert says_something("What to record.") and says_something("Two\nlines")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    entries = re.findall(r"(\S+(?:\.md|/))$", menu, re.MULTILINE)
    named = hooks().filled(entries, DOCS)
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_a_folder_in_the_menu_stands_for_its_pages(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("zebra", "index", "apple"):
        (tmp_path / "figures" / f"{name}.md").touch()
    menu = ["index.md", {"Figures": ["figures/", {"Comparison": "comparison.md"}]}]
    pages = ["figures/index.md", "figures/apple.md", "figures/zebra.md", {"Comparison": "comparison.md"}]
    assert hooks().filled(menu, tmp_path) == ["index.md", {"Figures": pages}]


def test_the_page_of_commands_has_them_all():
    page = (DOCS / "commands.md").read_text()
    assert set(re.findall(r"^\| `worldmodel ([\w-]+)` \|", page, re.MULTILINE)) == set(COMMANDS)


def test_the_tree_names_what_exists():
    tree = (DOCS / "tree.md").read_text().split("```")[1].removeprefix("text")
    folder, missing = Path(), []
    for line in tree.strip().splitlines():
        depth = len(line) - len(line.lstrip())
        for name in line.strip().split("  ")[0].split(", "):
            path = (folder if depth else Path()) / name
            missing += [] if list(ROOT.glob(str(path))) else [str(path)]
            folder = folder if depth else Path(name)
    assert not missing


def test_a_link_out_of_the_pages_leads_to_a_file_of_the_repository():
    linked = hooks().linked
    assert linked("tutorials/rank.md", "../ranking.md", ROOT) == "docs/ranking.md"
    assert linked("tutorials/rank.md", "../../examples/real_robot/judge.py", ROOT) == "examples/real_robot/judge.py"
    assert linked("design.md", "../checkpoints/pusht", ROOT) == "checkpoints/pusht/README.md"
    assert linked("repository/benchmarks/steering.md", "../docs/log.md", ROOT) == "docs/log.md"


def test_links_are_told_from_addresses_and_anchors():
    text = "[a](b.md#c) ![d](e/f.png) [g](https://h.org) [i](#j) [k](/l) [m](mailto:n@o)"
    assert hooks().LINK.findall(text) == ["b.md", "e/f.png"]


def test_the_workflow_installs_the_tools_of_the_extra():
    """It builds the site without the package, whose installation is dominated by PyTorch."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    (line,) = re.findall(r"pip install (.*)", WORKFLOW.read_text())
    assert re.findall(r'"([^"]+)"', line) == extra


def test_only_the_job_that_publishes_may_write_and_only_from_main():
    before, publish = WORKFLOW.read_text().split("\n  publish:\n")
    assert "write" not in before and "mkdocs build --strict" in before
    assert publish.strip().startswith("if: github.ref == 'refs/heads/main'")
    assert re.findall(r"(\S+): write", publish) == ["pages", "id-token"]


def test_the_start_page_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(
        re.findall(r"^\| `worldmodel\[(\w+)\]` \|", (DOCS / "start.md").read_text(), re.MULTILINE)
    )
