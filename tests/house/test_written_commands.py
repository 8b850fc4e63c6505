"""Every command of ours that a page shows is one that the command line takes."""

import re
import shlex

import pytest
from places import ROOT

from worldmodel.cli import COMMANDS, parse

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "checkpoints").rglob("*.md"))]
RECORDS = {"docs/log.md"}  # commands of their day
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def written(text: str) -> list[list[str]]:
    """The arguments of each command in the blocks of a page; those that are cut short with ... are left out."""
    blocks = [block for language, block in BLOCK.findall(text) if language in ("", "sh", "bash")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [line.strip().removeprefix("$ ") for line in lines]
    commands = [line for line in lines if line.startswith("worldmodel ") and "..." not in line.split("#")[0]]
    return [shlex.split(line, comments=True)[1:] for line in commands]


def names() -> list[str]:
    return [str(page.relative_to(ROOT)) for page in PAGES if written(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in RECORDS])
def test_the_commands_of_a_page_parse(name, capsys):
    wrong = []
    for command, *arguments in written((ROOT / name).read_text()):
        plain = [each for each in arguments if each not in ("&", "--traceback")]
        if "--help" in plain or command not in COMMANDS:
            continue
        try:
            parse(command, plain)
        except (SystemExit, ValueError):
            wrong.append(" ".join([command, *plain]) + "\n" + capsys.readouterr().err)
    assert wrong == []


def test_a_command_is_read_as_a_shell_does():
    page = "```sh\n$ worldmodel info a  # what is there\nls\n```\n```bash\nworldmodel rank --out \\\n  'b c'\n```\n"
    page += "```text\nworldmodel x\n```\n"
    assert written(page) == [["info", "a"], ["rank", "--out", "b c"]]
